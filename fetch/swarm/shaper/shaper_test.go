package shaper

import (
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const block = 16 << 10

// sender is a connection that always has a block to send, or has pauses.
type sender struct {
	flow *Flow
	sent atomic.Int64
	stop chan struct{}
}

// send starts a sender whose blocks have size bytes, and which takes busy for each.
func send(l *Link, weight float64, size int, busy time.Duration) *sender {
	s := &sender{flow: l.Join(), stop: make(chan struct{})}
	s.flow.SetWeight(weight)
	go func() {
		for {
			s.flow.Ask(size)
			select {
			case <-s.stop:
				s.flow.Leave()
				return
			case <-s.flow.Ready():
			}
			s.sent.Add(int64(size))
			if busy > 0 {
				time.Sleep(busy)
			}
		}
	}()
	return s
}

// shares runs senders for so long and returns what part of all each sent, and the rate.
func shares(d time.Duration, senders ...*sender) (part []float64, rate float64) {
	before := make([]int64, len(senders))
	for i, s := range senders {
		before[i] = s.sent.Load()
	}
	time.Sleep(d)
	synctest.Wait()
	sum := 0.0
	for i, s := range senders {
		part = append(part, float64(s.sent.Load()-before[i]))
		sum += part[i]
	}
	for i := range part {
		part[i] /= sum
	}
	return part, sum / d.Seconds()
}

func stop(senders ...*sender) {
	for _, s := range senders {
		close(s.stop)
	}
	synctest.Wait()
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.05*want {
		t.Errorf("%s: %.4g, want %.4g within 5 %%", what, got, want)
	}
}

// TestSharesFollowWeights at several rates, with blocks of several sizes, and with
// senders that take time to write a block.
func TestSharesFollowWeights(t *testing.T) {
	for _, rate := range []float64{100e3, 1e6, 5e6, 100e6} {
		synctest.Test(t, func(t *testing.T) {
			var l Link
			l.SetRate(rate)
			busy := time.Duration(block / rate / 4 * 1e9)
			s := []*sender{send(&l, 1, block, 0), send(&l, 2, block, busy), send(&l, 5, 2*block, 0), send(&l, 0.5, 1000, 0)}
			shares(time.Second, s...)
			part, got := shares(time.Duration(1e8/rate*1e9), s...)
			for i, w := range []float64{1, 2, 5, 0.5} {
				near(t, "share", part[i], w/8.5)
			}
			near(t, "rate", got, rate)
			stop(s...)
		})
	}
}

// TestManyOfOneWeight: two hundred of weight 1 beside one of weight 100.
func TestManyOfOneWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.SetRate(5e6)
		s := []*sender{send(&l, 100, block, 0)}
		for range 200 {
			s = append(s, send(&l, 1, block, 0))
		}
		shares(5*time.Second, s...)
		part, _ := shares(60*time.Second, s...)
		near(t, "share of the heavy one", part[0], 1.0/3)
		stop(s...)
	})
}

// TestNobodySavesUp: who was away for a minute gets its share from then on, no more.
func TestNobodySavesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.SetRate(1e6)
		a := send(&l, 1, block, 0)
		shares(time.Minute, a)
		b := send(&l, 1, block, 0)
		part, _ := shares(10*time.Second, a, b)
		near(t, "share of who came late", part[1], 0.5)
		stop(a)
		_, rate := shares(10*time.Second, b)
		near(t, "rate of who is left", rate, 1e6)
		stop(b)
	})
}

// TestWeightChanges take effect at once.
func TestWeightChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.SetRate(1e6)
		a, b := send(&l, 1, block, 0), send(&l, 1, block, 0)
		shares(10*time.Second, a, b)
		a.flow.SetWeight(4)
		part, _ := shares(30*time.Second, a, b)
		near(t, "share", part[0], 0.8)
		for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1)} {
			if a.flow.SetWeight(bad); a.flow.Weight() != 1 {
				t.Errorf("weight %v became %v", bad, a.flow.Weight())
			}
		}
		stop(a, b)
	})
}

// TestNoLimit holds nobody, and a limit that is lifted frees who waits.
func TestNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		f, g := l.Join(), l.Join()
		f.Ask(block)
		<-f.Ready()
		l.SetRate(1000)
		start := time.Now()
		for range 2 { // what may be sent at once
			f.Ask(block)
			<-f.Ready()
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("the first blocks waited %v", d)
		}
		f.Ask(block)
		g.Ask(block)
		synctest.Wait()
		if len(f.Ready())+len(g.Ready()) > 0 {
			t.Fatal("sent above the limit")
		}
		l.SetRate(0)
		<-f.Ready()
		<-g.Ready()
	})
}

// TestLeaveAndRefund: what was not sent is sent by others.
func TestLeaveAndRefund(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.SetRate(1e6)
		a, b := l.Join(), l.Join()
		for range 4 {
			a.Ask(block)
			<-a.Ready()
		}
		a.Refund(block)
		b.Ask(block)
		synctest.Wait()
		<-b.Ready() // at once, by the refund
		a.Ask(block)
		b.Ask(block)
		a.Ask(block) // the second is the first
		a.Leave()
		start := time.Now()
		<-b.Ready()
		if d := time.Since(start); d > 40*time.Millisecond {
			t.Errorf("waited %v for who left", d)
		}
		if len(a.Ready()) > 0 {
			t.Error("granted after it left")
		}
	})
}
