package tree

// link is a symlink whose target is not known yet.
type link struct {
	node   uint32
	target []string // raw
	state  uint8
}

const (
	linkOpen   = iota // not looked at
	linkActive        // being followed: meeting it again is a loop
	linkGood
	linkBad
)

// maxLinks is how many links a target may lead through, the kernel's own limit.
const maxLinks = 40

// resolveLinks gives every symlink its target, or makes it an empty file.
func (b *builder) resolveLinks() {
	byNode := make(map[uint32]*link, len(b.links))
	for i := range b.links {
		byNode[b.links[i].node] = &b.links[i]
	}
	for i := range b.links {
		b.resolve(byNode, &b.links[i], 0)
	}
	for i := range b.links {
		if l := &b.links[i]; l.state != linkGood {
			b.nodes[l.node].kind = File
		}
	}
}

// resolve follows one link to the file or directory that it means.
func (b *builder) resolve(byNode map[uint32]*link, l *link, depth int) bool {
	if l.state != linkOpen {
		return l.state == linkGood
	}
	if depth >= maxLinks {
		return false
	}
	l.state = linkActive
	at, ok := b.follow(byNode, l.target, depth)
	l.state = linkBad
	if ok {
		l.state = linkGood
		b.nodes[l.node].target = at
	}
	return ok
}

// follow walks a raw path from the root. ".." is taken lexically, except that it
// leaves a linked directory by the directory's own parent, as the kernel does.
func (b *builder) follow(byNode map[uint32]*link, path []string, depth int) (uint32, bool) {
	at := uint32(0)
	for _, name := range path {
		switch {
		case name == "" || name == ".":
			continue
		case b.nodes[at].kind != Dir:
			return 0, false
		case name == "..":
			if at == 0 {
				return 0, false // it leaves the tree
			}
			at = b.nodes[at].parent
			continue
		}
		id, ok := b.raw[key{at, name}]
		if !ok {
			return 0, false
		}
		if l := byNode[id]; l != nil {
			if !b.resolve(byNode, l, depth+1) {
				return 0, false
			}
			id = b.nodes[id].target
		}
		at = id
	}
	return at, true
}
