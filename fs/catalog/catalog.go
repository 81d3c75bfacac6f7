// Package catalog is the set of things that are mounted: what package fs shows to
// the kernel. Things can be added, replaced and removed at any time.
//
//	/torrents/<name>            a torrent: its one file, or a directory
//	/torrents/<name>.resolving  a magnet link whose metadata is still missing
//	/.btmount/<name>            status, made anew at each open
//	/<graft>/…                  another catalog, see [Catalog.Graft]
//
// Start with [New], [Catalog.Add] and [Mountable], which is what this package needs
// to know of a torrent. It does no I/O and never waits; a Mountable may read a local file,
// and only the content that Mountable.Open returns waits for the network.
//
// # Stable
//
// Names and inode numbers are computed from what is mounted and from nothing else:
// not from the order of adding, and without state on disk. So the same set looks
// the same after a restart, to rsync and to media libraries alike.
//
//   - An inode number is the start of SHA-256(identity), and a place in it, see inode.go.
//   - Of several torrents with one name, the one with the smallest identity has the
//     plain name; the others get " [8 hex digits of the identity]" before the
//     extension. So adding one may rename another, which is told like any change.
//     Giving the plain name to whoever came first was rejected: it makes names
//     depend on the order in which a restart happens to add them.
//   - A tree.ID is the number of a slot and of a node in it. Slots are not used
//     twice, so an id that the kernel kept means the same thing or nothing.
//
// # Locks
//
// Catalog.mu is a leaf: no Mountable and no watcher is called with it held. Each
// change is one critical section; watchers are called after it, and the methods of
// fs.Catalog see all of a change or nothing of it.
package catalog

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// Whole is the tag by which a [Mountable] is asked about itself as a whole, and
// about any of its directories.
const Whole = tree.NoTag

// Mountable is one torrent with its metadata. Tree, Identity and ModTime answer from
// memory; the others may have to read a local file, and none waits for the network. All may be called from any goroutine. tag is the Tag of a [tree.Spec].
type Mountable interface {
	// Tree is the same at every call. If its root is a file, that file itself gets
	// the torrent's name.
	Tree() *tree.Tree
	// Identity tells this torrent from all others, by its info-hash.
	Identity() [32]byte
	// ModTime never changes: the creation date, or when it was added.
	ModTime() time.Time
	// Present returns how many bytes of a file, or of [Whole], are on disk and
	// verified, and whether that is settled: a complete file that stays.
	Present(tag int) (bytes int64, settled bool)
	// Open opens a file for reading.
	Open(ctx context.Context, tag int) (fs.Content, error)
	// Attributes returns the names of the extended attributes of a file or of Whole.
	Attributes(tag int) []string
	// Attribute returns one of them; an unknown name matches io/fs.ErrNotExist.
	Attribute(tag int, name string) ([]byte, error)
}

// Handle names something that was added, as long as it is not removed; 0 is never one.
type Handle uint32

// Catalog implements fs.Catalog and its extras.
type Catalog struct {
	mu       sync.RWMutex // guards everything below
	things   map[Handle]*thing
	slots    map[uint32]*thing
	names    names
	inodes   map[uint64]struct{} // all that are in use
	statuses []status
	grafts   []graft
	lastSlot uint32
	lastID   Handle
	watchers map[int]func(fs.Change)
	watches  int // ever begun; the key of the next one
	modified time.Time
}

// thing is one entry of the torrents directory. It is immutable but for its name.
type thing struct {
	handle   Handle
	slot     uint32
	identity [32]byte
	tree     *tree.Tree
	inodes   []uint64 // by node
	modified time.Time
	m        Mountable     // nil while it is resolving
	reason   func() []byte // of a thing that is resolving
	plain    string        // the name wanted
	name     string        // the name given; guarded by Catalog.mu
}

// New returns an empty catalog.
func New() *Catalog {
	return &Catalog{
		things:   make(map[Handle]*thing),
		slots:    make(map[uint32]*thing),
		names:    newNames(),
		inodes:   make(map[uint64]struct{}),
		watchers: make(map[int]func(fs.Change)),
		modified: time.Unix(0, 0),
	}
}

// MountedError is returned for a torrent that is in the catalog already.
type MountedError struct{ Name string }

func (e *MountedError) Error() string { return fmt.Sprintf("already mounted as %q", e.Name) }

// Add mounts m. name is not trusted; [Catalog.Name] tells what became of it.
func (c *Catalog) Add(name string, m Mountable) (Handle, error) {
	return c.put(0, mounted(name, m))
}

