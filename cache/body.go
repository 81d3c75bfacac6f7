package cache

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// blockSize is the unit in which the filesystem below allocates and frees.
const blockSize = 4096

// body is what an object has of one of its files.
type body struct {
	*file  // several objects may share one: see share.go
	obj    *Object
	number int           // of the file in the layout
	home   string        // where its folder has the file
	span   extent.Extent // its place in the object's byte space
	kept   int           // users of all of it; guarded by Object.mu
	share  *share        // nil: it is nobody else's, and never will be while the object is open
	first  int           // its first unit, if share is not nil
	listed atomic.Bool   // the folder's list of contents has it
	marked bool          // that list says that it was shared
	ours   bool          // it was the last of its share
	unsure bool          // there may be more in it than anybody here knows of
}

// file is the sparse file behind a body.
type file struct {
	size int64
	pool *pool
	used atomic.Int64 // pool clock of the last use

	mu    sync.Mutex
	path  string
	f     *os.File // nil when closed
	refs  int      // users of f; the pool closes only at 0
	dirty bool     // written since the last sync
	made  bool     // the file was there: if it is not, somebody removed it
	lent  int      // users who read it by themselves
}

// name returns where the file is.
func (b *file) name() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.path
}

// acquire opens the body if needed; create makes it at its full size.
// Each acquire that succeeds is paired with a release.
func (b *file) acquire(create bool) (*os.File, error) {
	f, err := b.tryAcquire(create)
	if (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) && b.pool.shrink() {
		f, err = b.tryAcquire(create)
	}
	return f, err
}

func (b *file) tryAcquire(create bool) (*os.File, error) {
	b.mu.Lock()
	if b.f != nil && (b.made || !create) {
		b.refs++
		f := b.f
		b.mu.Unlock()
		b.used.Store(b.pool.clock.Add(1))
		return f, nil
	}
	f, err := b.openLocked(create)
	if err == nil {
		b.refs++
	}
	b.mu.Unlock()
	if err == nil {
		b.used.Store(b.pool.clock.Add(1))
		b.pool.opened(b)
	}
	return f, err
}

// errChanged means that somebody else removed or shortened the file of a body.
var errChanged = errors.New("a file of the cache was removed or shortened by somebody else")

// vec is bytes in several parts.
type vec [][]byte

const maxVec = 1024 // parts that one call takes: IOV_MAX of Linux

func (v vec) len() (n int64) {
	for _, p := range v {
		n += int64(len(p))
	}
	return n
}

// part returns n bytes of v from off on. It shares them, and v itself if that is all of it.
func (v vec) part(off, n int64) vec {
	if off == 0 && n == v.len() {
		return v
	}
	out := make(vec, 0, len(v))
	for _, p := range v {
		skip := min(off, int64(len(p)))
		p = p[skip:]
		off -= skip
		if p = p[:min(n, int64(len(p)))]; len(p) > 0 {
			out = append(out, p)
			n -= int64(len(p))
		}
	}
	return out
}

