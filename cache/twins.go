package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// lookForLinks finds the bodies of an object that is being opened that others may have changed
// or lent, and makes what the journal says of them suspect.
func (o *Object) lookForLinks() (linked map[*body]bool) {
	linked = map[*body]bool{}
	var list map[uint32]content
	for i, b := range o.bodies {
		if !o.shareable(i) {
			continue
		}
		if list == nil {
			if list = o.store.readContents(string(o.Key)); list == nil {
				list = map[uint32]content{}
			}
		}
		first, _ := b.span.Units(o.Unit)
		b.first = int(first)
		c, listed := list[uint32(b.number)]
		b.listed.Store(listed)
		if !listed && !o.claims(b) {
			continue
		}
		_, _, links, err := lookAt(b.home)
		if os.IsNotExist(err) {
			o.disclaim(b, func(int) bool { return true })
			continue
		}
		if !c.shared && links < 2 {
			continue
		}
		linked[b], b.marked = true, c.shared
		for u := b.first; u < b.last(); u++ {
			if o.present.has(u) {
				o.present.clear(u)
				o.suspect.set(u)
			}
		}
	}
	return linked
}

// claims reports whether the journal has any unit of a shareable body.
func (o *Object) claims(b *body) bool {
	return o.present.any(b.first, b.last()) || o.suspect.any(b.first, b.last())
}

// joins reports whether the file of a body is the one of a share.
func (o *Object) joins(b *body) bool {
	if len(o.Content) != len(o.Files) {
		return false
	}
	s := o.store.shares[b.key()]
	if s == nil {
		return false
	}
	i, _, _, err := lookAt(b.home)
	return err == nil && i == s.file.inode()
}

// findTwins has the bodies of an object that is being opened share the files of those that have
// the same. Store.mu is held, and nobody else has the object yet. After an error it can not be
// opened: a file might be changed behind somebody's back.
func (o *Object) findTwins(linked map[*body]bool) error {
	for i, b := range o.bodies {
		if o.shareable(i) {
			if err := o.findTwin(b, linked[b]); err != nil {
				return fmt.Errorf("file %d, which others share: %w", b.number, err)
			}
		}
	}
	return nil
}

func (o *Object) findTwin(b *body, linked bool) error {
	s := o.store.shares[b.key()]
	if s == nil {
		if err := o.inherit(b, linked); err != nil {
			return err
		}
		s = &share{file: b.file}
		s.inode, _, _, _ = lookAt(b.home)
		if s.inode != (inode{}) {
			o.store.linkLocked(s.inode, func(l *linkedFile) { l.open++ })
		}
		o.store.shares[b.key()] = s
		s.addLocked(b)
		return nil
	}
	_, _, links, _ := lookAt(b.home)
	if o.claims(b) && links < 2 && !o.joins(b) { // a copy of its own, from when nobody knew
		o.clean(b)
		return nil
	}
	if !s.has(o) {
		joined, err := o.join(b, s)
		if joined || err != nil {
			return err
		}
	}
	// What it has now must be nobody else's, since nobody tells it what becomes of that.
	if _, _, links, _ = lookAt(b.home); links < 2 {
		return nil
	}
	return o.part(b)
}

// part gives up the file of a body, and what the journal says of it.
func (o *Object) part(b *body) error {
	if err := os.Remove(b.home); err != nil && !os.IsNotExist(err) {
		return err
	}
	o.disclaim(b, func(int) bool { return true })
	return nil
}

// disclaim forgets units of a body that are not there.
func (o *Object) disclaim(b *body, gone func(u int) bool) {
	var units []int
	for u := b.first; u < b.last(); u++ {
		if (o.present.has(u) || o.suspect.has(u)) && gone(u) {
			o.present.clear(u)
			o.suspect.clear(u)
			units = append(units, u)
		}
	}
	if len(units) > 0 {
		o.took(units...)
	}
}

// join makes b, of an object that is being opened, one of the twins. They stay locked until the
// object is open: what they have, it has.
func (o *Object) join(b *body, s *share) (joined bool, err error) {
	s.mu.Lock()
	defer func() {
		if joined {
			o.joined = append(o.joined, s)
		} else {
			s.mu.Unlock()
		}
	}()
	a := s.twins[0]
	f, err := s.file.acquire(true)
	if errors.Is(err, errChanged) {
		a.changed() // the next write would begin a new file
	}
	if err != nil {
		return false, nil
	}
	defer s.file.release()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, nil
	}
	now := inode{uint64(st.Dev), st.Ino}
	if i, _, _, err := lookAt(b.home); err != nil || i != now {
		if err := o.part(b); err != nil {
			return false, err
		}
		if a.markShared() != nil || o.linkTo(b, s.file.name(), now) != nil {
			return false, nil
		}
	} else if a.markShared() != nil || b.markShared() != nil {
		return false, nil
	}
	if !o.takeOver(b, s) {
		return false, nil
	}
	if s.inode == (inode{}) {
		s.inode = now
		o.store.linkLocked(now, func(l *linkedFile) { l.open++ })
	}
	s.addLocked(b)
	return true, nil
}

