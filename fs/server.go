package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	unmountLimit = 5 * time.Second       // Unmount never takes longer
	unmountGrace = time.Second           // for whoever still has files open
	unmountRetry = 20 * time.Millisecond // between two tries
	probeLimit   = 2 * time.Second       // a mount that does not answer stat(2) by then hangs
)

// Server is one mount.
type Server struct {
	catalog     Catalog
	point       string
	log         *slog.Logger
	readTimeout time.Duration
	uid, gid    uint32
	fuse        *fuse.Server

	passthrough bool         // complete files are offered to the kernel
	declined    atomic.Bool  // which does not take them
	taken       atomic.Bool  // it does
	reads       atomic.Int64 // READ requests
	walkers     walkers

	ctx  context.Context // ends when the mount goes away
	stop context.CancelCauseFunc
	done chan struct{} // closed when it is gone and nothing of ours runs

	changes  *notifier
	changing sync.Map // tree.ID → *dirNode of directories that the kernel may know

	mu   sync.Mutex
	open map[*fileHandle]struct{} // nil once the mount is gone
}

// serve answers requests until the mount is gone, then puts away what is left.
func (s *Server) serve() {
	unwatch := func() {}
	if w, ok := s.catalog.(Watcher); ok {
		unwatch = w.Watch(s.changes.add)
	}
	var telling sync.WaitGroup
	telling.Go(func() { s.changes.run(s.ctx, s.tell) })
	s.fuse.Serve()
	s.stop(errUnmounting)
	unwatch()
	telling.Wait()
	s.closeAll()
	close(s.done)
}

// Wait returns when the mount is gone, whoever ended it.
func (s *Server) Wait() { <-s.done }

// Mountpoint is where the server is mounted, absolute and without symlinks.
func (s *Server) Mountpoint() string { return s.point }

// Reads returns how many READ requests the kernel has sent. It sends none for what it has in
// its page cache or reads by itself.
func (s *Server) Reads() int64 { return s.reads.Load() }

// remember takes a handle into the set of open files; false if it is too late.
func (s *Server) remember(h *fileHandle) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil || s.ctx.Err() != nil {
		return false
	}
	s.open[h] = struct{}{}
	return true
}

func (s *Server) forget(h *fileHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, h)
}

// closeAll closes what is still open: an aborted connection sends no RELEASE.
func (s *Server) closeAll() {
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for h := range open {
		h.close()
	}
}

// Unmount ends the mount within 5 s, whoever uses it:
//
//  1. Reads that wait, and all later ones, fail with ENODEV; nothing can be opened.
//  2. It is unmounted as soon as nobody has a file open or stands in a directory;
//     for that it waits at most 1 s, or until ctx ends.
//  3. Then it is detached and its connection aborted, so that whatever still has a
//     file open gets ENOTCONN. Detaching without aborting was rejected: the process
//     is about to end, so those files are lost either way, only less clearly.
//
// An error means that something of the mount remains, and says what. That can be
// open files where neither root nor fusectl lets the connection be aborted.
func (s *Server) Unmount(ctx context.Context) error {
	s.stop(errUnmounting)
	ctx, cancel := context.WithTimeout(ctx, unmountLimit)
	defer cancel()
	grace, cancel := context.WithTimeout(ctx, unmountGrace)
	defer cancel()
	err := s.detach(grace)
	if err != nil {
		return err
	}
	limit := time.NewTimer(unmountLimit - unmountGrace)
	defer limit.Stop()
	select {
	case <-s.done:
		return nil
	case <-limit.C:
		return fmt.Errorf("unmount %s: it is detached, but %d files are still open; they end with this process", s.point, s.inUse())
	}
}

func (s *Server) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// detach takes the mount off its directory, by force when grace ends.
func (s *Server) detach(grace context.Context) error {
	tick := time.NewTicker(unmountRetry)
	defer tick.Stop()
	for {
		switch ours, err := s.onTop(); {
		case err != nil:
			return err
		case !ours:
			return nil // somebody was faster
		}
		err := unmount(s.point, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("unmount %s: %w", s.point, err)
		}
		select {
		case <-s.done:
			return nil
		case <-tick.C:
		case <-grace.Done():
			return s.force()
		}
	}
}

// onTop reports whether what is mounted on the directory is a btmount, and fails if
// somebody mounted something else over it.
func (s *Server) onTop() (bool, error) {
	m, err := mountAt(s.point)
	switch {
	case err != nil:
		return false, err
	case m.fstype == "" || m.dev == "":
		return false, nil
	case m.fstype != fsType:
		return false, fmt.Errorf("unmount %s: a %s is mounted over it; unmount that first", s.point, m.fstype)
	}
	return true, nil
}

// force detaches the mount and aborts its connection. Root has a flag for that;
// others ask fusermount3 and then sysfs, which lets the owner of a mount abort it.
func (s *Server) force() error {
	m, _ := mountAt(s.point)
	if err := unmount(s.point, unix.MNT_DETACH|unix.MNT_FORCE); err != nil {
		return fmt.Errorf("unmount %s: %w", s.point, err)
	}
	_, minor, _ := strings.Cut(m.dev, ":")
	abort := filepath.Join("/sys/fs/fuse/connections", minor, "abort")
	if err := os.WriteFile(abort, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Debug("connection not aborted", "err", err)
	}
	return nil
}
