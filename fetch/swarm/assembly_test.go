package swarm

import (
	"crypto/sha1"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// paper is a store of one unit in memory.
type paper struct {
	vast
	bytes []byte
	calls int
	good  bool
}

func (s *paper) WriteVec(v [][]byte, off int64) error {
	s.calls++
	for _, p := range v {
		off += int64(copy(s.bytes[off:], p))
	}
	return nil
}

func (s *paper) ReadBack(p []byte, off int64) error { copy(p, s.bytes[off:]); return nil }
func (s *paper) Commit(int, []byte)                 { s.good = true }

// Runs of blocks, cut and overlapping in any way, from two peers of which one lies, come to the
// same as single blocks: what was here stays, a wrong piece is known, and by which block.
func TestRunsOfBlocks(t *testing.T) {
	const n, last = 13, 4000
	content := make([]byte, (n-1)*wire.BlockSize+last)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	block := func(b int) []byte { return content[b*wire.BlockSize : min((b+1)*wire.BlockSize, len(content))] }
	leaves := make([]merkle.Hash, n)
	for b := range leaves {
		leaves[b] = merkle.Leaf(block(b))
	}
	for round := range 400 {
		store := &paper{bytes: make([]byte, len(content))}
		honest, liar := &conn{}, &conn{}
		var held atomic.Int64
		var as assembly
		proven := round%2 == 1
		if proven {
			u := &unitAssembly{grid: &grid{unit: int64(n * wire.BlockSize)}, leaves: leaves}
			u.missing = u.init(0, len(content), 0, store)
			u.sums = make([]merkle.Hash, n)
			as = u
		} else {
			as = newPieceAssembly(0, len(content), 0, sha1.Sum(content), store, &held, func(int) bool { return false })
		}
		bad := rng.IntN(n)
		wrong := slices.Clone(block(bad))
		wrong[rng.IntN(len(wrong))] ^= 1
		lied, end := false, stored
		taken := map[int]bool{}
		for end == stored || end == lie {
			b := rng.IntN(n)
			from, run := honest, [][]byte(nil)
			if rng.IntN(3) == 0 && !lied {
				from = liar
			}
			for i := b; i < n && len(run) <= rng.IntN(8); i++ {
				if i == bad && from == liar {
					run = append(run, wrong)
				} else {
					run = append(run, block(i))
				}
			}
			what := make([]outcome, len(run))
			before := store.calls
			if err := as.accept(b, run, what, from); err != nil {
				t.Fatal(err)
			}
			fresh := false
			for i, w := range what {
				was := taken[b+i]
				if was != (w == duplicate) {
					t.Fatalf("round %d: block %d was here: %v, and is taken as %d", round, b+i, was, w)
				}
				fresh = fresh || !was
				lying := from == liar && b+i == bad && !was
				lied = lied || lying
				if lying && proven != (w == lie) {
					t.Fatalf("round %d: the wrong block is taken as %d", round, w)
				}
				taken[b+i] = w != lie
				if w > duplicate {
					end = w
				}
			}
			if calls := store.calls - before; fresh != (calls > 0) || !slices.Contains(what, duplicate) && calls > 1 {
				t.Fatalf("round %d: %d writes of one run", round, calls)
			}
		}
		want := complete
		if lied && !proven {
			want = corrupt
		}
		if end != want || store.good != (want == complete) || held.Load() != 0 {
			t.Fatalf("round %d: ended as %d, want %d; committed %v, %d held", round, end, want, store.good, held.Load())
		}
		if want == complete && !slices.Equal(store.bytes, content) {
			t.Fatalf("round %d: other bytes", round)
		}
		if want == corrupt {
			again := newPieceAssembly(0, len(content), 0, sha1.Sum(content), store, &held, func(int) bool { return false })
			again.suspected()
			for b := range n {
				var what [1]outcome
				if err := again.accept(b, [][]byte{block(b)}, what[:], honest); err != nil {
					t.Fatal(err)
				}
			}
			if liars := as.evidence().liars(again.evidence()); len(liars) != 1 || liars[0] != liar {
				t.Fatalf("round %d: %d liars found", round, len(liars))
			}
		}
	}
}

// What the disk lost of a bad piece before it was compared accuses nobody.
func TestLostBytesNameNoLiar(t *testing.T) {
	content := make([]byte, 2*wire.BlockSize)
	store := &paper{bytes: make([]byte, len(content))}
	var held atomic.Int64
	a := newPieceAssembly(0, len(content), 0, sha1.Sum([]byte("other")), store, &held, func(int) bool { return false })
	var what [1]outcome
	for b := range 2 {
		if err := a.accept(b, [][]byte{content[:wire.BlockSize]}, what[:], &conn{}); err != nil {
			t.Fatal(err)
		}
		store.bytes[5] = 1
	}
	if ev := a.evidence(); what[0] != corrupt || ev.prints != nil || len(ev.liars(evidence{from: ev.from, prints: []uint64{1, 2}})) > 0 {
		t.Error(what[0], ev.prints)
	}
}
