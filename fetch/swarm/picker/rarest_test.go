package picker

import (
	"math/rand/v2"
	"testing"
)

// check compares with what was counted by hand.
func (r *Rarest) check(t *testing.T, count []int, in map[int]bool) {
	t.Helper()
	if r.Len() != len(in) || int(r.start[len(r.start)-1]) != len(in) {
		t.Fatalf("%d pieces, %v; should be %d", r.Len(), r.start, len(in))
	}
	last := 0
	for i, p := range r.order {
		c := r.Count(int(p))
		if !in[int(p)] || int(r.place[p]) != i || c < last || c != count[p] || int(r.start[c]) > i || int(r.start[c+1]) <= i {
			t.Fatalf("place %d: piece %d, count %d after %d, should be %d; %v", i, p, c, last, count[p], r.start)
		}
		last = c
	}
	for p, c := range count {
		if r.Count(p) != c || !in[p] && r.place[p] != -1 {
			t.Fatalf("piece %d: count %d, should be %d; place %d", p, r.Count(p), c, r.place[p])
		}
	}
}

func TestRarest(t *testing.T) {
	const n = 100
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		r := NewRarest(n)
		count, in := make([]int, n), map[int]bool{}
		var fields [][]byte
		for range 400 {
			p := rnd.IntN(n)
			switch rnd.IntN(7) {
			case 0:
				r.Add(p)
				in[p] = true
			case 1:
				r.Remove(p)
				delete(in, p)
			case 2:
				r.Gained(p)
				count[p]++
			case 3:
				r.Lost(p)
				count[p] = max(0, count[p]-1)
			case 4:
				field := make([]byte, n/8+2) // with bits beyond the end
				for i := range field {
					field[i] = byte(rnd.Uint32())
				}
				field[len(field)-1] = 0xff
				fields = append(fields, field)
				r.Field(field, true)
				for p := range n {
					count[p] += int(field[p/8] >> (7 - p%8) & 1)
				}
			case 5:
				if len(fields) > 0 {
					field := fields[0]
					fields = fields[1:]
					r.Field(field, false)
					for p := range n {
						count[p] = max(0, count[p]-int(field[p/8]>>(7-p%8)&1))
					}
				}
			case 6:
				if rnd.IntN(20) > 0 {
					break
				}
				var some []int32
				clear(in)
				for _, p := range rnd.Perm(n)[:rnd.IntN(n)] {
					some, in[p] = append(some, int32(p)), true
				}
				r.Set(some)
			}
			r.check(t, count, in)
		}
	}
}

// The search goes on where it stopped, and begins anew at the end.
func TestRarestFind(t *testing.T) {
	r := NewRarest(10)
	r.Set([]int32{7, 8, 9, 1, 2, 3})
	for _, p := range []int{1, 2, 3} {
		r.Gained(p)
	}
	r.Gained(1)
	only := func(q int) func(int) bool { return func(p int) bool { return p == q } }
	if p, _ := r.Find(func(int) bool { return true }, 0, 100); p < 7 {
		t.Errorf("piece %d is not the rarest", p)
	}
	if p, next := r.Find(only(1), 0, 4); p != -1 || next != 4 {
		t.Errorf("piece %d, go on at %d", p, next)
	}
	if p, next := r.Find(only(1), 4, 4); p != 1 || next != 5 {
		t.Errorf("piece %d at %d", p, next)
	}
	if p, next := r.Find(only(0), 4, 4); p != -1 || next != 0 {
		t.Errorf("piece %d, go on at %d", p, next)
	}
}

func BenchmarkRarestField(b *testing.B) {
	const n = 100_000
	r := NewRarest(n)
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(i)
	}
	r.Set(all)
	field := make([]byte, n/8)
	for i := range field {
		field[i] = byte(rand.Uint32())
	}
	for b.Loop() {
		r.Field(field, true)
		r.Field(field, false)
	}
}
