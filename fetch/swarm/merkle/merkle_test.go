package merkle

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a whole tree, computed in the plainest way.
type model [][]Hash

func newModel(blocks int64, seed uint64) (m model) {
	r := rand.New(rand.NewPCG(seed, 1))
	layer := make([]Hash, 1<<Layers(blocks))
	for i := range blocks {
		for j := range layer[i] {
			layer[i][j] = byte(r.Uint32())
		}
	}
	m = model{layer}
	for len(layer) > 1 {
		up := make([]Hash, len(layer)/2)
		for i := range up {
			up[i] = Pair(layer[2*i], layer[2*i+1])
		}
		layer = up
		m = append(m, layer)
	}
	return m
}

func (m model) root() Hash { return m[len(m)-1][0] }

// tree is the Tree of the model with pieces of 2^piece blocks.
func (m model) tree(blocks int64, piece int, layer bool) *Tree {
	t := NewTree(m.root(), blocks*BlockSize-5, BlockSize<<piece, nil)
	if layer && t.Piece < t.Height {
		t.Learn(m[t.Piece], 0)
	}
	return t
}

func (m model) leaves(t *Tree, piece int) []Hash {
	per := int64(1) << t.Piece
	first := int64(piece) * per
	return m[0][first:min(first+per, t.Blocks)]
}

// An answer to every valid request is what the model says, proves itself, and proves
// nothing any more when a bit of it differs.
func TestEveryRequestOfManyTrees(t *testing.T) {
	for _, blocks := range []int64{1, 2, 3, 4, 5, 8, 9, 16, 31, 33} {
		for piece := range 5 {
			m := newModel(blocks, uint64(blocks))
			tree := m.tree(blocks, piece, true)
			bare := m.tree(blocks, piece, false)
			answered := 0
			for base := range uint32(tree.Height + 2) {
				for length := uint32(1); length <= 64; length *= 2 {
					for index := uint32(0); index < 40; index++ {
						for proof := range uint32(tree.Height + 2) {
							r := Request{m.root(), base, index, length, proof}
							if r.Valid(blocks) != nil {
								continue
							}
							got, ok := tree.Answer(r, func(p int) []Hash { return m.leaves(tree, p) })
							if !ok {
								if base == 0 || int(base) >= tree.Piece {
									t.Fatalf("%d blocks, piece layer %d: no answer to %+v", blocks, tree.Piece, r)
								}
								continue
							}
							answered++
							checkAnswer(t, m, tree, bare, r, got)
						}
					}
				}
			}
			if answered == 0 && blocks > 1 {
				t.Errorf("%d blocks: nothing answered", blocks)
			}
		}
	}
}

func checkAnswer(t *testing.T, m model, tree, bare *Tree, r Request, got []Hash) {
	t.Helper()
	if len(got) != r.Hashes() || !slices.Equal(got[:r.Length], m[r.Base][r.Index:r.Index+r.Length]) {
		t.Fatalf("wrong nodes for %+v", r)
	}
	nodes, first := r.Prove(got, r.Top())
	if !slices.Equal(nodes, m[r.Top()][first:first+int64(len(nodes))]) {
		t.Fatalf("%+v does not lead to layer %d", r, r.Top())
	}
	if top := r.Top(); top < tree.Height && (top < tree.Piece || int(r.Base) > tree.Piece || r.Uncles() > 0 && top > tree.Piece) {
		return // we never ask so
	}
	if !tree.Check(r, got) {
		t.Fatalf("%+v is refused", r)
	}
	if padding := int64(r.Index)<<r.Base >= tree.Blocks; !padding && bare.Check(r, got) != (r.Top() >= bare.Height || bare.Piece == bare.Height) {
		t.Fatalf("%+v is judged without the layer that it leads to", r)
	}
	for i := range got {
		got[i][7] ^= 1
		if tree.Check(r, got) {
			t.Fatalf("%+v passes with hash %d wrong", r, i)
		}
		got[i][7] ^= 1
	}
}

