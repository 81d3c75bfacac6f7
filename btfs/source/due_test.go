package source

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/btfstest"
)

// line is a source whose blocks come one after the other, each after a time, and all later
// by the way.
type line struct {
	fake
	each time.Duration

	mu    sync.Mutex
	free  time.Time
	order []cid.Cid
	most  int
	now   int
}

func (l *line) Block(ctx context.Context, c cid.Cid, _ func(cid.Cid, []byte)) ([]byte, error) {
	l.asked.Add(1)
	l.mu.Lock()
	l.now++
	l.most = max(l.most, l.now)
	l.order = append(l.order, c)
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(l.each)
	wait := time.Until(l.free) + l.after
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now--
	}()
	select {
	case <-time.After(wait):
		return l.store.Block(ctx, c)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// What is due first is asked for first, whoever wanted it when; what is wanted earlier than
// before moves up.
func TestEarliestDueFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 100)
		l := &line{fake: fake{name: "A", store: s}, each: 10 * time.Millisecond}
		p := pool(t, time.Hour, l)
		var readers sync.WaitGroup
		start := time.Now()
		want := func(i int, due time.Duration) {
			readers.Go(func() {
				if _, err := p.BlockBy(t.Context(), all[i], start.Add(due)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for i := range 100 { // the last one first
			want(i, time.Duration(100-i)*time.Second)
		}
		want(50, -time.Second)
		readers.Go(func() {
			if _, err := p.Block(By(t.Context(), start.Add(-time.Minute)), all[40]); err != nil {
				t.Error(err)
			}
		})
		readers.Wait()
		// Some were asked for before anything else was wanted, and then as many as may be,
		// in any order.
		next := l.order[probes : firstWindow+1]
		for _, want := range []int{40, 50, 99, 98, 97, 96, 95} {
			if !slices.Contains(next, all[want]) {
				t.Errorf("%d is not among the next", want)
			}
		}
		if n := l.asked.Load(); n != 100 {
			t.Errorf("asked %d times", n)
		}
	})
}

// A fast source far away is kept busy; what it has to do at a time is bounded.
func TestKeepsTheLineFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 2000)
		l := &line{fake: fake{name: "A", store: s, after: 50 * time.Millisecond}, each: 2 * time.Millisecond}
		start := time.Now()
		bring(t, pool(t, time.Hour, l), all, 200)
		if took, floor := time.Since(start), 4*time.Second; took > floor*11/10 {
			t.Errorf("%v, at best %v", took, floor)
		}
		if l.most > maxWindow {
			t.Errorf("%d at a time", l.most)
		}
	})
}

// A slow source beside a fast one is given what the fast one would come to later, so that
// what is read in order does not wait for it.
func TestSlowOnesHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 2000)
		took := func(sources ...Source) time.Duration {
			p := pool(t, time.Hour, sources...)
			start := time.Now()
			bring(t, p, all, 48)
			if st := p.Status(); st.Wasted > st.Bytes/waste+wasteAtFirst {
				t.Errorf("%d bytes came twice, of %d", st.Wasted, st.Bytes)
			}
			return time.Since(start)
		}
		fast := func() Source {
			return &line{fake: fake{name: "fast", store: s, after: 20 * time.Millisecond}, each: 2 * time.Millisecond}
		}
		slow := &line{fake: fake{name: "slow", store: s, after: 100 * time.Millisecond}, each: 300 * time.Millisecond}
		alone, beside := took(fast()), took(fast(), slow)
		if beside > alone*11/10 {
			t.Errorf("%v beside a slow one, %v alone", beside, alone)
		}
		if slow.asked.Load() == 0 {
			t.Error("the slow one was never asked")
		}
	})
}

// uneven is a source that is slow now and then, and goes on sending.
type uneven struct{ fake }

func (u *uneven) Block(ctx context.Context, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error) {
	wait := 10 * time.Millisecond
	if u.asked.Add(1)%4 == 0 {
		wait = 2 * time.Second
	}
	select {
	case <-time.After(wait):
		return u.store.Block(ctx, c)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// What sends is not asked for twice all the time: what may come twice is a small part of
// what came. If it is silent another is asked at once, whatever the part.
func TestWasteIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		var all []cid.Cid
		for i := range 1000 {
			b := make([]byte, 100_000)
			b[0], b[1] = byte(i), byte(i>>8)
			all = append(all, s.Put(cid.Raw, b))
		}
		a, b := &uneven{fake{name: "A", store: s}}, &uneven{fake{name: "B", store: s}}
		p := pool(t, time.Hour, a, b)
		bring(t, p, all, 32)
		st := p.Status()
		if limit := st.Bytes/waste + wasteAtFirst + maxWindow*100_000; st.Wasted == 0 || st.Wasted > limit {
			t.Errorf("%d bytes came twice of %d, at most %d", st.Wasted, st.Bytes, limit)
		}
	})
}

// Status tells what each source did.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 50)
		good := &fake{name: "good", store: s, after: 10 * time.Millisecond}
		p := pool(t, time.Second, &fake{name: "liar", err: &LyingError{context.Canceled}}, good, &fake{name: "hangs", after: hour})
		bring(t, p, all, 4)
		st := p.Status()
		if len(st.Sources) != 3 || st.Waiting != 0 || st.Asked != 0 || st.Bytes != st.Sources[1].Bytes {
			t.Fatalf("%+v", st)
		}
		if g := st.Sources[1]; g.Name != "good" || g.Blocks != 50 || g.Bytes < 50*8 || g.Latency != 10*time.Millisecond || g.Banned != nil {
			t.Errorf("%+v", g)
		}
		if l := st.Sources[0]; l.Lies == 0 || l.Banned == nil || l.Blocks != 0 {
			t.Errorf("%+v", l)
		}
	})
}

// A source that wants to know of which object a block is, is told.
type rooted struct {
	fake
	roots atomic.Int64
	root  cid.Cid
}

func (r *rooted) BlockOf(ctx context.Context, root, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error) {
	if root == r.root {
		r.roots.Add(1)
	}
	return r.Block(ctx, c, also)
}

func TestRooted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := btfstest.NewStore()
		all := leaves(s, 3)
		r := &rooted{fake: fake{name: "A", store: s}, root: all[0]}
		p := pool(t, time.Second, r)
		o := p.Of(all[0])
		for _, c := range all[:2] {
			if _, err := o.Block(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.Block(t.Context(), all[2]); err != nil || r.roots.Load() != 2 {
			t.Error(err, r.roots.Load())
		}
	})
}
