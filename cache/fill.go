package cache

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/btmount/btmount/cache/extent"
)

// Begin charges unit u to the budget before its first byte is written. It may
// evict. A unit that is present already stays so, at least until Commit or Abandon.
func (o *Object) Begin(u int) error {
	o.mu.Lock()
	for o.leaving.has(u) {
		o.settled.Wait() // its old bytes are being punched: a write now would be lost
	}
	if o.present.has(u) || o.suspect.has(u) {
		o.again.set(u) // evicted before Commit, it would come back as a hole
	}
	if o.filling.has(u) || o.again.has(u) || o.closed {
		o.mu.Unlock()
		return nil
	}
	o.filling.set(u) // claimed before the lock is let go, charged below
	o.mu.Unlock()
	err := o.store.reserve(o.cost(u))
	if err == nil {
		return nil
	}
	o.mu.Lock()
	wanted := o.wantedLocked(u)
	o.mu.Unlock()
	if wanted && o.store.remember(o, u, make([]byte, o.UnitExtent(u).Len)) {
		o.store.complain(err)
		return nil
	}
	o.mu.Lock()
	o.filling.clear(u)
	o.mu.Unlock()
	return fmt.Errorf("%s unit %d: %w", o.Key, u, err)
}

// Abandon gives the charge of a unit back that will not be finished. Its bytes are freed.
func (o *Object) Abandon(u int) {
	o.mu.Lock()
	o.again.clear(u)
	o.spoiled.clear(u)
	if !o.filling.has(u) {
		o.mu.Unlock()
		return
	}
	o.filling.clear(u)
	if o.dropMemoryLocked(u) {
		o.mu.Unlock()
		o.releaseMemory(u)
		return
	}
	edge := o.leaveLocked(u, u+1)
	o.mu.Unlock()
	o.free(u, u+1, edge)
}

// edges tells which neighbours of a leaving unit are absent and held back from
// being begun, so that a block shared with them may be punched whole; and whether its
// bytes stay, because somebody reads them without asking.
type edges struct{ low, high, kept bool }

// leaveLocked marks units [first, last), all kept or none, as leaving, and absent neighbours
// with them until free.
func (o *Object) leaveLocked(first, last int) (e edges) {
	guard := func(n int) bool {
		if n < 0 || n >= o.units || o.present.has(n) || o.suspect.has(n) || o.filling.has(n) || o.leaving.has(n) || o.keptLocked(n) {
			return false
		}
		o.leaving.set(n)
		return true
	}
	for u := first; u < last; u++ {
		o.leaving.set(u)
	}
	return edges{low: guard(first - 1), high: guard(last), kept: o.keptLocked(first)}
}

// free punches units that are leaving and uncharges them.
func (o *Object) free(first, last int, e edges) (freed int64) {
	if !e.kept {
		from, to := o.UnitExtent(first), o.UnitExtent(last-1)
		o.punch(extent.Between(from.Off, to.End()), e)
	}
	for u := first; u < last; u++ {
		freed += o.cost(u)
	}
	o.store.unreserve(freed)
	o.mu.Lock()
	for u := first; u < last; u++ {
		o.leaving.clear(u)
	}
	if e.low {
		o.leaving.clear(first - 1)
	}
	if e.high {
		o.leaving.clear(last)
	}
	o.mu.Unlock()
	o.settled.Broadcast()
	return freed
}

// WriteAt is WriteVec of one part.
func (o *Object) WriteAt(p []byte, off int64) error { return o.WriteVec([][]byte{p}, off) }

// WriteVec stores bytes of units that were begun: the parts of v, one after the other. They are
// not readable until Commit. What the disk does not take is kept in memory, if a read waits for
// it. Fewer, longer calls are better: a file that is written 16 KiB at a time costs twice the CPU
// of one written 256 KiB at a time, and has small folios, which are slower to read.
func (o *Object) WriteVec(v [][]byte, off int64) error {
	p := vec(v)
	e := extent.Extent{Off: off, Len: p.len()}
	err := o.write(p, e)
	for range 3 {
		if err == nil || !noSpace(err) || !o.store.makeSpace(o.Unit) {
			break
		}
		err = o.write(p, e)
	}
	if err == nil {
		return nil
	}
	o.store.complain(err)
	first, last := e.Units(o.Unit)
	for u := int(first); u < int(last); u++ {
		if !o.toMemory(u) {
			return fmt.Errorf("%s unit %d: %w", o.Key, u, err)
		}
	}
	return o.write(p, e)
}

