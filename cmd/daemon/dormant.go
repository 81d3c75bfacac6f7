package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A torrent that nobody needs is dormant: no goroutine, no peer, no announce. What is
// kept of it is its tree, so that listing and stat never wait. It has two steps up:
//
//	parts    its metadata and its cache object, while a file of it is open or was a
//	         short while ago, or the session needs them. The .torrent is kept in the
//	         state folder to be read again, and checked again, whatever becomes of the
//	         file that it came from.
//	session  its swarm, from the first read that misses (Fetch) until idleAfter.
//
// A peer that calls wakes a torrent that has something to share. A magnet whose metadata
// is missing, and may come, never sleeps.
//
// Who sleeps announces nothing, so nobody new would find what it has cached. Therefore
// the maxShared torrents that were used last and have something cached stay awake for
// others, and are woken at the start; with --no-upload none is. Rejected: to announce
// dormant torrents without a session. It is the announces that cost, to us and to the
// trackers, and whoever they bring has to be served by a session after all.
//
// Where few torrents are mounted, all are awake at the start: who mounts a film is about
// to watch it, and peers that are connected make the first read fast.
//
// torrent.change is held while parts or a session come or go, also across the I/O that
// this takes: who else wants the torrent then has to wait for just that. It is taken
// before Daemon.mu. Files are counted before parts are looked at, and Fetch calls before
// the session is; whoever takes those away looks at the counts afterwards.

const (
	idleAfter = 5 * time.Minute
	maxShared = 64  // torrents that are awake for others
	maxLoaded = 64  // torrents that nobody needs and that have their parts
	maxUp     = 192 // torrents that are more than dormant, beyond which peers wake no more
	warmStart = 64  // so many torrents or fewer are all awake at the start
)

// session is the time from waking up until falling asleep.
type session struct {
	swarm    *swarm.Torrent
	stop     context.CancelCauseFunc
	uploaded int64 // owned by lull, like what follows
	shared   time.Time
	kept     time.Time // when its peers were kept
}

var (
	errAsleep   = errors.New("nobody needs it now")
	errStopping = errors.New("btmount is not running")
)

func (t *torrent) touch() { t.used.Store(time.Now().UnixNano()) }

// load returns the parts.
func (t *torrent) load() (*parts, error) {
	t.touch()
	if p := t.parts.Load(); p != nil {
		return p, nil
	}
	t.change.Lock()
	defer t.change.Unlock()
	return t.loadLocked()
}

func (t *torrent) loadLocked() (*parts, error) {
	if p := t.parts.Load(); p != nil {
		return p, nil
	}
	meta, err := t.daemon.reload(t)
	if err != nil {
		return nil, err
	}
	return t.prepareLocked(meta)
}

// prepareLocked opens the cache object.
func (t *torrent) prepareLocked(meta *metainfo.Meta) (*parts, error) {
	object, err := t.daemon.cache.Object(layout(t.key(), meta))
	if err != nil {
		return nil, err
	}
	p := &parts{meta: meta, object: object}
	t.pinLocked(p)
	t.parts.Store(p)
	t.daemon.scheduler.Add(fetch.Target{Object: object, Download: t})
	t.daemon.note(t)
	return p, nil
}

// unload forgets the parts, unless someone needs them.
func (t *torrent) unload() {
	t.change.Lock()
	defer t.change.Unlock()
	p := t.parts.Load()
	if p == nil && t.bad.Load() != nil {
		t.daemon.forget(t)
	}
	if p == nil || t.session.Load() != nil || t.fetches.Load() > 0 {
		return
	}
	if err := t.daemon.ensureState(t.hash, p.meta); err != nil {
		return // it could not be had again; the cause was logged
	}
	t.parts.Store(nil)
	if t.open.Load() > 0 { // opened just now
		t.parts.Store(p)
		return
	}
	t.settleLocked()
	t.daemon.scheduler.Remove(p.object.Key)
	if err := p.object.Close(); err != nil {
		t.daemon.log.Error("cannot close the cache of a torrent", "torrent", t.hash, "err", err)
	}
	t.daemon.forget(t)
}

// settleLocked waits until the last session touches nothing any more.
func (t *torrent) settleLocked() {
	if t.left == nil {
		return
	}
	<-t.left.Freed()
	t.daemon.savePeers(t.hash, t.left.Known())
	t.left = nil
}

