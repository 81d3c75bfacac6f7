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
	if !o.claim(u) {
		return nil
	}
	err := o.store.reserve(o.cost(u)) // with no lock held: it may evict
	if err == nil {
		return nil
	}
	b := o.sharedBody(u)
	twins := b.enter()
	o.mu.Lock()
	brought, wanted := !o.filling.has(u) && o.knownLocked(u), o.wantedLocked(u)
	o.mu.Unlock()
	if brought { // by a twin, which gave the charge back that there is not
		b.leave(twins)
		o.store.unreserve(-o.cost(u))
		return nil
	}
	if wanted && o.store.remember(o, u, make([]byte, o.UnitExtent(u).Len)) {
		b.leave(twins)
		o.store.complain(err)
		return nil
	}
	o.mu.Lock()
	o.filling.clear(u)
	o.spoiled.clear(u)
	o.mu.Unlock()
	b.leave(twins)
	return fmt.Errorf("%s unit %d: %w", o.Key, u, err)
}

// claim marks a unit as being filled, before it is charged; false: there is nothing to charge.
func (o *Object) claim(u int) bool {
	b := o.sharedBody(u)
	twins := b.enter()
	defer b.leave(twins)
	lock(o, twins)
	defer unlock(o, twins)
	for o.leaving.has(u) {
		o.settled.Wait() // its old bytes are being punched: a write now would be lost
	}
	if o.present.has(u) || o.suspect.has(u) {
		o.again.set(u) // evicted before Commit, it would come back as a hole
	}
	if o.filling.has(u) || o.again.has(u) || o.closed {
		return false
	}
	o.filling.set(u)
	for _, t := range twins {
		if v := t.unit(b, u); t != b && t.obj.fillsLocked(v) {
			o.spoiled.set(u) // two write one unit, unverified: what it is then is hashed
			t.obj.spoiled.set(v)
		}
	}
	return true
}

// fillsLocked reports whether unit u is being written on disk, and charged for that.
func (o *Object) fillsLocked(u int) bool { return o.filling.has(u) && o.memory[u] == nil }

// Abandon gives the charge of a unit back that will not be finished. Its bytes are freed.
func (o *Object) Abandon(u int) {
	b := o.sharedBody(u)
	twins := b.enter()
	freed := o.abandon(b, twins, u)
	b.leave(twins)
	o.store.unreserve(freed)
}

func (o *Object) abandon(b *body, twins []*body, u int) (freed int64) {
	lock(o, twins)
	o.again.clear(u)
	o.spoiled.clear(u)
	if !o.filling.has(u) {
		unlock(o, twins)
		return 0
	}
	o.filling.clear(u)
	if o.dropMemoryLocked(u) {
		unlock(o, twins)
		o.releaseMemory(u)
		return 0
	}
	if twins != nil {
		stays := busyLocked(b, twins, u)
		unlock(o, twins)
		if !stays {
			o.punch(o.UnitExtent(u), edges{})
		}
		return o.cost(u)
	}
	edge := o.leaveLocked(u, u+1)
	o.mu.Unlock()
	return o.free(u, u+1, edge)
}

// edges tells which neighbours of a leaving unit are absent and held back from
// being begun, so that a block shared with them may be punched whole; and whether its
// bytes stay, because somebody reads them without asking.
type edges struct{ low, high, kept bool }

// leaveLocked marks units [first, last), all kept or none, as leaving, and absent neighbours
// with them until free.
func (o *Object) leaveLocked(first, last int) (e edges) {
	guard := func(n int) bool {
		// Nothing shares a block with what is of a shared body and not.
		if o.sharedBody(n) != nil || n < 0 || n >= o.units || o.present.has(n) || o.suspect.has(n) || o.filling.has(n) || o.leaving.has(n) || o.keptLocked(n) {
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

// free punches units that are leaving. The caller uncharges what it returns, with no share
// entered.
func (o *Object) free(first, last int, e edges) (freed int64) {
	if !e.kept {
		from, to := o.UnitExtent(first), o.UnitExtent(last-1)
		o.punch(extent.Between(from.Off, to.End()), e)
	}
	for u := first; u < last; u++ {
		freed += o.cost(u)
	}
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
		q := p.part(part.Off-e.Off, part.Len)
		if b.share != nil {
			return b.writeShared(q, part)
		}
		return b.writePart(q, part)
	}, nil)
}

// writePart writes p, which is part of the object.
func (b *body) writePart(p vec, part extent.Extent) error {
	err := b.write(p, part.Off-b.span.Off, false)
	if errors.Is(err, errChanged) {
		b.changed()
		err = b.write(p, part.Off-b.span.Off, true)
	}
	return err
}

// changed is called when a body was removed or shortened by somebody else: what it had is
// hashed before it is used, what is being written when it is whole.
func (b *body) changed() {
	defer b.mend() // not before everybody knows
	b.obj.store.log.Warn("somebody else changed a file of the cache; what it had is verified again", "object", b.obj.Key, "file", b.name())
	if b.share == nil {
		first, last := b.span.Units(b.obj.Unit)
		b.obj.distrust(int(first), int(last))
		return
	}
	for _, t := range b.share.twins { // it was entered to write
		t.obj.distrust(t.first, t.last())
	}
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
	b := o.sharedBody(u)
	twins := b.enter()
	if twins != nil {
		freed, forgot := o.commitTwins(b, twins, u, tag, checked)
		b.leave(twins)
		o.store.unreserve(freed)
		for _, t := range forgot {
			t.obj.releaseMemory(t.unit(b, u))
		}
		return
	}
	defer b.leave(twins)
	_ = o.each(o.UnitExtent(u), func(b *body, _ extent.Extent) error { b.markDirty(); return nil }, nil)
	b.list()
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
	if b != nil && checked == nil && o.suspect.has(u) {
		o.spoiled.set(u) // what was written of it was left out: see writeShared
	}
	writes := checked != nil && o.again.has(u)
	o.committedLocked(u)
	if writes {
		o.again.set(u) // who writes it has not finished
	}
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
	for first < last {
		b, end := o.sharedRun(first, last)
		freed, first = freed+o.dropRun(b, first, end, nil), end
	}
	return freed
}

// dropRun drops units [first, last), all of one shared body or none, that may go at the time;
// nil: whatever becomes of them.
func (o *Object) dropRun(b *body, first, last int, may *mayGo) (freed int64) {
	mayLocked := func(u int) bool { return may == nil || o.mayGoLocked(u, *may) }
	twins := b.enter()
	var forgot []int
	if twins != nil {
		freed, forgot = o.dropTwins(b, twins, first, last, may)
	}
	for twins == nil && first < last {
		n, end := o.dropSome(first, last, mayLocked)
		freed, first = freed+n, end
	}
	b.leave(twins)
	o.store.unreserve(freed)
	for _, u := range forgot {
		o.releaseMemory(u)
	}
	return freed
}

// dropSome drops the first units of [first, last) that are there and alike, in one hole, and
// returns where it ended. The caller uncharges what it returns.
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
