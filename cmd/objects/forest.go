package objects

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"iter"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// Config of a Forest.
type Config struct {
	Blocks    unixfs.Blocks
	Cache     *cache.Store
	Scheduler *fetch.Scheduler
	Log       *slog.Logger
	Sources   func() []string // that blocks come from, in words; may be nil
}

// Forest is the catalog of all CIDs. It implements fs.Catalog and fs.Attributer.
type Forest struct {
	cfg   Config
	pack  *pack
	files files
	ahead ahead

	refused refused

	mu    sync.Mutex // guards everything below
	last  tree.ID
	nodes map[tree.ID]*node
	order *list.List       // of nodes, used last first
	roots map[string]*node // by CID, as it is called; of names by "btns/NAME/CID/path"
	named map[string]struct{}
	hot   hot
}

const (
	maxNodes = 1 << 18
	maxPath  = 3584 // of names below a root; see tree.Build
)

var _ interface {
	fs.Catalog
	fs.Attributer
} = (*Forest)(nil)

// New makes a forest; it asks nobody for anything by itself.
func New(cfg Config) *Forest {
	f := &Forest{cfg: cfg, pack: newPack(cfg), nodes: map[tree.ID]*node{}, order: list.New(), roots: map[string]*node{}, named: map[string]struct{}{}, last: tree.Root}
	f.files.init(f)
	f.ahead.init()
	f.hot.init()
	return f
}

// Close returns when nothing of what was begun runs any more. Nobody may ask any more.
func (f *Forest) Close() {
	f.ahead.close()
	f.pack.flush()
}

// node is a name that was looked up, and what it is. It is immutable but for place and children.
type node struct {
	id     tree.ID
	parent *node     // nil: a root
	top    string    // of a root: the directory that it is in
	key    string    // of a root: in Forest.roots
	way    btfs.Path // of a root in btns/: what it stands for
	name   string
	raw    string    // in its directory
	cid    block.CID // not defined in a Reed-Solomon directory
	hash   [32]byte
	length int // of the path below the root
	depth  int // of a directory: names above which it lies; -1 is btfs/

	kind    tree.Kind
	perm    uint16
	size    int64
	modTime time.Time
	target  string
	small   bool // it is one block that the pack keeps

	place    *list.Element    // guarded by Forest.mu, like children
	children map[string]*node // by name
}

var (
	errAbsent = iofs.ErrNotExist
	errGone   = fmt.Errorf("it was forgotten: %w, %w", syscall.ESTALE, iofs.ErrNotExist)
)

// The directories of the mount.
const (
	objectsDir = "btfs"
	namesDir   = "btns"
)

func topIno(dir string) uint64 { return ino(sha256.Sum256([]byte("btmount " + dir))) }

// ino keeps off 0, 1, 2^64-1 and what go-fuse makes up itself, as package catalog does.
func ino(hash [32]byte) uint64 { return max(2, binary.BigEndian.Uint64(hash[:])&^(1<<63)) }

func childHash(parent [32]byte, name string) [32]byte {
	return sha256.Sum256(append(parent[:], name...))
}

func rootHash(top, name string) [32]byte { return sha256.Sum256([]byte(top + "/" + name)) }

func (f *Forest) entry(n *node) tree.Entry {
	e := tree.Entry{
		ID: n.id, Ino: ino(n.hash), Name: n.name, Kind: n.kind, Perm: n.perm, Size: n.size,
		ModTime: n.modTime, Target: n.target, Settled: true, Remote: n.kind == tree.Dir,
	}
	switch {
	case n.small: // it came with its name
		e.Present = n.size
	case n.kind == tree.File && n.size > 0:
		e.Present, e.Settled = min(f.files.present(n), n.size), false
	}
	return e
}

func top(dir string) tree.Entry {
	return tree.Entry{ID: tree.Root, Ino: topIno(dir), Kind: tree.Dir, Remote: true, ModTime: time.Unix(0, 0)}
}

// find returns the node of an id, and makes it, and all above it, the ones used last.
func (f *Forest) find(id tree.ID) (*node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil {
		return nil, errGone
	}
	f.usedLocked(n)
	return n, nil
}

