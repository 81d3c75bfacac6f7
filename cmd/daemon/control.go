package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/cmd/objects"
)

// What btmount cache asks of a running daemon. Pinning is in pins.go, hashing in scrub.go.

// openSocket makes the control socket. A mount that can not be asked is better than none; it is
// told once there is one.
func (d *Daemon) openSocket() {
	if d.socket, d.unasked = control.Listen(d.cfg.StateDir); d.unasked == nil {
		d.loadPins()
	}
}

// serveControl answers until ctx ends.
func (d *Daemon) serveControl(ctx context.Context) {
	if err := control.Serve(ctx, d.socket, d, d.log); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		d.log.Error("btmount cache can not ask this mount any more", "err", err)
	}
}

// hold loads a torrent, which stays loaded until release, without counting as a use.
func (t *torrent) hold() (p *parts, release func(), err error) {
	t.open.Add(1) // before it is looked at: what is open stays
	p = t.parts.Load()
	loaded := p == nil
	if loaded {
		t.change.Lock()
		p, err = t.loadLocked()
		t.change.Unlock()
	}
	release = func() {
		t.open.Add(-1)
		if loaded {
			t.unload()
		}
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return p, release, nil
}

// stored reports whether there is something of a torrent in the cache.
func (t *torrent) stored() bool {
	if p := t.parts.Load(); p != nil {
		return p.object.PresentIn(p.span(-1)) > 0
	}
	n, _ := t.daemon.cache.Stored(t.key())
	return n > 0
}

// CacheStatus implements control.Cache.
func (d *Daemon) CacheStatus(ctx context.Context) (control.CacheStatus, error) {
	st := d.cache.Stat()
	s := control.CacheStatus{
		Version: d.cfg.Version, Pid: os.Getpid(), Mountpoint: d.cfg.Mountpoint, Started: d.started,
		Dir: d.cfg.CacheDir, Used: st.Used, Limit: st.Limit, DiskFree: st.DiskFree, MinFree: st.MinFree,
		Pinned: st.Pinned, Kept: st.Kept, Room: d.cache.Room(), Memory: st.Memory, Clean: st.Clean, Objects: st.Objects, Loaded: st.Open,
		Scrub: d.scrubbed.status(d.cfg.ScrubRate), Torrents: []control.Torrent{},
	}
	d.pinning.Lock()
	s.Pins, s.Flags = append([]string{}, d.kept...), append([]string{}, d.cfg.Pins...)
	d.pinning.Unlock()
	d.mu.Lock()
	torrents := slices.Clone(d.torrents)
	d.mu.Unlock()
	mounted := map[cache.Key]bool{}
	for _, t := range torrents {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		mounted[t.key()] = true
		if t.ready() {
			c := t.cached()
			s.Unverified += c.Unverified
			s.Torrents = append(s.Torrents, c)
		}
	}
	for _, key := range d.cache.Keys() {
		if !mounted[key] {
			o := d.cache.StatObject(key)
			s.Unverified += o.Unverified
			if objects.Is(key) {
				s.BTFS += o.Present
			} else {
				s.Unmounted += o.Present
			}
		}
	}
	slices.SortStableFunc(s.Torrents, func(a, b control.Torrent) int {
		return cmp.Or(b.LastUsed.Compare(a.LastUsed), cmp.Compare(a.Name, b.Name))
	})
	return s, nil
}

// cached tells what there is of a torrent.
func (t *torrent) cached() control.Torrent {
	o := t.daemon.cache.StatObject(t.key())
	size := t.shape.Load().length
	c := control.Torrent{
		Name: t.daemon.catalog.Name(t.handle), InfoHash: t.hash.String(), Size: size,
		Present: min(o.Present, size), Unverified: min(o.Unverified, size), OpenFiles: o.Open,
	}
	if o.Present > 0 || o.Open > 0 {
		c.LastUsed = o.Used
	}
	if w := t.pins.Load(); w != nil {
		c.Pinned = w.size
		c.PinnedHere, _ = w.here(t)
		if w.done.Load() && t.parts.Load() == nil {
			c.PinnedHere = w.size
		}
		if why := w.bad.Load(); why != nil {
			c.PinError = *why
		}
	}
	return c
}

// Evict implements control.Cache.
func (d *Daemon) Evict(ctx context.Context, r control.EvictRequest) (result control.EvictResult, err error) {
	switch {
	case r.All && r.Bytes == 0 && len(r.Patterns) == 0:
		err = d.evictAll(ctx, &result)
	case r.Bytes > 0 && !r.All && len(r.Patterns) == 0:
		result.Freed = d.cache.Evict(r.Bytes)
	case len(r.Patterns) > 0 && r.Bytes == 0 && !r.All:
		err = d.evictMatches(ctx, r.Patterns, &result)
	default:
		err = &control.RequestError{Reason: "give patterns, or bytes, or all"}
	}
	result.Used, result.Limit = d.cache.Usage()
	return result, err
}

func (d *Daemon) evictAll(ctx context.Context, result *control.EvictResult) error {
	d.mu.Lock()
	torrents := slices.Clone(d.torrents)
	d.mu.Unlock()
	for _, t := range torrents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !t.stored() {
			continue
		}
		if err := t.evict(nil, result); err != nil {
			return err
		}
	}
	result.Freed += d.cache.Evict(math.MaxInt64) // and what is not mounted
	return nil
}

