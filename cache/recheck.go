package cache

import (
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// Recheck hashes those of units [first, last) that are there and drops those that are wrong,
// to be fetched again; it returns how many bytes it hashed, and how many of them were wrong.
// Readers have the units all the while, and it does not count as a use. It needs memory for
// all of them: the caller gives it few at a time, one after the other.
//
// What is hashed comes from the disk, past the page cache (O_DIRECT, where the filesystem has
// it): otherwise a scrub would look at what the kernel remembers instead of at what the disk
// lost, and throw out what the kernel remembers for others. So a wrong unit is dropped even if
// the page cache still has it right.
func (o *Object) Recheck(first, last int) (hashed, wrong int64) {
	if o.Verify == nil {
		return 0, 0
	}
	for first < last {
		if n, good := o.recheckSuspect(first); n > 0 {
			first++
			hashed += n
			if !good {
				wrong += n
			}
			continue
		}
		end := o.presentRun(first, last)
		if end == first {
			first++
			continue
		}
		from, to := o.UnitExtent(first), o.UnitExtent(end-1)
		p := make([]byte, to.End()-from.Off)
		err := o.readStored(p, from.Off)
		for u := first; u < end; u++ {
			e := o.UnitExtent(u)
			hashed += e.Len
			tag, tagErr := o.tag(u)
			good := err == nil && tagErr == nil && o.Verify(u, p[e.Off-from.Off:e.End()-from.Off], tag)
			if !good && o.isWrong(u) {
				o.store.log.Info("a unit of the cache does not match its hash any more, dropped", "object", o.Key, "unit", u)
				o.drop(u, u+1)
				wrong += e.Len
			}
		}
		first = end
	}
	return hashed, wrong
}

// recheckSuspect hashes a unit that would be hashed at its next use; n is 0 if it is none.
func (o *Object) recheckSuspect(u int) (n int64, good bool) {
	o.mu.Lock()
	suspect, stamp := o.suspect.has(u), o.stamps[u]
	o.mu.Unlock()
	if !suspect {
		return 0, true
	}
	good = o.Check(u)
	o.mu.Lock()
	o.stamps[u] = stamp
	o.mu.Unlock()
	return o.UnitExtent(u).Len, good
}

// presentRun returns where the units end that are there, on disk, from first on.
func (o *Object) presentRun(first, last int) (end int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for end = first; end < last && o.onDiskLocked(end); end++ {
	}
	return end
}

func (o *Object) onDiskLocked(u int) bool { return !o.closed && o.present.has(u) && o.memory[u] == nil }

// isWrong looks again at a unit that did not match: it may have been evicted meanwhile, which
// leaves zeros.
func (o *Object) isWrong(u int) bool {
	for range 4 {
		o.mu.Lock()
		there, gen := o.onDiskLocked(u), o.gen.Load()
		o.mu.Unlock()
		if !there {
			return false
		}
		e := o.UnitExtent(u)
		p := make([]byte, e.Len)
		tag, err := o.tag(u)
		if err == nil && o.readStored(p, e.Off) == nil && o.Verify(u, p, tag) {
			return false
		}
		if o.gen.Load() == gen {
			return true
		}
	}
	return false // units go all the time; it has its turn in the next round
}

// readStored is readDisk past the page cache.
func (o *Object) readStored(p []byte, off int64) error {
	return o.each(extent.Extent{Off: off, Len: int64(len(p))}, func(b *body, part extent.Extent) error {
		q, at := p[part.Off-off:part.End()-off], part.Off-b.span.Off
		if b.readDirect(q, at) == nil {
			return nil
		}
		f, err := b.acquire(false)
		if err != nil {
			return err
		}
		defer b.release()
		n, err := f.ReadAt(q, at)
		if err == io.EOF && n == len(q) {
			err = nil
		}
		return err
	}, func(gap extent.Extent) { clear(p[gap.Off-off : gap.End()-off]) })
}

// readDirect reads past the page cache; it fails where that can not be done.
func (b *file) readDirect(p []byte, off int64) error {
	f, err := os.OpenFile(b.name(), os.O_RDONLY|unix.O_DIRECT|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// Offset, length and address are whole blocks.
	from, to := off/blockSize*blockSize, (off+int64(len(p))+blockSize-1)/blockSize*blockSize
	buf := make([]byte, to-from+blockSize)
	if over := int(uintptr(unsafe.Pointer(&buf[0])) % blockSize); over > 0 {
		buf = buf[blockSize-over:]
	}
	// In one call: what os.File does after a short one would not be aligned.
	n, err := unix.Pread(int(f.Fd()), buf[:to-from], from)
	if err != nil {
		return err
	}
	if n < int(off-from)+len(p) {
		return io.ErrUnexpectedEOF
	}
	copy(p, buf[off-from:])
	return nil
}
