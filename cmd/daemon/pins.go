package daemon

import (
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fs/tree"
)

// Files whose path matches one of the patterns are pinned: fetched in the background,
// rarest pieces first, and never evicted. A torrent of which something is pinned and missing
// is awake, but no more than maxPinning of them: those that get nothing for a while let
// others have their turn.

const maxPinning = 32

// pinning is what is pinned of a torrent. It is made when its name is known.
type pinning struct {
	tags  []int                           // of the files
	parts atomic.Pointer[[]extent.Extent] // known once the torrent was loaded
	size  int64
	done  atomic.Bool            // all was there when it was last looked at
	bad   atomic.Pointer[string] // why it can not be pinned

	// Owned by lull.
	present int64
	gained  time.Time // when present grew last
	tried   time.Time // when its turn ended last
}

// pinned reports whether a path below torrents/ matches a pattern: its first names match
// those of the pattern, each as path.Match says, so that a folder stands for all in it.
func pinned(pattern, name string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(want) > len(have) {
		return false
	}
	for i, w := range want {
		if ok, err := path.Match(w, have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// pinMatches notes which files are to be pinned, once the torrent has its name and its
// tree.
func (t *torrent) pinMatches() {
	if len(t.daemon.cfg.Pins) == 0 || !t.ready() {
		return
	}
	s := t.shape.Load()
	name := t.daemon.catalog.Name(t.handle)
	matches := func(p string) bool {
		return slices.ContainsFunc(t.daemon.cfg.Pins, func(pattern string) bool { return pinned(pattern, p) })
	}
	w := &pinning{gained: time.Now()}
	for i, n := range s.tree.All() {
		if n.Kind != tree.File || n.Size == 0 {
			continue
		}
		if matches(path.Join(name, s.tree.Path(i))) {
			w.tags = append(w.tags, n.Tag)
			w.size += n.Size
		}
	}
	if len(w.tags) == 0 {
		return
	}
	t.change.Lock()
	defer t.change.Unlock()
	t.pins.Store(w)
	if p := t.parts.Load(); p != nil {
		t.pinLocked(p)
	} else {
		t.daemon.cache.Hold(t.key())
	}
	if live := t.session.Load(); live != nil {
		w.start(live)
	}
	t.daemon.mu.Lock()
	t.daemon.pinned = append(t.daemon.pinned, t)
	t.daemon.mu.Unlock()
	select {
	case t.daemon.kick <- struct{}{}:
	default:
	}
}

// pinLocked tells the cache what is pinned of a torrent that was loaded.
func (t *torrent) pinLocked(p *parts) {
	w := t.pins.Load()
	if w == nil {
		return
	}
	if w.parts.Load() == nil {
		slices.Sort(w.tags) // in the order of the content
		var all []extent.Extent
		for _, tag := range w.tags {
			e := p.span(tag)
			if n := len(all); n > 0 && all[n-1].End() == e.Off {
				all[n-1].Len += e.Len
			} else {
				all = append(all, e)
			}
		}
		w.parts.Store(&all)
	}
	if err := p.object.Pin(*w.parts.Load()...); err != nil {
		if why := err.Error(); w.bad.Swap(&why) == nil {
			t.daemon.log.Error("cannot pin", "torrent", t.hash, "err", err)
		}
		return
	}
	w.bad.Store(nil)
}

// start has a session fetch what is pinned.
func (w *pinning) start(s *session) {
	if parts := w.parts.Load(); parts != nil && w.bad.Load() == nil {
		s.swarm.Pin(*parts...)
	}
}

// here returns how many bytes of what is pinned are there; ok: it is known.
func (w *pinning) here(t *torrent) (n int64, ok bool) {
	p, parts := t.parts.Load(), w.parts.Load()
	if p == nil || parts == nil {
		return 0, false
	}
	for _, e := range *parts {
		n += p.object.PresentIn(e)
	}
	return n, true
}

// pinning reports whether something is pinned that is missing and may come.
func (t *torrent) pinning() bool {
	w := t.pins.Load()
	return w != nil && !w.done.Load() && w.bad.Load() == nil
}

// fetchPinned wakes torrents of which something is pinned and missing, those that waited
// longest for their turn first. It returns those that are to stay awake.
func (d *Daemon) fetchPinned(now time.Time, idle time.Duration) (awake map[*torrent]bool) {
	d.mu.Lock()
	all := slices.Clone(d.pinned)
	d.mu.Unlock()
	all = slices.DeleteFunc(all, func(t *torrent) bool { return !t.pinning() })
	slices.SortStableFunc(all, func(a, b *torrent) int { return a.pins.Load().tried.Compare(b.pins.Load().tried) })
	awake = map[*torrent]bool{}
	for _, t := range all {
		if len(awake) == maxPinning {
			break
		}
		if _, err := t.load(); err != nil {
			continue // it is told when it is read
		}
		w := t.pins.Load()
		if w.bad.Load() != nil {
			continue
		}
		n, _ := w.here(t)
		switch {
		case n >= w.size:
			w.done.Store(true)
			d.log.Info("all that is pinned is there", "torrent", t.hash, "bytes", n)
			continue
		case n > w.present:
			w.present, w.gained = n, now
		}
		if _, err := t.wake(); err == nil {
			awake[t] = true
		}
		if now.Sub(w.gained) > idle { // others have their turn, if there are more
			w.tried, w.gained = now, now
		}
	}
	return awake
}
