package unixfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

// ErrNotFound says that a directory, which was read, has no such name.
var ErrNotFound = errors.New("no such name in this directory")

// Kind is what an object is to a filesystem.
type Kind uint8

// The kinds; Unknown is for names in a directory, which does not say what they are.
const (
	Unknown Kind = iota
	File
	Dir
	Symlink
)

func (k Kind) String() string { return [...]string{"", "file", "directory", "symlink"}[k] }

// Object is a file, a directory or a symlink.
type Object struct {
	CID     cid.Cid // not defined for what lies in a Reed-Solomon directory
	Kind    Kind
	Format  string // how it is stored, in words
	Size    int64  // of a file: its bytes; of a symlink: of its target
	Mode    fs.FileMode
	ModTime time.Time // zero if it was not kept
	Target  string    // of a symlink, as it was written: nothing here follows it
	Meta    string    // token metadata, JSON

	content content
	dir     directory
}

// directory is how the names of a directory are found.
type directory interface {
	list(ctx context.Context) ([]Entry, error)
	lookup(ctx context.Context, name string) (*Object, error)
}

// Entry is one name of a directory.
type Entry struct {
	Name string
	CID  cid.Cid // not defined in a Reed-Solomon directory
	Kind Kind    // Unknown, unless the directory says it
	Size int64   // in a Reed-Solomon directory of the file; else about: of all blocks below
}

// Open brings the root of an object and says what it is.
func Open(ctx context.Context, blocks Blocks, c cid.Cid) (*Object, error) {
	n, err := load(ctx, blocks, c, -1)
	if err != nil {
		return nil, err
	}
	meta, ok, err := metadata(ctx, blocks, c, n)
	if err != nil {
		return nil, err
	}
	if ok {
		return meta.object(ctx, blocks, c, n)
	}
	return plain(blocks, c, n)
}

// plain is an object without metadata.
func plain(blocks Blocks, c cid.Cid, n *Node) (*Object, error) {
	o := &Object{CID: c, Kind: File, Size: n.Size, Mode: n.Mode, ModTime: n.ModTime}
	switch n.Type {
	case TypeDirectory:
		o.Kind, o.Size, o.Format, o.dir = Dir, 0, "directory", &basic{blocks, c, n}
	case TypeHAMT:
		o.Kind, o.Size, o.Format, o.dir = Dir, 0, "HAMT directory", &hamt{blocks, c, n}
	case TypeSymlink:
		o.Kind, o.Target, o.Format = Symlink, string(n.Data), "symlink"
		o.Size = int64(len(o.Target))
		if strings.ContainsRune(o.Target, 0) {
			return nil, &LieError{c, -1, errors.New("a symlink with NUL in its target")}
		}
	case TypeTokenMeta:
		return nil, fmt.Errorf("block %s: it is the metadata of a file; give the CID of the file", c)
	default:
		o.Format = fileFormat(n)
		o.content = &dag{blocks: blocks, cid: c, root: n, length: n.Size}
	}
	return o, nil
}

func fileFormat(n *Node) string {
	switch {
	case n.Raw:
		return "one raw block"
	case len(n.Links) == 0:
		return "one block"
	}
	return "tree of blocks"
}

// List returns the names of a directory, sorted. Nothing below them is brought.
func (o *Object) List(ctx context.Context) ([]Entry, error) {
	if o.dir == nil {
		return nil, fmt.Errorf("a %s has no names in it", o.Kind)
	}
	return o.dir.list(ctx)
}

// Lookup opens what a directory has under a name.
func (o *Object) Lookup(ctx context.Context, name string) (*Object, error) {
	switch {
	case o.Kind == Symlink:
		return nil, fmt.Errorf("it is a symlink to %q, which is not followed", o.Target)
	case o.dir == nil:
		return nil, fmt.Errorf("it is a %s and no directory", o.Kind)
	}
	return o.dir.lookup(ctx, name)
}

// Walk opens what a path names, from the root c.
func Walk(ctx context.Context, blocks Blocks, c cid.Cid, path []string) (*Object, error) {
	o, err := Open(ctx, blocks, c)
	for i, name := range path {
		if err != nil {
			break
		}
		if o, err = o.Lookup(ctx, name); errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("%s: %w", strings.Join(append([]string{c.String()}, path[:i+1]...), "/"), err)
		} else if err != nil {
			err = fmt.Errorf("%s: %w", strings.Join(append([]string{c.String()}, path[:i]...), "/"), err)
		}
	}
	return o, err
}

// Whole returns all bytes of a file whose root holds them. Callers may not change them.
func (o *Object) Whole() ([]byte, bool) {
	d, ok := o.content.(*dag)
	if !ok || d.root == nil || len(d.root.Links) > 0 || int64(len(d.root.Data)) != o.Size {
		return nil, false
	}
	return d.root.Data, true
}

// Weight is about how many bytes an object takes in memory: its root, decoded.
func (o *Object) Weight() int {
	const link = 128
	w := 512 + len(o.Target) + len(o.Meta)
	for _, n := range []*Node{nodeOf(o.content), nodeOf(o.dir)} {
		if n != nil {
			w += len(n.Data) + len(n.Links)*link
		}
	}
	return w
}

func nodeOf(part any) *Node {
	switch p := part.(type) {
	case *dag:
		return p.root
	case *basic:
		return p.node
	case *hamt:
		return p.root
	}
	return nil
}