// AddResolving shows that the metadata of a magnet link is still missing: a
// directory whose one file, "reason", holds what reason returns at the time.
func (c *Catalog) AddResolving(name string, identity [32]byte, reason func() []byte) (Handle, error) {
	return c.put(0, resolving(name, identity, reason))
}

// Replace puts m in the place of what h names, in one step: there is no moment at
// which neither or both can be seen. h stays valid.
func (c *Catalog) Replace(h Handle, name string, m Mountable) error {
	_, err := c.put(h, mounted(name, m))
	return err
}

func mounted(name string, m Mountable) *thing {
	t := &thing{identity: m.Identity(), tree: m.Tree(), modified: m.ModTime(), m: m, plain: tree.CleanName(name)}
	t.number(t.identity[:])
	return t
}

var resolvingTree = tree.Build([]tree.Spec{{Path: []string{"reason"}}})

func resolving(name string, identity [32]byte, reason func() []byte) *thing {
	t := &thing{
		identity: identity, tree: resolvingTree, modified: time.Now(), reason: reason,
		plain: tree.Suffix(tree.CleanName(name), ".resolving", true),
	}
	t.number(append(identity[:], "resolving"...))
	return t
}

// put brings t in, in the place of what h names unless h is 0.
func (c *Catalog) put(h Handle, t *thing) (Handle, error) {
	changed, watchers, err := c.exchange(h, t)
	tell(watchers, torrents, changed)
	return t.handle, err
}

func (c *Catalog) exchange(h Handle, t *thing) (map[string]struct{}, []func(fs.Change), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.things[h]
	if h != 0 && old == nil {
		return nil, nil, errGone
	}
	if other := c.names.identities[t.identity]; other != nil && other != old {
		return nil, nil, &MountedError{other.name}
	}
	if t.handle = h; h == 0 {
		c.lastID++
		t.handle = c.lastID
	}
	return c.replaceLocked(old, t), c.changedLocked(t), nil
}

// Remove takes something out. Files of it that are open stay readable as long as
// the Mountable lets them.
func (c *Catalog) Remove(h Handle) error {
	c.mu.Lock()
	old := c.things[h]
	if old == nil {
		c.mu.Unlock()
		return errGone
	}
	changed := c.replaceLocked(old, nil)
	watchers := c.changedLocked(nil)
	c.mu.Unlock()
	tell(watchers, torrents, changed)
	return nil
}

// Name returns the name of what h names in the torrents directory, "" if it is gone.
func (c *Catalog) Name(h Handle) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.things[h]; t != nil {
		return t.name
	}
	return ""
}

// replaceLocked takes old out and puts t in; both may be nil. It returns the names
// in the torrents directory that mean something else now.
func (c *Catalog) replaceLocked(old, t *thing) map[string]struct{} {
	changed := make(map[string]struct{})
	if old != nil {
		delete(c.things, old.handle)
		delete(c.slots, old.slot)
		for _, ino := range old.inodes {
			delete(c.inodes, ino)
		}
		c.names.remove(old, changed)
	}
	if t != nil {
		c.lastSlot++
		t.slot = c.lastSlot
		c.things[t.handle], c.slots[t.slot] = t, t
		c.claimLocked(t)
		c.names.add(t, changed)
	}
	return changed
}

// changedLocked notes the time of a change, and returns whom to tell of it. Until
// somebody has watched, things are only being put in place: then the time of the
// youngest of them is the time of the directory, the same at every start.
func (c *Catalog) changedLocked(t *thing) []func(fs.Change) {
	switch {
	case c.watches > 0:
		c.modified = time.Now()
	case t != nil && t.m != nil && t.modified.After(c.modified):
		c.modified = t.modified
	}
	return c.watchersLocked()
}

func (c *Catalog) watchersLocked() []func(fs.Change) {
	return slices.Collect(maps.Values(c.watchers))
}

func tell(watchers []func(fs.Change), dir tree.ID, names map[string]struct{}) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, f := range watchers {
			f(fs.Change{Dir: dir, Name: name})
		}
	}
}

// Watch implements fs.Watcher.
func (c *Catalog) Watch(f func(fs.Change)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.watches
	c.watches++
	c.watchers[id] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, id)
	}
}

// Space implements fs.Sizer.
func (c *Catalog) Space() (total, absent int64, files int) {
	c.mu.RLock()
	things := slices.Collect(maps.Values(c.things))
	c.mu.RUnlock()
	for _, t := range things {
		if t.m == nil {
			continue
		}
		size := t.tree.Total(0)
		present, _ := t.m.Present(Whole)
		total += size
		absent += max(0, size-present)
		files += t.tree.Files()
	}
	return total, absent, files
}

func compare(a, b *thing) int { return bytes.Compare(a.identity[:], b.identity[:]) }
