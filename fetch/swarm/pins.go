package swarm

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// What is pinned is fetched though nobody reads it, with what readers leave. Nobody waits
// for a piece of it, so the order is that which serves the swarm: rarest first (package
// picker), each piece by whoever has room. A piece is wanted only when a peer that has it
// has room for it, so no more are begun than are on their way.
//
// While somebody reads, pinned blocks fill only the path to a peer, and no queue beyond it
// (pipeline.Spare): whatever is asked stands before the blocks of the next seek.
//
// At the end peers run out of what to bring, while others are late with theirs. What is on
// its way then counts as due, so that the picker asks late blocks twice, where another peer
// is clearly sooner and within the same budget as for readers. Rejected: the classic endgame,
// everything asked of everybody, which on a line that is full makes all of it later.
//
// What can not be had (a full cache, a piece that nobody has right) is left out until the
// next look through the store, which also finds what is gone from it.

const (
	maxOpen   = 256  // pinned pieces on their way
	maxScan   = 1024 // pieces looked at, for one peer at a time
	mostUnits = 8192 // units of them
	// readFor is how long somebody counts as a reader after the last Fetch.
	readFor = 5 * time.Second
	// noHurry is the time that nothing pinned is due before.
	noHurry = 10_000 * time.Hour
)

// pins is what is pinned of a torrent. Run owns it.
type pins struct {
	t      *Torrent
	parts  []byte        // pieces, the first in the highest bit; nil: none
	open   map[int]*want // pieces on their way
	units  int           // wanted by them
	count  int           // of pieces that were opened
	read   time.Time     // last Fetch
	idle   time.Time     // when a peer had room and nothing to bring
	paused bool          // the store takes nothing
}

// Pin makes parts of the content what is pinned: fetched in the background, rarest pieces
// first, whether it is read or not. It replaces what was pinned before; nothing is pinned
// without parts. Call it after Attach.
func (t *Torrent) Pin(parts ...extent.Extent) {
	c := t.served.Load()
	if c == nil {
		return
	}
	n := c.info.NumPieces()
	field := make([]byte, (n+7)/8)
	var missing []int32
	for _, e := range parts {
		e = e.Clip(extent.Extent{Len: c.info.Length})
		first, last := e.Units(c.info.PieceLength)
		for p := int(first); p < int(last); p++ {
			if bit := byte(0x80) >> (p % 8); field[p/8]&bit == 0 {
				field[p/8] |= bit
				if u, _ := c.grid.of(p); !c.grid.all(u, c.store.Has) {
					missing = append(missing, int32(p))
				}
			}
		}
	}
	if len(parts) == 0 {
		field = nil
	}
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	t.post(func() { t.pins.set(field, missing) })
}

func (s *pins) set(parts []byte, missing []int32) {
	s.parts, s.paused = parts, false
	for _, w := range s.open {
		s.t.unwantPieces(w)
		s.closed(w)
	}
	s.t.rare.Set(missing)
	s.t.fresh = true
}

// missing reports whether something is pinned that nobody was asked for yet.
func (s *pins) missing() bool { return s.t.rare != nil && s.t.rare.Len() > 0 && !s.paused }

// want wants more pinned pieces that c has, of room blocks together; ok: there are some.
func (s *pins) want(c *conn, room int) (ok bool) {
	t := s.t
	for room > 0 && s.missing() && len(s.open) < maxOpen && s.units < mostUnits {
		var p int
		if p, c.scanned = t.rare.Find(c.has, c.scanned, maxScan); p < 0 {
			break
		}
		t.rare.Remove(p)
		if n := s.begin(p); n > 0 {
			room -= n
			ok = true
		}
	}
	if !ok && (c.scanned == 0 || t.rare.Len() == 0) && len(s.open) > 0 {
		s.idle = t.clock
	}
	return ok
}

// begin wants the units of a piece that are not there, and returns their blocks.
func (s *pins) begin(p int) (blocks int) {
	t := s.t
	s.count++
	first, last := t.grid.of(p)
	w := &want{first: first, last: last, class: picker.Background, due: t.clock.Add(noHurry + time.Duration(s.count)), done: make(chan error, 1)}
	for u := first; u < last; u++ {
		size := t.grid.size(u)
		if size == 0 || t.store.Known(u) {
			continue
		}
		w.missing++
		t.wants[u] = append(t.wants[u], w)
		t.pick(u)
		blocks += (size + wire.BlockSize - 1) / wire.BlockSize
	}
	if w.missing > 0 {
		s.open[p] = w
		s.units += last - first
	}
	return blocks
}

// closed forgets a piece that is not on its way any more.
func (s *pins) closed(w *want) {
	if p := s.t.grid.piece(w.first); s.open[p] == w {
		delete(s.open, p)
		s.units -= w.last - w.first
	}
}

// failed notes that a piece can not be had.
func (s *pins) failed(w *want, err error) {
	s.closed(w)
	if c := (*CorruptError)(nil); !errors.As(err, &c) && !s.paused {
		s.paused = true
		s.t.log.Warn("what is pinned is not fetched for now", "err", err)
	}
}

// part gives pieces back that nobody who is connected has.
func (s *pins) part() {
	for p, w := range s.open {
		if !s.t.anybody(p) {
			s.t.unwantPieces(w)
			s.closed(w)
			s.t.rare.Add(p)
		}
	}
}

func (t *Torrent) anybody(piece int) bool {
	for c := range t.conns {
		if c.has(piece) {
			return true
		}
	}
	return false
}

// hurry makes pieces due all of which was asked for, if a peer has nothing else to bring.
func (s *pins) hurry() {
	if s.idle.IsZero() || s.t.clock.Sub(s.idle) > tickBusy*2 {
		return
	}
	for _, w := range s.open {
		if w.due.After(s.t.clock) && s.asked(w) {
			w.due = s.t.clock
			for u := w.first; u < w.last; u++ {
				if s.t.picks.Find(u) != nil {
					s.t.pick(u)
				}
			}
		}
	}
}

// asked reports whether all blocks of a piece are here or on their way.
func (s *pins) asked(w *want) bool {
	for u := w.first; u < w.last; u++ {
		if p := s.t.picks.Find(u); p != nil && p.Free() > 0 {
			return false
		}
	}
	return true
}

// looked compares with what the store has.
func (s *pins) looked(v *survey) {
	if s.parts == nil {
		return
	}
	s.paused = false
	for i, b := range s.parts {
		for p := 8 * i; b&^v.have[i] != 0 && p < 8*i+8; p++ {
			if b&(0x80>>(p%8)) != 0 && !v.has(p) && s.open[p] == nil {
				s.t.rare.Add(p)
				s.t.fresh = true
			}
		}
	}
}

// hungry reports whether anything is wanted.
func (t *Torrent) hungry() bool {
	return t.store != nil && (t.picks.Len() > 0 || t.pins.missing())
}

// reading reports whether somebody reads, or did just now.
func (t *Torrent) reading() bool {
	return t.clock.Sub(t.pins.read) < readFor || t.picks.Reading()
}
