package cache

import (
	"cmp"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

const (
	// Units are judged, and their holes punched, in groups of neighbours of so many bytes:
	// a hole for each of the blocks of a v2 torrent would cost more than fetching them.
	groupSize = 1 << 20
	// What of a file counts as an edge of it, if it is longer than longFile.
	edgeSize = 1 << 20
	longFile = 16 << 20
)

// candidate is a group of units, or the folder of an object that is not open, that may go.
type candidate struct {
	obj         *Object
	first, last int
	stamp       uint32 // newest use of those that may go
	folder      string // if obj is nil
	open        bool   // of a file that somebody has open
	worth       float64
}

// byWorth sorts candidates, those first that are worth least.
func byWorth(c []candidate) {
	slices.SortFunc(c, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.worth, b.worth), cmp.Compare(a.folder, b.folder), cmp.Compare(a.first, b.first))
	})
}

// keepRoom evicts until the headroom is free.
func (s *Store) keepRoom() {
	s.mu.Lock()
	over := s.used - (s.ceilingLocked() - s.headroomLocked())
	s.mu.Unlock()
	if over > 0 {
		s.evict(over)
	}
}

// evict frees at least need bytes if it can and returns how many it freed: what is worth
// least first. Folders of objects that are not open are judged by their last use.
func (s *Store) evict(need int64) (freed int64) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	return s.evictOf(s.candidates(), need, false)
}

// evictOf frees need bytes of candidates; asked: nothing that somebody has open.
func (s *Store) evictOf(all []candidate, need int64, asked bool) (freed int64) {
	byWorth(all)
	for _, v := range all {
		switch {
		case freed >= need:
			return freed
		case v.obj == nil:
			freed += s.evictFolder(v.folder)
		default:
			freed += v.obj.evict(v.first, v.last, mayGo{v.stamp, asked}) // what was used meanwhile stays
		}
	}
	return freed
}

// Evicted tells what became of bytes that were to go.
type Evicted struct {
	Freed  int64 // of real blocks
	Pinned int64 // stay, because they are pinned
	InUse  int64 // stay, because a file with them is open, or they are waited for
}

// Evict frees need bytes if it can, because somebody asks for it: what is worth least first, as
// when room is short, but nothing of a file that is open.
func (s *Store) Evict(need int64) (freed int64) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	all := slices.DeleteFunc(s.candidates(), func(c candidate) bool { return c.open })
	return s.evictOf(all, need, true)
}

// EvictFolder frees what there is of an object that is not open; 0 if it is open, or pinned.
func (s *Store) EvictFolder(key Key) (freed int64) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	return s.evictFolder(string(key))
}

// Evict frees the units that parts touch, unless they are pinned or in use.
func (o *Object) Evict(parts ...extent.Extent) (e Evicted) {
	o.store.evicting.Lock()
	defer o.store.evicting.Unlock()
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return e
	}
	there, pinned, stay := newBitmap(o.units), o.pinned, o.stayLocked()
	for _, part := range parts {
		there.setRange(part.Clip(extent.Extent{Len: o.Size}).Units(o.Unit))
	}
	open := o.openLocked()
	for w := range there {
		there[w] &= o.present[w] | o.suspect[w]
		if open != nil {
			stay[w] |= open[w]
		}
	}
	o.mu.Unlock()
	for first := 0; first < o.units; {
		last := first + 1
		switch {
		case !there.has(first):
		case pinned != nil && pinned.has(first):
			e.Pinned += o.cost(first)
		case stay.has(first):
			e.InUse += o.cost(first)
		default:
			_, end := o.sharedRun(first, o.units)
			for last < end && there.has(last) && !stay.has(last) {
				last++
			}
			n := o.evict(first, last, mayGo{math.MaxUint32, true})
			e.Freed += n
			if b, _ := o.sharedRun(first, last); b != nil {
				e.InUse += max(0, o.costs(first, last)-n) // by an object that has the same file
			}
		}
		first = last
	}
	return e
}

func (s *Store) candidates() (all []candidate) {
	s.mu.Lock()
	objects := make([]*Object, 0, len(s.objects))
	for _, o := range s.objects {
		objects = append(objects, o)
	}
	now := time.Now()
	for name, d := range s.dormant {
		if s.pins[Key(name)] == nil {
			all = append(all, candidate{folder: name, worth: Worth(Traits{Idle: now.Sub(d.at), Peers: -1})})
		}
	}
	group := min(groupSize, s.limit/64)
	s.mu.Unlock()
	for _, o := range objects {
		all = o.candidates(all, int(max(1, group/o.Unit)), now)
	}
	return all
}

// candidates appends the groups of units that may be evicted. It looks at all units, and so
// lets the lock go now and then: reads wait for it.
func (o *Object) candidates(all []candidate, group int, now time.Time) []candidate {
	const atATime = 16 << 10
	peers := o.peers.Load()
	begin := len(all)
	o.mu.Lock()
	edges, open, stay := o.edgesLocked(), o.openLocked(), o.stayLocked()
	for first, look := 0, 0; first < o.units; first += group {
		if look += group; look > atATime {
			look = 0
			o.mu.Unlock()
			o.mu.Lock()
		}
		last := min(first+group, o.units)
		stamp, any := o.newestLocked(first, last, stay)
		if !any {
			continue
		}
		t := Traits{Idle: o.idle(stamp, now), Edge: edges.any(first, last), Open: open != nil && open.any(first, last), Peers: -1}
		all = append(all, candidate{obj: o, first: first, last: last, stamp: stamp, open: t.Open, worth: Worth(t)})
	}
	o.mu.Unlock()
	if peers == nil {
		return all
	}
	for i := begin; i < len(all); i++ { // with no lock held
		v := &all[i]
		if n := (*peers)(v.first); n >= 0 {
			v.worth *= Worth(Traits{Peers: n}) / Worth(Traits{Peers: -1})
		}
	}
	return all
}

