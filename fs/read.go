package fs

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btmount/btmount/fs/tree"
)

// retryWait is how long a read may wait that the kernel makes at once because its
// read-ahead timed out; see fileHandle.timeoutFor.
const retryWait = 100 * time.Millisecond

// fileHandle is one open file.
type fileHandle struct {
	server  *Server
	node    *fileNode
	entry   tree.Entry // as it was when the file was opened
	content Content
	kind    kind
	closed  sync.Once

	mu     sync.Mutex
	missed extent // of the last read that timed out, until it is asked for again
	at     time.Time
}

type extent struct{ off, end int64 }

// Read answers one READ. It never returns less than was asked for before the end
// of the file: the kernel would take the rest for zeroes.
func (h *fileHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if !h.entry.Live {
		dest = dest[:max(0, min(int64(len(dest)), h.entry.Size-off))]
	}
	h.server.reads.Add(1)
	if len(dest) == 0 {
		return fuse.ReadResultData(nil), 0
	}
	timeout, again := h.timeoutFor(off, int64(len(dest)))
	r := newRequest(ctx, h.server.ctx, timeout)
	defer r.finish()
	if cause := context.Cause(h.server.ctx); cause != nil {
		return nil, errno(cause)
	}
	n, err := h.content.ReadAt(r, dest, off)
	switch {
	case n == len(dest), h.entry.Live && (err == nil || err == io.EOF):
		return fuse.ReadResultData(dest[:n]), 0
	case err == nil || err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	number := contentErrno(err, r.cause())
	switch number {
	case syscall.ETIMEDOUT, syscall.ENODATA: // a timeout too, of which more is known
		if !again {
			h.miss(off, int64(len(dest)))
		}
	case syscall.EIO:
		h.server.log.Error("read failed", "file", h.node.Path(nil), "offset", off, "length", len(dest), "err", err)
	}
	return nil, number
}

// timeoutFor returns how long a read may wait. When a READ of a whole read-ahead
// window fails, the kernel asks again at once for the first page alone. That must
// not double the time after which the reader gets its error, but the page may well
// be there: so the one read that follows a timeout on the heels, for a part of the
// same place, waits only a moment, and again is true. A negative timeout is no limit.
func (h *fileHandle) timeoutFor(off, length int64) (timeout time.Duration, again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	missed, at := h.missed, h.at
	h.missed = extent{}
	part := off >= missed.off && off+length <= missed.end && length < missed.end-missed.off
	if part && time.Since(at) < retryWait {
		return min(retryWait, h.server.readTimeout), true
	}
	return h.server.readTimeout, false
}

// miss remembers a read that timed out.
func (h *fileHandle) miss(off, length int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed, h.at = extent{off, off + length}, time.Now()
}

// Release ends the life of the handle: the last descriptor of it is closed.
func (h *fileHandle) Release(context.Context) syscall.Errno {
	h.server.forget(h)
	h.node.readers.leave(h.kind)
	h.close()
	return 0
}

func (h *fileHandle) close() {
	h.closed.Do(func() {
		if err := h.content.Close(); err != nil {
			h.server.log.Warn("close failed", "file", h.entry.Name, "err", err)
		}
	})
}
