package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

// ErrAbsent means that bytes are asked for that are not in the cache.
var ErrAbsent = errors.New("not in the cache")

// CorruptError means that bytes can not be had as their hash promises them.
type CorruptError struct {
	Key  Key
	Unit int
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s unit %d: no source has bytes that match its hash", e.Key, e.Unit)
}

// Corrupt marks the error for the kernel side.
func (e *CorruptError) Corrupt() bool { return true }

// Layout describes an object.
type Layout struct {
	Key   Key
	Unit  int64           // length of every unit but the last, > 0
	Size  int64           // length of the byte space, > 0
	Files []extent.Extent // ascending, disjoint; what lies between them (pad files) is zeros
	// Tag is how many bytes the journal keeps with each unit for who verified it: a
	// hash that is not part of the metadata, say. At most 255.
	Tag int
	// Verify reports whether p is unit u; tag is what came with its Commit. It is
	// called after an unclean stop and when a body was tampered with, from any
	// goroutine.
	Verify func(u int, p, tag []byte) bool
	// Content names what the files hold, in the order of Files: two files of the same
	// name, of whatever object, are equal byte for byte (BEP 52: the pieces root). A
	// name of zeros says nothing. Their units have equal tags. They are on disk once: see
	// share.go. May be nil.
	Content []ContentID
}

// ContentID is a collision-free name of bytes.
type ContentID [32]byte

// Object is the byte space of one torrent or file, partly on disk.
type Object struct {
	Layout
	store     *Store
	dir       string
	units     int
	bodies    []*body
	sharing   bool     // one of them has a share
	joined    []*share // locked while the object is opened
	journal   *journal
	writing   sync.RWMutex // held to write; exclusively to move a unit to memory
	remembers atomic.Int32 // len(memory)
	lends     atomic.Bool  // lentFile is there
	syncing   sync.Mutex   // held while the journal is synced, or closed
	used      time.Time    // in an earlier session, the last time
	peers     atomic.Pointer[func(int) int]
	gen       atomic.Uint64 // counts evictions: a read that saw it change is done again

	mu       sync.Mutex
	settled  sync.Cond          // on mu: a unit left checking or leaving
	present  bitmap             // verified and readable
	suspect  bitmap             // recorded, to be hashed before use; never also present
	filling  bitmap             // charged and being written; never also present
	again    bitmap             // present or suspect, and written all the same: stays until that ends
	leaving  bitmap             // evicted, its hole not yet punched
	spoiled  bitmap             // filling, and to be hashed when whole: bytes may be lost
	doubts   bool               // units were made suspect in this session
	memory   map[int][]byte     // units that the disk does not take
	tags     map[int][]byte     // of those
	pinned   bitmap             // never evicted; nil: none, immutable
	kept     bitmap             // read by the kernel itself; nil: none, immutable
	keeps    map[*body]struct{} // bodies whose units those are
	edges    bitmap             // units with an edge of a long file; nil: not looked for yet
	readers  map[*Reader]struct{}
	guards   map[any][2]int // windows of readers
	checking map[int]struct{}
	places   []uint32 // the record of each unit in the journal; nil without tags
	stamps   []uint32 // last use, Store.clock; 0 = an earlier session
	waiters  map[*waiter]struct{}
	closed   bool
}

// waiter is one read that misses units [first, last).
type waiter struct {
	first, last int
	done        chan error // capacity 1; sent to by whoever deletes it from waiters
}

