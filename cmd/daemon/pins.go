package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/fs/tree"
)

// Files whose path matches one of the patterns are pinned: fetched in the background,
// rarest pieces first, and never evicted. A torrent of which something is pinned and missing
// is awake, but no more than maxPinning of them: those that get nothing for a while let
// others have their turn.

const maxPinning = 32

// pinning is what is pinned of a torrent. It is made when its name is known.
type pinning struct {
	tags  []int                           // of the files, sorted
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

// CleanPattern returns a pattern as paths are matched with it, or an error that says what to
// give.
func CleanPattern(v string) (string, error) {
	p := path.Clean("/" + v)[1:]
	if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > maxPattern {
		return "", errors.New("give a path below torrents/, in which * and ? stand for what is between two slashes, such as 'Film' or '*/*.mkv'")
	}
	return p, nil
}

// matches returns the files that match one of the patterns, in the order of the content.
func (t *torrent) matches(patterns []string) (tags []int, size int64) {
	s := t.shape.Load()
	if s == nil || len(patterns) == 0 {
		return nil, 0
	}
	name := t.daemon.catalog.Name(t.handle)
	for i, n := range s.tree.All() {
		if n.Kind != tree.File || n.Size == 0 {
			continue
		}
		p := path.Join(name, s.tree.Path(i))
		if slices.ContainsFunc(patterns, func(pattern string) bool { return pinned(pattern, p) }) {
			tags = append(tags, n.Tag)
			size += n.Size
		}
	}
	slices.Sort(tags)
	return tags, size
}

// pinMatches notes which files are to be pinned, once the torrent has its name and its
// tree.
func (t *torrent) pinMatches() {
	t.daemon.pinning.Lock()
	defer t.daemon.pinning.Unlock()
	t.pin(t.matches(t.daemon.patternsLocked()))
}

// matchSoon has lull call pinMatches.
func (d *Daemon) matchSoon(t *torrent) {
	d.mu.Lock()
	d.unmatched = append(d.unmatched, t)
	d.mu.Unlock()
	d.hurry()
}

// matchNew is called by lull.
func (d *Daemon) matchNew() {
	d.mu.Lock()
	list := d.unmatched
	d.unmatched = nil
	d.mu.Unlock()
	for _, t := range list {
		t.pinMatches()
	}
}

// patternsLocked returns all patterns, those of the settings and those that were given since.
func (d *Daemon) patternsLocked() []string { return append(slices.Clone(d.cfg.Pins), d.kept...) }

// pin pins these files of a torrent and no others. It is called with Daemon.pinning held.
func (t *torrent) pin(tags []int, size int64) {
	d, old := t.daemon, t.pins.Load()
	if old == nil && len(tags) == 0 || old != nil && slices.Equal(old.tags, tags) {
		return
	}
	w := &pinning{tags: tags, size: size, gained: time.Now()}
	if len(tags) == 0 {
		w = nil
	}
	t.change.Lock()
	defer t.change.Unlock()
	t.pins.Store(w)
	p, live := t.parts.Load(), t.session.Load()
	switch {
	case w == nil:
		d.cache.Unpin(t.key())
		if live != nil {
			live.swarm.Pin()
		}
	case p != nil:
		t.pinLocked(p)
	default:
		d.cache.Hold(t.key())
	}
	if w != nil && live != nil {
		w.start(live)
	}
	d.mu.Lock()
	d.pinned = slices.DeleteFunc(d.pinned, func(o *torrent) bool { return o == t })
	if w != nil {
		d.pinned = append(d.pinned, t)
	}
	d.mu.Unlock()
	d.hurry()
}

// hurry has lull look at once.
func (d *Daemon) hurry() {
	select {
	case d.kick <- struct{}{}:
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
		all := p.spans(w.tags)
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

// spans returns where files lie, those that are neighbours in one.
func (p *parts) spans(tags []int) (all []extent.Extent) {
	for _, tag := range tags {
		e := p.span(tag)
		if n := len(all); n > 0 && all[n-1].End() == e.Off {
			all[n-1].Len += e.Len
		} else {
			all = append(all, e)
		}
	}
	return all
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

// missing reports whether something of it is missing and may come.
func (w *pinning) missing() bool { return !w.done.Load() && w.bad.Load() == nil }

// fetchPinned wakes torrents of which something is pinned and missing, those that waited
// longest for their turn first. It returns those that are to stay awake.
func (d *Daemon) fetchPinned(now time.Time, idle time.Duration) (awake map[*torrent]bool) {
	type pin struct {
		t *torrent
		w *pinning
	}
	var all []pin
	d.mu.Lock()
	for _, t := range d.pinned {
		if w := t.pins.Load(); w != nil && w.missing() {
			all = append(all, pin{t, w})
		}
	}
	d.mu.Unlock()
	slices.SortStableFunc(all, func(a, b pin) int { return a.w.tried.Compare(b.w.tried) })
	awake = map[*torrent]bool{}
	for _, p := range all {
		if len(awake) == maxPinning {
			break
		}
		t, w := p.t, p.w
		if _, err := t.load(); err != nil {
			continue // it is told when it is read
		}
		if w.bad.Load() != nil {
			continue
		}
		n, known := w.here(t)
		switch {
		case !known: // other files are pinned since
			continue
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

// Patterns that were given to a running daemon are kept in the state folder, so that they hold
// after a restart beside those of the settings. They belong to the daemon that has the control
// socket of the folder.

const (
	maxPattern  = 4096
	maxPatterns = 1000
	maxPinsFile = 8 << 20
)

type keptPins struct {
	Pins []string `json:"pins"`
}

func (d *Daemon) pinsPath() string { return filepath.Join(d.cfg.StateDir, "pins.json") }

// loadPins reads the patterns that were kept.
func (d *Daemon) loadPins() {
	f, err := os.Open(d.pinsPath())
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var k keptPins
	if err == nil {
		defer f.Close()
		err = json.NewDecoder(io.LimitReader(f, maxPinsFile)).Decode(&k)
	}
	if err != nil {
		d.log.Warn("what btmount cache pin pinned is not known any more; pin it again", "path", d.pinsPath(), "err", bare(err))
		return
	}
	for _, v := range k.Pins[:min(len(k.Pins), maxPatterns)] {
		if p, err := CleanPattern(v); err == nil && !slices.Contains(d.kept, p) {
			d.kept = append(d.kept, p)
		}
	}
}

// savePins keeps patterns.
func (d *Daemon) savePins(patterns []string) error {
	b, err := json.Marshal(keptPins{patterns})
	if err == nil {
		err = replace(d.pinsPath(), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%s: %w; make room in the state folder, or make it writable", d.pinsPath(), bare(err))
	}
	return nil
}

// cleanPatterns reads the patterns of a request.
func cleanPatterns(list []string) (all []string, err error) {
	if len(list) == 0 || len(list) > maxPatterns {
		return nil, &control.RequestError{Reason: fmt.Sprintf("give 1 to %d patterns", maxPatterns)}
	}
	for _, v := range list {
		p, err := CleanPattern(v)
		if err != nil {
			return nil, &control.RequestError{Reason: fmt.Sprintf("%q: %v", v, err)}
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all, nil
}

// Pin implements control.Cache.
func (d *Daemon) Pin(ctx context.Context, r control.PinRequest, report func(control.Progress)) (control.PinResult, error) {
	patterns, err := cleanPatterns(r.Patterns)
	if err != nil {
		return control.PinResult{}, err
	}
	picks, result, err := d.addPins(patterns)
	if err != nil {
		return result, err
	}
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if result.Here, err = here(picks); err != nil {
			return result, err
		}
		if !r.Wait || result.Here >= result.Bytes {
			return result, nil
		}
		report(control.Progress{Done: result.Here, Total: result.Bytes})
		select {
		case <-ctx.Done():
			return result, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// pick are files of a torrent.
type pick struct {
	t    *torrent
	tags []int
	size int64
}

// here returns how many bytes of files are there; an error if some can not be pinned.
func here(picks []pick) (n int64, err error) {
	for _, p := range picks {
		w, parts := p.t.pins.Load(), p.t.parts.Load()
		switch {
		case w == nil:
			return n, errors.New("another btmount cache unpin took it back meanwhile")
		case w.bad.Load() != nil:
			return n, errors.New(*w.bad.Load())
		case parts != nil:
			for _, e := range parts.spans(p.tags) {
				n += parts.object.PresentIn(e)
			}
		case w.done.Load():
			n += p.size
		}
	}
	return n, nil
}

// pick returns the files that match patterns. missing: one of the patterns matches none.
func (d *Daemon) pick(patterns []string) (picks []pick, missing string, resolving bool) {
	d.mu.Lock()
	torrents := slices.Clone(d.torrents)
	d.mu.Unlock()
	for _, t := range torrents {
		resolving = resolving || t.resolving()
		if tags, size := t.matches(patterns); len(tags) > 0 {
			picks = append(picks, pick{t, tags, size})
		}
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(picks, func(k pick) bool { tags, _ := k.t.matches([]string{p}); return len(tags) > 0 }) {
			return picks, p, resolving
		}
	}
	return picks, "", resolving
}

// addPins pins what matches more patterns, if there is room for it.
func (d *Daemon) addPins(patterns []string) (picks []pick, result control.PinResult, err error) {
	d.pinning.Lock()
	defer d.pinning.Unlock()
	picks, missing, resolving := d.pick(patterns)
	if missing != "" {
		if !resolving { // else it may be of a torrent whose metadata is still to come
			return nil, result, noMatch(missing)
		}
		result.Later = append(result.Later, missing)
	}
	kept := slices.Clone(d.kept)
	for _, p := range patterns {
		if !slices.Contains(kept, p) {
			kept = append(kept, p)
		}
	}
	if len(kept) > maxPatterns {
		return nil, result, fmt.Errorf("%d patterns are pinned already, more are not kept; unpin some, or pin folders", len(d.kept))
	}
	all, _, _ := d.pick(append(slices.Clone(d.cfg.Pins), kept...))
	for _, p := range all {
		result.Pinned += p.size
	}
	if may := d.cache.MayPin(); result.Pinned > may {
		return nil, result, fmt.Errorf("%s would be pinned together, and %s of this cache can be; raise it with btmount cache limit, or pin less", inBytes(result.Pinned), inBytes(may))
	}
	for _, p := range all {
		p.t.pin(p.tags, p.size)
	}
	if err = tooMuch(picks); err == nil {
		err = d.savePins(kept)
	}
	if err != nil {
		before := d.patternsLocked()
		for _, p := range all {
			p.t.pin(p.t.matches(before))
		}
		return nil, result, err
	}
	d.kept = kept
	for _, p := range picks {
		result.Files += len(p.tags)
		result.Bytes += p.size
	}
	result.Pins = slices.Clone(kept)
	return picks, result, nil
}

// tooMuch loads what is pinned now, by which it is known how much of the disk it takes: small
// files take more than their size.
func tooMuch(picks []pick) error {
	for _, p := range picks {
		if _, release, err := p.t.hold(); err == nil { // else it is told when it is read
			release()
		}
		if w := p.t.pins.Load(); w != nil && w.bad.Load() != nil {
			return errors.New(*w.bad.Load())
		}
	}
	return nil
}

func noMatch(pattern string) error {
	return fmt.Errorf("%q matches no file of what is mounted; see the names below torrents/ in the mount", pattern)
}

// Unpin implements control.Cache.
func (d *Daemon) Unpin(_ context.Context, r control.UnpinRequest) (result control.PinResult, err error) {
	patterns, err := cleanPatterns(r.Patterns)
	if err != nil {
		return result, err
	}
	d.pinning.Lock()
	defer d.pinning.Unlock()
	for _, p := range patterns {
		switch {
		case slices.Contains(d.kept, p):
		case slices.Contains(d.cfg.Pins, p):
			return result, fmt.Errorf("%q is pinned by --pin; start btmount without it", p)
		case len(d.kept) == 0:
			return result, fmt.Errorf("%q is not pinned, nor is anything else by btmount cache pin", p)
		default:
			return result, fmt.Errorf("%q is not pinned; what is: %q", p, d.kept)
		}
	}
	kept := slices.DeleteFunc(slices.Clone(d.kept), func(p string) bool { return slices.Contains(patterns, p) })
	if err := d.savePins(kept); err != nil {
		return result, err
	}
	picks, _, _ := d.pick(patterns)
	d.kept = kept
	all := d.patternsLocked()
	for _, p := range picks {
		p.t.pin(p.t.matches(all))
		result.Files += len(p.tags)
		result.Bytes += p.size
	}
	d.mu.Lock()
	for _, t := range d.pinned {
		if w := t.pins.Load(); w != nil {
			result.Pinned += w.size
		}
	}
	d.mu.Unlock()
	result.Pins = kept
	return result, nil
}

// pinAgain tries again what there was no room for.
func (d *Daemon) pinAgain() {
	d.pinning.Lock()
	defer d.pinning.Unlock()
	d.mu.Lock()
	all := slices.Clone(d.pinned)
	d.mu.Unlock()
	for _, t := range all {
		t.change.Lock()
		if w, p := t.pins.Load(), t.parts.Load(); w != nil && w.bad.Load() != nil {
			if p == nil {
				w.bad.Store(nil) // it is tried when it is loaded
			} else {
				t.pinLocked(p)
			}
			if s := t.session.Load(); s != nil {
				w.start(s)
			}
		}
		t.change.Unlock()
	}
	d.hurry()
}
