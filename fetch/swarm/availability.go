package swarm

import "time"

// Who keeps the pieces wants to know which of them few peers have: what is rare is worth
// more. Only Run knows, and it has no time to count for others; so when somebody has asked it
// leaves a copy of what it counts anyway, at most once in a while.

const (
	availabilityEvery = 10 * time.Second
	availabilityHolds = time.Minute
)

// availability is how many of the connected peers have what, some time ago.
type availability struct {
	at    time.Time
	seeds int      // have everything
	count []uint16 // of each piece: others that have it
	per   int      // units of a piece
}

// Available returns how many of the connected peers have the piece of a unit; negative: that is not
// known now. It never waits, and may be called from any goroutine.
func (t *Torrent) Available(unit int) int {
	a := t.available.Load()
	if a == nil || time.Since(a.at) > availabilityEvery {
		t.asked.Store(true) // with the next tick
	}
	if a == nil || time.Since(a.at) > availabilityHolds || unit/a.per >= len(a.count) {
		return -1
	}
	return a.seeds + int(a.count[unit/a.per])
}

// tellAvailability leaves the copy, if somebody wants it.
func (t *Torrent) tellAvailability() {
	if t.rare == nil || !t.asked.Swap(false) {
		return
	}
	a := &availability{at: time.Now(), count: t.rare.Counts(), per: t.grid.per}
	for c := range t.conns {
		if c.haveAll {
			a.seeds++
		}
	}
	t.available.Store(a)
}
