package want

import (
	"slices"
	"time"
)

const (
	guess       = 300 * time.Millisecond // what a block takes of one that has given none
	probes      = 4                      // blocks that such a one is asked for in that time
	minPatience = 250 * time.Millisecond
	newMin      = 50 * time.Millisecond
	newPatience = time.Second // with one that has given none
	maxPatience = 4 * time.Second
	longest     = 8 * time.Second // with one that sends other things
	newLongest  = 2 * time.Second // with one that has given none
	moving      = time.Second     // since bytes came
	maxAnswers  = 64              // streams that one peer has to answer on: of more some would be reset
	maxOwes     = 256             // blocks that one peer is asked for at a time
	maxCome     = 16 << 20        // bytes of such
	minOwes     = 4               // however large they are
	newOwes     = 16              // that has given none
	packed      = 16 << 10        // bytes of small blocks that servers put into one answer
	askAgain    = time.Second     // after all were asked; doubled each time
	askMost     = 8 * time.Second
	maxRest     = 32 * time.Second
)

// openLocked reports whether somebody is asked for the block who is not late.
func (w *want) openLocked() bool {
	for _, q := range w.at {
		if q.open() {
			return true
		}
	}
	return false
}

// placeLocked asks one more peer for a block, and all whether they have it if nobody is
// known to.
func (c *Client) placeLocked(w *want, now time.Time) {
	r, sure, busy := c.chooseLocked(w, now)
	if r != nil {
		c.askLocked(w, r, true, now)
	} else if busy {
		if w.timer.Stop(); !w.held {
			w.held = true
			c.held = append(c.held, w)
		}
		return
	}
	if !sure && !w.spread {
		w.spread = true
		for _, other := range c.peers {
			if !other.deaf && !other.plain && w.at[other] == nil {
				c.askLocked(w, other, false, now)
			}
		}
	}
	c.armLocked(w, now)
}

// chooseLocked returns the peer that would have a block first, of those that were not asked
// for it. sure is whether it is known to have others of the group, or said to have this; busy
// that there are such, and that all of them have enough to do.
func (c *Client) chooseLocked(w *want, now time.Time) (best *remote, sure, busy bool) {
	const (
		knows = iota
		likely
		whoKnows
	)
	rank, least := whoKnows+1, time.Duration(0)
	there := 0
	for _, r := range c.peers {
		if !r.deaf {
			there++
		}
	}
	for _, r := range c.peers {
		q := w.at[r]
		if r.deaf || q != nil && (q.block || q.said == lacks) {
			continue
		}
		its := whoKnows
		switch {
		case q != nil && q.said == has, w.group.score[r] > 0:
			its = knows
			if r.owes >= r.room() {
				busy = true
				continue
			}
		case r.owes >= r.room():
			continue
		case len(w.at) == 0 && (there == 1 || r.gave > 0):
			its = likely
		case r.plain && w.spread: // it cannot be asked otherwise
		default:
			continue
		}
		if cost := r.costLocked(now); best == nil || its < rank || its == rank && cost < least {
			best, rank, least = r, its, cost
		}
	}
	return best, rank == knows, busy
}

// fillLocked asks for what was held, earliest due first, those who have room again.
func (c *Client) fillLocked(now time.Time) {
	if len(c.held) == 0 {
		return
	}
	all := c.held
	c.held = nil
	slices.SortStableFunc(all, func(a, b *want) int { return a.due.Compare(b.due) })
	full := map[*group]bool{}
	for i, w := range all {
		switch {
		case !c.roomLocked():
			c.held = append(c.held, all[i:]...)
			return
		case full[w.group] && len(w.at) == 0:
			c.held = append(c.held, w) // as the one before it
			continue
		}
		w.held = false
		c.placeLocked(w, now)
		full[w.group] = full[w.group] || w.held
	}
}

// roomLocked reports whether somebody could be asked for more.
func (c *Client) roomLocked() bool {
	for _, r := range c.peers {
		if !r.deaf && r.owes < r.room() {
			return true
		}
	}
	return false
}

// askLocked asks a peer for a block, or whether it has it.
func (c *Client) askLocked(w *want, r *remote, block bool, now time.Time) {
	q := w.at[r]
	if q == nil {
		q = &question{w: w}
		w.at[r], r.asked[w.key] = q, q
	} else if q.block || !block {
		return
	}
	q.since, q.block = now, block
	if block {
		r.owes++
		q.beside = r.owes
	}
	r.tellLocked(q)
}

// armLocked has a want be looked at again when the first of its questions is late, or when
// all begins anew.
func (c *Client) armLocked(w *want, now time.Time) {
	var at time.Time
	for r, q := range w.at {
		if q.open() {
			if t := r.lateAtLocked(q); at.IsZero() || t.Before(at) {
				at = t
			}
		}
	}
	if at.IsZero() {
		w.timer.Reset(min(askAgain<<min(w.rounds, 8), askMost))
		return
	}
	w.timer.Reset(max(at.Sub(now), time.Millisecond))
}

// look is called when a question of a want may be late, or when nobody is asked any more.
func (c *Client) look(w *want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.wants[w.key] != w {
		return
	}
	now := time.Now()
	waited, open := false, false
	for r, q := range w.at {
		if !q.open() {
			continue
		}
		if waited = true; now.Before(r.lateAtLocked(q)) {
			open = true
			continue
		}
		r.slipLocked(q, now)
	}
	switch {
	case open:
		c.armLocked(w, now)
	case waited:
		w.lates++
		for range 1 << min(w.lates-1, 3) {
			c.placeLocked(w, now)
		}
	default:
		c.beginLocked(w, now)
	}
	c.fillLocked(now)
}

// beginLocked asks all again, over new streams those that said nothing. Those of which
// something comes just now are left to it: they would send it twice.
func (c *Client) beginLocked(w *want, now time.Time) {
	w.rounds++
	w.spread = false
	for r, q := range w.at {
		if q.block && now.Sub(r.movedAt()) < moving {
			continue
		}
		if q.said == nothing && q.sent && r.heard.Before(q.since) {
			r.again = true
		}
		c.forgetLocked(w, r, false)
	}
	c.placeLocked(w, now)
}
