package cache

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// candidate is a unit that may go.
type candidate struct {
	obj   *Object
	unit  int
	stamp uint32
}

// byAge sorts candidates, least recently used first. Pure.
func byAge(c []candidate) {
	slices.SortFunc(c, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.unit, b.unit))
	})
}

// keepRoom evicts until the headroom is free.
func (s *Store) keepRoom() {
	s.mu.Lock()
	over := s.used - (s.limit - s.headroom())
	s.mu.Unlock()
	if over > 0 {
		s.evict(over)
	}
}

// evict frees at least need bytes if it can and returns how many it freed. Folders of
// objects that nobody opened in this session go first, the longest unused one first; then
// units, and folders of objects that were open and are not now, least recently used first.
func (s *Store) evict(need int64) (freed int64) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	for freed < need {
		n := s.evictDormant(0)
		if n == 0 {
			break
		}
		freed += n
	}
	if freed >= need {
		return freed
	}
	s.mu.Lock()
	objects := make([]*Object, 0, len(s.objects))
	for _, o := range s.objects {
		objects = append(objects, o)
	}
	s.mu.Unlock()
	var all []candidate
	for _, o := range objects {
		all = o.candidates(all)
	}
	byAge(all)
	for _, v := range all {
		if freed >= need {
			break
		}
		for v.stamp > 0 && freed < need { // folders that were used before this unit
			n := s.evictDormant(v.stamp - 1)
			if n == 0 {
				break
			}
			freed += n
		}
		if freed < need {
			freed += v.obj.evict(v.unit, v.stamp) // 0 if it was used or is waited for meanwhile
		}
	}
	for freed < need {
		n := s.evictDormant(math.MaxUint32)
		if n == 0 {
			break
		}
		freed += n
	}
	return freed
}

// evictDormant removes the longest unused folder that no object has open and of which nothing
// is pinned, if it was last used at stamp at the latest.
func (s *Store) evictDormant(stamp uint32) int64 {
	s.mu.Lock()
	oldest := ""
	for name, d := range s.dormant {
		if s.pins[Key(name)] == nil && s.stamp(d.at) <= stamp && (oldest == "" || d.at.Before(s.dormant[oldest].at)) {
			oldest = name
		}
	}
	d := s.dormant[oldest]
	delete(s.dormant, oldest)
	s.mu.Unlock()
	if oldest == "" {
		return 0
	}
	dir := filepath.Join(s.cfg.Dir, "objects", oldest)
	// The journal goes first: bodies without it are only wasted space, never wrong bytes.
	if err := os.Remove(filepath.Join(dir, "units")); err != nil && !os.IsNotExist(err) {
		s.log.Warn("cache evict", "dir", dir, "err", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		s.log.Warn("cache evict", "dir", dir, "err", err)
	}
	s.mu.Lock()
	s.used -= d.bytes
	s.mu.Unlock()
	return max(d.bytes, 1)
}
