package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btfstest"
)

// fake is a source that answers after a time, on the clock of the test.
type fake struct {
	name  string
	store *btfstest.Store
	after time.Duration
	err   error // instead of an answer
	asked atomic.Int64
}

func (f *fake) Name() string { return f.name }

func (f *fake) Block(ctx context.Context, c cid.Cid, _ func(cid.Cid, []byte)) ([]byte, error) {
	f.asked.Add(1)
	select {
	case <-time.After(f.after):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	return f.store.Block(ctx, c)
}

func leaves(s *btfstest.Store, n int) (all []cid.Cid) {
	for i := range n {
		all = append(all, s.Leaf(fmt.Appendf(nil, "leaf %d", i)).CID)
	}
	return all
}

// bring brings blocks, so many at a time.
func bring(t *testing.T, p *Pool, all []cid.Cid, width int) {
	t.Helper()
	var readers sync.WaitGroup
	next := make(chan cid.Cid)
	for range width {
		readers.Go(func() {
			for c := range next {
				b, err := p.Block(t.Context(), c)
				if err != nil || block.Verify(c, b) != nil {
					t.Errorf("%s: %v", c, err)
				}
			}
		})
	}
	for _, c := range all {
		next <- c
	}
	close(next)
	readers.Wait()
}

const hour = time.Hour

// Ten gateways of which three lie and three hang give what the four good ones can.
func TestTenGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 2000)
		var bad, good []Source
		for i := range 3 {
			bad = append(bad, &fake{name: fmt.Sprint("liar ", i), after: 10 * time.Millisecond, err: &LyingError{block.ErrWrongBytes}},
				&fake{name: fmt.Sprint("hangs ", i), after: hour})
		}
		for i := range 4 {
			good = append(good, &fake{name: fmt.Sprint("good ", i), store: s, after: 50 * time.Millisecond})
		}
		took := func(sources ...Source) time.Duration {
			start := time.Now()
			bring(t, pool(t, 30*time.Second, sources...), all, 16)
			return time.Since(start)
		}
		alone, together := took(good...), took(append(bad, good...)...)
		if together > alone*5/4 {
			t.Errorf("%v, of the good alone %v", together, alone)
		}
		for _, f := range bad {
			if f := f.(*fake); f.err != nil && f.asked.Load() > 16 {
				t.Errorf("%s was asked %d times", f.name, f.asked.Load())
			}
		}
	})
}

// A source that hangs costs a moment, and not the reader's patience; after that it is
// asked last.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 20)
		hangs := &fake{name: "hangs", after: hour}
		p := pool(t, 30*time.Second, hangs, &fake{name: "good", store: s, after: 50 * time.Millisecond})
		start := time.Now()
		bring(t, p, all[:1], 1)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the first block took %v", took)
		}
		start = time.Now()
		bring(t, p, all[1:], 1)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the others took %v", took)
		}
		if n := hangs.asked.Load(); n > 3 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// Load is shared by speed.
func TestFasterOnesBringMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		fast := &fake{name: "fast", store: s, after: 20 * time.Millisecond}
		slow := &fake{name: "slow", store: s, after: 200 * time.Millisecond}
		bring(t, pool(t, 30*time.Second, slow, fast), leaves(s, 1000), 16)
		f, n := fast.asked.Load(), slow.asked.Load()
		if f < 4*n || n == 0 {
			t.Errorf("fast %d, slow %d", f, n)
		}
		if f+n > 1100 {
			t.Errorf("%d requests for 1000 blocks", f+n)
		}
	})
}

// A source that was slow for a while is found to be good again.
func TestForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 2000)
		better := &fake{name: "better", store: s, after: 10 * time.Second}
		p := pool(t, 30*time.Second, better, &fake{name: "steady", store: s, after: 400 * time.Millisecond})
		bring(t, p, all[:10], 4)
		better.after, better.asked = 10*time.Millisecond, atomic.Int64{}
		bring(t, p, all[10:], 4)
		if n := better.asked.Load(); n < 1000 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// If all fail the error names each and its answer, in time.
func TestAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		c := leaves(s, 1)[0]
		p := pool(t, 10*time.Second, &fake{name: "A", err: errors.New("it answers 500")}, &fake{name: "B", after: hour},
			&fake{name: "C", err: &AbsentError{"404"}}, &fake{name: "D", err: &LyingError{block.ErrWrongBytes}})
		start := time.Now()
		_, err := p.Block(t.Context(), c)
		if took := time.Since(start); took != 10*time.Second {
			t.Error(took)
		}
		for _, want := range []string{"block " + c.String(), "A: it answers 500", "B: no answer within 10s", "C: it does not have the block (404)", "D: it lies"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		absent, late := (*AbsentError)(nil), errors.Is(err, context.DeadlineExceeded)
		if !errors.As(err, &absent) || !late {
			t.Errorf("%v is not told apart", err)
		}
		if _, err := p.Block(t.Context(), c); err == nil || !strings.Contains(err.Error(), "D: not asked any more") {
			t.Error(err)
		}
	})
	if _, err := pool(t, time.Second).Block(t.Context(), leaves(btfstest.NewStore(), 1)[0]); !errors.Is(err, ErrNoSource) {
		t.Error(err)
	}
}

// What many want at a time is brought once; one who leaves takes it from nobody.
func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		c := leaves(s, 1)[0]
		f := &fake{name: "A", store: s, after: time.Second / 2}
		p := pool(t, time.Minute, f)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 10 {
			ctx := ctx
			if i > 0 {
				ctx = t.Context()
			}
			all.Go(func() {
				if _, err := p.Block(ctx, c); (err != nil) != (i == 0) {
					t.Error(i, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if _, err := p.Block(t.Context(), cid.NewCidV1(cid.DagProtobuf, c.Hash())); err != nil { // the same block
			t.Error(err)
		}
		if n := f.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestRecent(t *testing.T) {
	r := newRecent(1000)
	for i := range 10 {
		r.put(fmt.Sprint(i), make([]byte, 100))
		r.get("0") // is on the way of every read
	}
	if _, ok := r.get("0"); !ok || r.used > 1000 || r.order.Len() != 3 || len(r.byHash) != 3 {
		t.Errorf("%d bytes, %d blocks", r.used, r.order.Len())
	}
	r.put("large", make([]byte, 5000))
	if _, ok := r.get("large"); !ok || r.order.Len() != 1 {
		t.Error("what was put last stays")
	}
}

// telling is a source that notes the roots it is told.
type telling struct {
	fake
	mu    sync.Mutex
	roots []cid.Cid
}

func (r *telling) BlockOf(ctx context.Context, root, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error) {
	r.mu.Lock()
	r.roots = append(r.roots, root)
	r.mu.Unlock()
	return r.Block(ctx, c, also)
}

// The root of an object is told by who asks for it, or by the context.
func TestRoot(t *testing.T) {
	store := btfstest.NewStore()
	all := leaves(store, 3)
	r := &telling{fake: fake{name: "a", store: store}}
	p := NewPool(Config{Sources: []Source{r}, Timeout: time.Minute})
	for i, block := range []func() ([]byte, error){
		func() ([]byte, error) { return p.Block(t.Context(), all[0]) },
		func() ([]byte, error) { return p.Block(Within(t.Context(), all[0]), all[1]) },
		func() ([]byte, error) { return p.Of(all[1]).Block(Within(t.Context(), all[0]), all[2]) },
	} {
		if _, err := block(); err != nil {
			t.Error(i, err)
		}
	}
	if len(r.roots) != 2 || !r.roots[0].Equals(all[0]) || !r.roots[1].Equals(all[1]) {
		t.Errorf("told %v", r.roots)
	}
}
