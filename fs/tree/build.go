package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strings"
)

// Limits on a path below the root of a tree. A path in the mount also holds the
// mountpoint and the torrent's own name; together they stay below PATH_MAX, and so
// does a symlink that climbs from the deepest directory to the longest path.
const (
	maxPath  = 3584
	maxDepth = 128
)

// Spec is one file as its torrent names it: nothing in it is trusted.
type Spec struct {
	Path    []string // raw components; empty only for the one file of a single-file torrent
	Size    int64    // a negative size counts as 0
	Exec    bool
	Symlink []string // not nil: a symlink to this raw path, from the tree's root (BEP 47)
	Tag     int      // what the caller knows the file by, below 2^31
}

// Build makes a tree that holds every spec exactly once, under a name that obeys
// the rules of [CleanName]. It depends on nothing but the specs and their order:
//
//   - A name that is taken, by an equal name or by a directory where a file is
//     wanted (or the reverse), goes to the earlier spec; the later one becomes
//     "name~2.ext", "name~3.ext" and so on. Upper and lower case are different.
//     Directories whose names become equal are one directory.
//   - Where a path gets longer than 3,584 bytes or deeper than 128 names, all
//     directories from there on are one, "~" and 16 hex digits of their hash.
//   - A symlink points, relative to its own directory, straight at the file or
//     directory that it finally means, through other links if need be: nothing
//     remains that could lead outside or go round. One that names nothing of its
//     own tree, leaves it, or never ends is an empty file (Tag NoTag) instead:
//     unlike a dangling link, that is nothing a later name could bring to life.
//   - A single spec with an empty Path makes the root itself that file.
func Build(specs []Spec) *Tree {
	b := builder{
		dirs:   make(map[key]uint32),
		taken:  make(map[key]struct{}, len(specs)),
		counts: make(map[key]uint32),
		nodes:  []draft{{kind: Dir, tag: NoTag}},
	}
	if len(specs) == 1 && len(specs[0].Path) == 0 && specs[0].Symlink == nil {
		s := specs[0]
		b.nodes[0] = draft{kind: File, size: max(0, s.Size), exec: s.Exec, tag: tag32(s.Tag)}
		return b.finish(1)
	}
	if slices.ContainsFunc(specs, func(s Spec) bool { return s.Symlink != nil }) {
		b.raw = make(map[key]uint32, len(specs))
	}
	for i := range specs {
		b.add(&specs[i])
	}
	b.resolveLinks()
	return b.finish(len(specs))
}

func tag32(tag int) int32 {
	if tag < 0 || tag > math.MaxInt32 {
		return NoTag
	}
	return int32(tag)
}

// key is a name in a directory.
type key struct {
	dir  uint32
	name string
}

// draft is a node while the tree grows, in the order of the specs.
type draft struct {
	name   string
	size   int64
	parent uint32
	target uint32 // of a symlink, once resolved
	length uint32 // of the path
	depth  uint16
	tag    int32
	kind   Kind
	exec   bool
}

type builder struct {
	nodes  []draft
	dirs   map[key]uint32   // by the name wanted: a directory may have got another one
	taken  map[key]struct{} // by the name given
	counts map[key]uint32   // last number given in a family of equal names
	raw    map[key]uint32   // by the raw name, nil if there are no symlinks
	links  []link
}

func (b *builder) add(s *Spec) {
	at := uint32(0)
	last := max(0, len(s.Path)-1)
	for i := range last {
		name := CleanName(s.Path[i])
		if b.tooLong(at, name) {
			at = b.dir(at, "", hashed(s.Path[i:last]))
			break
		}
		at = b.dir(at, s.Path[i], name)
	}
	raw := ""
	if len(s.Path) > 0 {
		raw = s.Path[last]
	}
	n := draft{size: max(0, s.Size), exec: s.Exec, tag: tag32(s.Tag)}
	if s.Symlink != nil {
		n = draft{kind: Symlink, tag: NoTag}
	}
	id := b.put(at, raw, CleanName(raw), n)
	if s.Symlink != nil {
		b.links = append(b.links, link{node: id, target: s.Symlink})
	}
}

