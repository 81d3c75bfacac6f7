package picker

import "math/bits"

// Rarest orders pieces by how many peers have them, the rarest first: what is wanted of a
// swarm without a reader that waits is best taken where it may be gone soon, and gives us
// something that others lack. Pieces that equally many have are in no order.
//
// A peer that gains or loses one piece costs a swap, and a piece that comes or goes one per
// count that is in use; only a whole bitfield is walked through (100,000 pieces: 1 ms).
// Rejected: a heap (a logarithm, and no cheap walk in order), and to look for the rarest when
// it is wanted (all pieces, at each block).
//
// Who has everything is not counted: it makes no piece rarer than another.
type Rarest struct {
	count []uint16 // of each piece: peers that have it
	place []int32  // of each piece in order; -1: it is not in it
	order []int32
	// start[n] is where the pieces that n peers have begin in order. The last entry is
	// the end of it.
	start []int32
}

// NewRarest counts n pieces. None is in the order.
func NewRarest(n int) *Rarest {
	r := &Rarest{count: make([]uint16, n), place: make([]int32, n), start: []int32{0, 0}}
	for i := range r.place {
		r.place[i] = -1
	}
	return r
}

// Len returns how many pieces are in the order.
func (r *Rarest) Len() int { return len(r.order) }

// Count returns how many peers that do not have everything have a piece.
func (r *Rarest) Count(piece int) int { return int(r.count[piece]) }

// Counts returns what Count does of all pieces, as a copy.
func (r *Rarest) Counts() []uint16 { return append([]uint16(nil), r.count...) }

// Gained notes that a peer has a piece.
func (r *Rarest) Gained(piece int) {
	c := int(r.count[piece])
	if c == 1<<16-1 {
		return
	}
	for len(r.start) < c+3 {
		r.start = append(r.start, int32(len(r.order)))
	}
	r.count[piece]++
	if at := r.place[piece]; at >= 0 {
		r.start[c+1]--
		r.swap(at, r.start[c+1])
	}
}

// Lost notes that a peer has a piece no more, or is gone.
func (r *Rarest) Lost(piece int) {
	c := r.count[piece]
	if c == 0 {
		return
	}
	r.count[piece]--
	if at := r.place[piece]; at >= 0 {
		r.swap(at, r.start[c])
		r.start[c]++
	}
}

// Field calls Gained, or Lost, for every piece of a bitfield (BEP 3).
func (r *Rarest) Field(field []byte, gained bool) {
	for i, b := range field {
		for ; b != 0; b &= 0xff >> (bits.LeadingZeros8(b) + 1) {
			p := 8*i + bits.LeadingZeros8(b)
			switch {
			case p >= len(r.count):
				return
			case gained:
				r.Gained(p)
			default:
				r.Lost(p)
			}
		}
	}
}

// Set makes pieces, each at most once, the whole of the order.
func (r *Rarest) Set(pieces []int32) {
	for _, p := range r.order {
		r.place[p] = -1
	}
	r.order = make([]int32, len(pieces))
	clear(r.start)
	for _, p := range pieces {
		r.start[r.count[p]+1]++
	}
	for i := 1; i < len(r.start); i++ {
		r.start[i] += r.start[i-1]
	}
	for _, p := range pieces { // start[n] walks to the end of n's pieces
		c := r.count[p]
		r.put(p, r.start[c])
		r.start[c]++
	}
	copy(r.start[1:], r.start[:len(r.start)-1])
	r.start[0] = 0
}

// Add puts a piece into the order.
func (r *Rarest) Add(piece int) {
	if r.place[piece] >= 0 {
		return
	}
	top := len(r.start) - 1
	at := r.start[top]
	r.order = append(r.order, 0)
	r.start[top]++
	for n := top - 1; n > int(r.count[piece]); n-- { // the first of each makes room
		if first := r.start[n]; first != at {
			r.put(r.order[first], at)
			at = first
		}
		r.start[n]++
	}
	r.put(int32(piece), at)
}

// Remove takes a piece out of the order.
func (r *Rarest) Remove(piece int) {
	at := r.place[piece]
	if at < 0 {
		return
	}
	for n := int(r.count[piece]) + 1; n < len(r.start); n++ { // the last of each fills the gap
		r.start[n]--
		if last := r.start[n]; last != at {
			r.put(r.order[last], at)
			at = last
		}
	}
	r.order = r.order[:len(r.order)-1]
	r.place[piece] = -1
}

// Find returns the first piece from the place on that has is true for, and where to go on.
// It looks at most at so many pieces; -1: none of them, and 0 to go on means that this was
// the end.
func (r *Rarest) Find(has func(piece int) bool, place, most int) (piece, next int) {
	for i := place; i < len(r.order) && i < place+most; i++ {
		if p := int(r.order[i]); has(p) {
			return p, i
		}
	}
	if place+most < len(r.order) {
		return -1, place + most
	}
	return -1, 0
}

func (r *Rarest) put(piece, at int32) { r.order[at], r.place[piece] = piece, at }

func (r *Rarest) swap(a, b int32) {
	p, q := r.order[a], r.order[b]
	r.put(p, b)
	r.put(q, a)
}