func (f *Forest) usedLocked(n *node) {
	for ; n != nil; n = n.parent {
		if n.place != nil {
			f.order.MoveToFront(n.place)
		}
	}
}

// Stat implements fs.Catalog.
func (f *Forest) Stat(_ context.Context, id tree.ID) (tree.Entry, error) {
	if id == tree.Root {
		return top(objectsDir), nil
	}
	n, err := f.find(id)
	if err != nil {
		return tree.Entry{}, err
	}
	return f.entry(n), nil
}

// Lookup implements fs.Catalog.
func (f *Forest) Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	return f.refused.lookup(ctx, asked{dir, objectsDir, name}, func() (tree.Entry, error) { return f.lookup(ctx, dir, name) })
}

func (f *Forest) lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	if dir == tree.Root {
		n, err := f.lookupRoot(ctx, name)
		if err != nil {
			return tree.Entry{}, err
		}
		return f.entry(n), nil
	}
	d, err := f.find(dir)
	if err != nil {
		return tree.Entry{}, err
	}
	n, err := f.child(ctx, d, name)
	if err != nil {
		return tree.Entry{}, err
	}
	f.ahead.looked(f, d, name)
	return f.entry(n), nil
}

// lookupRoot opens a CID. What is none is no name here, and nobody is asked for it.
func (f *Forest) lookupRoot(ctx context.Context, name string) (*node, error) {
	if n := f.root(name); n != nil {
		return n, nil
	}
	c, err := block.Parse(name)
	if err != nil {
		return nil, errAbsent
	}
	o, err := unixfs.Open(source.Within(ctx, c), f.pack, c)
	if err != nil {
		return nil, wrap(objectsDir+"/"+name, err)
	}
	return f.add(&node{top: objectsDir, key: name, name: name, cid: c, hash: rootHash(objectsDir, name)}, o), nil
}

// root returns a root that is known, nil if it is not.
func (f *Forest) root(key string) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.roots[key]
	f.usedLocked(n)
	return n
}

// Name has a CID listed from the start. It is looked up when somebody looks at it.
func (f *Forest) Name(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.named[text] = struct{}{}
}

// Named returns how many were named.
func (f *Forest) Named() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.named)
}

// child finds a name in a directory.
func (f *Forest) child(ctx context.Context, d *node, name string) (*node, error) {
	f.mu.Lock()
	n := d.children[name]
	if n != nil {
		f.usedLocked(n)
	}
	f.mu.Unlock()
	switch {
	case n != nil:
		return n, nil
	case d.kind != tree.Dir:
		return nil, syscall.ENOTDIR
	case d.length+1+len(name) > maxPath:
		return nil, syscall.ENAMETOOLONG
	}
	raw, o, err := f.open(ctx, d, name)
	if err != nil {
		return nil, err
	}
	return f.add(&node{parent: d, name: name, raw: raw, cid: o.CID, hash: childHash(d.hash, name), length: d.length + 1 + len(name), depth: d.depth + 1}, o), nil
}

// open opens what a directory has under a shown name.
func (f *Forest) open(ctx context.Context, d *node, name string) (raw string, o *unixfs.Object, err error) {
	ctx = source.Within(ctx, d.root())
	dir, err := f.object(ctx, d)
	if err != nil {
		return "", nil, err
	}
	if o, err = dir.Lookup(ctx, name); err == nil && tree.CleanName(name) == name {
		return name, o, nil
	}
	if err != nil && !errors.Is(err, unixfs.ErrNotFound) {
		return "", nil, wrap(d.path()+"/"+name, err)
	}
	if !mayBeMade(name) {
		return "", nil, errAbsent
	}
	l, err := f.listing(ctx, d)
	if err != nil {
		return "", nil, err
	}
	raw, ok := l.made[name]
	if !ok {
		return "", nil, errAbsent
	}
	if o, err = dir.Lookup(ctx, raw); err != nil {
		return "", nil, wrap(d.path()+"/"+name, err)
	}
	return raw, o, nil
}

