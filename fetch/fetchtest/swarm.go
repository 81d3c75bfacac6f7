// Package fetchtest holds a fake swarm and the suite that every fetch.Download must
// pass. It is used by tests only.
//
// The fake swarm is made for testing/synctest: its peers have a rate, a latency and
// faults, all on the clock of the bubble, so a test of minutes takes milliseconds
// and gives the same figures each time.
package fetchtest

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
)

// Peer is one source of a fake swarm.
type Peer struct {
	Rate    float64       // bytes/s
	Latency time.Duration // before each unit
	Silent  int           // falls silent for ever after so many units; 0 = never
	Lies    bool          // sends wrong bytes: its unit is thrown away and it is banned
}

// Swarm is a fetch.Download over fake peers: each peer brings whole units, the one
// that is due first of those that nobody brings.
type Swarm struct {
	Object *cache.Object
	Truth  []byte

	mu      sync.Mutex
	changed chan struct{} // closed at each change
	wanted  map[int][]time.Time
	busy    map[int]bool
	Brought []int // units in the order in which they arrived
	Tossed  int   // units that did not verify
	Gone    int   // Fetch calls that were withdrawn
}

// Truth returns n bytes of content for tests.
func Truth(n int64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{42}).Read(b)
	return b
}

// New opens a store in a temporary folder with one object of one file and returns a
// swarm for it; its peers work until stop is called.
func New(t testing.TB, truth []byte, unit int64, limit int64, peers ...Peer) (s *Swarm, stop func()) {
	t.Helper()
	store, err := cache.Open(cache.Config{Dir: t.TempDir(), Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(truth))
	o, err := store.Object(cache.Layout{
		Key: "fake", Unit: unit, Size: size, Files: []extent.Extent{{Len: size}},
		Verify: func(u int, p, _ []byte) bool {
			e := extent.Unit(int64(u), unit, size)
			return string(p) == string(truth[e.Off:e.End()])
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s = &Swarm{Object: o, Truth: truth, changed: make(chan struct{}), wanted: map[int][]time.Time{}, busy: map[int]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() { s.serve(ctx, p) })
	}
	return s, func() {
		cancel()
		wg.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Fetch implements fetch.Download.
func (s *Swarm) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	f, l := e.Units(s.Object.Unit)
	for u := int(f); u < int(l); u++ {
		s.want(u, due)
		defer s.unwant(u, due)
	}
	for {
		s.mu.Lock()
		wait := s.changed
		s.mu.Unlock()
		missing := false
		for u := int(f); u < int(l); u++ {
			missing = missing || !s.Object.Has(u)
		}
		if !missing {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			s.mu.Lock()
			s.Gone++
			s.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

func (s *Swarm) want(u int, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[u] = append(s.wanted[u], due)
	s.tellLocked()
}

func (s *Swarm) unwant(u int, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.wanted[u]
	if i := slices.IndexFunc(w, due.Equal); i >= 0 {
		s.wanted[u] = slices.Delete(w, i, i+1)
	}
	if len(s.wanted[u]) == 0 {
		delete(s.wanted, u)
	}
}

func (s *Swarm) tellLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// next returns the unit that is due first, or a channel to wait on.
func (s *Swarm) next() (unit int, ok bool, wait chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := time.Time{}
	for u, dues := range s.wanted {
		if s.busy[u] || s.Object.Has(u) {
			continue
		}
		due := slices.MinFunc(dues, time.Time.Compare)
		if c := cmp.Or(due.Compare(best), cmp.Compare(u, unit)); !ok || c < 0 {
			unit, best, ok = u, due, true
		}
	}
	if ok {
		s.busy[unit] = true
	}
	return unit, ok, s.changed
}

func (s *Swarm) serve(ctx context.Context, p Peer) {
	for served := 0; p.Silent == 0 || served < p.Silent; served++ {
		u, ok, wait := s.next()
		for !ok {
			select {
			case <-wait:
			case <-ctx.Done():
				return
			}
			u, ok, wait = s.next()
		}
		e := s.Object.UnitExtent(u)
		timer := time.NewTimer(p.Latency + time.Duration(float64(e.Len)/p.Rate*1e9))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if !p.Lies && s.Object.Begin(u) == nil && s.Object.WriteAt(s.Truth[e.Off:e.End()], e.Off) == nil {
			s.mu.Lock()
			s.Brought = append(s.Brought, u) // before its reader wakes, and counts
			s.mu.Unlock()
			s.Object.Commit(u, nil)
		}
		s.mu.Lock()
		delete(s.busy, u)
		if p.Lies {
			s.Tossed++
		}
		s.tellLocked()
		s.mu.Unlock()
		if p.Lies {
			return // banned
		}
	}
}

// Units returns the units brought so far, sorted.
func (s *Swarm) Units() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.Brought))
}

// Order returns the units brought so far, in the order in which they arrived.
func (s *Swarm) Order() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.Brought)
}

// Withdrawn returns how many Fetch calls were withdrawn.
func (s *Swarm) Withdrawn() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Gone
}
