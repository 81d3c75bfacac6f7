package cache

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// bodyIs compares what a descriptor has with what it should.
func (w *world) bodyIs(fd int, e extent.Extent) bool {
	w.t.Helper()
	p := make([]byte, e.Len+1)
	n, err := unix.Pread(fd, p, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return bytes.Equal(p[:n], w.truth[e.Off:e.End()])
}

// The body of a file is handed out once all of it is verified, and stays whole while it is in
// use, whatever is evicted or turns out wrong around it.
func TestBacking(t *testing.T) {
	const unit = 10_000 // blocks and units share edges
	w := newWorld(t, 1<<30, unit, 5000, 35_000, 30_000)
	span := w.lay.Files[1] // units 0 to 4, the first and last of which it shares
	r := w.obj.NewReader(span, &noSource{})
	for u := range w.obj.Units() {
		if _, ok := r.Backing(); ok {
			t.Fatalf("handed out with unit %d missing", u)
		}
		if w.fill(u); u == 4 {
			break
		}
	}
	fd, ok := r.Backing()
	if !ok || !w.bodyIs(fd, span) {
		t.Fatal("not handed out, or wrong")
	}
	other := w.obj.NewReader(span, &noSource{})
	if fd, ok := other.Backing(); !ok || !w.bodyIs(fd, span) {
		t.Error("not handed out twice")
	}
	for u := 5; u < w.obj.Units(); u++ {
		w.fill(u)
	}
	w.store.evict(1 << 40)
	if n, _ := w.obj.Count(); n != 5 || !w.bodyIs(fd, span) {
		t.Errorf("%d units are left, of 5 in use", n)
	}
	// One that is taken for wrong is fetched again, and no hole is seen meanwhile; nor when
	// its neighbour goes.
	w.obj.drop(4, 5)
	w.fill(5)
	w.obj.drop(5, 6)
	if err := w.obj.Begin(4); err != nil {
		t.Fatal(err)
	}
	w.obj.Abandon(4)
	if !w.bodyIs(fd, span) {
		t.Error("a hole in what somebody reads")
	}
	if _, ok := w.obj.NewReader(span, &noSource{}).Backing(); ok {
		t.Error("handed out with a unit missing")
	}
	w.fill(4)
	r.Close()
	w.store.evict(1 << 40)
	if !w.bodyIs(fd, span) {
		t.Error("evicted while another still reads it")
	}
	other.Close()
	w.store.evict(1 << 40)
	if n, _ := w.obj.Count(); n != 0 {
		t.Errorf("%d units stay though nobody uses them", n)
	}
	w.close()
}

// A body that was shortened is not handed out; its units are looked at again.
func TestBackingOfATruncatedBody(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 5000, 50_000)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	if err := os.Truncate(w.obj.bodies[1].path, 30_000); err != nil {
		t.Fatal(err)
	}
	r := w.obj.NewReader(w.lay.Files[1], &noSource{})
	if _, ok := r.Backing(); ok {
		t.Fatal("handed out")
	}
	if n := w.check(); n == 0 || n == w.obj.Units() {
		t.Errorf("%d units are left", n)
	}
	r.Close()
	w.close()
}

// A body that somebody reads still when the process was killed is not punched by the next
// session, but taken out of its sight; one that nobody reads any more stays in the cache.
func TestBackingOutlivesUs(t *testing.T) {
	for name, reads := range map[string]bool{"read": true, "closed": false} {
		t.Run(name, func(t *testing.T) {
			const unit = 10_000
			w := newWorld(t, 1<<30, unit, 5000, 35_000, 30_000)
			for u := range w.obj.Units() {
				w.fill(u)
			}
			span := w.lay.Files[1]
			r := w.obj.NewReader(span, &noSource{})
			if _, ok := r.Backing(); !ok {
				t.Fatal("not handed out")
			}
			var kernel *os.File // an open of its own, as the kernel has
			if reads {
				var err error
				if kernel, err = os.Open(w.obj.bodies[1].path); err != nil {
					t.Fatal(err)
				}
				defer kernel.Close()
			}
			r.backing.release() // a killed process has no descriptors
			w.crash()
			w.open()
			left := w.check()
			if want := map[bool]int{true: w.obj.Units() - 5, false: w.obj.Units()}[reads]; left != want {
				t.Errorf("%d units are left, want %d", left, want)
			}
			w.store.evict(1 << 40)
			if reads && !w.bodyIs(int(kernel.Fd()), span) {
				t.Error("the reader of before sees other bytes")
			}
			if _, err := os.Stat(w.obj.dir + "/" + lentFile); err == nil {
				t.Error("the mark of an object that lends nothing")
			}
			for u := range w.obj.Units() {
				w.fill(u)
			}
			r = w.obj.NewReader(span, &noSource{})
			if fd, ok := r.Backing(); !ok || !w.bodyIs(fd, span) {
				t.Error("not handed out again")
			}
			st, err := os.Stat(w.obj.bodies[1].path)
			if err != nil || st.Mode() != lentMark {
				t.Errorf("%v %v", st.Mode(), err)
			}
			r.Close()
			if st, err = os.Stat(w.obj.bodies[1].path); err != nil || st.Mode() != 0o600 {
				t.Errorf("given back: %v %v", st.Mode(), err)
			}
			w.close()
		})
	}
}

// Files are lent only as far as descriptors go, and when there are none, those that nobody uses
// are closed for one that is needed.
func TestDescriptorsRunOut(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 40*unit, unit, 2*unit, 2*unit, 2*unit, 2*unit, 2*unit, 2*unit, 2*unit, 2*unit)
	pool := w.store.pool
	pool.maxLent = 2
	for u := range w.obj.Units() {
		w.fill(u)
	}
	var lent []*Reader
	for i := range 5 {
		r := w.obj.NewReader(w.lay.Files[i], &noSource{})
		defer r.Close()
		if _, ok := r.Backing(); ok {
			lent = append(lent, r)
		}
	}
	if len(lent) != 2 {
		t.Errorf("%d files are lent, want 2", len(lent))
	}
	lent[0].Close()
	r := w.obj.NewReader(w.lay.Files[7], &noSource{})
	defer r.Close()
	if _, ok := r.Backing(); !ok {
		t.Error("none is lent after one was given back")
	}
	if !pool.shrink() || len(pool.open) > 3 {
		t.Errorf("%d descriptors stay open that nobody uses", len(pool.open))
	}
	if pool.shrink() {
		t.Error("and still there are some")
	}
	if n := w.check(); n != w.obj.Units() {
		t.Errorf("%d units are there", n)
	}
	w.close()
}
