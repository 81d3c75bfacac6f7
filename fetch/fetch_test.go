package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fetch/fetchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib  = 1 << 20
	unit = mib
)

// world is a scheduler over a fake swarm.
type world struct {
	t     *testing.T
	swarm *fetchtest.Swarm
	sched *fetch.Scheduler
	stop  func()
}

func run(t *testing.T, size int64, dl func(*fetchtest.Swarm) fetch.Download, peers ...fetchtest.Peer) *world {
	return runIn(t, size, 1<<40, dl, peers...)
}

// runLimited is run with a cache of limit bytes.
func runLimited(t *testing.T, size, limit int64, peers ...fetchtest.Peer) *world {
	return runIn(t, size, limit, nil, peers...)
}

func runIn(t *testing.T, size, limit int64, dl func(*fetchtest.Swarm) fetch.Download, peers ...fetchtest.Peer) *world {
	swarm, stopSwarm := fetchtest.New(t, fetchtest.Truth(size), unit, limit, peers...)
	w := &world{t: t, swarm: swarm, sched: fetch.New(fetch.Config{})}
	var d fetch.Download = swarm
	if dl != nil {
		d = dl(swarm)
	}
	w.sched.Add(fetch.Target{Object: swarm.Object, Download: d})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.sched.Run(ctx) })
	w.stop = func() {
		cancel()
		wg.Wait()
		stopSwarm()
	}
	return w
}

func (w *world) open() *cache.Reader {
	return w.swarm.Object.NewReader(extent.Extent{Len: w.swarm.Object.Size}, w.sched)
}

// read reads n bytes at off, checks them and returns how long it took.
func (w *world) read(r *cache.Reader, off, n int64) time.Duration {
	w.t.Helper()
	return w.readOf(r, 0, off, n)
}

// readOf is read of a file that begins at start.
func (w *world) readOf(r *cache.Reader, begin, off, n int64) time.Duration {
	w.t.Helper()
	start := time.Now()
	p := make([]byte, n)
	got, err := r.ReadAt(w.t.Context(), p, off)
	if err != nil && err != io.EOF {
		w.t.Fatalf("read at %d: %v", off, err)
	}
	if !bytes.Equal(p[:got], w.swarm.Truth[begin+off:begin+off+int64(got)]) {
		w.t.Fatalf("wrong bytes at %d", off)
	}
	return time.Since(start)
}

// quiet waits until nothing happens any more.
func quiet() { <-time.After(time.Minute); synctest.Wait() }

var fast = fetchtest.Peer{Rate: 10 * mib, Latency: 50 * time.Millisecond}

func TestOneReadFetchesItsUnitOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 64*mib, nil, fast)
		defer w.stop()
		r := w.open()
		w.read(r, 0, 64<<10) // head -c 64K
		quiet()
		if got := w.swarm.Units(); !slices.Equal(got, []int{0}) {
			t.Errorf("fetched %v", got)
		}
		w.read(r, 63*mib, 4096) // and the tail of an mp4
		quiet()
		if got := w.swarm.Units(); !slices.Equal(got, []int{0, 63}) {
			t.Errorf("fetched %v", got)
		}
		r.Close()
	})
}

func TestRandomReadsFetchNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 256*mib, nil, fast)
		defer w.stop()
		r := w.open()
		for i := range 60 {
			w.read(r, int64(i*37%250)*mib+300<<10, 4096)
		}
		quiet()
		if n := len(w.swarm.Units()); n != 60 {
			t.Errorf("60 random reads fetched %d units", n)
		}
		r.Close()
	})
}

func TestSequentialReaderIsNeverBehindTheSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 64*mib, nil, fast, fast, fast, fast)
		defer w.stop()
		r := w.open()
		start := time.Now()
		for off := int64(0); off < 64*mib; off += 128 << 10 {
			w.read(r, off, 128<<10)
		}
		// Four peers bring a unit each in 0.15 s: 26.7 MiB/s.
		if took, ideal := time.Since(start), time.Duration(16*150)*time.Millisecond; took > ideal*115/100 {
			t.Errorf("took %v, the swarm alone %v", took, ideal)
		}
		if n := len(w.swarm.Order()); n != 64 {
			t.Errorf("%d units brought", n)
		}
		r.Close()
	})
}