// wake returns the session's swarm, which it starts if need be.
func (t *torrent) wake() (*swarm.Torrent, error) {
	t.touch()
	if s := t.session.Load(); s != nil {
		return s.swarm, nil
	}
	t.change.Lock()
	defer t.change.Unlock()
	if s := t.session.Load(); s != nil {
		return s.swarm, nil
	}
	if err := t.faults.waiting(time.Now()); err != nil {
		return nil, err
	}
	var p *parts
	if t.ready() {
		var err error
		if p, err = t.loadLocked(); err != nil {
			return nil, err
		}
	}
	t.settleLocked()
	t.mu.Lock()
	sent := t.totals.Uploaded
	t.mu.Unlock()
	cfg := swarm.TorrentConfig{
		Hash: t.hash, HashV2: t.hashV2, Trackers: t.trackers, Typed: t.daemon.cfg.Trackers,
		Peers: t.daemon.cfg.Peers, Hints: t.hints, Known: t.daemon.loadPeers(t.hash), OnInfo: t.gotInfo, WebSeeds: t.webSeeds, WebPieces: t.webPieces,
		Sent: sent,
	}
	if p != nil {
		cfg.Info = p.meta.Info
	}
	sw, err := t.daemon.client.Add(cfg)
	if err != nil {
		return nil, err
	}
	if p != nil {
		sw.Attach(p.meta, p.object)
		p.object.SetPeers(sw.Available)
	}
	s := &session{swarm: sw, kept: time.Now()}
	if w := t.pins.Load(); w != nil {
		w.start(s)
	}
	if !t.daemon.join(t, s) {
		t.daemon.client.Remove(sw)
		return nil, errStopping
	}
	t.session.Store(s)
	t.faults.last = nil
	t.daemon.note(t)
	t.daemon.log.Debug("awake", "torrent", t.hash)
	return sw, nil
}

// sleep ends the session, unless someone fetches.
func (t *torrent) sleep() {
	t.change.Lock()
	defer t.change.Unlock()
	s := t.session.Load()
	if s == nil {
		return
	}
	t.session.Store(nil)
	if t.fetches.Load() > 0 { // began just now
		t.session.Store(s)
		return
	}
	t.endLocked(s)
	t.daemon.log.Debug("dormant", "torrent", t.hash)
}

func (t *torrent) endLocked(s *session) {
	if p := t.parts.Load(); p != nil {
		p.object.SetPeers(nil)
	}
	t.daemon.client.Remove(s.swarm)
	t.left = s.swarm
	s.stop(errAsleep)
}

// over is called when a session's Run has returned.
func (t *torrent) over(s *session, err error) {
	t.mu.Lock()
	t.totals.Add(s.swarm.Totals())
	t.mu.Unlock()
	t.change.Lock()
	defer t.change.Unlock()
	if t.session.CompareAndSwap(s, nil) {
		t.endLocked(s)
	}
	if t.left == s.swarm {
		t.settleLocked()
	}
	if err != nil {
		wait := t.faults.add(err, time.Now())
		t.daemon.log.Error("torrent failed; the others go on", "torrent", t.hash, "err", err, "again_in", wait)
	}
}

// Fetch implements fetch.Download.
func (t *torrent) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	t.fetches.Add(1) // before wake: what is fetched from stays awake
	defer t.fetches.Add(-1)
	sw, err := t.wake()
	if err != nil {
		return err
	}
	err = sw.Fetch(ctx, e, due)
	t.touch()
	return err
}

// Rate implements fetch.Rater.
func (t *torrent) Rate() float64 {
	if s := t.session.Load(); s != nil {
		return s.swarm.Rate()
	}
	return 0
}

// sources returns how many peers are connected or known.
func (t *torrent) sources() int {
	if s := t.session.Load(); s != nil {
		return s.swarm.Sources()
	}
	return 0
}

// shares reports whether others could have something of it.
func (t *torrent) shares() bool {
	if t.daemon.cfg.NoUpload {
		return false
	}
	if p := t.parts.Load(); p != nil {
		n, _ := p.object.Count()
		return n > 0
	}
	n, _ := t.daemon.cache.Stored(t.key())
	return n > 0
}

// faults are the failures of a torrent's sessions: each makes the next try wait longer.
type faults struct {
	n    int
	last error
	next time.Time
}

const (
	firstWait = 2 * time.Second
	maxFaults = 6 // then it stays as it is, until btmount is started again
	forgiven  = time.Hour
)

// add notes a fault and returns how long the torrent is left alone.
func (f *faults) add(err error, now time.Time) time.Duration {
	if now.Sub(f.next) > forgiven {
		f.n = 0
	}
	f.n++
	f.last = err
	wait := firstWait << (2 * (f.n - 1)) // 2 s, 8 s, 32 s, 2 min, 9 min
	if f.n >= maxFaults {
		wait = 1000 * time.Hour
	}
	f.next = now.Add(wait)
	return wait
}

// waiting returns the last fault if the torrent is to be left alone.
func (f *faults) waiting(now time.Time) error {
	if f.last == nil || !now.Before(f.next) {
		return nil
	}
	return f.last
}

func (t *torrent) fault() error {
	t.change.Lock()
	defer t.change.Unlock()
	return t.faults.waiting(time.Now())
}

