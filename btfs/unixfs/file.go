package unixfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/crawl"
)

const (
	maxDepth = 128 // levels of a tree of blocks
	width    = 64  // blocks of one read that are asked for at a time
	shards   = 256 // and of one listing, whose blocks are small
)

// limits bound a read: who wants more parts at once was sent leaves of a few bytes.
var limits = crawl.Limits{Width: width, Pending: 1 << 17}

// Blocks brings one block, verified. Callers may not change what it returns.
type Blocks interface {
	Block(ctx context.Context, c cid.Cid) ([]byte, error)
}

// LieError says that a block is what its CID names, and not what its object promises.
// No other source will have a better one.
type LieError struct {
	CID cid.Cid
	Off int64 // of what the block holds, in the file; -1 if there is no such place
	Err error
}

func (e *LieError) Error() string {
	if e.Off < 0 {
		return fmt.Sprintf("block %s: %v; the object is broken", e.CID, e.Err)
	}
	return fmt.Sprintf("block %s at offset %d: %v; the object is broken", e.CID, e.Off, e.Err)
}

func (e *LieError) Unwrap() error { return e.Err }

// load brings a block and reads it.
func load(ctx context.Context, blocks Blocks, c cid.Cid, off int64) (*Node, error) {
	if err := block.Check(c); err != nil {
		return nil, &LieError{c, off, err}
	}
	b, err := blocks.Block(ctx, c)
	if err != nil {
		if off > 0 {
			err = fmt.Errorf("at offset %d: %w", off, err)
		}
		return nil, err
	}
	n, err := Decode(c, b)
	if err != nil {
		return nil, &LieError{c, off, err}
	}
	return n, nil
}

// content is the bytes of a file.
type content interface {
	size() int64
	// readAt fills p with what stands at off; all of it is within the size.
	readAt(ctx context.Context, p []byte, off int64) error
}

// dag is the content of a tree of blocks.
type dag struct {
	blocks Blocks
	cid    cid.Cid
	root   *Node // nil if only its size is known
	length int64
	at     int64 // where it begins in its file, for errors
	meta   bool  // it is token metadata
}

func (d *dag) size() int64 { return d.length }

// part is a piece of work of a read: what of p stands in the tree below a block.
type part struct {
	cid    cid.Cid
	node   *Node // nil: it has to be brought
	size   int64 // that the parent promises
	start  int64 // of the block's content, in the dag
	levels int
}

func (d *dag) readAt(ctx context.Context, p []byte, off int64) error {
	end := off + int64(len(p))
	return crawl.Run(ctx, limits, []part{{d.cid, d.root, d.length, 0, 0}}, func(ctx context.Context, t part, push func(...part)) error {
		n, at := t.node, d.at+t.start
		if n == nil {
			var err error
			if n, err = load(ctx, d.blocks, t.cid, at); err != nil {
				return err
			}
		}
		if err := n.fits(d.meta, t.size, t.levels); err != nil {
			return &LieError{t.cid, at, err}
		}
		if data := int64(len(n.Data)); t.start < end && t.start+data > off {
			from := max(off, t.start)
			copy(p[from-off:], n.Data[from-t.start:])
		}
		push(n.below(t, off, end)...)
		return nil
	})
}

// fits holds a block of a file against what its parent promised.
func (n *Node) fits(meta bool, size int64, levels int) error {
	switch {
	case n.Type != TypeFile && n.Type != TypeRaw && (n.Type != TypeTokenMeta || !meta):
		return fmt.Errorf("a %s in the middle of a file", n.Type)
	case n.Size != size:
		return fmt.Errorf("it holds %d bytes where %d are promised", n.Size, size)
	case levels > maxDepth:
		return fmt.Errorf("more than %d levels of blocks", maxDepth)
	}
	return nil
}

// below returns the links that hold something of off to end, last first: the first is
// taken first.
func (n *Node) below(t part, off, end int64) (parts []part) {
	start := t.start + int64(len(n.Data))
	for i, s := range n.Sizes {
		if s > 0 && start < end && start+s > off {
			parts = append(parts, part{cid: n.Links[i].CID(), size: s, start: start, levels: t.levels + 1})
		}
		start += s
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return parts
}

// section is a part of another content.
type section struct {
	of      content
	at, len int64
}

func (s *section) size() int64 { return s.len }

func (s *section) readAt(ctx context.Context, p []byte, off int64) error {
	return s.of.readAt(ctx, p, s.at+off)
}

// readAll reads a small content whole.
func readAll(ctx context.Context, c content, limit int64) ([]byte, error) {
	if c.size() > limit {
		return nil, fmt.Errorf("%d bytes where at most %d are read", c.size(), limit)
	}
	p := make([]byte, c.size())
	return p, c.readAt(ctx, p, 0)
}

var errNegative = errors.New("read before the beginning")

// ReadAt reads a file as io.ReaderAt does: less than asked for only at the end, and then
// with io.EOF. It may be called by several at a time.
func (o *Object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case o.content == nil:
		return 0, fmt.Errorf("a %s has no bytes to read", o.Kind)
	case off < 0:
		return 0, errNegative
	case off >= o.Size:
		return 0, io.EOF
	}
	short := int64(len(p)) > o.Size-off
	if short {
		p = p[:o.Size-off]
	}
	if err := o.content.readAt(ctx, p, off); err != nil {
		return 0, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}