// Object opens the object with this layout, or returns the one already open.
func (s *Store) Object(l Layout) (*Object, error) {
	if l.Unit <= 0 || l.Size <= 0 || l.Tag < 0 || l.Tag > 255 || l.Key == "" || filepath.Base(string(l.Key)) != string(l.Key) {
		return nil, fmt.Errorf("object %q: bad layout", l.Key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[l.Key]; o != nil {
		return o, nil
	}
	o := s.newObject(l)
	loaded, err := o.load()
	defer o.letTwins()
	if err != nil {
		o.giveUpLocked()
		return nil, fmt.Errorf("cache of %s: %w", l.Key, err)
	}
	o.pinLocked(s.pins[l.Key])
	s.used += loaded
	s.unchargeLocked(s.dormant[string(l.Key)])
	o.used = s.dormant[string(l.Key)].at
	delete(s.dormant, string(l.Key))
	s.objects[l.Key] = o
	return o, nil
}

func (s *Store) newObject(l Layout) *Object {
	units := int((l.Size-1)/l.Unit + 1)
	o := &Object{
		Layout: l, store: s, units: units, dir: filepath.Join(s.cfg.Dir, "objects", string(l.Key)),
		present: newBitmap(units), suspect: newBitmap(units), filling: newBitmap(units), again: newBitmap(units), leaving: newBitmap(units), spoiled: newBitmap(units), memory: map[int][]byte{}, tags: map[int][]byte{},
		checking: map[int]struct{}{}, stamps: make([]uint32, units), waiters: map[*waiter]struct{}{}, keeps: map[*body]struct{}{},
		readers: map[*Reader]struct{}{}, guards: map[any][2]int{},
	}
	o.settled.L = &o.mu
	if l.Tag > 0 {
		o.places = make([]uint32, units)
	}
	for i, f := range l.Files {
		if !f.Empty() {
			home := filepath.Join(o.dir, "body", strconv.Itoa(i))
			o.bodies = append(o.bodies, &body{file: &file{path: home, size: f.Len, pool: s.pool}, obj: o, number: i, home: home, span: f})
		}
	}
	return o
}

// load reads the journal and returns the bytes that its units are charged.
func (o *Object) load() (charged int64, err error) {
	path := filepath.Join(o.dir, "units")
	records, tainted := 0, o.store.tainted.Load() // perhaps by this one, when it was closed
	each := func(r record) {
		records++
		u := int(r.unit)
		if u >= o.units {
			return
		}
		o.present.clear(u)
		o.suspect.clear(u)
		switch {
		case r.op != opPresent:
		case tainted || r.session <= o.store.session.Distrust:
			o.suspect.set(u)
		default:
			o.present.set(u)
		}
		if o.places != nil {
			o.places[u] = r.place
		}
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return 0, err
	}
	o.journal, err = openJournal(path, o.Unit, o.Size, o.Tag, each)
	if errors.Is(err, errForeign) {
		o.store.log.Warn("cache object of another layout dropped", "object", o.Key)
		if err = os.RemoveAll(o.dir); err == nil {
			if err = os.MkdirAll(o.dir, 0o700); err == nil {
				o.journal, err = openJournal(path, o.Unit, o.Size, o.Tag, each)
			}
		}
	}
	if err != nil {
		return 0, err
	}
	if records > 4*o.units+256 {
		if err := o.compact(path); err != nil {
			return 0, err
		}
	}
	linked := o.lookForLinks()
	o.takeBack(linked)
	if err := o.findTwins(linked); err != nil {
		return 0, err
	}
	for _, b := range o.bodies {
		first, last := b.span.Units(o.Unit)
		if b.share == nil || len(b.share.twins) == 1 {
			b.made = o.present.any(int(first), int(last)) || o.suspect.any(int(first), int(last))
		}
	}
	for u := range o.units {
		if b := o.sharedBody(u); b != nil && len(b.share.twins) > 1 {
			continue // charged already
		}
		if o.present.has(u) || o.suspect.has(u) {
			charged += o.cost(u)
		}
	}
	if o.store.unclean {
		o.dropLeftovers()
	}
	return charged, nil
}

// letTwins unlocks the shares that were joined.
func (o *Object) letTwins() {
	for _, s := range o.joined {
		s.mu.Unlock()
	}
	o.joined = nil
}

// giveUpLocked undoes what load did of an object that can not be opened. Store.mu is held.
func (o *Object) giveUpLocked() {
	o.letTwins()
	for _, b := range o.bodies {
		if b.share != nil {
			o.leaveShare(b)
		}
	}
	o.forgetBodies()
	if o.journal != nil {
		o.journal.close()
	}
}

// forgetBodies closes the files that no twin has.
func (o *Object) forgetBodies() {
	for _, b := range o.bodies {
		if b.share == nil || b.ours {
			o.store.pool.forget(b.file)
		}
	}
}

// compact writes the journal anew with one record per unit.
func (o *Object) compact(path string) error {
	tmp := path + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	j, err := openJournal(tmp, o.Unit, o.Size, o.Tag, func(record) {})
	if err != nil {
		return err
	}
	places := make([]uint32, len(o.places))
	for u := range o.units {
		r := record{unit: uint32(u), session: o.store.session.Number, op: opPresent}
		if o.suspect.has(u) {
			r.session = o.store.session.Distrust
		} else if !o.present.has(u) {
			continue
		}
		if r.tag, err = o.tag(u); err != nil {
			j.close()
			return err
		}
		place, err := j.append(r)
		if err != nil {
			j.close()
			return err
		}
		if o.places != nil {
			places[u] = place
		}
	}
	if err := errors.Join(j.sync(), os.Rename(tmp, path)); err != nil {
		j.close()
		return err
	}
	o.journal.close()
	o.journal = j
	copy(o.places, places)
	return nil
}

// tag reads what came with the Commit of a unit that is present or suspect.
func (o *Object) tag(u int) ([]byte, error) {
	if o.places == nil {
		return nil, nil
	}
	o.mu.Lock()
	place, tag := o.places[u], o.tags[u]
	o.mu.Unlock()
	if tag != nil {
		return tag, nil
	}
	return o.journal.tagAt(place)
}

// dropLeftovers frees what a killed session had written of units that it never
// verified: those bytes are charged to nobody.
func (o *Object) dropLeftovers() {
	for i, b := range o.bodies {
		if o.shareable(i) {
			continue // of those it is done whenever the object is opened
		}
		if _, err := os.Stat(b.path); err != nil {
			continue
		}
		first, last := b.span.Units(o.Unit)
		for u := first; u < last; {
			end := u
			for end < last && !o.present.has(int(end)) && !o.suspect.has(int(end)) {
				end++
			}
			if end > u {
				o.punch(extent.Between(u*o.Unit, end*o.Unit).Clip(b.span), edges{})
			}
			u = end + 1
		}
	}
}

// Close syncs the object and gives it back to the store, of which it may be had again. No
// reader or writer may be active any more; reads that still wait end with an error.
func (o *Object) Close() error { return o.close(true) }

// close leaves no folder of an object that was only looked at, if tidy.
func (o *Object) close(tidy bool) error {
	o.store.evicting.Lock() // what is being evicted is charged to neither side
	defer o.store.evicting.Unlock()
	o.mu.Lock()
	o.closed = true
	for w := range o.waiters {
		delete(o.waiters, w)
		w.done <- fmt.Errorf("%s: %w", o.Key, os.ErrClosed)
	}
	charged, stamp := int64(0), uint32(0)
	for u := range o.units {
		stamp = max(stamp, o.stamps[u])
		if o.dropMemoryLocked(u) {
			o.filling.clear(u) // not charged
		}
		if o.sharedBody(u) != nil {
			continue
		}
		if o.present.has(u) || o.suspect.has(u) || o.filling.has(u) {
			charged += o.cost(u)
		}
	}
	o.mu.Unlock()
	charged += o.leaveShares() // from here on no twin changes anything
	doubts := o.doubts
	var alone []*body // whose journal knows everything, if it says what is in doubt
	for _, b := range o.bodies {
		if b.alone() {
			alone, doubts = append(alone, b), true
		}
	}

	o.store.release(func(p *Object, _ int) bool { return p == o })
	if doubts {
		o.keepDoubts()
	}
	err := o.sync()
	for _, b := range alone {
		if err == nil && !o.journal.isBroken() {
			_ = o.store.list(string(o.Key), b.content(false))
		}
	}
	o.forgetBodies()
	if o.journal.isBroken() {
		o.store.tainted.Store(true)
	}
	o.syncing.Lock()
	err = errors.Join(err, o.journal.close())
	o.syncing.Unlock()
	s := o.store
	var d dormant
	unused := tidy && charged == 0 && o.journal.next == 0
	if unused {
		err = errors.Join(err, os.RemoveAll(o.dir))
	} else {
		d = measure(o.dir)
	}
	switch {
	case stamp > 0:
		d.at = s.start.Add(time.Duration(stamp) * tick)
	case !o.used.IsZero(): // it was only looked at
		d.at = o.used
	}
	s.mu.Lock()
	if s.objects[o.Key] == o {
		delete(s.objects, o.Key)
		if !unused {
			s.dormant[string(o.Key)] = d
			s.chargeLocked(d)
		}
		s.used -= charged
	}
	s.mu.Unlock()
	return err
}

// keepDoubts writes down which units have to be hashed before they are used again.
func (o *Object) keepDoubts() {
	for u := range o.units {
		if !o.suspect.has(u) {
			continue
		}
		tag, err := o.tag(u)
		if err == nil {
			_, err = o.journal.append(record{unit: uint32(u), op: opPresent, tag: tag}) // of session 0
		}
		if err != nil {
			o.store.tainted.Store(true)
			return
		}
	}
}

func (o *Object) sync() error {
	o.syncing.Lock()
	defer o.syncing.Unlock()
	var errs error
	for _, b := range o.bodies {
		errs = errors.Join(errs, b.sync())
	}
	return errors.Join(errs, o.journal.sync())
}

// Units returns the number of units.
func (o *Object) Units() int { return o.units }

// UnitExtent returns the bytes of unit u.
func (o *Object) UnitExtent(u int) extent.Extent { return extent.Unit(int64(u), o.Unit, o.Size) }

// Has reports whether unit u is verified and readable.
func (o *Object) Has(u int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.present.has(u)
}

// Known reports whether unit u is present or waits to be hashed again.
func (o *Object) Known(u int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.present.has(u) || o.suspect.has(u)
}

// Each calls f for every unit that is present.
func (o *Object) Each(f func(u int)) {
	o.mu.Lock()
	present := append(bitmap(nil), o.present...)
	o.mu.Unlock()
	for u := range o.units {
		if present.has(u) {
			f(u)
		}
	}
}

// Count returns how many units are present, and of how many.
func (o *Object) Count() (present, all int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.present.count(0, o.units), o.units
}

// PresentIn returns how many bytes of e are verified and on disk.
func (o *Object) PresentIn(e extent.Extent) int64 {
	f, l := e.Units(o.Unit)
	first, last := int(f), int(l)
	if first == last {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	known := func(u int) bool { return o.present.has(u) || o.suspect.has(u) }
	n := int64(o.present.count(first, last)+o.suspect.count(first, last)) * o.Unit
	// The units at the edges belong to e only in part.
	if known(first) {
		n -= o.Unit - o.UnitExtent(first).Clip(e).Len
	}
	if last-1 != first && known(last-1) {
		n -= o.Unit - o.UnitExtent(last-1).Clip(e).Len
	}
	return n
}

// each calls f for every part of e that has a body, and gap for the others.
func (o *Object) each(e extent.Extent, f func(b *body, part extent.Extent) error, gap func(extent.Extent)) error {
	pos := e.Off
	for i := sort.Search(len(o.bodies), func(i int) bool { return o.bodies[i].span.End() > e.Off }); i < len(o.bodies); i++ {
		b := o.bodies[i]
		part := e.Clip(b.span)
		if part.Empty() {
			break
		}
		if gap != nil && part.Off > pos {
			gap(extent.Between(pos, part.Off))
		}
		if err := f(b, part); err != nil {
			return err
		}
		pos = part.End()
	}
	if gap != nil && pos < e.End() {
		gap(extent.Between(pos, e.End()))
	}
	return nil
}

// cost is what unit u is charged: every block that its bytes touch.
func (o *Object) cost(u int) (n int64) {
	_ = o.each(o.UnitExtent(u), func(b *body, part extent.Extent) error {
		from, to := part.Off-b.span.Off, part.End()-b.span.Off
		n += (to+blockSize-1)/blockSize*blockSize - from/blockSize*blockSize
		return nil
	}, nil)
	return n
}
