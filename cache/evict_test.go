package cache

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// What goes first: what is neither an edge of a long file, nor open, nor rare, and of equal
// things what was used longest ago; never what a reader comes to next.
func TestWhatGoesFirst(t *testing.T) {
	const unit = 1 << 20
	w := newWorld(t, 1<<30, unit, 20*unit, 20*unit)
	w.store.start = time.Now().Add(-time.Hour)
	for u := range w.obj.Units() {
		w.fill(u)
		w.obj.stamps[u] = w.store.stamp(time.Now().Add(-10 * time.Minute))
	}
	older := w.store.stamp(time.Now().Add(-20 * time.Minute))
	for _, u := range []int{0, 5, 25} { // an edge, one in the middle, one of the other file
		w.obj.stamps[u] = older
	}
	r := w.obj.NewReader(w.lay.Files[1], &noSource{})
	defer r.Close()
	guard := new(int)
	w.obj.Guard(guard, 10, 12)
	gone := func() (units []int) {
		for u := range w.obj.Units() {
			if !w.obj.Has(u) {
				units = append(units, u)
			}
		}
		return units
	}
	is := func(what string, want ...int) {
		t.Helper()
		got := gone()
		if len(got) != len(want) {
			t.Fatalf("%s: %v are gone, want %v", what, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: %v are gone, want %v", what, got, want)
			}
		}
	}
	w.store.evict(1)
	is("the oldest", 5)
	w.store.evict(1)
	is("then the first of equal age", 1, 5)
	w.obj.SetPeers(func(u int) int { return map[bool]int{true: 1, false: 9}[u == 2] })
	w.store.evict(1)
	is("then the first that is not rare", 1, 3, 5)
	w.store.evict(14 * unit)
	is("all else of a file that nobody has open, but what is next", 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 25)
	w.store.evict(1 << 40)
	for _, u := range []int{10, 11} {
		if !w.obj.Has(u) {
			t.Errorf("unit %d was evicted under its reader", u)
		}
	}
	w.obj.Guard(guard, 0, 0)
	w.store.evict(1 << 40)
	if n, _ := w.obj.Count(); n > 0 {
		t.Errorf("%d units stay", n)
	}
	w.check()
	w.close()
}

// A session in which a journal lacks a record leaves no clean mark: what the record took back
// may be a hole.
func TestJournalThatLacksARecord(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 1<<30, unit, 10*unit)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	fd := w.obj.journal.f
	full, err := unix.Dup(int(fd.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ro, err := unix.Open(fd.Name(), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(ro, int(fd.Fd()), 0); err != nil { // writes fail from now on
		t.Fatal(err)
	}
	w.obj.drop(3, 6)
	if err := unix.Dup3(full, int(fd.Fd()), 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(full)
	unix.Close(ro)
	w.fill(8)
	if err := w.store.Close(); err != nil && !errors.Is(err, unix.EBADF) {
		t.Fatal(err)
	}
	w.open()
	if n := w.check(); n != w.obj.Units()-3 {
		t.Errorf("%d units are right, want %d", n, w.obj.Units()-3)
	}
	w.close()
}

// The journal that lacks a record is not believed when the object is opened again, either.
func TestJournalThatLacksARecordIsOpenedAgain(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 200_000)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	fd := w.obj.journal.f
	full, err := unix.Dup(int(fd.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	ro, err := unix.Open(fd.Name(), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ro)
	if err := unix.Dup3(ro, int(fd.Fd()), 0); err != nil { // writes fail from now on
		t.Fatal(err)
	}
	w.obj.drop(3, 6)
	if err := unix.Dup3(full, int(fd.Fd()), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.obj.Close(); err != nil && !errors.Is(err, unix.EBADF) {
		t.Fatal(err)
	}
	if w.obj, err = w.store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	if n := w.check(); n != w.obj.Units()-3 {
		t.Errorf("%d units are right, want %d", n, w.obj.Units()-3)
	}
	w.close()
}

// A unit that is hashed while it is written again stays until that ends.
func TestHashedWhileItIsFetchedAgain(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 100_000)
	w.fill(0)
	w.obj.distrust(0, 1)
	if err := w.obj.Begin(0); err != nil {
		t.Fatal(err)
	}
	if !w.obj.Check(0) {
		t.Fatal("the unit is gone")
	}
	if freed := w.store.evict(1 << 40); freed > 0 {
		t.Errorf("%d bytes of what is written were evicted", freed)
	}
	w.obj.Abandon(0)
	w.close()
}

// BenchmarkEvict frees 64 MiB of a cache of a million units, of 16 KiB as in v2 torrents.
func BenchmarkEvict(b *testing.B) {
	const unit, units = 16 << 10, 1 << 20
	s, err := Open(Config{Dir: b.TempDir(), Limit: unit * units})
	if err != nil {
		b.Fatal(err)
	}
	o, err := s.Object(Layout{Key: "ih-bench", Unit: unit, Size: unit * units, Files: []extent.Extent{{Len: unit * units}}})
	if err != nil {
		b.Fatal(err)
	}
	fill := func() {
		s.mu.Lock()
		s.used = unit * units
		s.mu.Unlock()
		for u := range units {
			o.present.set(u)
			o.stamps[u] = uint32(u * 7919 % units)
		}
	}
	if err := o.WriteAt([]byte{1}, 0); err != nil {
		b.Fatal(err)
	}
	fill()
	for b.Loop() {
		if s.evict(64<<20) < 64<<20 {
			b.StopTimer()
			fill()
			b.StartTimer()
		}
	}
	b.StopTimer()
	_ = s.Close()
}

// A unit that turned out wrong while it was fetched again, and was given up then, is gone after a
// restart too.
func TestGivenUpWhileItIsFetchedAgain(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 100_000)
	w.fill(0)
	w.fill(1)
	if err := w.obj.Begin(1); err != nil {
		t.Fatal(err)
	}
	w.obj.drop(1, 2) // its hash did not match
	w.obj.Abandon(1)
	w.close()
	w.open()
	if n := w.check(); n != 1 {
		t.Errorf("%d units are there", n)
	}
	w.close()
}