func TestOwnRequests(t *testing.T) {
	const blocks = 1000
	m := newModel(blocks, 3)
	for piece := range 7 {
		for _, known := range []bool{false, true} {
			tree := m.tree(blocks, piece, known)
			full := m.tree(blocks, piece, true)
			for block := int64(0); block < blocks; block += 37 {
				for _, r := range []Request{tree.LeafRequest(block, 64), tree.LayerRequest(int(block >> tree.Piece))} {
					if err := r.Valid(blocks); err != nil {
						t.Fatalf("%+v: %v", r, err)
					}
					got, ok := full.Answer(r, func(p int) []Hash { return m.leaves(full, p) })
					if !ok || !tree.Check(r, got) {
						t.Fatalf("piece layer %d, known %v: %+v is not answered so that it can be checked", piece, known, r)
					}
					if at := block >> r.Base; at < int64(r.Index) || at >= int64(r.Index+r.Length) {
						t.Fatalf("%+v is not about block %d", r, block)
					}
				}
			}
		}
	}
}

func TestRequestsOutOfTheTree(t *testing.T) {
	for _, r := range []Request{
		{},
		{Length: 1},
		{Length: 3},
		{Index: 1, Length: 2},
		{Length: 16},
		{Index: 8, Length: 2},
		{Base: 4, Length: 2},
		{Base: 1 << 31, Length: 2},
		{Index: 1 << 31, Length: 1 << 31},
		{Length: 1 << 31},
		{Length: 2, Proof: 3},
		{Length: 2, Proof: 1 << 31},
		{Index: 0xfffffffe, Length: 2},
		{Base: 0xffffffff, Index: 0xffffffff, Length: 0xffffffff, Proof: 0xffffffff},
	} {
		if r.Valid(7) == nil {
			t.Errorf("%+v passes for 7 blocks", r)
		}
	}
	if err := (Request{Length: 8}).Valid(7); err != nil {
		t.Error(err)
	}
}

func TestRootOfShortFiles(t *testing.T) {
	data := make([]byte, 3*BlockSize+1)
	for i := range data {
		data[i] = byte(i * i)
	}
	leaves := SumBlocks(data)
	want := Pair(Pair(leaves[0], leaves[1]), Pair(leaves[2], leaves[3]))
	if len(leaves) != 4 || Root(leaves, 0, 2) != want {
		t.Error("four leaves")
	}
	want = Pair(Pair(leaves[0], leaves[1]), Pair(leaves[2], Hash{}))
	if Root(leaves[:3], 0, 2) != want || Root(leaves[:3], 0, 3) != Pair(want, Pad(2)) {
		t.Error("three leaves, padded")
	}
}

// FuzzRequest: whatever a peer asks or answers, nothing panics, no answer is longer
// than its request says, and what passes is what the tree holds.
func FuzzRequest(f *testing.F) {
	f.Add(int64(9), 2, uint32(0), uint32(4), uint32(4), uint32(3), []byte("x"))
	f.Add(int64(33), 0, uint32(1), uint32(8), uint32(8), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, blocks int64, piece int, base, index, length, proof uint32, noise []byte) {
		if blocks < 1 || blocks > 200 || piece < 0 || piece > 10 {
			return
		}
		m := newModel(blocks, 5)
		tree := m.tree(blocks, piece, true)
		r := Request{m.root(), base, index, length, proof}
		if r.Valid(blocks) != nil {
			return
		}
		got, ok := tree.Answer(r, func(p int) []Hash { return m.leaves(tree, p) })
		if !ok {
			return
		}
		checkAnswer(t, m, tree, m.tree(blocks, piece, false), r, got)
		if len(noise) == 0 {
			return
		}
		for i, b := range noise[:min(len(noise), 32*len(got))] {
			got[i/32][i%32] ^= b
		}
		if tree.Check(r, got) && !slices.Equal(got[:r.Length], m[r.Base][index:index+length]) {
			t.Fatal("wrong hashes pass")
		}
	})
}