// add remembers a node, unless it is known by now.
func (f *Forest) add(n *node, o *unixfs.Object) *node {
	n.describe(o)
	f.mu.Lock()
	defer f.mu.Unlock()
	var other *node
	if n.parent == nil {
		other = f.roots[n.key]
	} else {
		other = n.parent.children[n.name]
	}
	if other != nil {
		f.usedLocked(other)
		return other
	}
	f.last++
	n.id = f.last
	f.nodes[n.id] = n
	n.place = f.order.PushFront(n)
	if n.parent == nil {
		f.roots[n.key] = n
	} else {
		if n.parent.children == nil {
			n.parent.children = map[string]*node{}
		}
		n.parent.children[n.name] = n
	}
	f.usedLocked(n)
	f.hot.keep(n, o)
	for f.order.Len() > maxNodes {
		f.forgetLocked(f.order.Back().Value.(*node))
	}
	return n
}

func (f *Forest) forgetLocked(n *node) {
	f.order.Remove(n.place)
	n.place = nil
	delete(f.nodes, n.id)
	f.hot.drop(n)
	if n.parent == nil {
		delete(f.roots, n.key)
	} else if n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
}

// describe notes what an object is to a filesystem.
func (n *node) describe(o *unixfs.Object) {
	n.size, n.modTime = o.Size, o.ModTime
	if b, ok := o.Whole(); ok {
		n.small = len(b) <= maxPacked
	}
	if n.modTime.IsZero() {
		n.modTime = time.Unix(0, 0)
	}
	switch o.Kind {
	case unixfs.Dir:
		n.kind, n.size = tree.Dir, 0
	case unixfs.Symlink:
		n.kind, n.size = tree.File, 0
		if target, ok := inside(o.Target, n.depth-1); ok {
			n.kind, n.target, n.size = tree.Symlink, target, int64(len(target))
		}
	default:
		n.kind = tree.File
	}
	n.perm = uint16(o.Mode.Perm())
}

// inside returns where a symlink leads, if that is below its root: depth directories lie
// above the one that holds it. All ".." stand first, so they count from a directory that
// is real; and what comes after leads down, or over links of this kind.
func inside(target string, depth int) (string, bool) {
	if target == "" || len(target) > maxPath || path.IsAbs(target) {
		return "", false
	}
	target = path.Clean(target)
	up := 0
	for rest := target; rest == ".." || strings.HasPrefix(rest, "../"); up++ {
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, ".."), "/")
	}
	for name := range strings.SplitSeq(target, "/") {
		if name != ".." && name != "." && tree.CleanName(name) != name {
			return "", false
		}
	}
	return target, up <= depth
}

func (n *node) path() string {
	if n.parent == nil {
		return n.top + "/" + n.name
	}
	return n.parent.path() + "/" + n.name
}

// root is the CID that all blocks of a node are below: who has some of them is asked first.
func (n *node) root() block.CID {
	for n.parent != nil {
		n = n.parent
	}
	if n.way.CID.Defined() {
		return n.way.CID
	}
	return n.cid
}

// object returns what is behind a node, brought again if need be.
func (f *Forest) object(ctx context.Context, n *node) (*unixfs.Object, error) {
	f.mu.Lock()
	o := f.hot.object(n)
	f.mu.Unlock()
	if o != nil {
		return o, nil
	}
	ctx = source.Within(ctx, n.root())
	var err error
	switch {
	case n.cid.Defined():
		o, err = unixfs.Open(ctx, f.pack, n.cid)
	case n.parent == nil: // a name for what lies in a Reed-Solomon directory
		o, err = unixfs.Walk(ctx, f.pack, n.way.CID, n.way.Names)
	default:
		var dir *unixfs.Object
		if dir, err = f.object(ctx, n.parent); err == nil {
			o, err = dir.Lookup(ctx, n.raw)
		}
	}
	if err != nil {
		return nil, wrap(n.path(), err)
	}
	f.mu.Lock()
	f.hot.keep(n, o)
	f.mu.Unlock()
	return o, nil
}

