package fs

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btmount/btmount/fs/tree"
)

// listBatch is how many entries are asked of the catalog at a time.
const listBatch = 128

// dirNode is a directory. Names in one that is changing come and go.
type dirNode struct {
	node
	changing bool
	remote   bool
	said     atomic.Int64 // when it was logged last that it can not be read, Unix seconds
}

var (
	_ gofuse.NodeGetattrer      = (*dirNode)(nil)
	_ gofuse.NodeLookuper       = (*dirNode)(nil)
	_ gofuse.NodeOpendirHandler = (*dirNode)(nil)
	_ gofuse.NodeOnForgetter    = (*dirNode)(nil)
	_ gofuse.FileReaddirenter   = (*dirHandle)(nil)
	_ gofuse.FileSeekdirer      = (*dirHandle)(nil)
	_ gofuse.FileLookuper       = (*dirHandle)(nil)
	_ gofuse.FileReleasedirer   = (*dirHandle)(nil)
)

// Lookup finds a name. That it does not exist is remembered by the kernel, too.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	n, errno := d.lookup(ctx, name, out)
	if errno == 0 && !n.IsDir() {
		d.server.walkers.looks(caller(ctx))
	}
	return n, errno
}

func (d *dirNode) lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	d.server.watched(d)
	asking, answered := d.request(ctx)
	defer answered()
	e, err := d.server.catalog.Lookup(asking, d.id, name)
	if err != nil {
		return nil, d.failed(err, name)
	}
	return d.child(ctx, &e, out), 0
}

// request is the context of a question whose answer may have to be fetched.
func (d *dirNode) request(ctx context.Context) (_ context.Context, answered func()) {
	if !d.remote {
		return ctx, func() {}
	}
	r := newRequest(ctx, d.server.ctx, d.server.readTimeout)
	return r, r.finish
}

// complain reports whether a failure is to be logged: whoever walks a directory that can not
// be read causes many.
func (d *dirNode) complain() bool {
	const each = 10 // seconds
	now, said := time.Now().Unix(), d.said.Load()
	return now-said >= each && d.said.CompareAndSwap(said, now)
}

// failed is what a question about a directory ends with. What its reader hears is a number:
// the log has the cause.
func (d *dirNode) failed(err error, name string) syscall.Errno {
	number := errno(err)
	if d.remote && number != 0 && number != syscall.ENOENT && number != syscall.EINTR && d.complain() {
		d.server.log.Warn("directory can not be read", "dir", d.Path(nil), "name", name, "err", err)
	}
	return number
}

// child returns the node of an entry. It makes a new one only if the kernel does
// not know the name yet, because listing a directory asks for every one of them.
func (d *dirNode) child(ctx context.Context, e *tree.Entry, out *fuse.EntryOut) *gofuse.Inode {
	d.server.fill(&out.Attr, e)
	out.SetEntryTimeout(cmp.Or(e.TTL, nameTTL))
	out.SetAttrTimeout(attrTTL(e))
	id := identity(e)
	if known := d.GetChild(e.Name); known != nil && known.StableAttr() == id {
		return known
	}
	return d.NewInode(ctx, d.server.newNode(e), id)
}

// OnForget is called when the kernel has forgotten the directory.
func (d *dirNode) OnForget() { d.server.changing.CompareAndDelete(d.id, d) }

