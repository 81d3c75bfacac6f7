package cache

import (
	"os"
	"testing"

	"github.com/btmount/btmount/cache/extent"
)

// What is pinned stays while everything else goes, in open objects and in closed ones, and
// until it is pinned no more.
func TestPinnedIsNotEvicted(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 100*unit, unit, 5000, 20*unit)
	for u := range 10 {
		w.fill(u)
	}
	pinned := extent.Extent{Off: 3*unit + 5, Len: 2 * unit} // units 3, 4 and 5
	if err := w.obj.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	left := func(want ...int) {
		t.Helper()
		w.store.evict(1 << 40)
		for u := range w.obj.Units() {
			there := false
			for _, v := range want {
				there = there || u == v
			}
			if w.obj.Has(u) != there {
				t.Errorf("unit %d is there: %v", u, !there)
			}
		}
		if n := w.check(); n != len(want) {
			t.Errorf("%d units are right", n)
		}
	}
	left(3, 4, 5)
	reopen := func() {
		t.Helper()
		if err := w.obj.Close(); err != nil {
			t.Fatal(err)
		}
		w.store.evict(1 << 40)
		var err error
		if w.obj, err = w.store.Object(w.lay); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	left(3, 4, 5) // without another word
	if err := w.obj.Pin(extent.Extent{Off: 4 * unit, Len: 1}); err != nil {
		t.Fatal(err)
	}
	left(4)
	if err := w.obj.Pin(); err != nil {
		t.Fatal(err)
	}
	reopen()
	left()
	w.fill(7)
	w.close()

	w.open() // another session knows nothing of it, until it is told
	dir := w.obj.dir
	if err := w.obj.Close(); err != nil {
		t.Fatal(err)
	}
	w.store.Hold(w.lay.Key)
	if w.store.evict(1 << 40); !exists(dir) {
		t.Error("the folder of what is pinned was evicted")
	}
	var err error
	if w.obj, err = w.store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	if err := w.obj.Pin(extent.Extent{Off: 7 * unit, Len: unit}); err != nil {
		t.Fatal(err)
	}
	left(7)
	w.close()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Pins that leave no room for readers are refused, together with what is pinned of others.
func TestPinsLeaveRoom(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 16*unit, unit, 20*unit)
	lay := w.lay
	lay.Key = "ih-other"
	other, err := w.store.Object(lay)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Pin(extent.Extent{Len: 4 * unit}); err != nil {
		t.Fatal(err)
	}
	if err := w.obj.Pin(extent.Extent{Len: 11 * unit}); err == nil {
		t.Error("15 units of 16 can be pinned")
	}
	if err := w.obj.Pin(extent.Extent{Len: 10 * unit}); err != nil {
		t.Error(err)
	}
	for u := range 15 { // the last five take turns
		w.fill(u)
	}
	for u := range 10 {
		if !w.obj.Has(u) {
			t.Errorf("unit %d was evicted", u)
		}
	}
	if err := other.Pin(); err != nil {
		t.Error(err)
	}
	if err := w.obj.Pin(extent.Extent{Len: 14 * unit}); err != nil {
		t.Error(err)
	}
	w.close()
}
