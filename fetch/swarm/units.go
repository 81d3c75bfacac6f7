package swarm

import (
	"crypto/sha1"
	"sort"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// A unit is what the engine asks for, verifies and commits as a whole. Where v1 piece
// hashes rule it is a piece. Where the v2 tree rules it is smaller, so that a seek
// pays for blocks and not for pieces: a power of two from 16 KiB to the piece length,
// the smallest that leaves a torrent with at most maxUnits of them (a GB of memory
// and journal would be no gain). Peers know pieces only; what goes to them and comes
// from them is translated by a grid, and nothing else knows of both.
const maxUnits = 1 << 20

// UnitLength returns the length of the units of a torrent, for the store.
func UnitLength(m *metainfo.Meta) int64 {
	if !m.ByTree() {
		return m.Info.PieceLength
	}
	unit := int64(wire.BlockSize)
	for unit < m.Info.PieceLength && m.Info.Length/unit > maxUnits {
		unit *= 2
	}
	return unit
}

// TagSize is how many bytes the store has to keep with each unit of such a torrent.
func TagSize(m *metainfo.Meta) int {
	if m.ByTree() {
		return len(merkle.Hash{})
	}
	return 0
}

// grid translates between units and pieces. What it says never changes.
type grid struct {
	info *metainfo.Info
	unit int64
	per  int             // units of a piece
	tree bool            // the v2 tree rules
	file []*metaFiles    // with content, in order; nil without tree
	pads []extent.Extent // pad files (BEP 47), in order; nil with tree
}

// metaFiles is a file of a v2 torrent, and its place.
type metaFiles struct {
	*metainfo.File
	first int // its first piece
}

func newGrid(m *metainfo.Meta) *grid {
	g := &grid{info: m.Info, unit: UnitLength(m), tree: m.ByTree()}
	g.per = int(m.Info.PieceLength / g.unit)
	if !g.tree {
		for _, f := range m.Info.Files {
			if f.Pad && f.Length > 0 {
				g.pads = append(g.pads, extent.Extent{Off: f.Offset, Len: f.Length})
			}
		}
		return g
	}
	for i := range m.Info.Files {
		if f := &m.Info.Files[i]; !f.Pad && f.Length > 0 {
			g.file = append(g.file, &metaFiles{f, int(f.Offset / m.Info.PieceLength)})
		}
	}
	return g
}

// units returns the number of units.
func (g *grid) units() int { return int((g.info.Length-1)/g.unit) + 1 }

// piece returns the piece that a unit is part of.
func (g *grid) piece(u int) int { return u / g.per }

// of returns the units of a piece.
func (g *grid) of(piece int) (first, last int) {
	return piece * g.per, min((piece+1)*g.per, g.units())
}

// fileOf returns the number of the file that a piece is of, among those with content.
// A piece of a v2 torrent is of one file.
func (g *grid) fileOf(piece int) int {
	return sort.Search(len(g.file), func(i int) bool { return g.file[i].first > piece }) - 1
}

// end is where the content of a piece ends in the byte space. What follows up to the
// next piece, where the tree rules, is padding: zeros, which nobody has to send.
func (g *grid) end(piece int) int64 {
	end := int64(piece)*g.info.PieceLength + g.info.PieceSize(piece)
	if g.tree {
		f := g.file[g.fileOf(piece)]
		end = min(end, f.Offset+f.Length)
	}
	return end
}

// size returns the bytes of content of a unit: 0 if it is all padding.
func (g *grid) size(u int) int {
	e := extent.Unit(int64(u), g.unit, g.info.Length)
	return int(max(0, min(e.End(), g.end(g.piece(u)))-e.Off))
}

func (g *grid) blockSize(u, b int) int { return min(wire.BlockSize, g.size(u)-b*wire.BlockSize) }

// padded reports whether block b of a unit is all pad files: zeros (BEP 47), which nobody
// has to send. A hybrid of small files is mostly that. Of a unit that is nothing else the
// last block is asked for all the same, so that it comes to an end like any other.
func (g *grid) padded(u, b int) bool {
	if len(g.pads) == 0 {
		return false
	}
	e := extent.Extent{Off: int64(u)*g.unit + int64(b)*wire.BlockSize, Len: int64(g.blockSize(u, b))}
	return g.inPads(e) && !(e.End() >= extent.Unit(int64(u), g.unit, g.info.Length).End() && g.inPads(extent.Unit(int64(u), g.unit, g.info.Length)))
}

// padding returns how many bytes of a unit nobody has to send.
func (g *grid) padding(u int) (n int64) {
	for b := 0; len(g.pads) > 0 && b*wire.BlockSize < g.size(u); b++ {
		if g.padded(u, b) {
			n += int64(g.blockSize(u, b))
		}
	}
	return n
}

// inPads reports whether one pad file after the other covers e.
func (g *grid) inPads(e extent.Extent) bool {
	i := sort.Search(len(g.pads), func(i int) bool { return g.pads[i].End() > e.Off })
	for at := e.Off; at < e.End(); i++ {
		if i == len(g.pads) || g.pads[i].Off > at {
			return false
		}
		at = g.pads[i].End()
	}
	return true
}

// wire translates block b of a unit to what peers call it.
func (g *grid) wire(u, b int) (piece, begin int) {
	return g.piece(u), u%g.per*int(g.unit) + b*wire.BlockSize
}

// block translates back; ok=false: no such block.
func (g *grid) block(piece, begin int) (u, b int, ok bool) {
	if piece < 0 || piece >= g.info.NumPieces() || begin < 0 || int64(begin) >= g.info.PieceLength || begin%wire.BlockSize != 0 {
		return 0, 0, false
	}
	u, b = piece*g.per+begin/int(g.unit), begin%int(g.unit)/wire.BlockSize
	return u, b, u < g.units() && b*wire.BlockSize < g.size(u)
}

// all reports whether has is true for every unit of a piece that has content. It
// begins behind unit u, where something is missing first, as a rule.
func (g *grid) all(u int, has func(u int) bool) bool {
	first, last := g.of(g.piece(u))
	for i := range last - first {
		if v := first + (u-first+1+i)%(last-first); g.size(v) > 0 && !has(v) {
			return false
		}
	}
	return true
}

// Verify returns what tells whether bytes are a unit, from the tag that was kept with
// it: for a store that finds its files again after a crash.
func Verify(m *metainfo.Meta) func(u int, p, tag []byte) bool {
	g := newGrid(m)
	return func(u int, p, tag []byte) bool {
		if !g.tree {
			return sha1.Sum(p) == m.Info.PieceHash(u)
		}
		h := g.tag(merkle.SumBlocks(p[:g.size(u)]))
		return string(h[:]) == string(tag)
	}
}

// tag is the node of a unit: its leaves, padded.
func (g *grid) tag(leaves []merkle.Hash) merkle.Hash {
	return merkle.Root(leaves, 0, merkle.Layers(g.unit/wire.BlockSize))
}
