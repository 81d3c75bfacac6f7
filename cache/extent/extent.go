// Package extent does arithmetic on byte ranges: it splits them into units,
// clips and compares them. It is a leaf and pure.
//
// A unit is the hash-checked part of an object: a piece of a torrent or a DAG
// block of a BTFS file. Unit u of size n covers the bytes [u*n, (u+1)*n).
package extent

// Extent is the half-open byte range [Off, Off+Len). Len <= 0 means empty.
type Extent struct{ Off, Len int64 }

// Between returns the extent [from, to); it is empty if to <= from.
func Between(from, to int64) Extent { return Extent{Off: from, Len: max(0, to-from)} }

// End returns the first offset after e.
func (e Extent) End() int64 { return e.Off + e.Len }

// Empty reports whether e holds no byte.
func (e Extent) Empty() bool { return e.Len <= 0 }

// Contains reports whether offset off lies in e.
func (e Extent) Contains(off int64) bool { return off >= e.Off && off < e.End() }

// Clip returns the part of e that lies in f.
func (e Extent) Clip(f Extent) Extent {
	return Between(max(e.Off, f.Off), min(e.End(), f.End()))
}

// Units returns the numbers [first, last) of the units of size n that e touches.
func (e Extent) Units(n int64) (first, last int64) {
	if e.Empty() {
		return 0, 0
	}
	return e.Off / n, (e.End()-1)/n + 1
}

// Unit returns the bytes of unit u of size n in an object of the given size.
func Unit(u, n, size int64) Extent {
	return Extent{Off: u * n, Len: n}.Clip(Extent{Len: size})
}

// Align widens e to multiples of n, clipped to [0, size).
func (e Extent) Align(n, size int64) Extent {
	if e.Empty() {
		return e
	}
	first, last := e.Units(n)
	return Between(first*n, min(last*n, size))
}