// tooLong reports whether directory at can hold no further ordinary directory:
// room is kept for one with a hash as its name, a file and their numbers.
func (b *builder) tooLong(at uint32, name string) bool {
	const reserve = (1 + hashedLen + maxOrdinal) + (1 + maxName)
	d := &b.nodes[at]
	return int(d.depth)+3 > maxDepth || int(d.length)+1+len(name)+maxOrdinal+reserve > maxPath
}

const hashedLen = 1 + 16

// hashed names the directory that stands for all of path.
func hashed(path []string) string {
	h := sha256.Sum256([]byte(strings.Join(path, "/")))
	return "~" + hex.EncodeToString(h[:8])
}

// dir finds or makes a directory.
func (b *builder) dir(at uint32, raw, name string) uint32 {
	if id, ok := b.dirs[key{at, name}]; ok {
		b.know(at, raw, id)
		return id
	}
	id := b.put(at, raw, name, draft{kind: Dir, tag: NoTag})
	b.dirs[key{at, name}] = id
	return id
}

// put adds a node under the first free name of its family.
func (b *builder) put(at uint32, raw, name string, n draft) uint32 {
	n.name = b.free(at, name, n.kind == Dir)
	n.parent = at
	n.depth = b.nodes[at].depth + 1
	n.length = b.nodes[at].length + 1 + uint32(len(n.name))
	id := uint32(len(b.nodes))
	b.nodes = append(b.nodes, n)
	b.taken[key{at, n.name}] = struct{}{}
	b.know(at, raw, id)
	return id
}

// know remembers what a raw name means, for symlinks. The first spec wins.
func (b *builder) know(at uint32, raw string, id uint32) {
	if b.raw == nil {
		return
	}
	if _, ok := b.raw[key{at, raw}]; !ok {
		b.raw[key{at, raw}] = id
	}
}

// free returns name, or the first of its family that nobody has. The number is
// kept for each family, so that a million equal names do not cost a million squared.
func (b *builder) free(at uint32, name string, dir bool) string {
	if _, ok := b.taken[key{at, name}]; !ok {
		return name
	}
	stem, ext := family(name, dir)
	count := key{at, stem + "/" + ext}
	for n := max(2, b.counts[count]+1); ; n++ {
		try := ordinal(stem, ext, n)
		if _, ok := b.taken[key{at, try}]; !ok {
			b.counts[count] = n
			return try
		}
	}
}

// finish puts the nodes in breadth-first order, each directory sorted by name.
func (b *builder) finish(files int) *Tree {
	b.dirs, b.taken, b.counts, b.raw = nil, nil, nil, nil
	order, place := b.order()
	t := &Tree{nodes: make([]node, len(order)), files: files}
	var names strings.Builder
	for i, id := range order {
		d := &b.nodes[id]
		t.nodes[i] = node{
			size: d.size, parent: place[d.parent], tag: d.tag, kind: d.kind, exec: d.exec,
			name: uint32(names.Len()), length: uint8(len(d.name)),
		}
		names.WriteString(d.name)
		if d.kind == Symlink {
			t.nodes[i].first = place[d.target]
		}
	}
	t.names = strings.Clone(names.String())
	for i := len(t.nodes) - 1; i > 0; i-- { // children come after their parents
		n, p := &t.nodes[i], &t.nodes[t.nodes[i].parent]
		p.first, p.count = uint32(i), p.count+1
		if n.kind != Symlink {
			p.size = addSaturating(p.size, n.size)
		}
	}
	return t
}

// order returns the drafts by their final place, and the final place of each draft.
func (b *builder) order() (order, place []uint32) {
	depth := 0
	for i := range b.nodes {
		depth = max(depth, int(b.nodes[i].depth))
	}
	levels := make([][]uint32, depth+1)
	for i := range b.nodes {
		d := b.nodes[i].depth
		levels[d] = append(levels[d], uint32(i))
	}
	order = make([]uint32, 0, len(b.nodes))
	place = make([]uint32, len(b.nodes))
	for _, level := range levels {
		slices.SortFunc(level, func(x, y uint32) int {
			nx, ny := &b.nodes[x], &b.nodes[y]
			if px, py := place[nx.parent], place[ny.parent]; px != py {
				return int(px) - int(py)
			}
			return strings.Compare(nx.name, ny.name)
		})
		for _, id := range level {
			place[id] = uint32(len(order))
			order = append(order, id)
		}
	}
	return order, place
}

func addSaturating(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
