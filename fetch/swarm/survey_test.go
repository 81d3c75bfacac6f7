package swarm

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

// holding is a store that has some units.
type holding struct {
	Store
	have map[int]bool
	most int
}

func (h *holding) Has(u int) bool { return h.have[u] }
func (h *holding) Each(f func(int)) {
	for u := range h.most {
		if h.have[u] {
			f(u)
		}
	}
}

// A survey says of every piece what the units say one by one.
func TestSurvey(t *testing.T) {
	dir := sample(t, 3<<20+5)
	r := rand.New(rand.NewPCG(1, 2))
	for _, kind := range kinds {
		g := newGrid(makeTorrent(t, dir, kind))
		for _, share := range []float64{0, 0.5, 0.97, 1} {
			h := &holding{have: map[int]bool{}, most: g.units()}
			left := int64(0)
			for u := range g.units() {
				if g.size(u) > 0 && r.Float64() < share {
					h.have[u] = true
				} else {
					left += int64(g.size(u))
				}
			}
			v := g.survey(h)
			count := 0
			for p := range g.info.NumPieces() {
				first, _ := g.of(p)
				whole := (g.size(first) == 0 || h.Has(first)) && g.all(first, h.Has)
				if v.has(p) != whole {
					t.Errorf("%s, %v of it: piece %d is told to be there: %v", kind, share, p, v.has(p))
				}
				if whole {
					count++
				}
			}
			if v.count != count || v.left != left || share == 1 && left != 0 {
				t.Errorf("%s, %v of it: %d pieces, %d bytes left; it says %d and %d", kind, share, count, left, v.count, v.left)
			}
		}
	}
}

// What was evicted of a complete torrent is counted without stopping it; in the end it
// knows exactly what is missing, and when nothing is.
func TestEvictedIsCounted(t *testing.T) {
	for _, kind := range kinds {
		dir := sample(t, 3<<20)
		meta := makeTorrent(t, dir, kind)
		s := seed(t, meta, dir, Config{})
		l := leech(t, meta, Config{}, s)
		all := extent.Extent{Len: meta.Info.Length}
		if err := l.torrent.Fetch(within(t, 30*time.Second), all, time.Now()); err != nil {
			t.Fatal(err)
		}
		// As after an eviction: the store has less, and nobody tells the torrent.
		less := &forgetful{Store: l.object, gone: map[int]bool{2: true, 5: true}}
		l.torrent.post(func() { l.torrent.store = less })
		if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Unit(2, UnitLength(meta), meta.Info.Length), time.Now()); err != nil {
			t.Fatal(err)
		}
		want := int64(newGrid(meta).size(5))
		for ctx := within(t, 10*time.Second); l.torrent.left.Load() != want; {
			if _, ok := l.torrent.Status(ctx); !ok {
				t.Fatalf("%s: %d bytes are told to be left of %d", kind, l.torrent.left.Load(), want)
			}
		}
		if err := l.torrent.Fetch(within(t, 30*time.Second), all, time.Now()); err != nil {
			t.Fatal(err)
		}
		if s, ok := l.torrent.Status(t.Context()); !ok || s.State != "complete" {
			t.Errorf("%s: it is %s", kind, s.State)
		}
	}
}

// forgetful is a store that lacks units which the one below has, until they come again.
type forgetful struct {
	Store
	mu   sync.Mutex
	gone map[int]bool
}

func (f *forgetful) Has(u int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.gone[u] && f.Store.Has(u)
}

func (f *forgetful) Known(u int) bool { return f.Has(u) }

func (f *forgetful) Each(each func(int)) {
	f.Store.Each(func(u int) {
		if f.Has(u) {
			each(u)
		}
	})
}

func (f *forgetful) Commit(u int, tag []byte) {
	f.Store.Commit(u, tag)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.gone, u)
}