func (o *Object) write(p vec, e extent.Extent) error {
	o.writing.RLock() // nobody moves a unit to memory meanwhile
	defer o.writing.RUnlock()
	if o.remembers.Load() == 0 {
		return o.writeDisk(p, e)
	}
	return o.split(e, func(part extent.Extent, to []byte) {
		for _, q := range p.part(part.Off-e.Off, part.Len) {
			to = to[copy(to, q):]
		}
	}, func(part extent.Extent) error {
		return o.writeDisk(p.part(part.Off-e.Off, part.Len), part)
	})
}

func (o *Object) writeDisk(p vec, e extent.Extent) error {
	return o.each(e, func(b *body, part extent.Extent) error {
		q, at := p.part(part.Off-e.Off, part.Len), part.Off-b.span.Off
		err := b.write(q, at, false)
		if errors.Is(err, errChanged) {
			o.changed(b)
			err = b.write(q, at, true)
		}
		return err
	}, nil)
}

// changed is called when a body was removed or shortened by somebody else: what it had is
// hashed before it is used, what is being written when it is whole.
func (o *Object) changed(b *body) {
	defer b.mend() // not before everybody knows
	o.store.log.Warn("somebody else changed a file of the cache; what it had is verified again", "object", o.Key, "file", b.path)
	first, last := b.span.Units(o.Unit)
	o.distrust(int(first), int(last))
}

// ReadBack reads bytes that were written but not committed, to hash them again.
func (o *Object) ReadBack(p []byte, off int64) error { return o.pread(p, off) }

// Commit marks unit u verified and wakes the reads that it completes. Its bytes
// were all written before. tag is kept for Verify; it has Layout.Tag bytes.
func (o *Object) Commit(u int, tag []byte) { o.commit(u, tag, nil) }