// writeTo writes v to f at off.
func (v vec) writeTo(f *os.File, off int64) error {
	if len(v) == 1 {
		_, err := f.WriteAt(v[0], off)
		return err
	}
	for left := v.len(); left > 0; {
		n, err := unix.Pwritev(int(f.Fd()), v[:min(len(v), maxVec)], off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		case n == 0 && len(v) > maxVec:
			v = v[maxVec:] // all of them empty
			continue
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		n = max(n, 0)
		off, left = off+int64(n), left-int64(n)
		v = v.part(int64(n), left)
	}
	return nil
}

// write writes p at off. After errChanged nobody may believe what the file has; then the next one
// mends it.
func (b *file) write(p vec, off int64, mend bool) error {
	f, err := b.acquire(true)
	if err != nil {
		return err
	}
	defer b.release()
	// A file that was shortened would grow again by the write, with zeros where bytes were.
	var st unix.Stat_t // f.Stat allocates
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Size != b.size {
		if !mend {
			return errChanged
		}
		if err := f.Truncate(b.size); err != nil {
			return err
		}
	}
	return p.writeTo(f, off)
}

func (b *file) openLocked(create bool) (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW
	f, err := os.OpenFile(b.path, flags, 0o600)
	if os.IsNotExist(err) && create {
		if b.made {
			return nil, errChanged
		}
		f, err = b.makeLocked(flags | os.O_CREATE | os.O_EXCL)
	}
	if err != nil {
		return nil, err
	}
	if create {
		b.made = true
	}
	if b.f != nil {
		f.Close()
		return b.f, nil
	}
	b.f = f
	return f, nil
}

// mend lets the file be made anew that is missing.
func (b *file) mend() {
	b.mu.Lock()
	b.made = false
	b.mu.Unlock()
}

// makeLocked makes the file. st_size is the size of the file from the start; the blocks come
// with the data.
func (b *file) makeLocked(flags int) (*os.File, error) {
	f, err := os.OpenFile(b.path, flags, 0o600)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(b.path), 0o700); err == nil {
			f, err = os.OpenFile(b.path, flags, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(b.size); err != nil {
		f.Close()
		os.Remove(b.path)
		return nil, err
	}
	return f, nil
}

func (b *file) release() {
	b.mu.Lock()
	b.refs--
	b.mu.Unlock()
}

func (b *file) markDirty() {
	b.mu.Lock()
	b.dirty = true
	b.mu.Unlock()
}

// sync brings what was written to the disk.
func (b *file) sync() error {
	b.mu.Lock()
	dirty := b.dirty
	b.dirty = false
	b.mu.Unlock()
	if !dirty {
		return nil
	}
	f, err := b.acquire(false)
	if err != nil {
		return err
	}
	defer b.release()
	return unix.Fdatasync(int(f.Fd()))
}

// punch frees the bytes [from, to) of the body.
func (b *file) punch(from, to int64) error {
	f, err := b.acquire(false)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.release()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// closeIdle closes the descriptor unless someone uses it.
func (b *file) closeIdle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refs > 0 || b.f == nil {
		return false
	}
	if b.dirty {
		_ = unix.Fdatasync(int(b.f.Fd())) // an error here shows again as a hash mismatch after an unclean stop
		b.dirty = false
	}
	b.f.Close()
	b.f = nil
	return true
}

// pool bounds the descriptors that bodies hold open. Those that are lent have a bound of their
// own: they can not be closed when others are needed.
type pool struct {
	max     int
	maxLent int64
	lent    atomic.Int64
	clock   atomic.Int64

	mu   sync.Mutex
	open map[*file]struct{}
}

// newPool makes one of at most max descriptors, and of a quarter of what the process may have,
// half of that lent. The rest is for peers, journals, and what the runtime needs.
func newPool(max int) *pool {
	quarter := math.MaxInt32
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		quarter = int(min(limit.Cur/4, math.MaxInt32))
	}
	return &pool{max: min(max, quarter), maxLent: int64(quarter / 2), open: map[*file]struct{}{}}
}

// lend counts a descriptor that is handed out; false: too many are.
func (p *pool) lend() bool {
	if p.lent.Add(1) > p.maxLent {
		p.lent.Add(-1)
		return false
	}
	return true
}

// shrink closes every descriptor that nobody uses, because the process has no more; false:
// there was none.
func (p *pool) shrink() (closed bool) {
	p.mu.Lock()
	all := make([]*file, 0, len(p.open))
	for b := range p.open {
		all = append(all, b)
	}
	p.mu.Unlock()
	for _, b := range all {
		if b.closeIdle() {
			closed = true
			p.mu.Lock()
			delete(p.open, b) // if it was opened again meanwhile, it is only not counted
			p.mu.Unlock()
		}
	}
	return closed
}

// opened notes that b holds a descriptor and closes the longest unused ones above the limit.
func (p *pool) opened(b *file) {
	p.mu.Lock()
	p.open[b] = struct{}{}
	var victims []*file
	for over := len(p.open) - p.max; over > 0; over-- {
		v := p.oldestLocked(b)
		if v == nil {
			break
		}
		delete(p.open, v)
		victims = append(victims, v)
	}
	p.mu.Unlock()
	for _, v := range victims {
		if !v.closeIdle() {
			p.mu.Lock()
			p.open[v] = struct{}{} // in use: it stays, and the limit is exceeded for as long
			p.mu.Unlock()
		}
	}
}

func (p *pool) oldestLocked(not *file) *file {
	var v *file
	for b := range p.open {
		if b != not && (v == nil || b.used.Load() < v.used.Load()) {
			v = b
		}
	}
	return v
}

// forget closes b for good.
func (p *pool) forget(b *file) {
	p.mu.Lock()
	delete(p.open, b)
	p.mu.Unlock()
	b.closeIdle()
}