func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 320*mib, nil, fast)
		defer w.stop()
		r := w.open()
		for off := int64(0); off < 8*mib; off += 128 << 10 {
			w.read(r, off, 128<<10)
		}
		quiet() // a paused player
		if n := len(w.swarm.Units()); n < 10 || n > 8+16+1 {
			t.Errorf("8 MiB read, %d units fetched", n)
		}
		r.Close()
	})
}

func TestSeekDropsTheOldWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := fetchtest.Peer{Rate: mib, Latency: 10 * time.Millisecond}
		w := run(t, 320*mib, nil, slow)
		defer w.stop()
		r := w.open()
		for off := int64(0); off < 4*mib; off += 128 << 10 {
			w.read(r, off, 128<<10)
		}
		// One unit may be on its way; nothing else stands before the seek.
		if took := w.read(r, 300*mib, 64<<10); took > 2100*time.Millisecond {
			t.Errorf("seek took %v with one unit a second", took)
		}
		before := len(w.swarm.Units())
		quiet()
		if n := len(w.swarm.Units()); n > before {
			t.Errorf("%d units fetched for nobody after a seek", n-before)
		}
		r.Close()
	})
}

func TestTailProbeDoesNotEndThePlayback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 256*mib, nil, fast)
		defer w.stop()
		r := w.open()
		for off := int64(0); off < 4*mib; off += 128 << 10 {
			w.read(r, off, 128<<10)
		}
		w.read(r, 256*mib-40<<10, 36<<10)
		w.read(r, 4*mib, 128<<10) // back where it was
		quiet()
		if n := len(w.swarm.Units()); n < 10 {
			t.Errorf("read-ahead did not come back: %d units", n)
		}
		r.Close()
	})
}

func TestTwoReadersShareByDueTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 256*mib, nil, fast)
		defer w.stop()
		var wg sync.WaitGroup
		took := make([]time.Duration, 2)
		for i := range 2 {
			wg.Go(func() {
				r := w.open()
				defer r.Close()
				start := time.Now()
				for off := int64(0); off < 16*mib; off += 128 << 10 {
					w.read(r, int64(i)*200*mib+off, 128<<10)
				}
				took[i] = time.Since(start)
			})
		}
		wg.Wait()
		if a, b := took[0], took[1]; a > b*3/2 || b > a*3/2 {
			t.Errorf("one reader starved: %v and %v", a, b)
		}
	})
}

func TestCloseWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 256*mib, nil, fetchtest.Peer{Rate: mib / 4})
		defer w.stop()
		r := w.open()
		w.read(r, 0, 128<<10)
		w.read(r, 128<<10, 256<<10)
		w.read(r, 384<<10, 256<<10)
		r.Close()
		<-time.After(10 * time.Second)
		n := len(w.swarm.Units())
		quiet()
		if more := len(w.swarm.Units()); more > n || n > 4 {
			t.Errorf("closed at %d units, then %d", n, more)
		}
	})
}

func TestInterruptedReadIsCheapToRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 16*mib, nil, fetchtest.Peer{Rate: mib})
		defer w.stop()
		r := w.open()
		for range 3 { // EINTR, again and again, as Go's runtime does to its own reads
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if _, err := r.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		start := time.Now()
		w.read(r, 0, 10)
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("the fetch began anew: %v", took)
		}
		if n := w.swarm.Withdrawn(); n != 0 {
			t.Errorf("%d fetches withdrawn by interrupts", n)
		}
		r.Close()
		// And a read that is really given up is withdrawn.
		r = w.open()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, _ = r.ReadAt(ctx, make([]byte, 10), 9*mib)
		cancel()
		quiet()
		if n := w.swarm.Withdrawn(); n != 1 {
			t.Errorf("%d fetches withdrawn", n)
		}
		r.Close()
	})
}

// failing is a Download that fails some times first.
type failing struct {
	*fetchtest.Swarm
	mu    sync.Mutex
	times int
	err   error
	calls []time.Time
}

