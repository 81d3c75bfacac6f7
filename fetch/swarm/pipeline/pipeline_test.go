package pipeline

import (
	"math"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

const block = wire.BlockSize

// feed answers a request every interval, with n of them on the way all the time.
func feed(p *Pipe, now time.Time, n, blocks int, rtt, interval time.Duration) time.Time {
	sent := []time.Time{}
	for range n {
		p.Sent(now, block)
		sent = append(sent, now)
	}
	at := now.Add(rtt)
	for range blocks {
		at = at.Add(interval)
		p.Arrived(at, sent[0], at, block)
		sent = append(sent[1:], at)
		p.Sent(at, block)
	}
	return at
}

func TestRateLeavesTheRoundTripOut(t *testing.T) {
	var p Pipe
	if p.Known() || p.Limit(0) != unknownLimit || p.Limit(20) != 20 || p.Limit(1000) != unknownMost {
		t.Fatal("knows a peer that it never saw")
	}
	p.Line(200 * time.Millisecond)
	feed(&p, time.Unix(0, 0), 8, 40, 200*time.Millisecond, 10*time.Millisecond)
	if want := block / 0.01; math.Abs(p.Rate()-want) > want/100 {
		t.Errorf("rate %.0f, want %.0f", p.Rate(), want)
	}
}

func TestLimitFillsThePathAndNoMore(t *testing.T) {
	for _, c := range []struct {
		rtt, interval time.Duration
		want          int
	}{
		{50 * time.Millisecond, 8192 * time.Microsecond, 20},     // 2 MB/s
		{200 * time.Millisecond, 160 * time.Millisecond, 2},      // 100 kB/s
		{100 * time.Millisecond, 1310720 * time.Nanosecond, 167}, // 12.5 MB/s
		{100 * time.Microsecond, 27 * time.Microsecond, 1000},    // loopback, bounded by reqq
	} {
		p := Pipe{Reqq: 1142, line: c.rtt}
		feed(&p, time.Unix(0, 0), 16, 200, c.rtt, c.interval)
		if got := p.Limit(0); got < c.want-1 || got > c.want+1 {
			t.Errorf("rtt %v, block every %v: limit %d, want %d", c.rtt, c.interval, got, c.want)
		}
	}
}

// Transmission looks at its queue twice a second. It must be asked for more until
// that is no limit.
func TestLimitGrowsForBursts(t *testing.T) {
	var p Pipe
	p.Reqq = 1000
	p.Line(10 * time.Microsecond)
	now := time.Unix(0, 0)
	p.Sent(now, block)
	p.Sent(now, block)
	asked := []time.Time{now, now}
	rounds := 0
	for ; p.Limit(0) < maxBurst && rounds < 40; rounds++ {
		now = now.Add(500 * time.Millisecond)
		for i, sent := range asked { // all of the queue at once, each refilled as it comes
			at := now.Add(time.Duration(i) * 100 * time.Microsecond)
			p.Arrived(at, sent, at, block)
			asked[i] = at
			p.Sent(at, block)
		}
		for len(asked) < p.Limit(0) {
			asked = append(asked, now)
			p.Sent(now, block)
		}
	}
	if rounds > 10 {
		t.Errorf("limit %d after %d rounds, want %d within 10", p.Limit(0), rounds, maxBurst)
	}
}

func TestFinish(t *testing.T) {
	now := time.Unix(100, 0)
	p := Pipe{line: 50 * time.Millisecond}
	at := feed(&p, now, 8, 100, 50*time.Millisecond, 10*time.Millisecond)
	// Seven are on the way and one block comes every 10 ms.
	if d := p.Finish(at, block).Sub(at); d < 85*time.Millisecond || d > 95*time.Millisecond {
		t.Errorf("busy peer: %v", d)
	}
	for p.Outstanding() > 0 {
		p.Gone(block)
	}
	later := at.Add(time.Second)
	if d := p.Finish(later, block).Sub(later); d < 59*time.Millisecond || d > 61*time.Millisecond {
		t.Errorf("idle peer: %v", d)
	}
	p.Sent(later, block)
	if d := p.Finish(later, block).Sub(later); d < 69*time.Millisecond || d > 71*time.Millisecond {
		t.Errorf("second block of an idle peer: %v", d)
	}
	// 400 ms without a word: it is expected to stay late.
	late := later.Add(460 * time.Millisecond)
	if d := p.Finish(late, block).Sub(late); d < 280*time.Millisecond {
		t.Errorf("late peer: %v", d)
	}
}

func TestSilent(t *testing.T) {
	now := time.Unix(100, 0)
	p := Pipe{line: 50 * time.Millisecond}
	at := feed(&p, now, 8, 100, 50*time.Millisecond, 10*time.Millisecond)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{100 * time.Millisecond, false}, {270 * time.Millisecond, false}, {300 * time.Millisecond, true}} {
		if got := p.Silent(at.Add(c.after)); got != c.want {
			t.Errorf("after %v: silent %v", c.after, got)
		}
	}
	for p.Outstanding() > 0 {
		p.Gone(block)
	}
	if p.Silent(at.Add(time.Hour)) {
		t.Error("a peer that was asked nothing is silent")
	}
}

// TestLossyLine: a peer that keeps stalling for 0.4 s is not called silent for that, and
// more is asked of it, so that the line is full after a stall; one that never stalled
// is called silent sooner, and its queue stays short.
func TestLossyLine(t *testing.T) {
	for _, stall := range []time.Duration{0, 400 * time.Millisecond} {
		var p Pipe
		p.line = 50 * time.Millisecond
		now, sent := time.Unix(1000, 0), time.Unix(999, 0)
		for i := range 2000 { // 2 MB/s
			gap := 8 * time.Millisecond
			if i%200 == 100 {
				gap += stall
			}
			p.Sent(sent, 16<<10)
			sent = now
			now = now.Add(gap)
			p.Arrived(now, sent.Add(-time.Millisecond), now, 16<<10)
		}
		lossy := stall > 0
		if got := p.Limit(0); (got > 40) != lossy {
			t.Errorf("stalls of %v: %d blocks on the way", stall, got)
		}
		for range 700 { // the last stall was a while ago
			p.Sent(sent, 16<<10)
			sent = now
			now = now.Add(8 * time.Millisecond)
			p.Arrived(now, sent.Add(-time.Millisecond), now, 16<<10)
		}
		p.Sent(now, 16<<10)
		if got := p.Silent(now.Add(450 * time.Millisecond)); got == lossy {
			t.Errorf("stalls of %v: silent after 0.45 s: %v", stall, got)
		}
		if !p.Silent(now.Add(1100 * time.Millisecond)) {
			t.Errorf("stalls of %v: not silent after 1.1 s", stall)
		}
	}
}

// TestPauseOfTheGivenUp: a pause for which the peer was given up is remembered.
func TestPauseOfTheGivenUp(t *testing.T) {
	var p Pipe
	now := time.Unix(1000, 0)
	for range 100 {
		p.Sent(now.Add(-time.Second), 16<<10)
		now = now.Add(8 * time.Millisecond)
		p.Arrived(now, now.Add(-time.Second), now, 16<<10)
	}
	p.Sent(now, 16<<10)
	if !p.Silent(now.Add(400 * time.Millisecond)) {
		t.Fatal("not silent")
	}
	p.Paused(400 * time.Millisecond)
	if p.Silent(now.Add(400 * time.Millisecond)) {
		t.Error("the same pause is silence again")
	}
}