// List implements fs.Catalog.
func (f *Forest) List(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	if dir == tree.Root {
		return f.listRoots(from)
	}
	return func(yield func(tree.Entry, error) bool) {
		d, err := f.find(dir)
		var l *listing
		if err == nil {
			l, err = f.listing(ctx, d)
		}
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		for i := from; i < len(l.names); i++ {
			name := l.names[i]
			f.mu.Lock()
			n := d.children[name]
			f.mu.Unlock()
			e := tree.Entry{Ino: ino(childHash(d.hash, name)), Name: name, Kind: tree.Unknown}
			if n != nil {
				e = f.entry(n)
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *Forest) listRoots(from int) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		f.mu.Lock()
		all := map[string]*node{}
		for key, n := range f.roots {
			if n.top == objectsDir {
				all[key] = n
			}
		}
		for name := range f.named {
			if all[name] == nil {
				all[name] = nil
			}
		}
		f.mu.Unlock()
		names := slices.Sorted(maps.Keys(all))
		for _, name := range names[min(from, len(names)):] {
			e := tree.Entry{Ino: ino(rootHash(objectsDir, name)), Name: name, Kind: tree.Unknown}
			if n := all[name]; n != nil {
				e = f.entry(n)
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Open implements fs.Catalog.
func (f *Forest) Open(ctx context.Context, id tree.ID) (fs.Content, error) {
	n, err := f.find(id)
	switch {
	case err != nil:
		return nil, err
	case n.kind != tree.File:
		return nil, iofs.ErrInvalid
	case n.size == 0:
		return whole(nil), nil
	}
	return f.files.open(ctx, n)
}

// The extended attributes of an object.
const (
	attrCID      = "user.btmount.cid"
	attrVerified = "user.btmount.verified"
	attrSource   = "user.btmount.source"
	attrProgress = "user.btmount.progress"
)

// Attributes implements fs.Attributer.
func (f *Forest) Attributes(_ context.Context, id tree.ID) ([]string, error) {
	n, err := f.find(id)
	if err != nil {
		return nil, nil // btfs/ itself has none
	}
	names := []string{attrVerified}
	if n.cid.Defined() {
		names = append(names, attrCID)
	}
	if f.cfg.Sources != nil {
		names = append(names, attrSource)
	}
	if n.kind == tree.File {
		names = append(names, attrProgress)
	}
	return names, nil
}

// Attribute implements fs.Attributer.
func (f *Forest) Attribute(_ context.Context, id tree.ID, name string) ([]byte, error) {
	n, err := f.find(id)
	if err != nil {
		return nil, errAbsent
	}
	switch {
	case name == attrCID && n.cid.Defined():
		return []byte(n.cid.String()), nil
	case name == attrCID:
		return nil, errAbsent // it has none of its own
	case name == attrVerified:
		return []byte("yes"), nil // blocks that were not are neither shown nor read
	case name == attrSource && f.cfg.Sources != nil:
		return []byte(strings.Join(f.cfg.Sources(), ", ")), nil
	case name == attrProgress && n.kind == tree.File:
		if n.size == 0 {
			return []byte("100.00%"), nil
		}
		return fmt.Appendf(nil, "%.2f%%", 100*float64(f.files.present(n))/float64(n.size)), nil
	}
	return nil, errAbsent
}

// Error is why something of an object cannot be had; it tells the kernel side of which
// kind the cause is.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Corrupt reports that the blocks are what their CIDs say, and no object.
func (e *Error) Corrupt() bool {
	lie := (*unixfs.LieError)(nil)
	return errors.As(e.Err, &lie)
}

// Permanent is Corrupt: nobody will have better ones.
func (e *Error) Permanent() bool { return e.Corrupt() }

// NoSource reports that all who were asked said that they do not have it, or that there
// is nobody to ask.
func (e *Error) NoSource() bool {
	if errors.Is(e.Err, source.ErrNoSource) || noName(e.Err) {
		return true
	}
	all, absent := (*source.Error)(nil), (*source.AbsentError)(nil)
	if !errors.As(e.Err, &all) {
		return false
	}
	for _, try := range all.Tries {
		if !errors.As(try, &absent) {
			return false
		}
	}
	return len(all.Tries) > 0
}

func wrap(path string, err error) error {
	if known := (*Error)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{path, err}
}
