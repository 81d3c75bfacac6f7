package objects

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fs"
)

// file is the cache object of a file, and what fills it. A unit is 256 KiB, which is what
// the leaves of most files hold, and is brought as any read of the object would be: block
// by block, each verified. What is in the cache is told right from wrong by the SHA-256 of
// the unit, which is kept with it: a file can be cut into blocks in any way.
type file struct {
	forest  *Forest
	key     cache.Key
	object  *cache.Object
	content *unixfs.Object
	root    block.CID // that its blocks are below
	path    string    // by which it was opened first, for errors

	open int           // guarded by files.mu
	idle *list.Element // in files.idle if open is 0

	mu      sync.Mutex // guards what follows
	closed  bool
	flights map[int]*flight // units that are brought
	calls   sync.WaitGroup
	last    error // why the last unit did not come
}

// flight is a unit that is brought.
type flight struct {
	done chan struct{} // closed at the end
	due  time.Time
}

// files are those with an object in memory.
type files struct {
	forest *Forest

	opening sync.Mutex // held while one is opened or closed
	mu      sync.Mutex // guards what follows
	byKey   map[cache.Key]*file
	idle    *list.List // of *file, closed last first
}

const (
	leastUnit = 256 << 10
	mostUnit  = 16 << 20
	mostUnits = 1 << 21 // 16 bytes of memory each; so files of up to 32 TiB can be read
	maxIdle   = 64      // files that nobody has open and that stay ready
)

func (s *files) init(f *Forest) {
	s.forest, s.byKey, s.idle = f, map[cache.Key]*file{}, list.New()
}

// cacheKey names the cache object of a file. Codec and version of its CID do not matter but for
// raw, whose bytes are no UnixFS.
func (n *node) cacheKey() cache.Key {
	if n.cid.Defined() {
		return cache.Key(keyPrefix + block.Canonical(n.cid))
	}
	at, within := n, ""
	for !at.cid.Defined() && at.parent != nil { // to the directory that holds it all
		at, within = at.parent, "/"+at.raw+within
	}
	of := at.cid
	if !of.Defined() {
		of = at.way.CID
		within = "/" + strings.Join(at.way.Names, "/") + within
	}
	path := sha256.Sum256([]byte(within))
	return cache.Key(keyPrefix + block.Canonical(of) + "-" + hex.EncodeToString(path[:16]))
}

// Is reports whether a cache object is of a Forest.
func Is(key cache.Key) bool { return key == packKey || strings.HasPrefix(string(key), keyPrefix) }

const keyPrefix = "cid-"

// unit returns the unit length of a file of a size, 0 if it is too large to be read.
func unit(size int64) int64 {
	u := int64(leastUnit)
	for size/u >= mostUnits {
		u *= 2
	}
	if u > mostUnit {
		return 0
	}
	return u
}

// present returns how many bytes of a file are in the cache.
func (s *files) present(n *node) int64 {
	if n.small {
		return n.size
	}
	key := n.cacheKey()
	s.mu.Lock()
	f := s.byKey[key]
	s.mu.Unlock()
	if f != nil {
		return f.object.PresentIn(extent.Extent{Len: n.size})
	}
	stored, _ := s.forest.cfg.Cache.Stored(key)
	return min(stored, n.size)
}

// open opens a file. Nothing of it is brought but its root.
func (s *files) open(ctx context.Context, n *node) (fs.Content, error) {
	o, err := s.forest.object(ctx, n)
	if err != nil {
		return nil, err
	}
	if b, ok := o.Whole(); ok && len(b) <= maxPacked {
		return whole(b), nil
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	key := n.cacheKey()
	s.mu.Lock()
	f := s.byKey[key]
	if f != nil {
		if f.open++; f.idle != nil {
			s.idle.Remove(f.idle)
			f.idle = nil
		}
	}
	s.mu.Unlock()
	if f == nil {
		if f, err = s.load(n, key, o); err != nil {
			return nil, err
		}
	}
	return &reading{Reader: f.object.NewReader(extent.Extent{Len: o.Size}, s.forest.cfg.Scheduler), file: f, node: n}, nil
}

// load opens the cache object of a file; opening is held.
func (s *files) load(n *node, key cache.Key, o *unixfs.Object) (*file, error) {
	u := unit(o.Size)
	if u == 0 {
		return nil, syscall.EFBIG
	}
	object, err := s.forest.cfg.Cache.Object(cache.Layout{
		Key: key, Unit: u, Size: o.Size, Files: []extent.Extent{{Len: o.Size}}, Tag: sha256.Size,
		Verify: verifyTag,
	})
	if err != nil {
		return nil, err
	}
	f := &file{forest: s.forest, key: key, object: object, content: o, root: n.root(), path: n.path(), open: 1, flights: map[int]*flight{}}
	s.mu.Lock()
	s.byKey[key] = f
	s.mu.Unlock()
	s.forest.cfg.Scheduler.Add(fetch.Target{Object: object, Download: f})
	return f, nil
}

// shut notes that a reader of f is gone; f may be closed some time later.
func (s *files) shut(f *file) {
	s.mu.Lock()
	if f.open--; f.open == 0 {
		f.idle = s.idle.PushFront(f)
	}
	many := s.idle.Len() > maxIdle
	s.mu.Unlock()
	if many {
		s.trim()
	}
}

// trim closes files that nobody has open, those that were closed first.
func (s *files) trim() {
	s.opening.Lock()
	defer s.opening.Unlock()
	for {
		s.mu.Lock()
		if s.idle.Len() <= maxIdle {
			s.mu.Unlock()
			return
		}
		f := s.idle.Remove(s.idle.Back()).(*file)
		f.idle = nil
		delete(s.byKey, f.key)
		s.mu.Unlock()
		f.close()
	}
}

// close frees the object once nothing is written to it any more.
func (f *file) close() {
	f.forest.cfg.Scheduler.Remove(f.key)
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.calls.Wait() // what is on its way was cancelled by Remove
	if err := f.object.Close(); err != nil {
		f.forest.cfg.Log.Error("cannot close the cache of a file", "file", f.path, "err", err)
	}
}

// Fetch implements fetch.Download.
func (f *file) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errClosed
	}
	f.calls.Add(1)
	f.mu.Unlock()
	defer f.calls.Done()
	first, last := e.Clip(extent.Extent{Len: f.object.Size}).Units(f.object.Unit)
	for u := int(first); u < int(last); u++ {
		if err := f.bring(ctx, u, due); err != nil {
			if ctx.Err() == nil {
				f.mu.Lock()
				f.last = err
				f.mu.Unlock()
			}
			return err
		}
	}
	return nil
}