// commit is Commit; checked: what is there was hashed, and read since gen was so much.
func (o *Object) commit(u int, tag []byte, checked *uint64) {
	if o.remembers.Load() > 0 && o.commitMemory(u, tag) {
		return
	}
	_ = o.each(o.UnitExtent(u), func(b *body, _ extent.Extent) error { b.markDirty(); return nil }, nil)
	place, err := o.journal.append(record{unit: uint32(u), session: o.store.session.Number, op: opPresent, tag: tag})
	if err != nil {
		// The unit is good for this session; the next one will fetch it again.
		o.store.log.Warn("cache journal", "err", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.places != nil {
		o.places[u] = place
	}
	if checked != nil && *checked != o.gen.Load() {
		return // the file may be another by now
	}
	o.committedLocked(u)
}

// commitMemory is Commit of a unit that is in memory; false: it is not.
func (o *Object) commitMemory(u int, tag []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.memory[u]; !ok {
		return false
	}
	if o.places != nil {
		o.tags[u] = slices.Clone(tag)
	}
	o.committedLocked(u)
	return true
}

func (o *Object) committedLocked(u int) {
	o.filling.clear(u)
	o.again.clear(u)
	o.suspect.clear(u)
	if o.spoiled.has(u) {
		o.spoiled.clear(u)
		o.suspect.set(u) // what was written of it first may be lost
		o.doubts = true
	} else {
		o.present.set(u)
	}
	o.stamps[u] = o.store.clock()
	for w := range o.waiters {
		if w.first <= u && u < w.last && o.hereLocked(w.first, w.last) {
			delete(o.waiters, w)
			w.done <- nil
		}
	}
}

// hereLocked reports whether all of [first, last) is there, perhaps to be hashed before use.
func (o *Object) hereLocked(first, last int) bool {
	for u := first; u < last; u++ {
		if !o.present.has(u) && !o.suspect.has(u) {
			return false
		}
	}
	return true
}

// Fail ends the reads that wait for unit u. Only for causes that waiting will not mend.
func (o *Object) Fail(u int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for w := range o.waiters {
		if w.first <= u && u < w.last {
			delete(o.waiters, w)
			w.done <- err
		}
	}
}

// pread reads what is in memory or on disk.
func (o *Object) pread(p []byte, off int64) error {
	e := extent.Extent{Off: off, Len: int64(len(p))}
	return o.split(e, func(part extent.Extent, from []byte) {
		copy(p[part.Off-off:part.End()-off], from)
	}, func(part extent.Extent) error {
		return o.readDisk(p[part.Off-off:part.End()-off], part.Off)
	})
}

// preadVerified is pread of units [first, last), each of which is hashed.
func (o *Object) preadVerified(p []byte, off int64, first, last int) bool {
	want := extent.Extent{Off: off, Len: int64(len(p))}
	for u := first; u < last; u++ {
		e := o.UnitExtent(u)
		whole, part := make([]byte, e.Len), e.Clip(want)
		tag, err := o.tag(u)
		if err != nil || o.pread(whole, e.Off) != nil || o.Verify == nil || !o.Verify(u, whole, tag) {
			return false
		}
		copy(p[part.Off-off:part.End()-off], whole[part.Off-e.Off:])
	}
	return true
}

// readDisk reads from the bodies; what has no body is zeros.
func (o *Object) readDisk(p []byte, off int64) error {
	return o.each(extent.Extent{Off: off, Len: int64(len(p))}, func(b *body, part extent.Extent) error {
		f, err := b.acquire(false)
		if err != nil {
			return err
		}
		defer b.release()
		n, err := f.ReadAt(p[part.Off-off:part.End()-off], part.Off-b.span.Off)
		if err == io.EOF && int64(n) == part.Len {
			err = nil
		}
		return err
	}, func(gap extent.Extent) { clear(p[gap.Off-off : gap.End()-off]) })
}

// ReadPresent reads bytes that must all be verified, else ErrAbsent: for upload,
// which never waits for a fetch.
func (o *Object) ReadPresent(p []byte, off int64) error {
	for range 3 {
		ok, err := o.readHit(p, off)
		if ok || err != nil {
			return err
		}
	}
	return ErrAbsent
}

// readHit reads p if all its units are present. Suspect units are hashed first.
// ok=false, err=nil: something is missing.
func (o *Object) readHit(p []byte, off int64) (ok bool, err error) {
	f, l := extent.Extent{Off: off, Len: int64(len(p))}.Units(o.Unit)
	first, last := int(f), int(l)
	for range 8 {
		o.mu.Lock()
		if o.suspect.any(first, last) {
			o.mu.Unlock()
			for u := first; u < last; u++ {
				o.Check(u)
			}
			continue
		}
		if !o.present.all(first, last) {
			o.mu.Unlock()
			return false, nil
		}
		now := o.store.clock()
		for u := first; u < last; u++ {
			o.stamps[u] = now
		}
		gen := o.gen.Load()
		o.mu.Unlock()
		if o.store.cfg.VerifyAlways {
			ok = o.preadVerified(p, off, first, last)
		} else {
			err = o.pread(p, off)
			ok = err == nil
		}
		if !ok {
			o.distrust(first, last) // truncated, deleted or changed under us: hash again, fetch again
			continue
		}
		if o.gen.Load() == gen {
			return true, nil
		}
	}
	return false, err
}

// distrust makes present units suspect, and has those hashed again that are being written.
func (o *Object) distrust(first, last int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for u := first; u < last; u++ {
		if _, inMemory := o.memory[u]; inMemory {
			continue
		}
		if o.present.has(u) {
			o.present.clear(u)
			o.suspect.set(u)
		}
		if o.filling.has(u) || o.again.has(u) {
			o.spoiled.set(u)
		}
	}
	o.doubts = true
	o.gen.Add(1)
}

// Check hashes unit u if it is suspect; afterwards it is present or gone.
func (o *Object) Check(u int) (present bool) {
	o.mu.Lock()
	for {
		if _, busy := o.checking[u]; !busy {
			break
		}
		o.settled.Wait()
	}
	if !o.suspect.has(u) || o.closed {
		present = o.present.has(u)
		o.mu.Unlock()
		return present
	}
	o.checking[u] = struct{}{}
	o.mu.Unlock()

	good := false
	for range 8 { // as long as something goes, or is changed from outside, meanwhile
		gen := o.gen.Load()
		if good = o.hash(u); !good {
			break
		}
		tag, _ := o.tag(u)
		o.commit(u, tag, &gen)
		if o.Has(u) {
			break
		}
	}
	o.mu.Lock()
	delete(o.checking, u)
	present = o.present.has(u)
	o.mu.Unlock()
	o.settled.Broadcast()
	if !good {
		o.store.log.Info("cached unit does not match its hash, dropped", "object", o.Key, "unit", u)
		o.drop(u, u+1)
	}
	return present
}

// hash reports whether what is there of a unit matches its hash.
func (o *Object) hash(u int) bool {
	o.store.hashing <- struct{}{}
	defer func() { <-o.store.hashing }()
	e := o.UnitExtent(u)
	p := make([]byte, e.Len)
	tag, err := o.tag(u)
	return err == nil && o.ReadBack(p, e.Off) == nil && o.Verify != nil && o.Verify(u, p, tag)
}

// drop forgets units [first, last), as far as they are there, and frees their bytes. Reads that
// wait look again: they had counted on these.
func (o *Object) drop(first, last int) (freed int64) {
	return o.dropIf(first, last, func(int) bool { return true })
}

// dropIf drops those units of which mayLocked is true at the time.
func (o *Object) dropIf(first, last int, mayLocked func(u int) bool) (freed int64) {
	for first < last {
		n, end := o.dropSome(first, last, mayLocked)
		freed, first = freed+n, end
	}
	return freed
}

// dropSome drops the first units of [first, last) that are there and alike, in one hole, and
// returns where it ended.
func (o *Object) dropSome(first, last int, mayLocked func(u int) bool) (freed int64, end int) {
	o.mu.Lock()
	there := func(u int) bool {
		_, busy := o.checking[u] // it is read just now, and will be present or dropped after that
		return (o.present.has(u) || o.suspect.has(u)) && !busy && mayLocked(u)
	}
	for first < last && !there(first) {
		first++
	}
	end = first
	if first < last && o.dropMemoryLocked(first) {
		o.again.clear(first)
		o.lookAgainLocked(first, first+1)
		o.mu.Unlock()
		o.releaseMemory(first)
		return 0, first + 1
	}
	if first < last && o.again.has(first) {
		o.present.clear(first)
		o.suspect.clear(first)
		o.again.clear(first)
		o.filling.set(first) // it is being written: charged as before, and hashed when whole
		o.spoiled.set(first)
		o.gen.Add(1)
		o.lookAgainLocked(first, first+1)
		o.mu.Unlock()
		o.took(first)
		return 0, first + 1
	}
	kept := end < last && o.keptLocked(first)
	for end < last && there(end) && o.keptLocked(end) == kept && o.memory[end] == nil && !o.again.has(end) {
		o.present.clear(end)
		o.suspect.clear(end)
		end++
	}
	if end == first {
		o.mu.Unlock()
		return 0, last
	}
	edge := o.leaveLocked(first, end)
	o.gen.Add(1)
	o.lookAgainLocked(first, end)
	o.mu.Unlock()
	units := make([]int, 0, end-first)
	for u := first; u < end; u++ {
		units = append(units, u)
	}
	o.took(units...)
	return o.free(first, end, edge), end
}

// took writes down that units are gone.
func (o *Object) took(units ...int) {
	gone := make([]record, 0, len(units))
	for _, u := range units {
		gone = append(gone, record{unit: uint32(u), session: o.store.session.Number, op: opGone})
	}
	if _, err := o.journal.append(gone...); err != nil {
		o.store.log.Warn("cache journal", "err", err)
	}
}

// lookAgainLocked wakes the reads that wait for other units and had [first, last) already. The
// Source was not asked for those, so it must be told anew.
func (o *Object) lookAgainLocked(first, last int) {
	for w := range o.waiters {
		if w.first < last && first < w.last {
			delete(o.waiters, w)
			w.done <- nil
		}
	}
}

func (o *Object) wantedLocked(u int) bool {
	for w := range o.waiters {
		if w.first <= u && u < w.last {
			return true
		}
	}
	return false
}

// punch frees the bytes of e. A block at an edge that a neighbour shares goes
// with it only if edge says that the neighbour is absent.
func (o *Object) punch(e extent.Extent, edge edges) {
	err := o.each(e, func(b *body, part extent.Extent) error {
		from, to := part.Off-b.span.Off, part.End()-b.span.Off
		if edge.low {
			from = from / blockSize * blockSize
		}
		if edge.high || to == b.span.Len {
			to = (to + blockSize - 1) / blockSize * blockSize
		}
		return b.punch(from, to)
	}, nil)
	if err != nil {
		o.store.log.Warn("cache punch", "object", o.Key, "off", e.Off, "err", err)
	}
}
