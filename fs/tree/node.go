package tree

import (
	"iter"
	"sort"
	"strings"
)

// Tree is one immutable tree: a torrent's files. Nodes are numbered from 0, the
// root, breadth first, so the children of a directory are neighbours, sorted by
// name, and a listing or a lookup needs no map. A node costs 32 bytes and its
// name, shared by all that read it; the zero Tree is an empty directory.
type Tree struct {
	nodes []node
	names string // all names, end to end
	files int
}

// node is laid out for size: a million of them must stay cheap.
type node struct {
	size   int64  // of a file; of a directory the sum of all files below
	name   uint32 // offset in Tree.names
	parent uint32
	first  uint32 // of a directory its first child; of a symlink its target
	count  uint32 // children of a directory
	tag    int32
	length uint8 // of the name
	kind   Kind
	exec   bool
}

// NoTag is the Tag of directories and symlinks, which nobody can open.
const NoTag = -1

// Node is everything the tree knows of one node.
type Node struct {
	Name   string // empty for the root
	Kind   Kind
	Exec   bool
	Size   int64 // bytes of a file, length of a symlink's Target, 0 for a directory
	Tag    int   // the caller's index of a file, or NoTag
	Target string
}

// Len is the number of nodes, the root included.
func (t *Tree) Len() int { return max(1, len(t.nodes)) }

// Files is the number of files and symlinks, each of which was one [Spec].
func (t *Tree) Files() int { return t.files }

// Node returns node i. It allocates only for a symlink's target.
func (t *Tree) Node(i int) Node {
	if len(t.nodes) == 0 {
		return Node{Kind: Dir, Tag: NoTag}
	}
	n := &t.nodes[i]
	v := Node{Name: t.name(i), Kind: n.kind, Exec: n.exec, Tag: int(n.tag)}
	switch n.kind {
	case File:
		v.Size = n.size
	case Symlink:
		v.Target = t.relative(int(n.parent), int(n.first))
		v.Size = int64(len(v.Target))
	}
	return v
}

func (t *Tree) name(i int) string {
	n := &t.nodes[i]
	return t.names[n.name : n.name+uint32(n.length)]
}

// Parent returns the directory that holds i; the root is its own parent.
func (t *Tree) Parent(i int) int {
	if len(t.nodes) == 0 {
		return 0
	}
	return int(t.nodes[i].parent)
}

// Children returns the range of nodes that are in directory dir: first to first+count-1.
func (t *Tree) Children(dir int) (first, count int) {
	if len(t.nodes) == 0 || t.nodes[dir].kind != Dir {
		return 0, 0
	}
	return int(t.nodes[dir].first), int(t.nodes[dir].count)
}

// Lookup finds a name in a directory by binary search.
func (t *Tree) Lookup(dir int, name string) (int, bool) {
	first, count := t.Children(dir)
	i := first + sort.Search(count, func(k int) bool { return t.name(first+k) >= name })
	return i, i < first+count && t.name(i) == name
}

// Find walks a path of names separated by "/" from the root; "" is the root.
func (t *Tree) Find(path string) (int, bool) {
	at, ok := 0, true
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if at, ok = t.Lookup(at, name); !ok {
			return 0, false
		}
	}
	return at, true
}

// Path returns the names from the root to i, joined with "/"; "" for the root.
func (t *Tree) Path(i int) string { return string(t.AppendPath(nil, i)) }

// AppendPath appends the path of i to b.
func (t *Tree) AppendPath(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	if p := t.Parent(i); p != 0 {
		b = append(t.AppendPath(b, p), '/')
	}
	return append(b, t.name(i)...)
}

// Total is the sum of the sizes of all files at and below i. A sum that does not
// fit is the largest int64: whoever trusts sizes has to refuse them earlier.
func (t *Tree) Total(i int) int64 {
	if len(t.nodes) == 0 || t.nodes[i].kind == Symlink {
		return 0
	}
	return t.nodes[i].size
}

// All yields every node, parents before children.
func (t *Tree) All() iter.Seq2[int, Node] {
	return func(yield func(int, Node) bool) {
		for i := range t.Len() {
			if !yield(i, t.Node(i)) {
				return
			}
		}
	}
}

// depth counts the names in the path of i.
func (t *Tree) depth(i int) int {
	d := 0
	for ; i != 0; i = t.Parent(i) {
		d++
	}
	return d
}

// relative is the path that leads from directory dir to node to.
func (t *Tree) relative(dir, to int) string {
	from, end := dir, to
	for d, e := t.depth(dir), t.depth(to); from != end; {
		if d >= e {
			from, d = t.Parent(from), d-1
		} else {
			end, e = t.Parent(end), e-1
		}
	}
	up := t.depth(dir) - t.depth(from)
	down := t.Path(to)[len(t.Path(end)):]
	target := strings.Repeat("../", up) + strings.TrimPrefix(down, "/")
	if target = strings.TrimSuffix(target, "/"); target == "" {
		return "."
	}
	return target
}
