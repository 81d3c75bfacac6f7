package objects

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"strings"

	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/fs/tree"
)

// hot holds what is behind the nodes that were used last: their decoded roots, and the
// names of directories that were listed. Forest.mu guards it.
type hot struct {
	of     map[*node]*list.Element
	order  *list.List // of *warm, used last first
	weight int
}

type warm struct {
	node    *node
	object  *unixfs.Object
	listing *listing
	weight  int
}

const maxHot = 64 << 20 // bytes, about

func (h *hot) init() { h.of, h.order = map[*node]*list.Element{}, list.New() }

func (h *hot) get(n *node) *warm {
	e := h.of[n]
	if e == nil {
		return nil
	}
	h.order.MoveToFront(e)
	return e.Value.(*warm)
}

func (h *hot) object(n *node) *unixfs.Object {
	if w := h.get(n); w != nil {
		return w.object
	}
	return nil
}

func (h *hot) keep(n *node, o *unixfs.Object) { h.change(n, func(w *warm) { w.object = o }) }

func (h *hot) change(n *node, f func(*warm)) {
	if n.place == nil {
		return // forgotten meanwhile
	}
	w := h.get(n)
	if w == nil {
		w = &warm{node: n}
		h.of[n] = h.order.PushFront(w)
	}
	f(w)
	h.weight -= w.weight
	w.weight = 512
	if w.object != nil {
		w.weight += w.object.Weight()
	}
	if w.listing != nil {
		w.weight += w.listing.weight
	}
	h.weight += w.weight
	for h.weight > maxHot && h.order.Len() > 1 {
		h.drop(h.order.Back().Value.(*warm).node)
	}
}

func (h *hot) drop(n *node) {
	if e := h.of[n]; e != nil {
		h.weight -= e.Value.(*warm).weight
		h.order.Remove(e)
		delete(h.of, n)
	}
}

// listing is the names of a directory as they are shown, sorted as they are listed.
type listing struct {
	names  []string
	made   map[string]string // the raw one of a name that had to be changed
	orders [2]order          // by name, and by inode number: as cp -r goes
	weight int
}

// order is names in some order, and their places in it.
type order struct {
	names []string
	index map[string]int
}

func orderOf(names []string) order {
	o := order{names, make(map[string]int, len(names))}
	for i, name := range names {
		o.index[name] = i
	}
	return o
}

// order fills orders, for a directory of a hash.
func (l *listing) order(dir [32]byte) {
	inos := make(map[string]uint64, len(l.names))
	for _, name := range l.names {
		inos[name] = ino(childHash(dir, name))
	}
	byIno := slices.SortedFunc(slices.Values(l.names), func(a, b string) int { return cmp.Compare(inos[a], inos[b]) })
	l.orders = [2]order{orderOf(l.names), orderOf(byIno)}
}

// listed returns the names of a directory if they are in memory.
func (f *Forest) listed(d *node) *listing {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.hot.get(d); w != nil {
		return w.listing
	}
	return nil
}

// listing returns the names of a directory.
func (f *Forest) listing(ctx context.Context, d *node) (*listing, error) {
	if l := f.listed(d); l != nil {
		return l, nil
	}
	o, err := f.object(ctx, d)
	if err != nil {
		return nil, err
	}
	all, err := o.List(source.Within(ctx, d.root()))
	if err != nil {
		return nil, wrap(d.path(), err)
	}
	l := shown(all)
	l.order(d.hash)
	f.mu.Lock()
	f.hot.change(d, func(w *warm) { w.object, w.listing = o, l })
	f.mu.Unlock()
	return l, nil
}

// shown gives names to the entries of a directory: its own where that can be shown and
// comes first, and one of tree's making to the others.
func shown(all []unixfs.Entry) *listing {
	specs := make([]tree.Spec, 0, len(all))
	odd := make([]tree.Spec, 0)
	seen := make(map[string]struct{}, len(all))
	for _, e := range all {
		if _, twice := seen[e.Name]; twice {
			continue // the first of equal names is what Lookup finds
		}
		seen[e.Name] = struct{}{}
		if tree.CleanName(e.Name) == e.Name {
			specs = append(specs, tree.Spec{Path: []string{e.Name}, Tag: len(specs)})
		} else {
			odd = append(odd, tree.Spec{Path: []string{e.Name}})
		}
	}
	plain := len(specs)
	for _, s := range odd {
		s.Tag = len(specs)
		specs = append(specs, s)
	}
	t := tree.Build(specs)
	first, count := t.Children(0)
	l := &listing{names: make([]string, 0, count), made: map[string]string{}}
	for i := first; i < first+count; i++ {
		n := t.Node(i)
		if n.Tag >= plain {
			l.made[n.Name] = specs[n.Tag].Path[0]
		}
		l.names = append(l.names, n.Name)
		l.weight += 256 + len(n.Name)
	}
	return l
}

// mayBeMade reports whether a name may be one that tree made of another.
func mayBeMade(name string) bool {
	return len(name) > 200 || strings.ContainsAny(name, "_~\uFFFD")
}
