package fs

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btmount/btmount/fs/tree"
)

// How long the kernel may believe us without asking.
const (
	nameTTL      = time.Hour   // names, present and absent: changes are notified
	settledTTL   = time.Hour   // attributes that do not change any more
	unsettledTTL = time.Second // attributes of a file that is still arriving
)

const (
	blockSize = 4096 // as stat and statfs tell it; the unit of the page cache
	sector    = 512  // the unit of st_blocks, whatever st_blksize says
)

// node is what all kinds of node have in common. go-fuse makes one for each name
// that the kernel knows; everything else is asked of the catalog.
type node struct {
	gofuse.Inode
	server *Server
	id     tree.ID
}

type fileNode struct {
	node
	readers readers
}

type linkNode struct{ node }

var (
	_ gofuse.NodeGetattrer   = (*fileNode)(nil)
	_ gofuse.NodeGetxattrer  = (*fileNode)(nil)
	_ gofuse.NodeListxattrer = (*fileNode)(nil)
	_ gofuse.NodeStatfser    = (*fileNode)(nil)
	_ gofuse.NodeOpener      = (*fileNode)(nil)
	_ gofuse.FileReader      = (*fileHandle)(nil)
	_ gofuse.FileReleaser    = (*fileHandle)(nil)
	_ gofuse.NodeReadlinker  = (*linkNode)(nil)
)

// newNode makes the node of an entry.
func (s *Server) newNode(e *tree.Entry) gofuse.InodeEmbedder {
	switch e.Kind {
	case tree.Dir:
		return &dirNode{node: node{server: s, id: e.ID}, changing: !e.Settled, remote: e.Remote}
	case tree.Symlink:
		return &linkNode{node{server: s, id: e.ID}}
	}
	return &fileNode{node: node{server: s, id: e.ID}}
}

// identity is by what go-fuse knows a node. The generation makes sure that an
// inode number which comes back, because a torrent was removed and added again,
// does not bring back the old node, whose id the catalog does not know any more.
func identity(e *tree.Entry) gofuse.StableAttr {
	return gofuse.StableAttr{Mode: format(e.Kind), Ino: e.Ino, Gen: uint64(e.ID)}
}

func format(k tree.Kind) uint32 {
	switch k {
	case tree.Dir:
		return syscall.S_IFDIR
	case tree.Symlink:
		return syscall.S_IFLNK
	case tree.Unknown:
		return 0 // DT_UNKNOWN
	}
	return syscall.S_IFREG
}

// permissions has no write bit and no special bit, ever. The owner may read all, and look
// into every directory.
func permissions(e *tree.Entry) uint32 {
	switch {
	case e.Kind == tree.Symlink:
		return 0o777
	case e.Perm != 0 && e.Kind == tree.Dir:
		return uint32(e.Perm)&0o555 | 0o500
	case e.Perm != 0:
		return uint32(e.Perm)&0o555 | 0o400
	case e.Kind == tree.Dir, e.Exec:
		return 0o555
	}
	return 0o444
}

func attrTTL(e *tree.Entry) time.Duration {
	if e.Settled {
		return settledTTL
	}
	return unsettledTTL
}

// fill writes what stat(2) tells of an entry. st_blocks counts what is on disk, so
// that du tells the truth. A directory has one link, as on btrfs: "unknown" for
// programs that would conclude from it how many directories are inside.
func (s *Server) fill(out *fuse.Attr, e *tree.Entry) {
	out.Ino = e.Ino
	out.Mode = format(e.Kind) | permissions(e)
	out.Nlink = 1
	out.Owner = fuse.Owner{Uid: s.uid, Gid: s.gid}
	out.Blksize = blockSize
	if e.Kind != tree.Dir {
		out.Size = uint64(max(0, e.Size))
		out.Blocks = (uint64(max(0, e.Present)) + sector - 1) / sector
	}
	out.SetTimes(&e.ModTime, &e.ModTime, &e.ModTime)
}

// Getattr answers stat(2). A file that was removed from the catalog while it is
// open keeps the attributes that it had.
func (n *node) Getattr(ctx context.Context, f gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e, err := n.server.catalog.Stat(ctx, n.id)
	if err != nil {
		switch h := f.(type) {
		case *fileHandle:
			e = h.entry
		case *backedHandle:
			e = h.entry
		default:
			return errno(err)
		}
	}
	n.server.fill(&out.Attr, &e)
	out.SetTimeout(attrTTL(&e))
	return 0
}

// Open opens a file for reading. The kernel keeps the pages of a file from one
// open to the next, since they cannot change; a live file has none to keep.
func (n *fileNode) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	s := n.server
	e, err := s.catalog.Stat(ctx, n.id)
	if err != nil {
		return nil, 0, errno(err)
	}
	r := newRequest(ctx, s.ctx, s.readTimeout)
	defer r.finish()
	content, err := s.catalog.Open(r, n.id)
	if err != nil {
		number := errno(err)
		if number == syscall.EIO {
			s.log.Error("open failed", "file", n.Path(nil), "err", err)
		}
		return nil, 0, number
	}
	h := &fileHandle{server: s, node: n, entry: e, content: content}
	if !s.remember(h) {
		h.close()
		return nil, 0, errno(errUnmounting)
	}
	opened, flags := s.begin(n, h)
	return opened, flags, 0
}

// Readlink answers with the target that the catalog made safe.
func (n *linkNode) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	e, err := n.server.catalog.Stat(ctx, n.id)
	if err != nil {
		return nil, errno(err)
	}
	return []byte(e.Target), 0
}

// Statfs tells df how much there is and how much of it is on disk: what is absent
// counts as free, so that "used" is what the cache holds.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	total, absent, files := int64(0), int64(0), 0
	if sizer, ok := n.server.catalog.(Sizer); ok {
		total, absent, files = sizer.Space()
	}
	blocks := func(bytes int64) uint64 { return (uint64(max(0, bytes)) + blockSize - 1) / blockSize }
	out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, 255
	out.Blocks, out.Bfree = blocks(total), blocks(min(absent, total))
	if out.Blocks == 0 { // df leaves out what has no blocks at all
		out.Blocks, out.Bfree = 1, 1
	}
	out.Bavail = out.Bfree
	out.Files = uint64(max(0, files))
	return 0
}