// linkTo makes the file at path, which is i, the one of b too.
func (o *Object) linkTo(b *body, path string, i inode) error {
	if err := b.markShared(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.home), 0o700); err != nil {
		return err
	}
	err := o.store.link(path, b.home)
	if err == nil {
		var got inode
		if got, _, _, err = lookAt(b.home); err == nil && got != i {
			err = errors.Join(errChanged, os.Remove(b.home))
		}
	}
	if err != nil {
		o.store.log.Debug("a file that two objects have is not shared", "object", o.Key, "file", b.number, "err", err)
	}
	return err
}

// takeOver makes what b has on disk what the twins have.
func (o *Object) takeOver(b *body, s *share) bool {
	a := s.twins[0]
	n := b.last() - b.first
	known, sure, stays := newBitmap(n), newBitmap(n), newBitmap(n)
	for i, t := range s.twins {
		t.obj.mu.Lock()
		for k := range n {
			v := t.first + k
			if i == 0 && t.obj.knownLocked(v) {
				known.set(k)
			}
			if i == 0 && t.obj.present.has(v) && !t.obj.again.has(v) {
				sure.set(k)
			}
			if t.obj.filling.has(v) || t.obj.keptLocked(v) {
				stays.set(k)
			}
		}
		t.obj.mu.Unlock()
	}
	var batch taking
	for k := range n {
		u := b.first + k
		if !known.has(k) || o.suspect.has(u) && !sure.has(k) {
			continue
		}
		tag, err := a.obj.tag(a.first + k)
		if err != nil {
			return false
		}
		r := record{unit: uint32(u), op: opPresent, tag: tag} // of session 0, which nobody trusts
		if sure.has(k) {
			r.session = o.store.session.Number
		}
		batch.add(o, r)
	}
	if !batch.end(o) {
		return false
	}
	var extra []int
	o.disclaim(b, func(u int) bool {
		k := u - b.first
		if !known.has(k) && !stays.has(k) {
			extra = append(extra, u)
		}
		return !known.has(k)
	})
	for _, u := range extra { // nobody else charges it
		o.punch(o.UnitExtent(u), edges{})
	}
	return true
}

// taking are records of units that an object takes over, so many at a time.
type taking struct {
	records []record
	failed  bool
}

func (t *taking) add(o *Object, r record) {
	if t.records = append(t.records, r); len(t.records) == 4096 {
		t.end(o)
	}
}

// end appends the records to the journal and has the units as they say; false: some were lost.
func (t *taking) end(o *Object) bool {
	if len(t.records) == 0 || t.failed {
		return !t.failed
	}
	place, err := o.journal.append(t.records...)
	if err != nil {
		o.store.log.Warn("cache journal", "err", err)
		t.failed = true
		return false
	}
	for i, r := range t.records {
		u := int(r.unit)
		o.present.clear(u)
		o.suspect.clear(u)
		if r.session > o.store.session.Distrust {
			o.present.set(u)
		} else {
			o.suspect.set(u)
		}
		if o.places != nil {
			o.places[u] = place + uint32(i)
		}
	}
	t.records = t.records[:0]
	return true
}

// inherit finds for a body, of a content that no open object has, what those that are not open
// have of it.
func (o *Object) inherit(b *body, linked bool) error {
	s := o.store
	var dormant []holder
	for _, h := range s.contents.holders(b.key().content, s.has) {
		if h.key == string(o.Key) {
			continue
		}
		if _, there := s.dormant[h.key]; there {
			dormant = append(dormant, h)
		} else {
			b.unsure = true // it is just being closed, say, or has a copy of its own
		}
	}
	mine := o.claims(b)
	switch {
	case mine && !b.listed.Load():
		b.list()
	case !mine:
		for _, h := range dormant {
			if o.inheritFrom(b, h) {
				linked = true
				break
			}
		}
	}
	if !linked {
		o.clean(b)
		return nil
	}
	i, _, _, err := lookAt(b.home)
	if err != nil {
		o.disclaim(b, func(int) bool { return true })
		return nil
	}
	for _, h := range dormant {
		if j, _, _, err := lookAt(s.bodyOf(h)); err != nil || i != j {
			continue
		}
		var batch taking
		_ = o.claimsOf(b, h, func(k int, tag []byte) {
			if u := b.first + k; !o.suspect.has(u) {
				batch.add(o, record{unit: uint32(u), op: opPresent, tag: bytes.Clone(tag)})
			}
		})
		if !batch.end(o) {
			return o.part(b)
		}
	}
	o.clean(b)
	return nil
}

