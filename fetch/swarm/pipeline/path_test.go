package pipeline

import (
	"testing"
	"time"
)

// path simulates one peer that answers in order over a line of some rate: what it brings
// in so long, when as much is asked of it as Limit says. known is the round trip that the
// kernel told of; jitter is how unevenly blocks arrive.
func path(p *Pipe, rate float64, trip, known, jitter, lasts time.Duration) (perSecond float64, outstanding int) {
	p.Line(known)
	type ask struct{ sent, due, comes time.Time }
	var asked []ask
	now := time.Unix(0, 0)
	began, free, n := now, now, 0
	each := time.Duration(block / rate * 1e9)
	end := now.Add(lasts)
	for now.Before(end) {
		for len(asked) < p.Limit(64) {
			at := now.Add(trip / 2)
			if free.After(at) {
				at = free
			}
			free = at.Add(each)
			due := p.Finish(now, block)
			p.Sent(now, block)
			asked = append(asked, ask{now, due, free.Add(trip / 2)})
		}
		first := asked[0]
		asked = asked[1:]
		if first.comes.After(now) {
			now = first.comes
		}
		if jitter > 0 { // the kernel, or a proxy, hands over what came in that time
			if over := now.UnixNano() % int64(jitter); over > 0 {
				now = now.Add(jitter - time.Duration(over))
			}
		}
		p.Arrived(now, first.sent, first.due, block)
		if now.Sub(began) > lasts/2 {
			n++
		}
	}
	return float64(n*block) / (lasts / 2).Seconds(), len(asked)
}

// A path is full at any distance, as long as that is known, however unevenly blocks come.
func TestPathIsFull(t *testing.T) {
	const rate = 2e6
	for _, trip := range []time.Duration{5, 50, 200, 500} {
		for _, jitter := range []time.Duration{0, 10, 30} {
			p := Pipe{Reqq: 1000}
			trip, jitter := trip*time.Millisecond, jitter*time.Millisecond
			got, out := path(&p, rate, trip, trip, jitter, 20*time.Second)
			if got < 0.97*rate {
				t.Errorf("round trip %v, jitter %v: %.2f MB/s of %.2f", trip, jitter, got/1e6, rate/1e6)
			}
			if most := int(1.1*rate*(trip+TargetQueue).Seconds()/block) + 1; out > most {
				t.Errorf("round trip %v, jitter %v: %d blocks on the way, want %d at most", trip, jitter, out, most)
			}
		}
	}
}

// Behind a proxy the kernel knows the way to the proxy only. A path of 200 ms is full there
// too, and no fuller, if the handshake told how far the peer is; even if it told too much,
// since a peer may take its time to answer a handshake, and blocks correct it.
func TestPathBehindAProxyIsFull(t *testing.T) {
	const rate, trip = 2e6, 200 * time.Millisecond
	for _, told := range []time.Duration{trip, 3 * trip} {
		p := Pipe{Reqq: 1000}
		p.Answer(told)
		// Some reads, with pauses: it is an idle peer that answers.
		now := time.Unix(-100, 0)
		for range 10 {
			for i := range 8 {
				p.Sent(now, block)
				at := now.Add(trip + time.Duration(i+1)*time.Duration(block/rate*1e9))
				p.Arrived(at, now, at, block)
			}
			now = now.Add(time.Second)
		}
		if got := p.RTT(); got < trip-2*time.Millisecond || got > trip+10*time.Millisecond {
			t.Errorf("told %v: a round trip of %v, want %v", told, got, trip)
		}
		got, out := path(&p, rate, trip, time.Millisecond, 0, 20*time.Second)
		if got < 0.97*rate {
			t.Errorf("told %v: %.2f MB/s of %.2f", told, got/1e6, rate/1e6)
		}
		if most := int(1.1*rate*(trip+TargetQueue).Seconds()/block) + 1; out > most {
			t.Errorf("told %v: %d blocks on the way, want %d at most", told, out, most)
		}
	}
	p := Pipe{Reqq: 1000} // one that called us: nothing is between
	p.Line(time.Millisecond)
	feed(&p, time.Unix(0, 0), 8, 40, trip, 8*time.Millisecond)
	if p.RTT() != time.Millisecond {
		t.Errorf("a caller's round trip is %v, not the kernel's", p.RTT())
	}
}
