package catalog

import (
	"context"
	"crypto/sha256"
	"fmt"
	iofs "io/fs"
	"iter"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// errAbsent is for a name that nobody has.
var errAbsent = iofs.ErrNotExist

// errGone is for ids and handles of what was removed. ESTALE makes the kernel walk
// the path again and ask for each name, so that a path which leads to something new
// by now leads there at once.
var errGone = fmt.Errorf("it was removed: %w, %w", syscall.ESTALE, iofs.ErrNotExist)

// Slot 0 holds what is always there: the root, its directories, and the status
// files, which follow in the order in which they were added.
const (
	torrents tree.ID = tree.Root + 1 + iota
	statusDir
	firstStatus
)

const (
	torrentsName  = "torrents"
	statusDirName = ".btmount"
)

// The inode numbers of slot 0 are made like all others, of a text that no
// info-hash is.
var (
	torrentsIno = fixedInode(torrentsName)
	statusIno   = fixedInode(statusDirName)
)

func fixedInode(path string) uint64 {
	h := sha256.Sum256([]byte("btmount " + path))
	return inode(h[:])
}

var (
	_ fs.Catalog    = (*Catalog)(nil)
	_ fs.Attributer = (*Catalog)(nil)
	_ fs.Sizer      = (*Catalog)(nil)
	_ fs.Watcher    = (*Catalog)(nil)
)

func (t *thing) id(node int) tree.ID { return tree.ID(t.slot)<<32 | tree.ID(node+1) }

// thing finds what an id means; node counts from 0.
func (c *Catalog) thing(id tree.ID) (t *thing, node int, err error) {
	c.mu.RLock()
	t = c.slots[uint32(id>>32)]
	c.mu.RUnlock()
	node = int(uint32(id)) - 1
	if t == nil || node < 0 || node >= t.tree.Len() {
		return nil, 0, errGone
	}
	return t, node, nil
}

// entry tells everything of a node. It asks the Mountable, so no lock may be held;
// name is the one of the root, which the lock guards.
func (t *thing) entry(node int, name string) tree.Entry {
	n := t.tree.Node(node)
	if node > 0 {
		name = n.Name
	}
	e := tree.Entry{
		ID: t.id(node), Ino: t.inodes[node], Name: name, Kind: n.Kind, Exec: n.Exec,
		Size: n.Size, ModTime: t.modified, Target: n.Target, Settled: true,
	}
	switch {
	case n.Kind != tree.File:
	case t.m == nil:
		e.Live, e.ModTime = true, time.Now()
		e.Settled = false
	case n.Tag != tree.NoTag:
		e.Present, e.Settled = t.m.Present(n.Tag)
		e.Present = min(max(0, e.Present), e.Size)
	}
	return e
}

func (c *Catalog) nameOf(t *thing) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return t.name
}

// fixed returns an entry of slot 0.
func (c *Catalog) fixed(id tree.ID) (tree.Entry, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := tree.Entry{ID: id, Kind: tree.Dir, ModTime: c.modified}
	switch id {
	case tree.Root:
		e.Ino = uint64(tree.Root)
	case torrents:
		e.Ino, e.Name = torrentsIno, torrentsName
	case statusDir:
		e.Ino, e.Name = statusIno, statusDirName
	default:
		i := int(id - firstStatus)
		if id < firstStatus || i >= len(c.statuses) {
			return e, errGone
		}
		e = c.statuses[i].entry(id)
	}
	return e, nil
}

// Stat implements fs.Catalog.
func (c *Catalog) Stat(ctx context.Context, id tree.ID) (tree.Entry, error) {
	if g, inner := c.graftOf(id); g != nil {
		return g.stat(ctx, inner)
	}
	if id>>32 == 0 {
		return c.fixed(id)
	}
	t, node, err := c.thing(id)
	if err != nil {
		return tree.Entry{}, err
	}
	return t.entry(node, c.nameOf(t)), nil
}

