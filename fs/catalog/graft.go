package catalog

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// graft is a directory of the root that is a catalog of its own. An id of it is the inner
// one, below 2^56, with the graft's number above it and the top bit, which no slot reaches.
type graft struct {
	name  string
	base  tree.ID
	of    fs.Catalog
	extra fs.Attributer // nil: none
}

const (
	graftBit   tree.ID = 1 << 63
	graftShift         = 56
	innerMask  tree.ID = 1<<graftShift - 1
	maxGrafts          = 1 << 7
)

// Graft shows all of another catalog as one directory of the root. Its ids are below 2^56,
// and its inode numbers, like those here, the start of a hash that nothing else has. It does
// not tell of changes: an entry that may change says how long it holds (tree.Entry.TTL).
func (c *Catalog) Graft(name string, of fs.Catalog) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := name == torrentsName || name == statusDirName || slices.ContainsFunc(c.grafts, func(g graft) bool { return g.name == name })
	if taken || tree.CleanName(name) != name || len(c.grafts) == maxGrafts {
		return fmt.Errorf("%q is no name for a directory of the root", name)
	}
	g := graft{name: name, base: graftBit | tree.ID(len(c.grafts))<<graftShift, of: of}
	g.extra, _ = of.(fs.Attributer)
	c.grafts = append(c.grafts, g)
	return nil
}

// graftOf returns the graft that an id is of, nil if it is of none, and its id there.
func (c *Catalog) graftOf(id tree.ID) (*graft, tree.ID) {
	if id&graftBit == 0 {
		return nil, 0
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	i := int(id &^ graftBit >> graftShift)
	if i >= len(c.grafts) {
		return nil, 0
	}
	return &c.grafts[i], id & innerMask
}

func (c *Catalog) graftNamed(name string) *graft {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if i := slices.IndexFunc(c.grafts, func(g graft) bool { return g.name == name }); i >= 0 {
		return &c.grafts[i]
	}
	return nil
}

// listRoot yields what is always there, and the grafts, by name.
func (c *Catalog) listRoot(ctx context.Context, from int) iter.Seq2[tree.Entry, error] {
	c.mu.RLock()
	grafts := slices.Clone(c.grafts)
	c.mu.RUnlock()
	all := []func() (tree.Entry, error){
		func() (tree.Entry, error) { return c.fixed(statusDir) },
	}
	slices.SortFunc(grafts, func(a, b graft) int { return cmp.Compare(a.name, b.name) })
	last := func() (tree.Entry, error) { return c.fixed(torrents) }
	for _, g := range grafts {
		if g.name > torrentsName && last != nil {
			all, last = append(all, last), nil
		}
		all = append(all, func() (tree.Entry, error) { return g.stat(ctx, tree.Root) })
	}
	if last != nil {
		all = append(all, last)
	}
	return func(yield func(tree.Entry, error) bool) {
		for _, f := range all[min(from, len(all)):] {
			if !yield(f()) {
				return
			}
		}
	}
}

// entry makes an entry of the graft one of the whole.
func (g *graft) entry(e tree.Entry, err error) (tree.Entry, error) {
	e.ID |= g.base
	return e, err
}

func (g *graft) stat(ctx context.Context, id tree.ID) (tree.Entry, error) {
	e, err := g.entry(g.of.Stat(ctx, id))
	if id == tree.Root {
		e.Name = g.name
	}
	return e, err
}

func (g *graft) list(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range g.of.List(ctx, dir, from) {
			if !yield(g.entry(e, err)) {
				return
			}
		}
	}
}

func (g *graft) attributes(ctx context.Context, id tree.ID) ([]string, error) {
	if g.extra == nil {
		return nil, nil
	}
	return g.extra.Attributes(ctx, id)
}

func (g *graft) attribute(ctx context.Context, id tree.ID, name string) ([]byte, error) {
	if g.extra == nil {
		return nil, errAbsent
	}
	return g.extra.Attribute(ctx, id, name)
}