// reload reads the metadata of a torrent again: from the state folder, or from where it
// came from. It is checked like any other.
func (d *Daemon) reload(t *torrent) (*metainfo.Meta, error) {
	if m := d.loadState(t.hash); m != nil {
		return m, nil
	}
	if f, err := fromFile(t.from); err == nil && f.hash == t.hash {
		m := *f.meta
		m.Created = t.ModTime()
		d.saveState(t.hash, &m)
		return &m, nil
	}
	return nil, fmt.Errorf("torrent %s: its metadata is gone from %s; mount its .torrent again", t.hash, d.statePath(t.hash))
}

// note and forget keep the set of torrents that are more than dormant.
func (d *Daemon) note(t *torrent) {
	d.mu.Lock()
	d.up[t] = struct{}{}
	many := len(d.up) > 4*maxLoaded
	d.mu.Unlock()
	if many {
		select {
		case d.kick <- struct{}{}:
		default:
		}
	}
}

func (d *Daemon) forget(t *torrent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.up, t)
}

// lull puts torrents to sleep that nobody needs, until ctx ends.
func (d *Daemon) lull(ctx context.Context) {
	idle := cmp.Or(d.cfg.Idle, idleAfter)
	tick := time.NewTicker(min(idle/8, 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
		case <-tick.C:
		}
		d.calm(time.Now(), idle)
	}
}

// calm is one round of lull.
func (d *Daemon) calm(now time.Time, idle time.Duration) {
	d.matchNew()
	pinning := d.fetchPinned(now, idle)
	d.mu.Lock()
	up := slices.Collect(maps.Keys(d.up))
	d.mu.Unlock()
	used := make(map[*torrent]int64, len(up))
	for _, t := range up {
		used[t] = t.used.Load()
	}
	slices.SortFunc(up, func(a, b *torrent) int { return cmp.Compare(used[b], used[a]) })
	shared, loaded := 0, 0
	for _, t := range up {
		last := time.Unix(0, used[t])
		s := t.session.Load()
		if s == nil {
			switch {
			case t.resolving() || t.faulty() && t.shares():
				_, _ = t.wake() // it failed before; an error is told when it is read
			case t.open.Load() == 0:
				if loaded++; now.Sub(last) >= idle || loaded > maxLoaded {
					t.unload()
				}
			}
			continue
		}
		t.savePeers(s, now)
		if n := s.swarm.Uploaded(); n != s.uploaded {
			s.uploaded, s.shared = n, now
		}
		keep := pinning[t] || t.resolving() || t.fetches.Load() > 0 || now.Sub(last) < idle || now.Sub(s.shared) < idle
		if t.shares() {
			keep = keep || shared < maxShared
			shared++
		}
		if !keep {
			t.sleep()
		}
	}
}

// resolving reports whether its metadata is missing and may come.
func (t *torrent) resolving() bool { return !t.ready() && t.bad.Load() == nil }

// faulty reports whether the last session failed and may be tried again.
func (t *torrent) faulty() bool {
	t.change.Lock()
	defer t.change.Unlock()
	return t.faults.last != nil && !time.Now().Before(t.faults.next)
}

// warm wakes what is to be awake at the start.
func (d *Daemon) warm() {
	d.mu.Lock()
	all := slices.Clone(d.torrents)
	d.mu.Unlock()
	type rest struct {
		t  *torrent
		at time.Time
	}
	var share []rest
	for _, t := range all {
		switch {
		case len(all) <= warmStart || !t.ready():
			_, _ = t.wake() // an error is told when it is read
		case t.shares():
			_, at := d.cache.Stored(t.key())
			share = append(share, rest{t, at})
		}
	}
	slices.SortFunc(share, func(a, b rest) int { return b.at.Compare(a.at) })
	for _, r := range share[:min(len(share), maxShared)] {
		_, _ = r.t.wake()
	}
}

// alias makes a torrent known by its v2 hash as well.
func (d *Daemon) alias(t *torrent, info *metainfo.Info) {
	if !info.V2 || info.Short() == t.hash {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.short = info.Short(); d.byHash[t.short] == nil {
		d.byHash[t.short] = t
	}
}

// Wake implements swarm.Dormant: strangers wake what they could have something of, unless
// too many are awake.
func (d *Daemon) Wake(h metainfo.InfoHash) *swarm.Torrent {
	d.mu.Lock()
	t := d.byHash[h]
	many := len(d.up) >= maxUp
	d.mu.Unlock()
	if t == nil || many || !t.ready() || !t.shares() {
		return nil
	}
	sw, err := t.wake()
	if err != nil {
		d.log.Debug("a peer calls in vain", "torrent", t.hash, "err", err)
		return nil
	}
	return sw
}

// Hashes implements swarm.Dormant.
func (d *Daemon) Hashes(yield func(metainfo.InfoHash) bool) {
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.byHash))
	d.mu.Unlock()
	for _, h := range all {
		if !yield(h) {
			return
		}
	}
}