// Lookup implements fs.Catalog.
func (c *Catalog) Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	if g, inner := c.graftOf(dir); g != nil {
		return g.entry(g.of.Lookup(ctx, inner, name))
	}
	switch dir {
	case tree.Root:
		return c.lookupRoot(ctx, name)
	case statusDir:
		return c.lookupStatus(name)
	case torrents:
		c.mu.RLock()
		t := c.names.given[name]
		c.mu.RUnlock()
		if t == nil {
			return tree.Entry{}, errAbsent
		}
		return t.entry(0, name), nil
	}
	t, node, err := c.thing(dir)
	if err != nil {
		return tree.Entry{}, err
	}
	child, ok := t.tree.Lookup(node, name)
	if !ok {
		return tree.Entry{}, errAbsent
	}
	return t.entry(child, ""), nil
}

func (c *Catalog) lookupRoot(ctx context.Context, name string) (tree.Entry, error) {
	switch name {
	case torrentsName:
		return c.fixed(torrents)
	case statusDirName:
		return c.fixed(statusDir)
	}
	if g := c.graftNamed(name); g != nil {
		return g.stat(ctx, tree.Root)
	}
	return tree.Entry{}, errAbsent
}

// List implements fs.Catalog.
func (c *Catalog) List(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	if g, inner := c.graftOf(dir); g != nil {
		return g.list(ctx, inner, from)
	}
	switch dir {
	case tree.Root:
		return c.listRoot(ctx, from)
	case statusDir:
		return c.listFixed(from, c.statusIDs()...)
	case torrents:
		return c.listTorrents(from)
	}
	return func(yield func(tree.Entry, error) bool) {
		t, node, err := c.thing(dir)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		first, count := t.tree.Children(node)
		for i := first + from; i < first+count; i++ {
			if !yield(t.entry(i, ""), nil) {
				return
			}
		}
	}
}

func (c *Catalog) listFixed(from int, ids ...tree.ID) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		for _, id := range ids[min(from, len(ids)):] {
			if !yield(c.fixed(id)) {
				return
			}
		}
	}
}

func (c *Catalog) listTorrents(from int) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		c.mu.Lock() // not for reading only: the list may have to be sorted
		things := c.names.list()
		names := make([]string, len(things))
		for i, t := range things {
			names[i] = t.name
		}
		c.mu.Unlock()
		for i := from; i < len(things); i++ {
			if !yield(things[i].entry(0, names[i]), nil) {
				return
			}
		}
	}
}

// Open implements fs.Catalog.
func (c *Catalog) Open(ctx context.Context, id tree.ID) (fs.Content, error) {
	if g, inner := c.graftOf(id); g != nil {
		return g.of.Open(ctx, inner)
	}
	if id>>32 == 0 {
		return c.openStatus(id)
	}
	t, node, err := c.thing(id)
	if err != nil {
		return nil, err
	}
	n := t.tree.Node(node)
	switch {
	case t.m == nil && n.Kind == tree.File:
		return text(t.reason()), nil
	case n.Tag == tree.NoTag: // a symlink that could not be one: an empty file
		return text(nil), nil
	}
	return t.m.Open(ctx, n.Tag)
}

// Attributes implements fs.Attributer.
func (c *Catalog) Attributes(ctx context.Context, id tree.ID) ([]string, error) {
	if g, inner := c.graftOf(id); g != nil {
		return g.attributes(ctx, inner)
	}
	t, node, err := c.thing(id)
	if err != nil || t.m == nil {
		return nil, nil
	}
	return t.m.Attributes(t.tree.Node(node).Tag), nil
}

// Attribute implements fs.Attributer.
func (c *Catalog) Attribute(ctx context.Context, id tree.ID, name string) ([]byte, error) {
	if g, inner := c.graftOf(id); g != nil {
		return g.attribute(ctx, inner, name)
	}
	t, node, err := c.thing(id)
	if err != nil || t.m == nil {
		return nil, errAbsent
	}
	return t.m.Attribute(t.tree.Node(node).Tag, name)
}

// statusIDs returns the ids of all status files, by name.
func (c *Catalog) statusIDs() []tree.ID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]tree.ID, len(c.statuses))
	for i := range ids {
		ids[i] = firstStatus + tree.ID(i)
	}
	slices.SortFunc(ids, func(a, b tree.ID) int {
		return strings.Compare(c.statuses[a-firstStatus].name, c.statuses[b-firstStatus].name)
	})
	return ids
}
