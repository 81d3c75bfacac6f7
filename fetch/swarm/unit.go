package swarm

import (
	"encoding/binary"

	"github.com/btmount/btmount/fetch/swarm/merkle"
)

// unitAssembly is one unit on its way, where the v2 tree rules. Every block has a hash
// of its own, so blocks are hashed in whatever order they come and none is copied.
// Once the leaves are proven, a wrong block is known when it comes, and who sent it;
// until then blocks wait for their proof, and a unit with all of them is not yet good.
type unitAssembly struct {
	blocks
	grid *grid

	// Guarded by mu.
	leaves  []merkle.Hash // proven; nil until they are
	sums    []merkle.Hash
	missing int // blocks
}

func newUnitAssembly(u int, g *grid, store Store, leaves []merkle.Hash) *unitAssembly {
	a := &unitAssembly{grid: g, leaves: leaves}
	a.missing = a.init(u, g.size(u), int64(u)*g.unit, store)
	a.sums = make([]merkle.Hash, a.missing)
	return a
}

func (a *unitAssembly) accept(b int, run [][]byte, what []outcome, from *conn) error {
	return a.claims(b, run, what, from, func(b int, run [][]byte, what []outcome) error { return a.take(b, run, what, from) })
}

// take writes and hashes blocks that were claimed.
func (a *unitAssembly) take(b int, run [][]byte, what []outcome, from *conn) error {
	err := a.write(b, run)
	var few [16]merkle.Hash
	sums := few[:0]
	for _, block := range run {
		sums = append(sums, merkle.Leaf(block))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.leaveLocked()
	for i, sum := range sums {
		a.state[b+i] = blockFree
		switch {
		case err != nil:
			what[i] = failed
		case from.barred.Load():
			what[i] = duplicate // banned while it was written
		case a.leaves != nil && sum != a.leaves[b+i]:
			what[i] = lie
		default:
			what[i] = stored
			a.state[b+i], a.from[b+i], a.sums[b+i] = blockHere, from, sum
			a.missing--
		}
	}
	if last := len(run) - 1; what[last] == stored && a.commitLocked() {
		what[last] = complete
	}
	return err
}

// commitLocked commits the unit if all of it is here and proven. It is called under
// the lock, so that stop can tell for certain whether it was.
func (a *unitAssembly) commitLocked() bool {
	if a.missing > 0 || a.leaves == nil || a.done {
		return false
	}
	a.done = true
	tag := a.grid.tag(a.leaves)
	a.store.Commit(a.index, tag[:])
	a.good = true
	return true
}

// prove gives the assembly its leaves. It returns the blocks that turn out wrong, by
// who sent them, and whether the unit is complete now.
func (a *unitAssembly) prove(leaves []merkle.Hash) (liars map[*conn][]int, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done || a.leaves != nil {
		return nil, false
	}
	a.leaves = leaves
	for b, sum := range a.sums {
		if a.state[b] != blockHere || sum == leaves[b] {
			continue
		}
		if liars == nil {
			liars = map[*conn][]int{}
		}
		liars[a.from[b]] = append(liars[a.from[b]], b)
		a.state[b], a.from[b] = blockFree, nil
		a.missing++
	}
	return liars, a.commitLocked()
}

// whole returns the leaves that the blocks have, nil while some are missing.
func (a *unitAssembly) whole() []merkle.Hash {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.missing > 0 {
		return nil
	}
	return a.sums
}

// purge leaves proven blocks alone: they are right, whoever sent them.
func (a *unitAssembly) purge(peer *conn) (blocks []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done || a.leaves != nil {
		return nil
	}
	for b, from := range a.from {
		if from == peer && a.state[b] == blockHere {
			a.state[b], a.from[b] = blockFree, nil
			a.missing++
			blocks = append(blocks, b)
		}
	}
	return blocks
}

func (a *unitAssembly) evidence() evidence {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := evidence{from: a.from}
	for _, sum := range a.sums {
		e.prints = append(e.prints, short(sum))
	}
	return e
}

// short is a leaf as evidence has it.
func short(leaf merkle.Hash) uint64 { return binary.LittleEndian.Uint64(leaf[:]) }