// bodyOf returns where a holder has its file.
func (s *Store) bodyOf(h holder) string {
	return filepath.Join(s.folder(h.key), "body", strconv.FormatUint(uint64(h.file), 10))
}

// inheritFrom links the file of a holder that is not open, if there is something in it.
func (o *Object) inheritFrom(b *body, h holder) bool {
	s := o.store
	path := s.bodyOf(h)
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() || st.Mode()&os.ModeSticky != 0 || st.Size() != b.span.Len {
		return false // or it is lent still, perhaps to somebody who reads it through a dead mount
	}
	any := false
	if err := o.claimsOf(b, h, func(int, []byte) { any = true }); err != nil || !any {
		return false
	}
	i, _, _, err := lookAt(path)
	if err != nil {
		return false
	}
	h.shared = true
	if s.list(h.key, h.content) != nil || os.Remove(b.home) != nil && !isMissing(b.home) || o.linkTo(b, path, i) != nil {
		return false
	}
	// What its folder was charged alone is charged by its links now.
	d := s.dormant[h.key]
	s.unchargeLocked(d)
	now := measure(s.folder(h.key))
	now.at, now.doubt, now.looked = d.at, d.doubt, d.looked
	s.dormant[h.key] = now
	s.chargeLocked(now)
	return true
}

// has reports whether there is a folder of an object, open or not.
func (s *Store) has(key string) bool {
	_, there := s.dormant[key]
	return there || s.objects[Key(key)] != nil
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

// claimsOf calls f for every unit of a file that the journal of a holder has, by its number in
// the file, with its tag until f returns. It fails if the holder's units are others.
func (o *Object) claimsOf(b *body, h holder, f func(k int, tag []byte)) error {
	path := filepath.Join(o.store.folder(h.key), "units")
	n := int64(b.last() - b.first)
	last := make([]uint32, n) // the record that counts, from 1 on; 0: none
	unit, _, tag, err := readJournal(path, func(r record) {
		if k := int64(r.unit) - int64(h.first); k < 0 || k >= n {
			return
		} else if last[k] = 0; r.op == opPresent {
			last[k] = r.place + 1
		}
	})
	if err != nil {
		return err
	}
	if unit != o.Unit || tag != o.Tag {
		return errForeign
	}
	_, _, _, err = readJournal(path, func(r record) {
		if k := int64(r.unit) - int64(h.first); k >= 0 && k < n && last[k] == r.place+1 {
			f(int(k), r.tag)
		}
	})
	return err
}

// clean takes out of a file what nobody charges: what a killed session, or others by their links,
// left there of units that the journal does not have. And it forgets what is a hole, because
// others punched it.
func (o *Object) clean(b *body) {
	if !b.listed.Load() && !o.claims(b) {
		return // never had anything
	}
	f, err := b.acquire(false)
	if err != nil {
		return // found out when it is read
	}
	defer b.release()
	data, hole := int64(0), int64(0) // the next bytes that are there, and where they end
	empty := func(u int) bool {
		e := o.UnitExtent(u).Clip(b.span)
		from, to := e.Off-b.span.Off, e.End()-b.span.Off
		if from >= hole {
			data, hole = nextData(f, from)
		}
		return data >= to
	}
	o.disclaim(b, empty)
	data, hole = 0, 0
	for u := b.first; u < b.last() && !b.unsure; u++ {
		if !o.suspect.has(u) && !o.present.has(u) && !empty(u) {
			o.punch(o.UnitExtent(u).Clip(b.span), edges{})
		}
	}
}

// nextData returns where the next bytes of f are that are no hole, from off on. Where the
// filesystem does not say, everything is.
func nextData(f *os.File, off int64) (data, hole int64) {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return math.MaxInt64, math.MaxInt64
	case err != nil:
		return off, math.MaxInt64
	}
	if hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
		hole = math.MaxInt64
	}
	return data, hole
}
