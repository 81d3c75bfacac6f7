package cache

import (
	"errors"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// A body that is handed out is lent, and marked so on disk, because the kernel goes on
// reading it for whoever has it open after this process was killed, and after its mount was
// aborted (measured on Linux 6.18). The next session must not punch holes into it: those
// would be read as zeros. So what is still lent when an object is opened is taken out of the
// cache by its name; its last reader keeps the bytes, and they are fetched again.
//
// The mark is the sticky bit, which means nothing else on a file, and a file beside the
// journal, so that nobody has to look at the bodies of an object that never lent one.
const (
	lentMark = os.ModeSticky | 0o600
	lentFile = "lent"
)

// lend marks a body before its descriptor f is handed out. Each that succeeds is paired with
// an unlend.
func (o *Object) lend(b *body, f *os.File) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lent > 0 {
		b.lent++
		return nil
	}
	if !b.pool.lend() {
		return errLent
	}
	err := o.mark(f)
	if err != nil {
		b.pool.lent.Add(-1)
		return err
	}
	b.lent++
	return nil
}

// mark marks the file of a body as lent.
func (o *Object) mark(f *os.File) error {
	if !o.lends.Load() {
		m, err := os.OpenFile(filepath.Join(o.dir, lentFile), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		m.Close()
		o.lends.Store(true)
	}
	return f.Chmod(lentMark)
}

// errLent means that the process has no descriptors for more: the file is read through us.
var errLent = errors.New("too many files are lent")

// unlend takes the mark away again, if the kernel has closed the file as well.
func (b *file) unlend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lent--; b.lent > 0 {
		return
	}
	b.pool.lent.Add(-1)
	if b.f != nil {
		giveBack(b.f)
	}
}

// giveBack takes the mark of a body away if nobody has it open but us, and reports whether.
// A lease is what the kernel tells that by: it grants none on what others have open.
func giveBack(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return f.Chmod(0o600) == nil
}

// takeBack is called when the object is opened, before anybody uses it. Bodies that others
// read still are removed, and their units forgotten.
func (o *Object) takeBack(linked map[*body]bool) {
	mark := filepath.Join(o.dir, lentFile)
	_, err := os.Stat(mark)
	lent := err == nil
	for _, b := range o.bodies {
		// What is lent to one is lent to all that share it, whose folders do not say so.
		if !lent && !linked[b] || o.joins(b) {
			continue
		}
		st, err := os.Lstat(b.path)
		if err != nil || st.Mode()&os.ModeSticky == 0 || !st.Mode().IsRegular() {
			continue
		}
		f, err := os.OpenFile(b.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err == nil {
			back := giveBack(f)
			f.Close()
			if back {
				continue
			}
		}
		o.store.log.Info("a file is still read through a mount that is gone; it is fetched again", "object", o.Key, "body", b.path)
		if err := os.Remove(b.path); err != nil {
			o.store.log.Warn("cache", "err", err)
		}
		first, last := b.span.Units(o.Unit)
		for u := int(first); u < int(last); u++ {
			o.forget(u)
		}
	}
	if lent {
		_ = os.Remove(mark)
	}
}

// forget takes a unit out of the books whose bytes are gone.
func (o *Object) forget(u int) {
	if !o.present.has(u) && !o.suspect.has(u) {
		return
	}
	o.present.clear(u)
	o.suspect.clear(u)
	if _, err := o.journal.append(record{unit: uint32(u), session: o.store.session.Number, op: opGone}); err != nil {
		o.store.log.Warn("cache journal", "err", err)
	}
	o.punch(o.UnitExtent(u), edges{}) // in the bodies that it shares
}

// Backing returns the descriptor of the body of the file that r reads, if every byte of it is
// verified. Until Close it stays open, nothing of it is evicted, and what turns out wrong is
// overwritten and never punched: somebody else, the kernel, reads it without asking. Only
// one that was changed from outside while it is read so is not noticed.
func (r *Reader) Backing() (fd int, ok bool) {
	o := r.obj
	i := sort.Search(len(o.bodies), func(i int) bool { return o.bodies[i].span.Off >= r.span.Off })
	if i == len(o.bodies) || o.bodies[i].span != r.span {
		return 0, false
	}
	b := o.bodies[i]
	first, last := b.span.Units(o.Unit)
	o.mu.Lock()
	if o.closed || o.store.cfg.VerifyAlways || len(o.memory) > 0 || !o.present.all(int(first), int(last)) {
		o.mu.Unlock()
		return 0, false
	}
	o.keepLocked(b, 1) // from here on nothing of it goes
	now := o.store.clock()
	for u := first; u < last; u++ {
		o.stamps[u] = now
	}
	o.mu.Unlock()
	f, err := b.acquire(false)
	if err == nil {
		if st, statErr := f.Stat(); statErr != nil || st.Size() != b.span.Len {
			o.distrust(int(first), int(last)) // truncated under us
		} else if !o.whole(int(first), int(last)) {
			o.store.log.Debug("a file was changed while it was about to be lent", "object", o.Key, "file", b.number)
		} else if err := o.lend(b, f); errors.Is(err, errLent) {
			o.store.log.Debug("cache", "err", err)
		} else if err != nil {
			o.store.log.Warn("cache", "err", err)
		} else {
			r.mu.Lock()
			taken := !r.gone && r.backing == nil
			if taken {
				r.backing = b
			}
			r.mu.Unlock()
			if taken {
				r.lentWhole()
				return int(f.Fd()), true
			}
			b.unlend()
		}
		b.release()
	}
	o.letGo(b)
	return 0, false
}

// whole reports whether units are still there, now that f is held: it will not be another any more.
func (o *Object) whole(first, last int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.present.all(first, last)
}

// letGo ends what keepLocked began.
func (o *Object) letGo(b *body) {
	now := o.store.clock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keepLocked(b, -1)
	first, last := b.span.Units(o.Unit)
	for u := first; u < last; u++ {
		o.stamps[u] = now // it was read until now, for all we know
	}
}

// keepLocked counts who needs all of a body.
func (o *Object) keepLocked(b *body, n int) {
	b.kept += n
	if b.kept > 1 || b.kept == 1 && n < 0 {
		return
	}
	if b.kept == 0 {
		delete(o.keeps, b)
		o.store.kept.Add(-b.span.Len)
	} else {
		o.keeps[b] = struct{}{}
		o.store.kept.Add(b.span.Len)
	}
	o.kept = nil
	if len(o.keeps) == 0 {
		return
	}
	o.kept = newBitmap(o.units)
	for b := range o.keeps {
		o.kept.setRange(b.span.Units(o.Unit))
	}
}

// keptLocked reports whether somebody else reads unit u by himself.
func (o *Object) keptLocked(u int) bool { return o.kept != nil && o.kept.has(u) }
