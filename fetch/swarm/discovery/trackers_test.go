package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// script is a fake network: what each host answers, and a journal of who was
// asked what, at which second.
type script struct {
	mu      sync.Mutex
	start   time.Time
	answers map[string]func(ctx context.Context, n int) (reply, error)
	asked   map[string]int
	journal []string
	left    int64
	port    uint16
	found   []Peer
}

func (s *script) announce(ctx context.Context, u *url.URL, r request) (reply, error) {
	s.mu.Lock()
	n := s.asked[u.Host]
	s.asked[u.Host]++
	s.journal = append(s.journal, strings.TrimSpace(fmt.Sprintf("%v %s %v", time.Since(s.start).Round(time.Second), u.Host, r.event)))
	s.mu.Unlock()
	return s.answers[u.Host](ctx, n)
}

func (s *script) setLeft(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = n
}

// run starts Trackers on the script for the given tiers, which keep their order,
// and returns how to end them.
func (s *script) run(t *testing.T, tiers ...string) (*Trackers, func()) {
	s.start, s.asked = time.Now(), map[string]int{}
	tr := NewTrackers(Config{}, metainfo.InfoHash{1}, nil, nil, func() Stats {
		s.mu.Lock()
		defer s.mu.Unlock()
		return Stats{Left: s.left, Port: s.port}
	}, func(p []Peer) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.found = append(s.found, p...)
	})
	tr.announce = s.announce
	for _, hosts := range tiers {
		ti := &tier{hurry: make(chan struct{}, 1)}
		for host := range strings.SplitSeq(hosts, " ") {
			ti.trackers = append(ti.trackers, &tracker{url: &url.URL{Scheme: "http", Host: host}, status: TrackerStatus{URL: host}})
		}
		tr.tiers = append(tr.tiers, ti)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); tr.Run(ctx) }()
	return tr, func() { cancel(); <-done }
}

func (s *script) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.journal, want) {
		t.Errorf("journal:\n%s\nwant:\n%s", strings.Join(s.journal, "\n"), strings.Join(want, "\n"))
	}
}

// after lets fake time pass.
func after(d time.Duration) { <-time.After(d); synctest.Wait() }

type answer = func(context.Context, int) (reply, error)

func ok(interval time.Duration) answer {
	return func(context.Context, int) (reply, error) {
		return reply{interval: interval, min: 20 * time.Second, peers: []Peer{{Addr: netip.MustParseAddrPort("1.2.3.4:5"), Source: "tracker"}}}, nil
	}
}

func down(context.Context, int) (reply, error) { return reply{}, errors.New("down") }

func silent(ctx context.Context, _ int) (reply, error) { <-ctx.Done(); return reply{}, ctx.Err() }

func TestEventsAndInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{left: 5, answers: map[string]answer{"a": ok(10 * time.Minute)}}
		_, stop := s.run(t, "a")
		after(12 * time.Minute)
		s.setLeft(0)
		after(13 * time.Minute)
		stop()
		s.want(t, "0s a started", "10m0s a", "12m15s a completed", "22m15s a", "25m0s a stopped")
		if len(s.found) != 4 {
			t.Error(s.found)
		}
	})
}

// A port that the router maps, or maps no more, is announced soon, at most every 20
// seconds; what stays is not announced again.
func TestAnotherPortIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{left: 5, port: 6881, answers: map[string]answer{"a": ok(10 * time.Minute)}}
		_, stop := s.run(t, "a")
		set := func(port uint16) { s.mu.Lock(); s.port = port; s.mu.Unlock() }
		after(3 * time.Second)
		set(40000)
		after(4 * time.Minute)
		set(6881)
		after(10 * time.Second)
		set(40000)
		after(5 * time.Minute)
		set(50000)
		after(time.Minute)
		stop()
		s.want(t, "0s a started", "20s a", "4m5s a", "4m25s a", "9m25s a", "10m13s a stopped")
	})
}

// The same of the DHT.
func TestAnotherPortIsAnnouncedToTheDHT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var port atomic.Uint32
		began := time.Now()
		port.Store(1)
		at := func() uint16 { return uint16(port.Load()) }
		if !another(t.Context(), time.Minute, 1, at) || time.Since(began) != time.Minute {
			t.Errorf("the same port is announced after %v", time.Since(began))
		}
		began = time.Now()
		port.Store(2)
		if !another(t.Context(), time.Minute, 1, at) || time.Since(began) != leftCheck {
			t.Errorf("another port is announced after %v", time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if another(ctx, time.Minute, 2, at) {
			t.Error("goes on after its end")
		}
	})
}

func TestCompleteFromTheStartIsNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]answer{"a": ok(10 * time.Minute)}}
		_, stop := s.run(t, "a")
		after(11 * time.Minute)
		stop()
		s.want(t, "0s a started", "10m0s a", "11m0s a stopped")
	})
}

func TestTiersInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]answer{"a": down, "b": ok(time.Hour), "c": silent, "d": ok(time.Hour)}}
		tr, stop := s.run(t, "a b", "c d")
		after(3 * time.Second)
		for _, st := range tr.Status() {
			if st.URL == "b" && (st.Err != nil || st.Peers != 1 || st.Next.Sub(s.start) != time.Hour) || st.URL == "a" && st.Err == nil || st.URL == "c" && st.Err != nil {
				t.Errorf("%+v", st)
			}
		}
		after(time.Hour)
		stop()
		slices.Sort(s.journal)
		// The ones that answered come first the next time, and alone take leave.
		s.want(t, "0s a started", "0s b started", "0s c started", "1h0m0s b", "1h0m2s d", "1h0m3s b stopped", "1h0m3s d stopped", "2s d started")
	})
}

// A fault in an announce is a failure of that tracker; the others go on.
func TestFaultInAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]func(context.Context, int) (reply, error){
			"bad":  func(context.Context, int) (reply, error) { panic("planted") },
			"good": func(context.Context, int) (reply, error) { return reply{interval: time.Hour}, nil },
		}}
		tr, stop := s.run(t, "bad", "good")
		time.Sleep(time.Second)
		stop()
		var failed, worked bool
		for _, st := range tr.Status() {
			failed = failed || strings.Contains(st.Failure, "internal error")
			worked = worked || st.Failure == "" && !st.Last.IsZero()
		}
		if !failed || !worked {
			t.Errorf("%+v", tr.Status())
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]answer{"a": down, "b": silent}}
		_, stop := s.run(t, "a", "b")
		after(24 * time.Hour)
		stop()
		if n := s.asked["a"]; n < 45 || n > 75 {
			t.Errorf("a dead tracker was asked %d times in a day", n)
		}
		if n := s.asked["b"]; n < 45 || n > 75 {
			t.Errorf("a silent tracker was asked %d times in a day", n)
		}
	})
}

func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]answer{"a": ok(time.Hour)}}
		tr, stop := s.run(t, "a")
		after(5 * time.Second)
		for range 10 {
			tr.Hurry()
			after(time.Second)
		}
		after(5 * time.Second) // the floor of 20 s has passed
		after(time.Minute)
		tr.Hurry()
		after(time.Second)
		stop()
		s.want(t, "0s a started", "20s a", "1m20s a", "1m21s a stopped")
	})
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := ok(time.Hour)
		s := &script{answers: map[string]answer{"a": func(ctx context.Context, n int) (reply, error) {
			if n == 0 {
				return first(ctx, n)
			}
			return silent(ctx, n)
		}}}
		_, stop := s.run(t, "a")
		after(time.Second)
		start := time.Now()
		stop()
		if took := time.Since(start); took != stopTimeout {
			t.Error(took)
		}
	})
}

func TestRunEndsDuringAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]answer{"a": silent}}
		tr, stop := s.run(t, "a")
		after(time.Second)
		stop()
		if st := tr.Status()[0]; st.Err != nil {
			t.Error("our own end is blamed on the tracker:", st.Err)
		}
	})
}

func TestClampIntervals(t *testing.T) {
	const maxInt64 = 1<<63 - 1
	for _, c := range []struct {
		interval, min int64
		want, floor   time.Duration
	}{
		{1800, 0, 30 * time.Minute, 20 * time.Second},
		{1800, 900, 30 * time.Minute, 15 * time.Minute},
		{0, 0, 30 * time.Second, 20 * time.Second},
		{-1, -1, 30 * time.Second, 20 * time.Second},
		{maxInt64, maxInt64, 2 * time.Hour, 2 * time.Hour},
		{-maxInt64 - 1, maxInt64, 30 * time.Second, 30 * time.Second},
		{-9223372037, -9223372037, 30 * time.Second, 20 * time.Second}, // of nanoseconds that is more than 2 h
	} {
		if got, floor := clampIntervals(c.interval, c.min); got != c.want || floor != c.floor {
			t.Errorf("%d, %d: %v, %v", c.interval, c.min, got, floor)
		}
	}
}
