package cache

import (
	"errors"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// Equal files of several objects (Layout.Content) have one file on disk, of which each object's
// folder has a hard link: the link count is the reference count, and what one of them loses its
// folder for stays for the others. While several of the objects are open they are twins, and a
// share holds them together:
//
//   - A unit is on disk in all of them or in none (in memory it is one object's own business).
//     Who commits it commits it for all: a record with the tag in each journal, all waiters woken.
//   - A unit goes in all of them or in none: only if it may in each.
//   - Several may fill the same unit at once, none of them verified yet: then it is hashed when
//     it is whole. From then on what the others still write of it is left out.
//   - What is on disk is charged once, what is being filled once for each who does.
//
// Each object keeps its own bitmaps and journal, so a hit knows nothing of all this; only steps
// that change units, and writes, enter the share. Rejected: one object of its own for each
// content, to which the others refer. It would say everything once, but would be looked up by
// every read, and no cache of today could be used any more.
//
// An object that is not open (dormant) hears nothing of what becomes of its file. So its folder
// says which of its files were shared since it was last open alone (see contents.go), and what
// the journal claims of those, and of whatever has several links, is hashed before it is used.
// For the same reason there is no way from a share back to a file of one's own: only closing the
// object.
//
// A unit is the same in all of them since the files begin with a unit; they also must have the
// same unit and tag size. What is smaller than leastShared is not worth a link.
const leastShared = 1 << 20

// shareKey is what twins have in common.
type shareKey struct {
	content ContentID
	unit    int64
	tag     int
}

// share are the bodies of open objects that are one file.
type share struct {
	file  *file
	inode inode // zeros: not on disk yet; guarded by Store.mu

	// mu is held exclusively to change units if there are twins, else shared with those who
	// join; and shared by who writes. It is held while holes are punched and journals written.
	mu    sync.RWMutex
	twins []*body // sorted by the keys of their objects, one of each
}

// enter begins a step that changes units of b. It returns nobody if b is alone, which it stays
// until leave, and otherwise all twins, with everybody else kept out. b may be nil. Store.mu
// is never taken in between, and no other share entered.
func (b *body) enter() (twins []*body) {
	if b == nil {
		return nil
	}
	s := b.share
	s.mu.RLock()
	if len(s.twins) == 1 {
		return nil
	}
	s.mu.RUnlock()
	s.mu.Lock()
	return s.twins
}

// leave ends what enter began.
func (b *body) leave(twins []*body) {
	switch {
	case b == nil:
	case twins == nil:
		b.share.mu.RUnlock()
	default:
		b.share.mu.Unlock()
	}
}

// lock locks o, or all twins in their order, so that a step is one for everybody.
func lock(o *Object, twins []*body) {
	if twins == nil {
		o.mu.Lock()
	}
	for _, t := range twins {
		t.obj.mu.Lock()
	}
}

func unlock(o *Object, twins []*body) {
	if twins == nil {
		o.mu.Unlock()
	}
	for _, t := range twins {
		t.obj.mu.Unlock()
	}
}

// last is where the units of a shareable body end.
func (b *body) last() int {
	_, last := b.span.Units(b.obj.Unit)
	return int(last)
}

// unit returns what unit u of the object of twin a is in that of b.
func (b *body) unit(a *body, u int) int { return u - a.first + b.first }

// sharedBody returns the body of unit u if it has a share.
func (o *Object) sharedBody(u int) *body {
	if !o.sharing || u < 0 || u >= o.units {
		return nil
	}
	off := int64(u) * o.Unit
	i := sort.Search(len(o.bodies), func(i int) bool { return o.bodies[i].span.Off > off }) - 1
	if i < 0 || o.bodies[i].share == nil || u >= o.bodies[i].last() {
		return nil
	}
	return o.bodies[i]
}

// sharedRun returns the shared body of unit first, if any, and how far from there it is the same.
func (o *Object) sharedRun(first, last int) (b *body, end int) {
	if b = o.sharedBody(first); b != nil {
		return b, min(last, b.last())
	}
	if !o.sharing {
		return nil, last
	}
	off := int64(first) * o.Unit
	for i := sort.Search(len(o.bodies), func(i int) bool { return o.bodies[i].span.Off > off }); i < len(o.bodies); i++ {
		if b := o.bodies[i]; b.share != nil {
			return nil, min(last, b.first)
		}
	}
	return nil, last
}

// knownLocked reports whether unit u is on disk, perhaps to be hashed before it is used.
func (o *Object) knownLocked(u int) bool {
	return (o.present.has(u) || o.suspect.has(u)) && o.memory[u] == nil
}

// busyLocked reports whether the bytes of unit u of b stay although b gives it up: a twin writes
// it, or reads it without asking.
func busyLocked(b *body, twins []*body, u int) bool {
	for _, t := range twins {
		if v := t.unit(b, u); t != b && t.obj.fillsLocked(v) || t.obj.keptLocked(v) {
			return true
		}
	}
	return false
}

// writeShared is writePart without what is on disk already: a twin, which may be closed by now,
// can have brought it since it was begun, and p is not verified.
func (b *body) writeShared(p vec, part extent.Extent) error {
	o := b.obj
	b.share.mu.RLock()
	defer b.share.mu.RUnlock()
	f, l := part.Units(o.Unit)
	first, last := int(f), int(l)
	for first < last {
		o.mu.Lock()
		end, known := first, o.knownLocked(first)
		for end < last && o.knownLocked(end) == known {
			end++
		}
		o.mu.Unlock()
		if e := extent.Between(int64(first)*o.Unit, int64(end)*o.Unit).Clip(part); !known && !e.Empty() {
			if err := b.writePart(p.part(e.Off-part.Off, e.Len), e); err != nil {
				return err
			}
		}
		first = end
	}
	return nil
}

// commitTwins is Commit of a unit of a file that others have open as well. The caller uncharges
// what is freed, and gives back the memory of those who forgot theirs.
func (o *Object) commitTwins(b *body, twins []*body, u int, tag []byte, checked *uint64) (freed int64, forgot []*body) {
	if o.remembers.Load() > 0 && o.commitMemory(u, tag) {
		return 0, nil
	}
	if checked == nil && o.broughtAlready(u) || checked != nil && *checked != o.gen.Load() {
		return 0, nil
	}
	b.markDirty()
	places := make([]uint32, len(twins))
	for i, t := range twins {
		t.list()
		p := t.obj
		place, err := p.journal.append(record{unit: uint32(t.unit(b, u)), session: p.store.session.Number, op: opPresent, tag: tag})
		if err != nil {
			p.store.log.Warn("cache journal", "err", err)
		}
		places[i] = place
	}
	lock(o, twins)
	defer unlock(o, twins)
	spoiled, charges := o.spoiled.has(u), int64(-1) // for the unit on disk
	if o.knownLocked(u) {
		charges++
	}
	for i, t := range twins {
		p, v := t.obj, t.unit(b, u)
		if p.fillsLocked(v) {
			charges++
		}
		writes := p.filling.has(v) || p.again.has(v)
		if p.dropMemoryLocked(v) {
			forgot = append(forgot, t)
		}
		if p.places != nil {
			p.places[v] = places[i]
		}
		p.spoiled.clear(v)
		if spoiled {
			p.spoiled.set(v)
		}
		p.committedLocked(v)
		if writes && (t != b || checked != nil) { // he has not finished
			p.again.set(v)
		}
	}
	return charges * o.cost(u), forgot
}

// broughtAlready ends the writing of a unit that a twin brought first: what was written since
// was left out, so that what is there is neither better nor worse for it.
func (o *Object) broughtAlready(u int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.knownLocked(u)
	if known {
		o.again.clear(u)
		o.spoiled.clear(u)
	}
	return known
}

// dropTwins is drop of units of a file that others have open as well; nil: whatever becomes of
// them. The caller uncharges what is freed, and gives back the memory of what o forgot.
func (o *Object) dropTwins(b *body, twins []*body, first, last int, may *mayGo) (freed int64, forgot []int) {
	var gone []int
	var holes [][2]int
	lock(o, twins)
	for u := first; u < last; u++ {
		if o.memory[u] != nil && (o.present.has(u) || o.suspect.has(u)) {
			if _, busy := o.checking[u]; may == nil && !busy && o.dropMemoryLocked(u) {
				o.again.clear(u)
				o.lookAgainLocked(u, u+1)
				forgot = append(forgot, u)
			}
			continue
		}
		if !o.knownLocked(u) || !mayGoLocked(b, twins, u, may) {
			continue
		}
		gone = append(gone, u)
		writers, kept := int64(0), false
		for _, t := range twins {
			p, v := t.obj, t.unit(b, u)
			p.present.clear(v)
			p.suspect.clear(v)
			p.lookAgainLocked(v, v+1)
			if p.again.has(v) { // as in dropSome
				p.again.clear(v)
				p.filling.set(v)
				p.spoiled.set(v)
				writers++
			}
			kept = kept || p.keptLocked(v)
		}
		freed += (1 - writers) * o.cost(u)
		switch n := len(holes); {
		case writers > 0 || kept:
		case n > 0 && holes[n-1][1] == u:
			holes[n-1][1]++
		default:
			holes = append(holes, [2]int{u, u + 1})
		}
	}
	for _, t := range twins {
		if len(gone) > 0 {
			t.obj.gen.Add(1) // before a hole is punched: who reads now reads again
		}
	}
	unlock(o, twins)
	if len(gone) == 0 {
		return freed, forgot
	}
	for _, t := range twins {
		units := make([]int, len(gone))
		for i, u := range gone {
			units[i] = t.unit(b, u)
		}
		t.obj.took(units...)
	}
	for _, h := range holes {
		o.punch(extent.Between(o.UnitExtent(h[0]).Off, o.UnitExtent(h[1]-1).End()), edges{})
	}
	return freed, forgot
}

// mayGoLocked reports whether unit u of b may go in all twins.
func mayGoLocked(b *body, twins []*body, u int, may *mayGo) bool {
	for _, t := range twins {
		p, v := t.obj, t.unit(b, u)
		if _, busy := p.checking[v]; busy {
			return false // it is read just now, and will be present or dropped after that
		}
		if may == nil {
			continue
		}
		if !p.mayGoLocked(v, *may) {
			return false
		}
		for r := range p.readers {
			if may.asked && t != b && !r.span.Clip(t.span).Empty() {
				return false
			}
		}
	}
	return true
}

// costs is what units [first, last) are charged.
func (o *Object) costs(first, last int) (n int64) {
	for u := first; u < last; u++ {
		n += o.cost(u)
	}
	return n
}

// addLocked makes b one of the twins. Store.mu is held as well.
func (s *share) addLocked(b *body) {
	if b.file != s.file {
		b.pool.forget(b.file)
	}
	b.file, b.share = s.file, s
	b.obj.sharing = true
	i, _ := slices.BinarySearchFunc(s.twins, b, func(a, b *body) int { return strings.Compare(string(a.obj.Key), string(b.obj.Key)) })
	s.twins = slices.Insert(slices.Clone(s.twins), i, b)
}

// has reports whether an object has a body among the twins already: its files may be equal to
// each other, which are not shared.
func (s *share) has(o *Object) bool {
	return slices.ContainsFunc(s.twins, func(t *body) bool { return t.obj == o })
}

// leaveShares takes a closed object out of its shares, and returns what it is charged of their
// units: those on disk belong to whoever is left.
func (o *Object) leaveShares() (charged int64) {
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	for _, b := range o.bodies {
		if b.share != nil {
			charged += o.leaveShare(b)
		}
	}
	return charged
}

// leaveShare is called with Store.mu held.
func (o *Object) leaveShare(b *body) (charged int64) {
	s := b.share
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twins = slices.DeleteFunc(slices.Clone(s.twins), func(t *body) bool { return t == b })
	alone := len(s.twins) == 0
	o.mu.Lock()
	for u := b.first; u < b.last(); u++ {
		if o.fillsLocked(u) || alone && o.knownLocked(u) {
			charged += o.cost(u)
		}
	}
	o.mu.Unlock()
	if !alone {
		s.file.moveTo(b.home, s.twins[0].home, o.store.link)
		return charged
	}
	b.ours = true
	delete(o.store.shares, b.key())
	if s.inode != (inode{}) {
		o.store.linkLocked(s.inode, func(l *linkedFile) {
			l.open--
			if _, bytes, _, err := lookAt(s.file.name()); err == nil {
				l.bytes = bytes
			}
		})
	}
	return charged
}

// moveTo gives the file, which is opened at from, another of its names: that folder may go.
func (b *file) moveTo(from, to string, link func(from, to string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path != from {
		return
	}
	b.path = to
	f, err := os.Lstat(from)
	if err != nil {
		return
	}
	// Somebody may have removed the file while it was open, and it was made anew.
	if t, err := os.Lstat(to); err != nil || !os.SameFile(f, t) {
		_ = os.Remove(to)
		_ = link(from, to) // what is not there is fetched again
	}
}

// inode returns which file it is that is read and written, also if its name is gone.
func (b *file) inode() inode {
	b.mu.Lock()
	defer b.mu.Unlock()
	var st unix.Stat_t
	if b.f != nil && unix.Fstat(int(b.f.Fd()), &st) == nil {
		return inode{uint64(st.Dev), st.Ino}
	}
	i, _, _, _ := lookAt(b.path)
	return i
}

func (b *body) key() shareKey {
	return shareKey{b.obj.Content[b.number], b.obj.Unit, b.obj.Tag}
}

// shareable reports whether equal files of other objects may be found for a body, the i-th.
func (o *Object) shareable(i int) bool {
	b := o.bodies[i]
	if len(o.Content) != len(o.Files) || o.Content[b.number] == (ContentID{}) || o.Verify == nil {
		return false
	}
	end := (b.span.End() + o.Unit - 1) / o.Unit * o.Unit
	return b.span.Len >= leastShared && o.Unit%blockSize == 0 && b.span.Off%o.Unit == 0 && (i+1 == len(o.bodies) || o.bodies[i+1].span.Off >= end)
}

// inode names a file whatever it is called.
type inode struct{ dev, ino uint64 }

// linkedFile is a file with several links, as the books have it.
type linkedFile struct {
	bytes   int64 // of real blocks, when somebody looked
	dormant int   // folders of objects that are not open and have it
	open    int   // shares, which charge it by its units
}

func (l linkedFile) charge() int64 {
	if l.open > 0 || l.dormant == 0 {
		return 0
	}
	return l.bytes
}

// linkLocked changes what is known of a file with several links, and charges it accordingly.
func (s *Store) linkLocked(i inode, change func(*linkedFile)) {
	l := s.links[i]
	before := l.charge()
	change(&l)
	s.used += l.charge() - before
	if l.dormant <= 0 && l.open <= 0 {
		delete(s.links, i)
	} else {
		s.links[i] = l
	}
}

// chargeLocked charges a folder of an object that is not open.
func (s *Store) chargeLocked(d dormant) {
	s.used += d.bytes
	for i, bytes := range d.links {
		s.linkLocked(i, func(l *linkedFile) { l.dormant++; l.bytes = bytes })
	}
}

// unchargeLocked undoes chargeLocked, and returns what became free.
func (s *Store) unchargeLocked(d dormant) (freed int64) {
	before := s.used
	s.used -= d.bytes
	for i := range d.links {
		s.linkLocked(i, func(l *linkedFile) { l.dormant-- })
	}
	return before - s.used
}

var errNotRegular = errors.New("not a regular file")

// lookAt tells of a regular file which it is, how many bytes of blocks it has, and how many links.
func lookAt(path string) (i inode, bytes int64, links uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return i, 0, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return i, 0, 0, errNotRegular
	}
	return inode{uint64(st.Dev), st.Ino}, st.Blocks * 512, uint64(st.Nlink), nil
}
