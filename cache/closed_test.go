package cache

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

// An object that is closed while the store is in use keeps its units, its charge and its
// place among those that are to go; one that holds nothing leaves nothing.
func TestClosedAndOpenedAgain(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 100*unit, unit, 5000, 20*unit)
	lay := w.lay
	lay.Key = "ih-empty"
	empty, err := w.store.Object(lay)
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(empty.dir); !os.IsNotExist(err) {
		t.Errorf("of an empty object is left: %v", err)
	}
	for u := range 8 {
		w.fill(u)
	}
	before, _ := w.store.Usage()
	if n, _ := w.store.Stored(lay.Key); n != 0 {
		t.Errorf("an open object is told to be stored with %d bytes", n)
	}
	var syncing sync.WaitGroup
	syncing.Go(func() { _ = w.store.sync() }) // as Run does
	if err := w.obj.Close(); err != nil {
		t.Fatal(err)
	}
	syncing.Wait()
	if n, at := w.store.Stored(w.lay.Key); n < 7*unit || n > before || at.Before(w.store.start) {
		t.Errorf("stored are %d bytes of %d, used at %v", n, before, at)
	}
	if w.obj, err = w.store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	if n := w.check(); n != 8 {
		t.Errorf("%d units are left of 8", n)
	}
	if after, _ := w.store.Usage(); after != before {
		t.Errorf("charged %d before and %d after", before, after)
	}
	w.close()
}

// Objects that were closed in this session go by age, like units.
func TestClosedObjectsGoByAge(t *testing.T) {
	const unit = 16384
	for _, closedIsOlder := range []bool{true, false} {
		w := newWorld(t, 100*unit, unit, 5000, 20*unit)
		w.store.start = w.store.start.Add(-time.Hour)
		lay := w.lay
		lay.Key = "ih-other"
		other, err := w.store.Object(lay)
		if err != nil {
			t.Fatal(err)
		}
		open := w.obj
		w.fill(3)
		w.obj = other
		w.fill(3)
		w.obj = open
		open.stamps[3], other.stamps[3] = 200, 300
		if closedIsOlder {
			other.stamps[3] = 100
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if freed := w.store.evict(1); freed == 0 {
			t.Error("nothing was freed")
		}
		_, err = os.Stat(other.dir)
		if gone := os.IsNotExist(err); gone != closedIsOlder || open.PresentIn(extent.Extent{Len: open.Size}) == 0 == closedIsOlder {
			t.Errorf("closed is older: %v, and it is gone: %v", closedIsOlder, gone)
		}
		w.close()
	}
}

// An object may be opened anew while the folder of before is being evicted.
func TestOpenedWhileItIsEvicted(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 100*unit, unit, 5000, 20*unit)
	for range 200 {
		for u := range 5 {
			if !w.obj.Known(u) {
				w.fill(u)
			}
		}
		if err := w.obj.Close(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { w.store.evict(1 << 40); close(done) }()
		var err error
		if w.obj, err = w.store.Object(w.lay); err != nil {
			t.Fatal(err)
		}
		w.fill(7)
		<-done
		w.check()
	}
	w.store.evict(1 << 40)
	w.close()
	if used, _ := w.store.Usage(); used > 64<<10 {
		t.Errorf("%d bytes are charged for nothing", used)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, goneDir)); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
