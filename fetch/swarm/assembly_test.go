package swarm

import (
	"crypto/sha1"
	"hash"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// paper is a store of one unit in memory.
type paper struct {
	vast
	bytes []byte
	calls atomic.Int64
	good  bool
	loses bool
}

func (s *paper) WriteVec(v [][]byte, off int64) error {
	s.calls.Add(1)
	s.mu.Lock() // a block that was purged may be read to be hashed while it is written anew
	defer s.mu.Unlock()
	for _, p := range v {
		off += int64(copy(s.bytes[off:], p))
	}
	return nil
}

func (s *paper) ReadBack(p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(p, s.bytes[off:])
	if s.loses {
		p[0] ^= 1
	}
	return nil
}

func (s *paper) Commit(int, []byte) { s.good = true }

// Runs of blocks, cut and overlapping in any way, from two peers of which one lies, come to the
// same as single blocks: what was here stays, a wrong piece is known, and by which block.
func TestRunsOfBlocks(t *testing.T) {
	const n = 2*together + 5
	content, block := unitOf(n)
	rng := rand.New(rand.NewPCG(1, 2))
	leaves := make([]merkle.Hash, n)
	for b := range leaves {
		leaves[b] = merkle.Leaf(block(b))
	}
	for round := range 400 {
		store := &paper{bytes: make([]byte, len(content))}
		honest, liar := &conn{}, &conn{}
		var held atomic.Int64
		var as assembly
		proven, short := round%2 == 1, round%4 == 2
		if short {
			held.Store(maxHeld - int64(rng.IntN(3*wire.BlockSize)))
		}
		was := held.Load()
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
			for i := b; i < n && len(run) <= rng.IntN(maxRun); i++ {
				if i == bad && from == liar {
					run = append(run, wrong)
				} else {
					run = append(run, block(i))
				}
			}
			what := make([]outcome, len(run))
			before := store.calls.Load()
			if err := as.accept(b, run, what, from); err != nil {
				t.Fatal(err)
			}
			fresh := false
			for i, w := range what {
				here := taken[b+i]
				if here != (w == duplicate) {
					t.Fatalf("round %d: block %d was here: %v, and is taken as %d", round, b+i, here, w)
				}
				fresh = fresh || !here
				lying := from == liar && b+i == bad && !here
				lied = lied || lying
				if lying && proven != (w == lie) {
					t.Fatalf("round %d: the wrong block is taken as %d", round, w)
				}
				taken[b+i] = w != lie
				if w > duplicate {
					end = w
				}
			}
			if calls := store.calls.Load() - before; proven && (fresh != (calls > 0) || !slices.Contains(what, duplicate) && calls > 1) {
				t.Fatalf("round %d: %d writes of one run", round, calls)
			}
		}
		if calls := store.calls.Load(); !proven && !short && calls != 3 {
			t.Fatalf("round %d: %d writes of 3 groups", round, calls)
		}
		want := complete
		if lied && !proven {
			want = corrupt
		}
		if end != want || store.good != (want == complete) || held.Load() != was {
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

// unitOf returns n blocks, the last one short.
func unitOf(n int) (content []byte, block func(b int) []byte) {
	content = make([]byte, (n-1)*wire.BlockSize+4000)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(content)
	return content, func(b int) []byte { return content[b*wire.BlockSize : min((b+1)*wire.BlockSize, len(content))] }
}

// Peers bring blocks at once, one of them lies and is banned meanwhile, and there is little
// memory now and then: a piece that is committed has the right bytes, and a bad one names its liar.
func TestPeersBringBlocksAtOnce(t *testing.T) {
	const n = 3*together + 1
	content, block := unitOf(n)
	wrong := make([]byte, wire.BlockSize)
	ended := map[outcome]int{}
	for round := range 300 {
		store := &paper{bytes: make([]byte, len(content))}
		var held atomic.Int64
		if round%3 == 0 {
			held.Store(maxHeld - 5*wire.BlockSize)
		}
		was := held.Load()
		a := newPieceAssembly(0, len(content), 0, sha1.Sum(content), store, &held, func(int) bool { return false })
		liar := &conn{}
		var all sync.WaitGroup
		var end atomic.Int32
		bring := func(c *conn, rng *rand.Rand, tries int) {
			for range tries {
				b := rng.IntN(n)
				run := [][]byte(nil)
				for i, most := b, rng.IntN(maxRun); i < n && len(run) <= most; i++ {
					if c == liar && rng.IntN(4) == 0 {
						run = append(run, wrong[:len(block(i))])
					} else {
						run = append(run, block(i))
					}
				}
				what := make([]outcome, len(run))
				if err := a.accept(b, run, what, c); err != nil {
					t.Error(err)
				}
				for _, w := range what {
					if w > duplicate {
						end.Store(int32(w))
					}
				}
			}
		}
		for i := range 3 {
			all.Go(func() { bring(&conn{}, rand.New(rand.NewPCG(uint64(round), uint64(i))), 12) })
		}
		all.Go(func() { bring(liar, rand.New(rand.NewPCG(uint64(round), 9)), 3) })
		all.Go(func() {
			runtime.Gosched()
			if round%2 == 0 {
				liar.barred.Store(true)
				a.purge(liar)
			}
		})
		all.Wait()
		if round%2 == 0 {
			a.purge(liar) // what it claimed before it was barred, and brought after
		}
		last := &conn{}
		for b := range n { // what is still missing, once
			if end.Load() == 0 {
				var what [1]outcome
				if err := a.accept(b, [][]byte{block(b)}, what[:], last); err != nil {
					t.Fatal(err)
				}
				if what[0] > duplicate {
					end.Store(int32(what[0]))
				}
			}
		}
		how := outcome(end.Load())
		ended[how]++
		switch {
		case how != complete && how != corrupt, store.good != (how == complete):
			t.Fatalf("round %d: ended as %d, committed %v", round, how, store.good)
		case how == complete && !slices.Equal(store.bytes, content):
			t.Fatalf("round %d: committed other bytes", round)
		case how == corrupt && !slices.Contains(a.evidence().peers(), liar):
			t.Fatalf("round %d: the piece is bad without the liar", round)
		}
		if a.stop(); held.Load() != was {
			t.Fatalf("round %d: %d bytes are still held", round, held.Load()-was)
		}
	}
	if ended[complete] == 0 || ended[corrupt] == 0 {
		t.Errorf("ended only so: %v", ended)
	}
}

// What the disk lost of a bad piece before it was compared accuses nobody.
func TestLostBytesNameNoLiar(t *testing.T) {
	content, block := unitOf(2)
	var held atomic.Int64
	a := newPieceAssembly(0, len(content), 0, sha1.Sum([]byte("other")), &paper{bytes: make([]byte, len(content)), loses: true}, &held, func(int) bool { return false })
	var what [2]outcome
	if err := a.accept(0, [][]byte{block(0), block(1)}, what[:], &conn{}); err != nil {
		t.Fatal(err)
	}
	if ev := a.evidence(); what[1] != corrupt || ev.prints != nil || len(ev.liars(evidence{from: ev.from, prints: []uint64{1, 2}})) > 0 {
		t.Error(what[1], ev.prints)
	}
}

// A peer is banned while its run is hashed, and another brings its blocks anew: what the first
// sent is not looked at any more.
func TestBannedWhileItsRunIsHashed(t *testing.T) {
	content, block := unitOf(3)
	store := &paper{bytes: make([]byte, len(content))}
	var held atomic.Int64
	a := newPieceAssembly(0, len(content), 0, sha1.Sum(content), store, &held, func(int) bool { return false })
	liar, honest := &conn{}, &conn{}
	a.hash = &hooked{Hash: a.hash, once: func() {
		liar.barred.Store(true)
		if blocks := a.purge(liar); len(blocks) != 2 {
			t.Errorf("%d blocks are taken back", len(blocks))
		}
		var what [3]outcome
		if err := a.accept(0, [][]byte{block(0), block(1), block(2)}, what[:], honest); err != nil || what != [3]outcome{} {
			t.Error(what, err)
		}
	}}
	var what [2]outcome
	if err := a.accept(0, [][]byte{block(0), make([]byte, wire.BlockSize)}, what[:], liar); err != nil {
		t.Fatal(err)
	}
	if !store.good || !slices.Equal(store.bytes, content) || held.Load() != 0 {
		t.Errorf("ended as %d, committed %v, %d held", what[1], store.good, held.Load())
	}
}

// hooked calls once before its first Write.
type hooked struct {
	hash.Hash
	once func()
}

func (h *hooked) Write(p []byte) (int, error) {
	if f := h.once; f != nil {
		h.once = nil
		f()
	}
	return h.Hash.Write(p)
}
