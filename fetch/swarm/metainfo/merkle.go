package metainfo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

const blockLength = 16 << 10 // the leaves of BEP 52's trees

// pairHash is the parent of two nodes.
func pairHash(a, b [32]byte) [32]byte {
	var pair [64]byte
	copy(pair[:32], a[:])
	copy(pair[32:], b[:])
	return sha256.Sum256(pair[:])
}

// padNode is the root of a tree over a whole piece without content, which stands
// for the pieces past the end of a file: BEP 52 fills up with zero leaves, not
// with the hashes of zero blocks.
func padNode(pieceLength int64) (h [32]byte) {
	for n := pieceLength / blockLength; n > 1; n /= 2 {
		h = pairHash(h, h)
	}
	return h
}

// merkleRoot is the root over nodes (32 bytes each, at least one), filled up
// with pad to a power of two.
func merkleRoot(nodes []byte, pad [32]byte) (root [32]byte) {
	layer := bytes.Clone(nodes)
	for len(layer) > 32 {
		if len(layer)%64 != 0 {
			layer = append(layer, pad[:]...)
		}
		for i := 0; i < len(layer); i += 64 {
			h := sha256.Sum256(layer[i : i+64])
			copy(layer[i/2:], h[:])
		}
		layer = layer[:len(layer)/2]
		pad = pairHash(pad, pad)
	}
	copy(root[:], layer)
	return root
}

// parseLayers reads "piece layers" and checks each against the root it claims.
// Layers of roots that no file has are dropped. A file without its layer is
// accepted: its hashes can still come from peers.
func parseLayers(v value, in *Info) (map[[32]byte][]byte, error) {
	if !in.V2 || v.kind() == 0 {
		return nil, nil
	}
	if v.kind() != 'd' {
		return nil, errors.New("piece layers is not a dict")
	}
	found := make(map[[32]byte][]byte)
	for k, item := range v.pairs() {
		layer, ok := item.bytes()
		if len(k) != 32 || !ok {
			return nil, errors.New("piece layers: an entry is not a string under a 32-byte root")
		}
		found[[32]byte(k)] = layer
	}
	layers := make(map[[32]byte][]byte)
	pad := padNode(in.PieceLength)
	for i := range in.Files {
		f := &in.Files[i]
		layer, ok := found[f.Root]
		if !ok || f.Length <= in.PieceLength {
			continue // such a file's root covers its only piece
		}
		if need := (f.Length + in.PieceLength - 1) / in.PieceLength * 32; int64(len(layer)) != need {
			return nil, fmt.Errorf("%s: piece layer of %d bytes, must be %d", f.label(), len(layer), need)
		}
		if _, done := layers[f.Root]; done {
			continue
		}
		if merkleRoot(layer, pad) != f.Root {
			return nil, fmt.Errorf("%s: piece layer does not match its pieces root", f.label())
		}
		layers[f.Root] = bytes.Clone(layer)
	}
	return layers, nil
}