// OpendirHandle opens a directory. The kernel keeps the listing of one that does
// not change.
func (d *dirNode) OpendirHandle(_ context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	d.server.watched(d)
	if d.changing {
		return &dirHandle{dir: d}, 0, 0
	}
	return &dirHandle{dir: d}, fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

// dirHandle lists one directory. Position 0 is ".", 1 is "..", and entry i of the
// catalog is at 2+i; d_off of an entry is the position after it. go-fuse calls it
// for one request at a time.
//
// A directory that may change is read whole when the listing starts, so that a
// torrent that comes or goes meanwhile does not make others appear twice or never.
// The others are read in batches: a handle on a million names stays small.
type dirHandle struct {
	dir   *dirNode
	pos   int
	batch []tree.Entry
	room  *[listBatch]tree.Entry // that the batch lies in
	base  int                    // entry number of batch[0]
	out   fuse.DirEntry
	asked bool // of how many files the names are enough
	names int
}

// batches are of handles that were closed: a walk opens a directory after the other.
var batches = sync.Pool{New: func() any { return new([listBatch]tree.Entry) }}

// Releasedir is called when nothing uses the handle any more.
func (h *dirHandle) Releasedir(context.Context, uint32) {
	if b := h.room; b != nil {
		*b = [listBatch]tree.Entry{} // names keep whole trees in memory
		h.room, h.batch = nil, nil
		batches.Put(b)
	}
}

// Seekdir moves to a position that an earlier entry gave as its offset.
func (h *dirHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off > 1<<32 {
		return syscall.EINVAL
	}
	h.pos = int(off)
	if off == 0 { // rewinddir(3) shall see what is there now
		h.batch, h.base = nil, 0
	}
	return 0
}

// Readdirent returns the next entry, nil at the end.
func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	switch h.pos {
	case 0:
		h.emit(".", syscall.S_IFDIR, h.dir.ino())
	case 1:
		h.emit("..", syscall.S_IFDIR, h.dir.parentIno())
	default:
		e, err := h.entry(ctx, h.pos-2)
		if e == nil {
			return nil, h.dir.failed(err, "")
		}
		h.emit(e.Name, format(e.Kind), e.Ino)
	}
	return &h.out, 0
}

func (h *dirHandle) emit(name string, mode uint32, ino uint64) {
	h.pos++
	h.out = fuse.DirEntry{Name: name, Mode: mode, Ino: ino, Off: uint64(h.pos)}
}

// entry returns entry i, nil after the last.
func (h *dirHandle) entry(ctx context.Context, i int) (*tree.Entry, error) {
	whole := h.dir.changing
	if i < h.base || i >= h.base+len(h.batch) {
		if whole && h.batch != nil {
			return nil, nil
		}
		from := i
		if whole {
			from = 0
		}
		h.batch, h.base = h.batch[:0], from
		if !whole {
			if h.room == nil {
				h.room = batches.Get().(*[listBatch]tree.Entry)
			}
			h.batch = h.room[:0]
		}
		asking, answered := h.dir.request(ctx)
		defer answered()
		for e, err := range h.dir.server.catalog.List(asking, h.dir.id, from) {
			if err != nil {
				return nil, err
			}
			if h.batch = append(h.batch, e); !whole && len(h.batch) == listBatch {
				break
			}
		}
	}
	if i >= h.base+len(h.batch) {
		return nil, nil
	}
	return &h.batch[i-h.base], nil
}

// Lookup is called for each entry of a READDIRPLUS, just after Readdirent returned
// it: no need to search for the name again. It may also repeat older names, after
// an interrupt. An error means that the name comes without attributes (see walkers).
func (h *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	s, e := h.dir.server, (*tree.Entry)(nil)
	if i := h.pos - 3 - h.base; i >= 0 && i < len(h.batch) && h.batch[i].Name == name {
		e = &h.batch[i]
	}
	if e != nil && e.Kind == tree.Unknown {
		return nil, syscall.ENODATA
	}
	if !h.asked {
		h.asked, h.names = true, s.walkers.lists(caller(ctx))
	}
	if h.names > 0 && e != nil && e.Kind != tree.Dir { // those are walked into, as a rule
		h.names--
		s.walkers.gave(caller(ctx))
		return nil, syscall.ENODATA
	}
	if e != nil && !h.dir.changing {
		return h.dir.child(ctx, e, out), 0
	}
	return h.dir.lookup(ctx, name, out)
}

func (n *node) ino() uint64 { return n.StableAttr().Ino }

func (d *dirNode) parentIno() uint64 {
	if _, parent := d.Parent(); parent != nil {
		return parent.StableAttr().Ino
	}
	return d.ino()
}
