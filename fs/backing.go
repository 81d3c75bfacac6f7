package fs

import (
	"context"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A file that is complete on disk is read by the kernel alone (FUSE passthrough): no READ
// reaches us, and it is as fast as the filesystem below, mmap included. All who have a file
// open must agree, because the kernel refuses (EIO) an open of one kind while one of the
// other lives:
//
//	by us       through the page cache of the mount, while bytes may be missing
//	by kernel   from the first open that finds the file complete and nobody of the first kind
//
// So a file that became complete while somebody has it open goes on through us until its
// last reader closes it. Without root, before Linux 6.9, and over a filesystem that can not
// be passed through (overlayfs), the kernel declines the first file that is offered; then
// none is any more, and all is read through us.
//
// Short files are not offered: to register one costs more than the READ or two that it saves
// (5,000 files of 20 KB read again: 0.73 s, and 0.54 s from the page cache of the mount).

const leastBacked = 256 << 10 // bytes

// readers counts who has one file open, by kind.
type readers struct {
	mu             sync.Mutex
	byUs, byKernel int
}

// kind is how an open file is read.
type kind int8

const (
	byUs kind = iota
	byKernel
	beside // by us, past the page cache, while others are read by the kernel
	live   // by us, past the page cache, always
)

// enter decides how a file that is being opened will be read. declined: the kernel takes no
// files, so those that it was offered are read by us.
func (r *readers) enter(backed, declined bool) kind {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case backed && r.byUs == 0:
		r.byKernel++
		return byKernel
	case r.byKernel > 0 && !declined:
		r.byKernel++
		return beside // what the kernel reads was taken from under us, and is being fetched again
	}
	r.byUs++
	return byUs
}

func (r *readers) leave(k kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch k {
	case byUs:
		r.byUs--
	case byKernel, beside:
		r.byKernel--
	}
}

// backedHandle is an open file that the kernel reads by itself.
type backedHandle struct {
	*fileHandle
	fd int
}

var (
	_ gofuse.FilePassthroughFder = (*backedHandle)(nil)
	_ gofuse.FileReader          = (*backedHandle)(nil)
	_ gofuse.FileReleaser        = (*backedHandle)(nil)
)

// PassthroughFd hands the descriptor to go-fuse, which registers it with the kernel.
// If others have the file open, the number that they got is used, and fd may be none.
func (h *backedHandle) PassthroughFd() (int, bool) { return h.fd, h.fd >= 0 }

// Read is called if the kernel declined. go-fuse does not tell, and offers no file any more.
// It is also called for the pages that readahead(2) and POSIX_FADV_WILLNEED bring: they fill
// the page cache of the mount, of a file that is read past it.
func (h *backedHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if h.kind == byKernel && !h.server.takes(h.fd) && !h.server.declined.Swap(true) {
		h.server.log.Info("complete files are read through btmount: the kernel does not read them by itself (that takes root, Linux 6.9, and a cache on a filesystem like ext4)")
	}
	return h.fileHandle.Read(ctx, dest, off)
}

// takes reports whether the kernel takes a file to read by itself.
func (s *Server) takes(fd int) bool {
	if s.taken.Load() {
		return true
	}
	id, errno := s.fuse.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		return false
	}
	s.fuse.UnregisterBackingFd(id)
	s.taken.Store(true)
	return true
}

// begin finishes Open: how h is read, and what the kernel is told of it.
func (s *Server) begin(n *fileNode, h *fileHandle) (gofuse.FileHandle, uint32) {
	if h.entry.Live {
		h.kind = live
		return h, fuse.FOPEN_DIRECT_IO
	}
	fd, ok, declined := 0, false, s.declined.Load()
	if b, can := h.content.(Backed); can && s.passthrough && !declined && h.entry.Size >= leastBacked {
		fd, ok = b.Backing()
	}
	h.kind = n.readers.enter(ok, declined)
	switch h.kind {
	case byKernel:
		return &backedHandle{h, fd}, fuse.FOPEN_KEEP_CACHE // what is cached counts if the kernel declines
	case beside:
		// With both flags the reads come to us, and the kernel, which wants the one of all
		// who have the file open, is content.
		return &backedHandle{h, -1}, fuse.FOPEN_DIRECT_IO
	}
	return h, fuse.FOPEN_KEEP_CACHE
}
