// Package fstest tests read-only filesystems, and lends tests what they need to be
// one. Start with [Memory] for a catalog that holds given files, [RunCatalog] to
// hold any catalog against what package fs expects of it, and [Run] to hold a
// mount, as the kernel shows it, against the files that should be there.
//
// It is for tests only. Nothing of it sleeps or polls, and it needs no daemon.
package fstest

import (
	"context"
	"io"
	iofs "io/fs"
	"iter"
	"strings"
	"time"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// Fake is a catalog made of functions. Those that are nil answer as an empty
// catalog does.
type Fake struct {
	StatFunc       func(ctx context.Context, id tree.ID) (tree.Entry, error)
	LookupFunc     func(ctx context.Context, dir tree.ID, name string) (tree.Entry, error)
	ListFunc       func(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error]
	OpenFunc       func(ctx context.Context, file tree.ID) (fs.Content, error)
	AttributeFunc  func(ctx context.Context, id tree.ID, name string) ([]byte, error)
	AttributesFunc func(ctx context.Context, id tree.ID) ([]string, error)
	SpaceFunc      func() (total, absent int64, files int)
	WatchFunc      func(f func(fs.Change)) (stop func())
}

var (
	_ fs.Catalog    = (*Fake)(nil)
	_ fs.Attributer = (*Fake)(nil)
	_ fs.Sizer      = (*Fake)(nil)
	_ fs.Watcher    = (*Fake)(nil)
)

// Stat calls StatFunc.
func (f *Fake) Stat(ctx context.Context, id tree.ID) (tree.Entry, error) {
	switch {
	case f.StatFunc != nil:
		return f.StatFunc(ctx, id)
	case id == tree.Root:
		return tree.Entry{ID: id, Ino: 1, Kind: tree.Dir}, nil
	}
	return tree.Entry{}, iofs.ErrNotExist
}

// Lookup calls LookupFunc.
func (f *Fake) Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	if f.LookupFunc == nil {
		return tree.Entry{}, iofs.ErrNotExist
	}
	return f.LookupFunc(ctx, dir, name)
}

// List calls ListFunc.
func (f *Fake) List(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	if f.ListFunc == nil {
		return func(func(tree.Entry, error) bool) {}
	}
	return f.ListFunc(ctx, dir, from)
}

// Open calls OpenFunc.
func (f *Fake) Open(ctx context.Context, file tree.ID) (fs.Content, error) {
	if f.OpenFunc == nil {
		return nil, iofs.ErrNotExist
	}
	return f.OpenFunc(ctx, file)
}

// Attribute calls AttributeFunc.
func (f *Fake) Attribute(ctx context.Context, id tree.ID, name string) ([]byte, error) {
	if f.AttributeFunc == nil {
		return nil, iofs.ErrNotExist
	}
	return f.AttributeFunc(ctx, id, name)
}

// Attributes calls AttributesFunc.
func (f *Fake) Attributes(ctx context.Context, id tree.ID) ([]string, error) {
	if f.AttributesFunc == nil {
		return nil, nil
	}
	return f.AttributesFunc(ctx, id)
}

// Space calls SpaceFunc.
func (f *Fake) Space() (total, absent int64, files int) {
	if f.SpaceFunc == nil {
		return 0, 0, 0
	}
	return f.SpaceFunc()
}

// Watch calls WatchFunc.
func (f *Fake) Watch(change func(fs.Change)) (stop func()) {
	if f.WatchFunc == nil {
		return func() {}
	}
	return f.WatchFunc(change)
}

// Content is an open file made of functions.
type Content struct {
	ReadAtFunc func(ctx context.Context, p []byte, off int64) (int, error)
	CloseFunc  func() error
}

var _ fs.Content = (*Content)(nil)

// ReadAt calls ReadAtFunc.
func (c *Content) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return c.ReadAtFunc(ctx, p, off)
}

// Close calls CloseFunc, if there is one.
func (c *Content) Close() error {
	if c.CloseFunc == nil {
		return nil
	}
	return c.CloseFunc()
}

// Bytes is content that is all there.
type Bytes []byte

// ReadAt never waits.
func (b Bytes) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close does nothing.
func (Bytes) Close() error { return nil }

// File is a file, or a symlink, of a [Memory] catalog and of what [Run] expects.
type File struct {
	Path    string // clean, without a leading "/"
	Data    []byte
	Exec    bool
	Symlink string // not empty: a symlink to this path from the root
	// Open replaces Data where a test wants to decide on reads; Size is its length.
	Open func(ctx context.Context) (fs.Content, error)
	Size int64
}

func (f *File) size() int64 {
	if f.Open != nil {
		return f.Size
	}
	return int64(len(f.Data))
}

// ModTime is the modification time of everything in a [Memory] catalog.
var ModTime = time.Date(2004, 4, 1, 12, 0, 0, 0, time.UTC)

// Memory returns a catalog that holds files, complete and never changing.
func Memory(files ...File) *Fake {
	m := &memory{files: files, tree: tree.Build(specs(files))}
	return &Fake{
		StatFunc:   m.stat,
		LookupFunc: m.lookup,
		ListFunc:   m.list,
		OpenFunc:   m.open,
		SpaceFunc:  func() (int64, int64, int) { return m.tree.Total(0), 0, m.tree.Files() },
	}
}

func specs(files []File) []tree.Spec {
	specs := make([]tree.Spec, len(files))
	for i := range files {
		f := &files[i]
		specs[i] = tree.Spec{Path: strings.Split(f.Path, "/"), Size: f.size(), Exec: f.Exec, Tag: i}
		if f.Symlink != "" {
			specs[i].Symlink = strings.Split(f.Symlink, "/")
		}
	}
	return specs
}

// memory knows a node by its number in the tree plus one.
type memory struct {
	files []File
	tree  *tree.Tree
}

func (m *memory) entry(i int) tree.Entry {
	n := m.tree.Node(i)
	return tree.Entry{
		ID: tree.ID(i + 1), Ino: uint64(i + 1), Name: n.Name, Kind: n.Kind, Exec: n.Exec,
		Size: n.Size, Present: n.Size, Settled: true, ModTime: ModTime, Target: n.Target,
	}
}

func (m *memory) stat(_ context.Context, id tree.ID) (tree.Entry, error) {
	if id == 0 || id > tree.ID(m.tree.Len()) {
		return tree.Entry{}, iofs.ErrNotExist
	}
	return m.entry(int(id - 1)), nil
}

func (m *memory) lookup(_ context.Context, dir tree.ID, name string) (tree.Entry, error) {
	i, ok := m.tree.Lookup(int(dir-1), name)
	if !ok {
		return tree.Entry{}, iofs.ErrNotExist
	}
	return m.entry(i), nil
}

func (m *memory) list(_ context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		first, count := m.tree.Children(int(dir - 1))
		for i := first + from; i < first+count; i++ {
			if !yield(m.entry(i), nil) {
				return
			}
		}
	}
}

func (m *memory) open(ctx context.Context, id tree.ID) (fs.Content, error) {
	n := m.tree.Node(int(id - 1))
	if n.Tag == tree.NoTag {
		return Bytes(nil), nil
	}
	f := &m.files[n.Tag]
	if f.Open != nil {
		return f.Open(ctx)
	}
	return Bytes(f.Data), nil
}
