package swarm

import "time"

// What the store has changes behind the torrent's back: units are evicted. To look through
// all of it takes milliseconds where there are a million units, and Run has no such time
// (see the package doc), so a goroutine does it, at most once in a while, and Run keeps
// what it found up to date with what lands. Peers may be told of pieces that were evicted
// since: what they ask of those is rejected, and the next look tells those who understand
// (extras.go).

// survey is what a store has.
type survey struct {
	have  []byte // pieces, the first in the highest bit
	count int    // of them
	left  int64  // bytes of content that it does not have
}

const surveyEvery = time.Minute

// survey looks through a store.
func (g *grid) survey(s Store) survey {
	v := survey{left: g.content()}
	missing := make([]int32, g.info.NumPieces())
	for p := range missing {
		if missing[p] = 1; g.per > 1 {
			missing[p] = int32(min(g.per, g.units()-p*g.per))
		}
	}
	// A unit of padding alone is never there.
	for i, f := range g.file {
		end := f.Offset + f.Length
		next := g.info.Length
		if i+1 < len(g.file) {
			next = g.file[i+1].Offset
		}
		for u := int((end + g.unit - 1) / g.unit); int64(u)*g.unit < next; u++ {
			missing[g.piece(u)]--
		}
	}
	at := 0 // the file of the unit; they come in order
	s.Each(func(u int) {
		size := min(g.unit, g.info.Length-int64(u)*g.unit)
		if g.tree {
			for at+1 < len(g.file) && g.file[at+1].Offset <= int64(u)*g.unit {
				at++
			}
			size = min(size, g.file[at].Offset+g.file[at].Length-int64(u)*g.unit)
		}
		if size > 0 {
			v.left -= size
			missing[u/g.per]--
		}
	})
	v.have = make([]byte, (len(missing)+7)/8)
	for p, n := range missing {
		if n == 0 {
			v.have[p/8] |= 0x80 >> (p % 8)
			v.count++
		}
	}
	return v
}

// content returns the bytes of content: without the padding of a v2 torrent.
func (g *grid) content() (n int64) {
	if !g.tree {
		return g.info.Length
	}
	for _, f := range g.file {
		n += f.Length
	}
	return n
}

func (v *survey) has(p int) bool { return v.have[p/8]&(0x80>>(p%8)) != 0 }

func (v *survey) add(p int) {
	if !v.has(p) {
		v.have[p/8] |= 0x80 >> (p % 8)
		v.count++
	}
}

// stale reports whether it is time for a look: something is pinned, or somebody is connected
// who would be told of what is not there any more.
func (t *Torrent) stale() bool {
	if t.store == nil || t.clock.Sub(t.looked) < surveyEvery {
		return false
	}
	if t.pins.parts != nil {
		return true
	}
	if t.client.cfg.NoUpload {
		return false
	}
	for c := range t.conns {
		if c.theirs["lt_donthave"] != 0 {
			return true
		}
	}
	return false
}

// look has the store looked through.
func (t *Torrent) look() {
	if t.looking {
		return
	}
	t.looking, t.looked, t.during, t.moved = true, t.clock, nil, false
	g, store := t.grid, t.store
	t.pool.background(t.pool.group, "a look through the store", func() error { // ends with the look
		v := g.survey(store)
		t.post(func() { t.surveyed(v) })
		return nil
	})
}

// surveyed takes in what was found. How much is left is believed only if nothing landed
// meanwhile, which may be counted or not.
func (t *Torrent) surveyed(v survey) {
	t.looking = false
	for _, p := range t.during {
		v.add(p)
	}
	t.tellLost(t.stock.gone(&v))
	t.stock = v
	t.pins.looked(&v)
	if (t.doubt || t.complete() && v.left > 0) && !t.moved {
		t.doubt = false
		t.left.Store(v.left)
		for c := range t.conns {
			t.interest(c)
		}
	}
}

// recount is called when a torrent that was complete misses a unit: it was evicted, and
// perhaps others were. Peers are told that we are interested again.
func (t *Torrent) recount() {
	t.doubt = true
	t.left.Store(1)
	for c := range t.conns {
		t.interest(c)
	}
	t.look()
}

// stocked notes a unit that landed, whose piece is whole now or not.
func (t *Torrent) stocked(size int64, piece int, whole bool) {
	if left := t.left.Add(-size); t.doubt && left < 1 {
		t.left.Store(1) // until it is known
	}
	t.moved = true
	if whole {
		t.stock.add(piece)
		if t.looking {
			t.during = append(t.during, piece)
		}
	}
}
