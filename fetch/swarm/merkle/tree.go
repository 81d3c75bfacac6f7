package merkle

// Tree is what is known of the tree of one file: its root, and its piece layer if a
// .torrent had it or peers proved it. It is not safe for concurrent use.
type Tree struct {
	Root   Hash
	Blocks int64
	Height int // layers above the leaves
	Piece  int // number of the piece layer, at most Height

	layer []Hash   // nodes of the piece layer; unknown ones are zeros
	have  int      // how many of them are known
	upper [][]Hash // layers above it, made when somebody asks
}

// NewTree returns the tree of a file of length bytes in pieces of pieceLength. layer
// is its piece layer, 32 bytes a node, or nil; it was compared with the root.
func NewTree(root Hash, length, pieceLength int64, layer []byte) *Tree {
	n := Blocks(length)
	t := &Tree{Root: root, Blocks: n, Height: Layers(n)}
	t.Piece = min(Layers(pieceLength/BlockSize), t.Height)
	t.layer = make([]Hash, (n+1<<t.Piece-1)>>t.Piece)
	switch {
	case t.Piece == t.Height:
		t.layer[0], t.have = root, 1
	case len(layer) == 32*len(t.layer):
		for i := range t.layer {
			t.layer[i] = Hash(layer[32*i:])
		}
		t.have = len(t.layer)
	}
	return t
}

// Pieces returns how many pieces the file has.
func (t *Tree) Pieces() int { return len(t.layer) }

// PieceNode returns the node of a piece of the file; ok=false: not known.
func (t *Tree) PieceNode(piece int) (h Hash, ok bool) {
	h = t.layer[piece]
	return h, h != Hash{}
}

// Complete reports whether the whole piece layer is known.
func (t *Tree) Complete() bool { return t.have == len(t.layer) }

// Learn notes proven nodes of the piece layer. What lies behind the last piece is
// left out.
func (t *Tree) Learn(nodes []Hash, first int64) {
	for i, h := range nodes {
		if at := first + int64(i); at < int64(len(t.layer)) && t.layer[at] == (Hash{}) {
			t.layer[at] = h
			t.have++
		}
	}
}

// LayerRequest returns the request for the chunk of the piece layer that has a piece,
// proven up to the root. 512 nodes are what BEP 52 recommends, and all that libtorrent
// answers.
func (t *Tree) LayerRequest(piece int) Request {
	n := min(512, 1<<(t.Height-t.Piece))
	return t.request(t.Piece, int64(piece)/int64(n)*int64(n), n, t.Height)
}

// LeafRequest returns the request for n leaves, a power of two, that have a block,
// proven up to the piece layer if that is known, else to the root.
func (t *Tree) LeafRequest(block int64, n int) Request {
	n = min(n, 1<<t.Height)
	first := block / int64(n) * int64(n)
	top := t.Piece
	for p := first >> t.Piece; p <= (first+int64(n)-1)>>t.Piece && p < int64(len(t.layer)); p++ {
		if _, ok := t.PieceNode(int(p)); !ok {
			top = t.Height
		}
	}
	return t.request(0, first, n, top)
}

func (t *Tree) request(base int, index int64, n, top int) Request {
	r := Request{Root: t.Root, Base: uint32(base), Index: uint32(index), Length: uint32(n)}
	if base+r.height() < top {
		r.Proof = uint32(top - base - 1)
	}
	return r
}

// Check reports whether an answer is right. The request was ours and the number of
// hashes fits it.
func (t *Tree) Check(r Request, hashes []Hash) bool {
	if r.Top() >= t.Height {
		nodes, _ := r.Prove(hashes, t.Height)
		return nodes[0] == t.Root
	}
	if r.Top() < t.Piece || int(r.Base) > t.Piece || r.Uncles() > 0 && r.Top() > t.Piece {
		return false // leads to no layer that we know
	}
	nodes, first := r.Prove(hashes, t.Piece)
	for i, h := range nodes {
		want := Pad(t.Piece)
		if at := first + int64(i); at < int64(len(t.layer)) {
			if want = t.layer[at]; want == (Hash{}) {
				return false
			}
		}
		if h != want {
			return false
		}
	}
	return true
}

// Answer returns the hashes for a valid request; ok=false: they are not known. leaves
// returns the leaves of a piece of the file, nil if they are not known; it is asked
// only for requests that begin below the piece layer, once for each piece.
func (t *Tree) Answer(r Request, leaves func(piece int) []Hash) (out []Hash, ok bool) {
	base := int(r.Base)
	below := base < t.Piece
	switch {
	case below && base != 0 || !t.Complete() && (!below || int(r.Proof) >= t.Piece):
		return nil, false
	case below:
		if out, ok = t.low(r, leaves); !ok {
			return nil, false
		}
	default:
		for i := range int64(r.Length) {
			out = append(out, t.node(base, int64(r.Index)+i))
		}
	}
	from := max(base+r.height(), t.Piece) // low has those below
	for layer := from; len(out) < r.Hashes(); layer++ {
		out = append(out, t.node(layer, int64(r.Index)>>(layer-base)^1))
	}
	return out, true
}

// low returns the leaves of an answer, and its uncles below the piece layer.
func (t *Tree) low(r Request, leaves func(piece int) []Hash) (out []Hash, ok bool) {
	first, n := int64(r.Index), int64(r.Length)
	per := int64(1) << t.Piece
	for p := first / per; p*per < first+n; p++ {
		var nodes []Hash
		if p < int64(len(t.layer)) {
			if nodes = leaves(int(p)); nodes == nil {
				return nil, false
			}
		}
		nodes = append(nodes[:len(nodes):len(nodes)], make([]Hash, per-int64(len(nodes)))...)
		lo, hi := max(0, first-p*per), min(per, first+n-p*per)
		out = append(out, nodes[lo:hi]...)
		if n >= per {
			continue
		}
		at := lo >> r.height()
		for layer := 0; layer < t.Piece && len(out) < r.Hashes(); layer++ {
			if layer >= r.height() {
				out = append(out, nodes[at^1])
				at /= 2
			}
			nodes = Up(nodes, Hash{})
		}
	}
	return out, true
}

// node returns a node at or above the piece layer, all of which is known.
func (t *Tree) node(layer int, at int64) Hash {
	if layer == t.Height {
		return t.Root
	}
	if t.upper == nil {
		t.upper = [][]Hash{t.layer}
		pad := Pad(t.Piece)
		for l := t.Piece; l < t.Height; l++ {
			t.upper = append(t.upper, Up(t.upper[len(t.upper)-1], pad))
			pad = Pair(pad, pad)
		}
	}
	if nodes := t.upper[layer-t.Piece]; at < int64(len(nodes)) {
		return nodes[at]
	}
	return Pad(layer)
}
