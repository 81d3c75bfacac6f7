package picker

import (
	"slices"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Twice is a block to be asked of one more peer.
type Twice struct {
	Peer *Peer
	Request
}

// Hedge returns the blocks that are worth asking again, at most budget bytes of them, and
// no more than spare of what nobody reads.
//
// A piece is there when its last block is. So the block that is predicted to come
// last is asked again, of who would bring it soonest, then the one that is last now,
// and so on, until the last one cannot be had clearly sooner: speeding up any other
// block would be waste.
func (k *Picker) Hedge(s *Swarm, budget, spare int) (twice []Twice) {
	if len(s.peers) < 2 {
		return nil
	}
	var at map[blockID]time.Time
	for _, p := range k.pieces {
		if p.Class == Background {
			budget = min(budget, spare)
		}
		if p.Class != Urgent && p.Due.After(s.now.Add(time.Second)) || budget < wire.BlockSize {
			break
		}
		if p.Only != nil || p.free > 0 {
			continue // free blocks are asked for the first time before any other twice
		}
		if at == nil {
			at = s.predict()
		}
		for budget >= wire.BlockSize {
			t, ok := k.again(p, at, s)
			if !ok {
				break
			}
			twice = append(twice, t)
			budget -= t.Size
			if p.Class == Background {
				spare -= t.Size
			}
		}
	}
	return twice
}

// blockID names a block of the torrent.
type blockID struct{ piece, block int }

// predict returns when each block on the way will come, the soonest of its owners.
func (s *Swarm) predict() map[blockID]time.Time {
	n := 0
	for _, q := range s.peers {
		n += len(q.Asked)
	}
	at := make(map[blockID]time.Time, n)
	for _, q := range s.peers {
		ahead := 0
		for _, r := range q.Asked {
			ahead += r.Size
			id, when := blockID{r.Piece, r.Block}, q.Pipe.Arrival(s.now, ahead)
			if late := s.now.Sub(r.Due); late > 0 && r.Skipped > 0 {
				// A seed that checks this piece serves others meanwhile.
				if stuck := s.now.Add(late * 7 / 10); stuck.After(when) {
					when = stuck
				}
			}
			if old, ok := at[id]; !ok || when.Before(old) {
				at[id] = when
			}
		}
	}
	return at
}

// again asks the block of p that will come last of the peer that would bring it
// clearly sooner, if there is one and the piece is not in time anyway.
func (k *Picker) again(p *Piece, at map[blockID]time.Time, s *Swarm) (Twice, bool) {
	last, when := -1, time.Time{}
	for b := range p.blocks {
		if t := at[blockID{p.Index, b}]; p.blocks[b].n > 0 && !p.blocks[b].here && t.After(when) {
			last, when = b, t
		}
	}
	if last < 0 || !when.After(p.Due) {
		return Twice{}, false
	}
	bl, size := &p.blocks[last], p.BlockSize(last)
	if int(bl.n) == maxOwners {
		return Twice{}, false
	}
	var best *Peer
	var soonest time.Time
	for _, q := range s.peers {
		// Of who is not known one block is asked, and when that came another: it may be what
		// the reader of a slow peer waits for, and there is nothing else to know it by.
		if !p.may(q, s.now) || !q.Pipe.Known() && q.Pipe.Outstanding() > 0 || slices.Contains(bl.owners[:bl.n], q) {
			continue
		}
		if finish := q.Pipe.Finish(s.now, size); best == nil || finish.Before(soonest) {
			best, soonest = q, finish
		}
	}
	if wait := when.Sub(s.now); best == nil || soonest.Add(gain+wait/4).After(when) {
		return Twice{}, false
	}
	bl.owners[bl.n] = best
	bl.n++
	at[blockID{p.Index, last}] = soonest
	return Twice{Peer: best, Request: best.ask(p.Index, last, size, s.now, soonest)}, true
}
