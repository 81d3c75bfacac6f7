package cache

import (
	"slices"

	"github.com/btmount/btmount/cache/extent"
)

// When the disk takes no more (it is full, a quota ends, the folder is gone or read-only), or
// the limit leaves room for nothing, units that a read waits for are kept in memory, so that
// reading goes on, one unit at a time if need be. What nobody waits for fails, and so
// read-ahead stops. They are in no journal; the one that was unused longest makes room.
//
// A tier in memory for other times is not there: a hit on disk is a hit in the page cache,
// which costs the same copy and knows better than we what is hot.

// memoryLimit is how much that may take; one unit always fits.
const memoryLimit = 64 << 20

// memory are the units of all objects that have no place on disk.
type inMemory struct {
	obj  *Object
	unit int
	size int64
}

// remember gives unit u of o, which is being filled, a place in memory; false: there is none.
func (s *Store) remember(o *Object, u int, p []byte) bool {
	s.memory.Lock()
	defer s.memory.Unlock()
	need := int64(len(p))
	for s.remembered > 0 && s.remembered+need > memoryLimit {
		slices.SortFunc(s.units, func(a, b inMemory) int { return int(a.obj.stamp(a.unit)) - int(b.obj.stamp(b.unit)) })
		i := slices.IndexFunc(s.units, func(v inMemory) bool { return v.obj.forgetMemory(v.unit) })
		if i < 0 {
			return false // others are waited for as well
		}
		s.remembered -= s.units[i].size
		s.units = slices.Delete(s.units, i, i+1)
	}
	s.units = append(s.units, inMemory{o, u, need})
	s.remembered += need
	o.mu.Lock()
	defer o.mu.Unlock()
	o.memory[u] = p
	o.remembers.Store(int32(len(o.memory)))
	return true
}

// release gives the places of units in memory back that forget is true of.
func (s *Store) release(forget func(o *Object, u int) bool) {
	s.memory.Lock()
	defer s.memory.Unlock()
	s.units = slices.DeleteFunc(s.units, func(v inMemory) bool {
		gone := forget(v.obj, v.unit)
		if gone {
			s.remembered -= v.size
		}
		return gone
	})
}

func (o *Object) stamp(u int) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stamps[u]
}

// forgetMemory drops a unit that is in memory, unless a read waits for it or it is not
// finished.
func (o *Object) forgetMemory(u int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, busy := o.checking[u]; busy || o.filling.has(u) || o.wantedLocked(u) {
		return false
	}
	o.dropMemoryLocked(u)
	return true
}

// dropMemoryLocked forgets what is in memory of a unit; false: nothing is. Store.release does
// the accounts.
func (o *Object) dropMemoryLocked(u int) bool {
	if _, ok := o.memory[u]; !ok {
		return false
	}
	delete(o.memory, u)
	delete(o.tags, u)
	o.remembers.Store(int32(len(o.memory)))
	o.present.clear(u)
	o.suspect.clear(u)
	o.gen.Add(1)
	return true
}

// releaseMemory does the accounts of a unit that was dropped from memory.
func (o *Object) releaseMemory(u int) {
	o.store.release(func(p *Object, v int) bool { return p == o && v == u })
}

// split calls there for the parts of e that lie in memory, with their bytes, and disk for the
// others.
func (o *Object) split(e extent.Extent, there func(part extent.Extent, p []byte), disk func(part extent.Extent) error) error {
	if o.remembers.Load() == 0 {
		return disk(e)
	}
	first, last := e.Units(o.Unit)
	for u := first; u < last; u++ {
		unit := o.UnitExtent(int(u))
		part := unit.Clip(e)
		o.mu.Lock()
		p := o.memory[int(u)]
		o.mu.Unlock()
		if p != nil {
			there(part, p[part.Off-unit.Off:part.End()-unit.Off])
		} else if err := disk(part); err != nil {
			return err
		}
	}
	return nil
}

// toMemory moves a unit that is being filled, and that a read waits for, from the disk to
// memory. What was written of it before may be lost by that: it is hashed again.
func (o *Object) toMemory(u int) bool {
	o.writing.Lock()
	defer o.writing.Unlock()
	b := o.sharedBody(u)
	twins := b.enter()
	there, freed := o.toMemoryOf(b, twins, u)
	b.leave(twins)
	o.store.unreserve(freed)
	return there
}

func (o *Object) toMemoryOf(b *body, twins []*body, u int) (there bool, freed int64) {
	o.mu.Lock()
	there, wanted := o.memory[u] != nil, o.filling.has(u) && o.wantedLocked(u)
	if twins != nil && o.knownLocked(u) {
		there = true // a twin brought it
	}
	o.mu.Unlock()
	if there || !wanted {
		return there, 0
	}
	e := o.UnitExtent(u)
	p := make([]byte, e.Len)
	_ = o.readDisk(p, e.Off) // what can not be read will not match its hash
	if !o.store.remember(o, u, p) {
		return false, 0
	}
	lock(o, twins)
	o.spoiled.set(u)
	kept := o.keptLocked(u) || busyLocked(b, twins, u)
	unlock(o, twins)
	if !kept {
		o.punch(e, edges{})
	}
	return true, o.cost(u)
}