// idle returns the time since a stamp of this session, or since the object was used in an
// earlier one.
func (o *Object) idle(stamp uint32, now time.Time) time.Duration {
	if stamp == 0 {
		return now.Sub(o.used)
	}
	return now.Sub(o.store.start.Add(time.Duration(stamp) * tick))
}

// SetPeers names who knows how many of the connected peers have a unit; negative: nobody
// knows. It is called from any goroutine, with no lock held; nil ends that.
func (o *Object) SetPeers(f func(unit int) int) {
	if f == nil {
		o.peers.Store(nil)
		return
	}
	o.peers.Store(&f)
}

// edgesLocked returns the units that hold an edge of a long file.
func (o *Object) edgesLocked() bitmap {
	if o.edges != nil {
		return o.edges
	}
	o.edges = newBitmap(o.units)
	for _, b := range o.bodies {
		if b.span.Len < longFile {
			continue
		}
		o.edges.setRange(extent.Extent{Off: b.span.Off, Len: edgeSize}.Units(o.Unit))
		o.edges.setRange(extent.Extent{Off: b.span.End() - edgeSize, Len: edgeSize}.Units(o.Unit))
	}
	return o.edges
}

// openLocked returns the units of files that somebody has open; nil: none.
func (o *Object) openLocked() (open bitmap) {
	for r := range o.readers {
		if open == nil {
			open = newBitmap(o.units)
		}
		open.setRange(r.span.Units(o.Unit))
	}
	return open
}

// newestLocked returns the last use of those of [first, last) that may go; false: none may.
func (o *Object) newestLocked(first, last int, stay bitmap) (stamp uint32, any bool) {
	for w := first / 64; w <= (last-1)/64; w++ {
		rest := (o.present.word(w, first, last) | o.suspect.word(w, first, last)) &^ stay[w]
		any = any || rest != 0
		for ; rest != 0; rest &= rest - 1 {
			stamp = max(stamp, o.stamps[w*64+bits.TrailingZeros64(rest)])
		}
	}
	return stamp, any
}

// stayLocked returns the units that may not go, if they are there.
func (o *Object) stayLocked() bitmap {
	stay := newBitmap(o.units)
	for _, b := range []bitmap{o.pinned, o.kept, o.again} {
		for i := range b {
			stay[i] |= b[i]
		}
	}
	for u := range o.memory {
		stay.set(u)
	}
	for u := range o.checking {
		stay.set(u)
	}
	for w := range o.waiters {
		stay.setRange(int64(w.first), int64(w.last))
	}
	for _, g := range o.guards {
		stay.setRange(int64(g[0]), int64(min(g[1], o.units)))
	}
	return stay
}

// evictableLocked reports whether unit u is there and may go.
func (o *Object) evictableLocked(u int) bool {
	if !o.present.has(u) && !o.suspect.has(u) || o.memory[u] != nil || o.pinned != nil && o.pinned.has(u) || o.keptLocked(u) || o.again.has(u) || o.wantedLocked(u) {
		return false
	}
	for _, g := range o.guards {
		if g[0] <= u && u < g[1] {
			return false
		}
	}
	_, busy := o.checking[u]
	return !busy
}

// Guard keeps units [first, last), as far as they are there, until it is called with the
// same key again: the window of a reader, which it has not come to yet. Nothing is guarded
// by an empty one.
func (o *Object) Guard(key any, first, last int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if first >= last {
		delete(o.guards, key)
		return
	}
	o.guards[key] = [2]int{first, last}
}

// mayGo tells what of shared bodies may go, and so what of the objects that share them.
type mayGo struct {
	stamp uint32 // what was not used after it
	asked bool   // nothing that somebody has open
}

func (o *Object) mayGoLocked(u int, may mayGo) bool {
	return o.evictableLocked(u) && o.stamps[u] <= may.stamp
}

// evict drops those units of [first, last) that may go.
func (o *Object) evict(first, last int, may mayGo) (freed int64) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return 0
	}
	var runs [][2]int
	for u := first; u < last; u++ {
		if !o.mayGoLocked(u, may) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1][1] == u {
			runs[n-1][1]++
		} else {
			runs = append(runs, [2]int{u, u + 1})
		}
	}
	o.mu.Unlock()
	for _, r := range runs { // the lock was let go: a read may wait for one of them by now
		for first := r[0]; first < r[1]; {
			b, end := o.sharedRun(first, r[1])
			freed, first = freed+o.dropRun(b, first, end, &may), end
		}
	}
	return freed
}

// evictFolder removes the folder of an object that is not open. It is renamed first, with the
// lock held, so that the object can be opened anew while its files go.
func (s *Store) evictFolder(name string) int64 {
	from, to := filepath.Join(s.cfg.Dir, "objects", name), filepath.Join(s.cfg.Dir, goneDir, name)
	s.mu.Lock()
	d, there := s.dormant[name]
	if !there || s.pins[Key(name)] != nil {
		s.mu.Unlock()
		return 0
	}
	delete(s.dormant, name)
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		if err = os.Rename(from, to); os.IsNotExist(err) {
			err = nil
		}
	}
	s.mu.Unlock()
	if err == nil {
		err = os.RemoveAll(to)
	}
	if err != nil {
		s.log.Warn("cache evict", "dir", from, "err", err)
	}
	s.mu.Lock()
	freed := s.unchargeLocked(d)
	s.mu.Unlock()
	return max(freed, 1)
}