var errClosed = errors.New("nobody has the file open")

// bring brings a unit, unless another call does: then it waits for that.
func (f *file) bring(ctx context.Context, u int, due time.Time) error {
	for {
		f.mu.Lock()
		other := f.flights[u]
		if other == nil {
			own := &flight{make(chan struct{}), due}
			f.flights[u] = own
			f.mu.Unlock()
			err := f.fill(ctx, u, due)
			f.mu.Lock()
			delete(f.flights, u)
			f.mu.Unlock()
			close(own.done)
			return err
		}
		earlier := due.Before(other.due)
		if earlier {
			other.due = due
		}
		f.mu.Unlock()
		if earlier {
			f.hurry(ctx, u, due, other)
		}
		select {
		case <-other.done: // it may have been cancelled: look again
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hurry has the blocks of a unit that another call brings be due earlier: whoever wants a
// block first counts, also for blocks that are on their way.
func (f *file) hurry(ctx context.Context, u int, due time.Time, until *flight) {
	ctx, cancel := context.WithCancel(f.reads(ctx, due))
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-until.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	e := f.object.UnitExtent(u)
	_, _ = f.content.ReadAt(ctx, make([]byte, e.Len), e.Off) // the other call has what comes
}

// reads is the context of reads that fill the cache: of the blocks of this object, by a due
// time.
func (f *file) reads(ctx context.Context, due time.Time) context.Context {
	return source.By(source.Within(leavesElsewhere(ctx), f.root), due)
}

// fill brings one unit.
func (f *file) fill(ctx context.Context, u int, due time.Time) error {
	if f.object.Known(u) {
		return nil
	}
	if err := f.object.Begin(u); err != nil {
		return err
	}
	e := f.object.UnitExtent(u)
	p := make([]byte, e.Len)
	n, err := f.content.ReadAt(f.reads(ctx, due), p, e.Off)
	if err == nil || err == io.EOF {
		err = f.object.WriteAt(p[:n], e.Off)
	} else {
		err = wrap(f.path, err)
	}
	if err != nil {
		f.object.Abandon(u)
		return err
	}
	tag := sha256.Sum256(p)
	f.object.Commit(u, tag[:])
	return nil
}

// reading is one open file.
type reading struct {
	*cache.Reader
	file   *file
	node   *node
	read   atomic.Int64 // bytes
	closed sync.Once
}

// ReadAt says why nothing came in time, if that is known.
func (r *reading) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(ctx, p, off)
	r.read.Add(int64(n))
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		r.file.mu.Lock()
		last := r.file.last
		r.file.mu.Unlock()
		if why := (*Error)(nil); errors.As(last, &why) && why.NoSource() {
			err = why
		}
	}
	return n, err
}

// Close closes the file.
func (r *reading) Close() error {
	err := r.Reader.Close()
	r.closed.Do(func() {
		f := r.file.forest
		if r.read.Load() >= r.file.object.Size {
			f.ahead.finished(f, r.node)
		}
		f.files.shut(r.file)
	})
	return err
}

// whole is the content of a file that is one block, which is in memory once the file can
// be opened; package cache never hears of it.
type whole []byte

func (w whole) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(w)) {
		return 0, io.EOF
	}
	return copy(p, w[off:]), nil
}

func (whole) Close() error { return nil }