func (d *Daemon) evictMatches(ctx context.Context, patterns []string, result *control.EvictResult) error {
	patterns, err := cleanPatterns(patterns)
	if err != nil {
		return err
	}
	picks, missing, _ := d.pick(patterns)
	if missing != "" {
		return noMatch(missing)
	}
	for _, p := range picks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !p.t.stored() {
			continue
		}
		if err := p.t.evict(p.tags, result); err != nil {
			return err
		}
	}
	return nil
}

// evict frees some files of a torrent, or all of it.
func (t *torrent) evict(tags []int, result *control.EvictResult) error {
	if tags == nil && t.pins.Load() == nil {
		t.change.Lock() // nobody opens it meanwhile
		freed := int64(0)
		if t.parts.Load() == nil {
			freed = t.daemon.cache.EvictFolder(t.key())
		}
		t.change.Unlock()
		if result.Freed += freed; freed > 0 {
			return nil
		}
	}
	p, release, err := t.hold()
	if err != nil {
		return err
	}
	defer release()
	if tags == nil {
		tags = []int{-1}
	}
	e := p.object.Evict(p.spans(tags)...)
	result.Freed += e.Freed
	result.Pinned += e.Pinned
	result.InUse += e.InUse
	return nil
}

// Limit implements control.Cache.
func (d *Daemon) Limit(_ context.Context, r control.LimitRequest) (result control.LimitResult, err error) {
	if r.Limit < 0 || r.MinFree < 0 {
		return result, &control.RequestError{Reason: "a limit is above 0"}
	}
	before := d.cache.Stat()
	if r.Limit > 0 {
		err := d.cache.SetLimit(r.Limit)
		if small := (*cache.TooSmallError)(nil); errors.As(err, &small) {
			return result, fmt.Errorf("%s are pinned, which may be 7/8 of the cache; unpin some, or give %s or more (%d bytes)", inBytes(small.Pinned), inBytes(small.Least), small.Least)
		}
	}
	if r.MinFree > 0 {
		d.cache.SetMinFree(r.MinFree)
	}
	if r.Limit > before.Limit {
		d.pinAgain()
	}
	st := d.cache.Stat()
	return control.LimitResult{
		Limit: st.Limit, MinFree: st.MinFree, DiskFree: st.DiskFree, Used: st.Used, Freed: max(0, before.Used-st.Used),
		Pinned: st.Pinned, Kept: st.Kept,
	}, nil
}

// inBytes is a size for people to read.
func inBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
