package cache

import (
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Stat tells how a store is doing. Sizes are bytes.
type Stat struct {
	Used     int64 // of real blocks, as Limit
	Limit    int64
	DiskFree int64 // of the filesystem, for this user
	MinFree  int64 // of that, what stays free whatever Limit says
	Pinned   int64 // what is pinned takes, there or not; a file that two objects share counts for each
	Kept     int64 // files that the kernel reads by itself: they stay while they are open
	Memory   int64 // units that the disk does not take
	Objects  int
	Open     int  // of them
	Clean    bool // the last session left its mark, so its units need not be hashed again
}

// ObjectStat tells what there is of one object.
type ObjectStat struct {
	Present    int64     // bytes on disk; roughly, unless the object is open
	Unverified int64     // of them, those to be hashed before they are read
	Open       int       // readers
	Used       time.Time // when it was used last; zero: never
}

// Stat looks at the disk, and at the books.
func (s *Store) Stat() Stat {
	free, least, _ := s.disk()
	s.memory.Lock()
	remembered := s.remembered
	s.memory.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stat{
		Used: s.used, Limit: s.limit, DiskFree: free, MinFree: least, Kept: s.kept.Load(), Memory: remembered,
		Objects: len(s.objects) + len(s.dormant), Open: len(s.objects), Clean: !s.unclean,
	}
	for _, p := range s.pins {
		st.Pinned += p.cost
	}
	return st
}

// Keys returns the objects that the store has something of, open or not.
func (s *Store) Keys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Key, 0, len(s.objects)+len(s.dormant))
	for key := range s.objects {
		all = append(all, key)
	}
	for name := range s.dormant {
		all = append(all, Key(name))
	}
	return all
}

// StatObject returns what there is of an object, whether it is open or not. For one that is
// not, the journal is read the first time.
func (s *Store) StatObject(key Key) ObjectStat {
	s.mu.Lock()
	o, d := s.objects[key], s.dormant[string(key)]
	s.mu.Unlock()
	if o != nil {
		return o.stat()
	}
	if d.data > 0 && !d.looked {
		d.doubt, d.looked = doubtful(filepath.Join(s.cfg.Dir, "objects", string(key), "units"), s.session.Distrust), true
		s.mu.Lock()
		if now, ok := s.dormant[string(key)]; ok && now.bytes == d.bytes && now.at.Equal(d.at) {
			s.dormant[string(key)] = d
		}
		s.mu.Unlock()
	}
	return ObjectStat{Present: d.data, Unverified: d.doubt, Used: d.at}
}

func (o *Object) stat() (st ObjectStat) {
	o.mu.Lock()
	defer o.mu.Unlock()
	st.Open, st.Used = len(o.readers), o.used
	stamp := slices.Max(o.stamps)
	last := o.units - 1
	short := o.Unit - o.UnitExtent(last).Len // of the last unit
	st.Unverified = int64(o.suspect.count(0, o.units)) * o.Unit
	if o.suspect.has(last) {
		st.Unverified -= short
	}
	st.Present = int64(o.present.count(0, o.units))*o.Unit + st.Unverified
	if o.present.has(last) {
		st.Present -= short
	}
	if stamp > 0 {
		st.Used = o.store.start.Add(time.Duration(stamp) * tick)
	}
	return st
}

// doubtful counts the bytes of the units in a journal that were verified by a session that is
// distrusted, without changing anything.
func doubtful(path string, distrust uint32) (n int64) {
	units := map[uint32]bool{}
	unit, size, _, err := readJournal(path, func(r record) {
		if r.op == opPresent && r.session <= distrust {
			units[r.unit] = true
		} else {
			delete(units, r.unit)
		}
	})
	if err != nil {
		return 0
	}
	for u := range units {
		n += max(0, min(unit, size-int64(u)*unit))
	}
	return n
}

// disk returns how much of the filesystem is free, and how much of it is to stay so.
func (s *Store) disk() (free, least int64, ok bool) {
	s.mu.Lock()
	least = s.minFree
	s.mu.Unlock()
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return 0, max(0, least), false
	}
	block := int64(st.Frsize)
	if least == 0 {
		least = min(defaultMinFree, int64(st.Blocks)*block/20)
	}
	return int64(st.Bavail) * block, max(0, least), true
}
