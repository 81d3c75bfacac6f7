package catalog

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/btmount/btmount/fs/tree"
)

// names gives every thing a name of its own in the torrents directory. A family is
// all things that want the same name; it is sorted by identity, and the first of
// it has the plain name. Plain names come before made ones: where one is already
// taken by a name that was made from another, that other gets a longer one.
type names struct {
	families   map[string][]*thing
	identities map[[32]byte]*thing
	given      map[string]*thing
	sorted     []*thing // by name; nil after a change
}

func newNames() names {
	return names{
		families:   make(map[string][]*thing),
		identities: make(map[[32]byte]*thing),
		given:      make(map[string]*thing),
	}
}

// add puts t in and notes in changed which names mean something else now.
func (n *names) add(t *thing, changed map[string]struct{}) {
	n.identities[t.identity] = t
	family := n.families[t.plain]
	i, _ := slices.BinarySearchFunc(family, t, compare)
	n.families[t.plain] = slices.Insert(family, i, t)
	var usurper *thing
	if other := n.given[t.plain]; other != nil && other.plain != t.plain {
		usurper = other
		n.take(other, changed)
	}
	n.assign(t.plain, changed)
	if usurper != nil {
		n.assign(usurper.plain, changed)
	}
}

func (n *names) remove(t *thing, changed map[string]struct{}) {
	delete(n.identities, t.identity)
	family := n.families[t.plain]
	i, _ := slices.BinarySearchFunc(family, t, compare)
	n.families[t.plain] = slices.Delete(family, i, i+1)
	n.take(t, changed)
	if len(n.families[t.plain]) == 0 {
		delete(n.families, t.plain)
	}
	n.assign(t.plain, changed)
}

// take takes the name from t. The name itself stays in t: it is what Stat tells
// of an id that the kernel still holds.
func (n *names) take(t *thing, changed map[string]struct{}) {
	if n.given[t.name] == t {
		delete(n.given, t.name)
		changed[t.name] = struct{}{}
	}
	n.sorted = nil
}

// assign names a whole family anew.
func (n *names) assign(plain string, changed map[string]struct{}) {
	family := n.families[plain]
	old := make([]string, len(family))
	for i, t := range family {
		if n.given[t.name] == t {
			old[i] = t.name
			delete(n.given, t.name)
		}
	}
	for i, t := range family {
		t.name = n.free(t, i == 0)
		n.given[t.name] = t
		if t.name != old[i] {
			changed[t.name] = struct{}{}
			if old[i] != "" {
				changed[old[i]] = struct{}{}
			}
		}
	}
	n.sorted = nil
}

// free returns the first name for t that nobody has. The last one tried holds all
// of the identity, and no other thing has that.
func (n *names) free(t *thing, first bool) string {
	if first {
		return t.plain
	}
	id := hex.EncodeToString(t.identity[:])
	dir := t.tree.Node(0).Kind == tree.Dir
	for _, digits := range []int{8, 16, 32} {
		name := tree.Suffix(t.plain, " ["+id[:digits]+"]", dir)
		if n.given[name] == nil && n.families[name] == nil {
			return name
		}
	}
	return tree.Suffix(t.plain, " ["+id+"]", dir)
}

// list returns all things by name. The slice is never written to again.
func (n *names) list() []*thing {
	if n.sorted == nil {
		n.sorted = make([]*thing, 0, len(n.given))
		for _, t := range n.given {
			n.sorted = append(n.sorted, t)
		}
		slices.SortFunc(n.sorted, func(a, b *thing) int { return strings.Compare(a.name, b.name) })
	}
	return n.sorted
}
