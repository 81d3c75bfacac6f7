// Package merkle is the arithmetic of BEP 52's hash trees: layers, the hash requests
// that peers exchange, and the proofs in their answers. It is pure.
//
// Every file has a tree of its own. Layer 0 holds the leaves, the SHA-256 of each 16
// KiB block of the file, and each layer above has half as many nodes, up to the root,
// which the metadata names. Behind the last block the leaf layer is filled up to a
// power of two with zeros: not with hashes of zeros. The layer whose nodes cover one
// piece each is the piece layer; a .torrent has it for files longer than a piece.
//
// Nothing in a request or an answer is believed: Valid bounds a request before
// anything is allocated for it, and the length of an answer follows from its request.
package merkle

import (
	"crypto/sha256"
	"errors"
	"math/bits"
	"slices"
)

// BlockSize is the length of what a leaf covers.
const BlockSize = 16 << 10

// Hash is a node of a tree.
type Hash = [sha256.Size]byte

// Leaf returns the leaf of a block; the last one of a file is shorter.
func Leaf(block []byte) Hash { return sha256.Sum256(block) }

// Pair returns the parent of two nodes.
func Pair(a, b Hash) Hash {
	var pair [2 * sha256.Size]byte
	copy(pair[:], a[:])
	copy(pair[sha256.Size:], b[:])
	return sha256.Sum256(pair[:])
}

// Blocks returns how many blocks a file of n bytes has.
func Blocks(n int64) int64 { return (n + BlockSize - 1) / BlockSize }

// Layers returns how many layers there are above the leaves of a file with n blocks.
func Layers(n int64) int {
	if n <= 1 {
		return 0
	}
	return bits.Len64(uint64(n - 1))
}

// Pad returns the node of a layer that covers no block at all.
func Pad(layer int) (h Hash) {
	for range layer {
		h = Pair(h, h)
	}
	return h
}

// Up returns the layer above: half as many nodes, the last paired with pad if it is
// alone.
func Up(nodes []Hash, pad Hash) []Hash {
	out := make([]Hash, 0, (len(nodes)+1)/2)
	for i := 0; i+1 < len(nodes); i += 2 {
		out = append(out, Pair(nodes[i], nodes[i+1]))
	}
	if len(nodes)%2 == 1 {
		out = append(out, Pair(nodes[len(nodes)-1], pad))
	}
	return out
}

// Root returns the node that is up layers above nodes of a layer, which it covers
// all; what they lack is padding.
func Root(nodes []Hash, layer, up int) Hash {
	if len(nodes) == 0 {
		return Pad(layer + up)
	}
	pad := Pad(layer)
	for range up {
		nodes, pad = Up(nodes, pad), Pair(pad, pad)
	}
	return nodes[0]
}

// SumBlocks returns the leaves of data that begins at a block's edge.
func SumBlocks(data []byte) (leaves []Hash) {
	for b := range slices.Chunk(data, BlockSize) {
		leaves = append(leaves, Leaf(b))
	}
	return leaves
}

// Request asks for Length nodes of layer Base, from node Index on, and for the uncles
// that lead from them up: Proof layers above Base, of which those that follow from
// the nodes themselves are left out.
type Request struct {
	Root                       Hash
	Base, Index, Length, Proof uint32
}

// MaxLength bounds Length: libtorrent asks for the leaves of a whole piece.
const MaxLength = 8192

var errRequest = errors.New("hash request out of the tree")

// Valid returns an error unless the request fits a file of n blocks.
func (r Request) Valid(n int64) error {
	layers := uint32(Layers(n))
	switch {
	case r.Length < 2 || r.Length > MaxLength || r.Length&(r.Length-1) != 0 || r.Index%r.Length != 0:
		return errRequest
	case r.Base > layers || uint64(r.Index)+uint64(r.Length) > 1<<(layers-r.Base):
		return errRequest
	case r.Proof > 0 && r.Proof >= layers-r.Base:
		return errRequest
	}
	return nil
}

// height is how many layers the nodes themselves lead up.
func (r Request) height() int { return bits.Len32(r.Length) - 1 }

// Uncles returns how many proof nodes an answer has.
func (r Request) Uncles() int { return max(0, int(r.Proof)+1-r.height()) }

// Hashes returns how many hashes an answer has.
func (r Request) Hashes() int { return int(r.Length) + r.Uncles() }

// Top returns the layer to which an answer leads.
func (r Request) Top() int {
	if r.Uncles() == 0 {
		return int(r.Base) + r.height()
	}
	return int(r.Base) + int(r.Proof) + 1
}

// Prove returns the nodes of layer top, at or above Base, that an answer with the
// right number of hashes leads to; the first of them is node first of that layer.
// Whoever knows that layer compares.
func (r Request) Prove(hashes []Hash, top int) (nodes []Hash, first int64) {
	nodes, first = hashes[:r.Length], int64(r.Index)
	layer := int(r.Base)
	for ; layer < top && len(nodes) > 1; layer++ {
		nodes, first = Up(nodes, Hash{}), first/2
	}
	for _, uncle := range hashes[r.Length:] {
		if layer == top {
			break
		}
		h := nodes[0]
		if first%2 == 0 {
			h = Pair(h, uncle)
		} else {
			h = Pair(uncle, h)
		}
		nodes, first, layer = []Hash{h}, first/2, layer+1
	}
	return nodes, first
}
