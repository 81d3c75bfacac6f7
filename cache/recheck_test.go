package cache

import (
	"os"
	"testing"

	"github.com/btmount/btmount/cache/extent"
)

// flip changes a byte of a body on disk, as a failing disk would.
func (w *world) flip(body int, off int64) {
	w.t.Helper()
	f, err := os.OpenFile(w.obj.bodies[body].path, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		w.t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		w.t.Fatal(err)
	}
}

// Recheck drops what is wrong and nothing else, whatever became of it on disk, and does not
// count as a use.
func TestRecheck(t *testing.T) {
	for _, tag := range []int{0, 20} {
		const unit = 5000 // no multiple of a block
		w := newWorld(t, 1<<30, unit, 12345, 1, 40*unit)
		w.close()
		w.lay.Tag = tag
		if w.dir = t.TempDir(); tag > 0 {
			verify := w.lay.Verify
			w.lay.Verify = func(u int, p, tag []byte) bool { return string(tag) == string(w.tag(u)) && verify(u, p, tag) }
		}
		w.open()
		all := w.obj.Units()
		for u := range all {
			if u != 7 {
				w.fill(u)
			}
		}
		last := w.obj.UnitExtent(all - 1).Len
		there := w.lay.Size - unit
		if hashed, wrong := w.obj.Recheck(0, all); hashed != there || wrong != 0 {
			t.Errorf("%d hashed, want %d; %d wrong", hashed, there, wrong)
		}
		w.flip(0, 0)
		w.flip(2, w.lay.Files[2].Len-1)
		stamps := append([]uint32(nil), w.obj.stamps...)
		hashed, wrong := w.obj.Recheck(0, all)
		if hashed != there || wrong != unit+last || w.obj.Has(0) || w.obj.Has(all-1) {
			t.Errorf("%d hashed; %d wrong, want %d", hashed, wrong, unit+last)
		}
		for u, s := range stamps {
			if w.obj.stamps[u] != s {
				t.Fatal("a check counts as a use")
			}
		}
		if n := w.check(); n != all-3 {
			t.Errorf("%d units are right, want %d", n, all-3)
		}
		// A body that is gone, and one that was cut, are wrong and nothing worse.
		if err := os.Truncate(w.obj.bodies[2].path, 20*unit); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.obj.bodies[0].path); err != nil {
			t.Fatal(err)
		}
		w.store.pool.forget(w.obj.bodies[0].file)
		if _, wrong := w.obj.Recheck(0, all); wrong < 15*unit {
			t.Errorf("%d wrong", wrong)
		}
		w.check()
		w.close()
	}
}

// What has to be hashed before its use is known without opening the object, and Recheck does it.
func TestRecheckAfterKill(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 1<<30, unit, 10*unit, 10*unit)
	for u := range 10 {
		w.fill(u)
	}
	if st := w.store.StatObject(w.lay.Key); st.Present != 10*unit || st.Unverified != 0 || st.Used.IsZero() {
		t.Errorf("open: %+v", st)
	}
	w.crash()
	store, err := Open(Config{Dir: w.dir, Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	w.store = store
	if st := store.StatObject(w.lay.Key); st.Present < 10*unit || st.Unverified != 10*unit || store.Stat().Clean {
		t.Errorf("closed: %+v", st)
	}
	if w.obj, err = store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	w.flip(0, 3*unit)
	if hashed, wrong := w.obj.Recheck(0, w.obj.Units()); hashed != 10*unit || wrong != unit {
		t.Errorf("%d hashed, %d wrong", hashed, wrong)
	}
	if st := store.StatObject(w.lay.Key); st.Present != 9*unit || st.Unverified != 0 {
		t.Errorf("checked: %+v", st)
	}
	w.close()
}

// Eviction on request keeps what is open and what is pinned, and says so.
func TestEvictOnRequest(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 1<<30, unit, 8*unit-100, 8*unit, 8*unit)
	for u := range 24 {
		w.fill(u)
	}
	r := w.obj.NewReader(w.lay.Files[0], &noSource{})
	if err := w.obj.Pin(w.lay.Files[1]); err != nil {
		t.Fatal(err)
	}
	e := w.obj.Evict(extent.Extent{Len: w.lay.Size})
	if e.Freed < 7*unit || e.Pinned < 8*unit || e.InUse < 8*unit || e.Freed+e.Pinned+e.InUse < 24*unit {
		t.Errorf("%+v", e)
	}
	if n := w.check(); n != 16 {
		t.Errorf("%d units are left", n)
	}
	if freed := w.store.Evict(1 << 40); freed != 0 {
		t.Errorf("%d bytes of an open file went", freed)
	}
	r.Close()
	if freed := w.store.Evict(1); freed == 0 {
		t.Error("nothing goes")
	}
	if freed := w.store.EvictFolder(w.lay.Key); freed != 0 {
		t.Error("an open object was removed")
	}
	if err := w.store.SetLimit(9 * unit); err == nil || w.store.Stat().Limit != 1<<30 {
		t.Errorf("less than is pinned: %v", err)
	}
	w.store.Unpin(w.lay.Key)
	if err := w.store.SetLimit(4 * unit); err != nil {
		t.Fatal(err)
	}
	if st := w.store.Stat(); st.Used > 4*unit || st.Pinned != 0 {
		t.Errorf("%+v", st)
	}
	if err := w.obj.Close(); err != nil {
		t.Fatal(err)
	}
	if freed := w.store.EvictFolder(w.lay.Key); freed == 0 || len(w.store.Keys()) != 0 {
		t.Errorf("%d freed, left %v", freed, w.store.Keys())
	}
	w.close()
}
