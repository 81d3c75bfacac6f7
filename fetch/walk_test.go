package fetch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

// folder reads n files of size bytes that lie one behind the other, from file first on, each
// up to part of it, and returns how long that took.
func (w *world) folder(first, n int, size, part int64, each time.Duration) time.Duration {
	start := time.Now()
	for i := first; i < first+n; i++ {
		off := int64(i) * size
		r := w.swarm.Object.NewReader(extent.Extent{Off: off, Len: size}, w.sched)
		for at := int64(0); at < part; at += 128 << 10 {
			w.readOf(r, off, at, min(128<<10, part-at))
		}
		r.Close()
		<-time.After(each)
	}
	return time.Since(start)
}

// A folder of small files comes as fast as one file of their size: what lies ahead is read
// ahead, across the ends of files.
func TestFolderIsReadAhead(t *testing.T) {
	for name, size := range map[string]int64{"small": 20 << 10, "several units": 5 << 19} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := run(t, 40*mib, nil, fast, fast, fast, fast)
				defer w.stop()
				n := int(30 * mib / size)
				took := w.folder(0, n, size, size, 0)
				t.Logf("%d files of %d: %v", n, size, took)
				// Each of four brings a unit in 0.15 s: 1.2 s if all are busy, 4.5 s if each unit
				// is waited for.
				if took > 2*time.Second {
					t.Errorf("%v for 30 units", took)
				}
				quiet()
				if n := len(w.swarm.Units()); n > 40 {
					t.Errorf("%d units", n)
				}
			})
		})
	}
}

// Who reads two files whole and no more, or only heads, or files here and there, is not read
// ahead of; nor who has stopped.
func TestFolderIsNotReadAheadForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 64*mib, nil, fast)
		defer w.stop()
		w.folder(0, 10, 2*mib, 4096, 0) // heads
		quiet()
		if n := len(w.swarm.Units()); n != 10 {
			t.Errorf("10 heads fetched %d units", n)
		}
		for _, i := range []int{60, 45, 50, 40, 55} {
			w.folder(i, 1, mib, mib, 0)
		}
		quiet()
		if n := len(w.swarm.Units()); n != 15 {
			t.Errorf("5 files here and there fetched %d units", n-10)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 64*mib, nil, fast)
		defer w.stop()
		w.folder(0, 12, 256<<10, 256<<10, 0) // 3 units
		quiet()
		had := len(w.swarm.Units())
		if had > 3+8 {
			t.Errorf("%d units for 3 MiB", had)
		}
		quiet()
		if n := len(w.swarm.Units()); n != had {
			t.Error("it is read ahead though nobody reads")
		}
		// Whoever goes on is read ahead of again.
		w.folder(12, 12, 256<<10, 256<<10, 0)
		quiet()
		if n := len(w.swarm.Units()); n <= had {
			t.Error("not read ahead any more")
		}
	})
}

// A cache that is smaller than what could be read ahead, and full all the time, holds nobody
// up: what a read waits for finds a place.
func TestReadThroughASmallCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := runLimited(t, 160*mib, 12*mib, fast, fast, fast, fast)
		defer w.stop()
		r := w.open()
		start := time.Now()
		for off := int64(0); off < 160*mib; off += 128 << 10 {
			if took := w.read(r, off, 128<<10); took > 2*time.Second {
				t.Errorf("%v at %d", took, off)
			}
		}
		// Each of four brings a unit in 0.15 s.
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%v for 160 units", took)
		}
		t.Logf("%v for 160 units", time.Since(start))
		r.Close()
	})
}
