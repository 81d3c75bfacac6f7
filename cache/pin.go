package cache

import (
	"fmt"

	"github.com/btmount/btmount/cache/extent"
)

// pin is what is pinned of one object, open or not.
type pin struct {
	units bitmap // nil: whatever its folder has, until the object is opened and pinned
	cost  int64  // bytes of blocks, there or not
}

// mayPin is how much of the limit can be pinned: the rest is for what is read.
func mayPin(limit int64) int64 { return limit - limit/8 }

// MayPin returns how much may be pinned of the limit, of what holds now.
func (s *Store) MayPin() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return mayPin(s.limit)
}

// TooSmallError means that what is pinned does not fit into a limit.
type TooSmallError struct {
	Pinned, Least int64 // Least is the smallest limit that would do
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("%d bytes are pinned; unpin some, or give a limit of %d or more", e.Pinned, e.Least)
}

// Pin makes the units that parts touch, there or not, those that are never evicted, in place
// of what was pinned before; without parts nothing is. That holds until the store is closed,
// also while the object is. It fails, and changes nothing, if all that is pinned would take
// more than seven eighths of the limit.
func (o *Object) Pin(parts ...extent.Extent) error {
	p := &pin{units: newBitmap(o.units)}
	for _, e := range parts {
		first, last := e.Clip(extent.Extent{Len: o.Size}).Units(o.Unit)
		for u := int(first); u < int(last); u++ {
			if !p.units.has(u) {
				p.units.set(u)
				p.cost += o.cost(u)
			}
		}
	}
	if len(parts) == 0 {
		p = nil
	}
	s := o.store
	s.mu.Lock()
	defer s.mu.Unlock()
	others := int64(0)
	for key, q := range s.pins {
		if key != o.Key {
			others += q.cost
		}
	}
	if p != nil && others+p.cost > mayPin(s.limit) {
		return fmt.Errorf("%s: pinning %d bytes, beside %d that are pinned already, would take more than 7/8 of the cache of %d; raise --cache-size or pin less", o.Key, p.cost, others, s.limit)
	}
	if p == nil {
		delete(s.pins, o.Key)
	} else {
		s.pins[o.Key] = p
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pinLocked(p)
	return nil
}

// Hold keeps the folder of an object that is not open from being evicted, until it is opened
// and Pin says what of it is pinned.
func (s *Store) Hold(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[key] == nil {
		s.pins[key] = &pin{}
	}
}

// Unpin ends the pins of an object, open or not.
func (s *Store) Unpin(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pins, key)
	if o := s.objects[key]; o != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.pinLocked(nil)
	}
}

// pinLocked is also called for an object that nobody else has yet.
func (o *Object) pinLocked(p *pin) {
	o.pinned = nil
	if p != nil && len(p.units) == len(o.present) {
		o.pinned = p.units
	}
}