func (f *failing) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	f.mu.Lock()
	f.calls = append(f.calls, time.Now())
	fail := f.times > 0
	f.times--
	f.mu.Unlock()
	if fail {
		return f.err
	}
	return f.Swarm.Fetch(ctx, e, due)
}

type lost struct{}

func (lost) Error() string   { return "lost for ever" }
func (lost) Permanent() bool { return true }

func TestRetryableFailureIsTriedAgainWithoutSpinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{times: 3, err: errors.New("cache is full")}
		w := run(t, 4*mib, func(s *fetchtest.Swarm) fetch.Download { f.Swarm = s; return f }, fast)
		defer w.stop()
		r := w.open()
		if took := w.read(r, 0, 10); took < 1500*time.Millisecond || took > 2*time.Second {
			t.Errorf("took %v with three failures half a second apart", took)
		}
		if len(f.calls) != 4 {
			t.Errorf("%d calls", len(f.calls))
		}
		r.Close()
	})
}

// evicted is a download whose first unit is committed and evicted before Fetch returns.
type evicted struct {
	*fetchtest.Swarm
	calls  int
	landed chan struct{} // it is gone again
	late   chan struct{} // Fetch may return
}

func (d *evicted) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	d.calls++
	err := d.Swarm.Fetch(ctx, e, due)
	if d.calls == 1 && err == nil {
		if got := d.Object.Evict(e); got.Freed == 0 {
			err = errors.New("it is not evicted")
		}
		close(d.landed)
		<-d.late
	}
	return err
}

// A unit that came as read-ahead may be evicted before the read comes for which it was brought, and
// that read before the scheduler hears that it came.
func TestReadAfterEvictionOfItsReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &evicted{landed: make(chan struct{}), late: make(chan struct{})}
		w := run(t, 4*mib, func(s *fetchtest.Swarm) fetch.Download { d.Swarm = s; return d }, fast)
		defer w.stop()
		first := extent.Extent{Len: unit}
		id := cache.ReaderID(1 << 40)
		w.sched.Demand(id, cache.Demand{Key: w.swarm.Object.Key, Span: extent.Extent{Len: 4 * mib}, Needs: []extent.Extent{first}})
		<-d.landed
		done := make(chan time.Duration)
		r := w.open()
		defer r.Close()
		go func() { done <- w.read(r, 0, 4096) }()
		synctest.Wait() // the read waits, and the scheduler knows
		close(d.late)
		if took := <-done; took > 10*time.Second || d.calls != 2 {
			t.Errorf("read after %v, with %d calls of Fetch", took, d.calls)
		}
		w.sched.Withdraw(id)
	})
}

func TestPermanentFailureEndsTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{times: 1, err: lost{}}
		w := run(t, 4*mib, func(s *fetchtest.Swarm) fetch.Download { f.Swarm = s; return f }, fast)
		defer w.stop()
		r := w.open()
		if _, err := r.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, lost{}) {
			t.Fatal(err)
		}
		w.read(r, 0, 10) // the next read asks again
		r.Close()
	})
}

func TestReadersOutliveTheScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 4*mib, nil)
		r := w.open()
		w.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.ReadAt(ctx, make([]byte, 10), 0); err == nil {
			t.Error("a read without a scheduler succeeded")
		}
		r.Close()
	})
}

func TestSilentAndLyingPeersOnlyDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, 16*mib, nil, fast, fetchtest.Peer{Rate: mib, Lies: true})
		defer w.stop()
		r := w.open()
		for off := int64(0); off < 16*mib; off += 128 << 10 {
			w.read(r, off, 128<<10)
		}
		r.Close()
	})
}

func TestFakeSwarmKeepsTheContract(t *testing.T) {
	fetchtest.Run(t, func(t *testing.T) fetchtest.Rig {
		s, stop := fetchtest.New(t, fetchtest.Truth(5*unit+123), unit, 1<<30, fetchtest.Peer{Rate: 1 << 33}, fetchtest.Peer{Rate: 1 << 33})
		t.Cleanup(stop)
		return fetchtest.Rig{Download: s, Object: s.Object, Truth: s.Truth}
	})
}
