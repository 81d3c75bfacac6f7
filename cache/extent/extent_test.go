package extent

import "testing"

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		e           Extent
		n           int64
		first, last int64
	}{
		{Extent{0, 0}, 4, 0, 0},
		{Extent{9, -1}, 4, 0, 0},
		{Extent{0, 1}, 4, 0, 1},
		{Extent{0, 4}, 4, 0, 1},
		{Extent{3, 2}, 4, 0, 2},
		{Extent{4, 4}, 4, 1, 2},
		{Extent{1<<62 - 1, 1 << 62}, 1 << 61, 1, 4},
	} {
		if f, l := c.e.Units(c.n); f != c.first || l != c.last {
			t.Errorf("%v.Units(%d) = %d, %d; want %d, %d", c.e, c.n, f, l, c.first, c.last)
		}
	}
}

// FuzzAgainstBitmap compares every operation with a set of single bytes.
func FuzzAgainstBitmap(f *testing.F) {
	f.Add(byte(3), byte(9), byte(0), byte(200), byte(7))
	f.Fuzz(func(t *testing.T, aOff, aLen, bOff, bLen, unit byte) {
		a, b := Extent{int64(aOff), int64(aLen)}, Extent{int64(bOff), int64(bLen)}
		n, size := int64(unit)+1, int64(512)
		clip, align := a.Clip(b), a.Align(n, size)
		first, last := a.Units(n)
		for i := range int64(1024) {
			inA, inB := i >= a.Off && i < a.Off+a.Len, i >= b.Off && i < b.Off+b.Len
			if clip.Contains(i) != (inA && inB) {
				t.Fatalf("%v.Clip(%v) = %v at %d", a, b, clip, i)
			}
			if inA && !align.Contains(i) {
				t.Fatalf("%v.Align(%d) = %v misses %d", a, n, align, i)
			}
			if inA && (i/n < first || i/n >= last) {
				t.Fatalf("%v.Units(%d) = %d, %d misses %d", a, n, first, last, i)
			}
		}
		if a.Len > 0 && (first*n > a.Off || (last-1)*n >= a.End() || align.Off%n != 0) {
			t.Fatalf("%v units of %d too wide: %d %d %v", a, n, first, last, align)
		}
		if u := Unit(first, n, size); u.Len > n || u.End() > size {
			t.Fatalf("Unit(%d, %d, %d) = %v", first, n, size, u)
		}
	})
}
