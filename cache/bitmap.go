package cache

import "math/bits"

// bitmap is a fixed-size set of unit numbers.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

// setRange adds [first, last).
func (b bitmap) setRange(first, last int64) {
	for i := int(first); i < int(last); i++ {
		b.set(i)
	}
}

// word returns the bits of word w that lie in [first, last).
func (b bitmap) word(w, first, last int) uint64 {
	v := b[w]
	if lo := w * 64; first > lo {
		v &= ^uint64(0) << (first - lo)
	}
	if hi := (w + 1) * 64; last < hi {
		v &= ^uint64(0) >> (hi - last)
	}
	return v
}

// count returns how many of [first, last) are in the set.
func (b bitmap) count(first, last int) int {
	n := 0
	if first >= last {
		return 0
	}
	for w := first / 64; w <= (last-1)/64; w++ {
		n += bits.OnesCount64(b.word(w, first, last))
	}
	return n
}

// all reports whether every number of [first, last) is in the set.
func (b bitmap) all(first, last int) bool {
	if last-first == 1 {
		return b.has(first)
	}
	return b.count(first, last) == last-first
}

// any reports whether some number of [first, last) is in the set.
func (b bitmap) any(first, last int) bool {
	if first >= last {
		return false
	}
	for w := first / 64; w <= (last-1)/64; w++ {
		if b.word(w, first, last) != 0 {
			return true
		}
	}
	return false
}
