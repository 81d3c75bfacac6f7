package utp

import "time"

const (
	target    = 100 * time.Millisecond // of delay in the queues that we make (BEP 29)
	gain      = 3000                   // bytes by which the window grows in a round trip, at most
	firstWnd  = 10                     // packets
	leastWnd  = 2                      // packets
	mostWnd   = 8 << 20
	baseSpan  = time.Minute // of one bucket of smallest delays
	buckets   = 8
	delaysNow = 4 // of the last samples the smallest counts: acknowledgements are late at times
)

// ledbat decides how many bytes may be on the way (LEDBAT, RFC 6817, with the slow
// start of TCP, without which 2 MB/s over 50 ms take 1.5 s to reach). Delays are
// differences of two clocks: only how much more they are than the smallest means
// anything, and that wraps around at 32 bits.
type ledbat struct {
	wnd, thresh float64
	slow        bool // start
	queue       time.Duration

	heard  bool
	ref    uint32 // the first sample: others are told as distances to it
	base   [buckets]int64
	at     int           // bucket of now
	turned time.Duration // when that began
	recent [delaysNow]int64
	n      int
}

func newLedbat(mss int) ledbat {
	return ledbat{wnd: float64(firstWnd * mss), thresh: mostWnd, slow: true}
}

// delay notes a delay that the other side measured.
func (l *ledbat) delay(now time.Duration, sample uint32) {
	if !l.heard {
		l.heard, l.ref, l.turned = true, sample, now
		// Zero is what all are filled with, and the distance of the first.
	}
	d := int64(int32(sample - l.ref))
	for now-l.turned >= baseSpan {
		l.turned += baseSpan
		if now-l.turned >= buckets*baseSpan {
			l.turned = now
		}
		l.at = (l.at + 1) % buckets
		l.base[l.at] = d
	}
	l.base[l.at] = min(l.base[l.at], d)
	l.recent[l.n%delaysNow] = d
	l.n++
	low, least := l.base[0], d
	for _, b := range l.base {
		low = min(low, b)
	}
	for _, r := range l.recent[:min(l.n, delaysNow)] {
		least = min(least, r)
	}
	l.queue = time.Duration(least-low) * time.Microsecond
}

// acked notes that bytes arrived, of flight that were on the way.
func (l *ledbat) acked(bytes, flight, mss int) {
	if float64(flight+2*mss) < l.wnd/2 {
		return // the window was not what held us back
	}
	if l.slow && (l.queue > target*3/4 || l.wnd >= l.thresh) {
		l.slow = false
	}
	switch {
	case l.slow:
		l.wnd += float64(bytes)
	default:
		off := max(-1, float64(target-l.queue)/float64(target))
		l.wnd += gain * off * float64(bytes) / l.wnd
	}
	l.wnd = min(max(l.wnd, float64(leastWnd*mss)), mostWnd)
}

// lost halves the window, for a packet that was lost and others that were not.
func (l *ledbat) lost(mss int) {
	l.wnd = max(l.wnd/2, float64(leastWnd*mss))
	l.thresh, l.slow = l.wnd, false
}

// timeout begins again: nothing arrives.
func (l *ledbat) timeout(mss int) {
	l.thresh = max(l.wnd/2, float64(leastWnd*mss))
	l.wnd, l.slow = float64(leastWnd*mss), true
}

// rested forgets a window that was not used for long: as a burst it may be too much.
func (l *ledbat) rested(mss int) {
	if most := float64(4 * firstWnd * mss); l.wnd > most {
		l.thresh, l.wnd, l.slow = l.wnd, most, true
	}
}
