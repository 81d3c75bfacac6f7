package daemon

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"unique"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Add mounts what a source names, or lists an object of BTFS in btfs/. The error is one line that names the source.
func (d *Daemon) Add(ctx context.Context, source string) (added int, errs []error) {
	if IsObject(source) {
		if err := d.addObject(source); err != nil {
			return 0, []error{err}
		}
		return 1, nil
	}
	found := resolve(ctx, d.network, source)
	many := len(found) > maxLoaded
	for r := range inOrder(len(found), func(i int) ready { return d.prepare(found[i], many) }) {
		err := r.err
		if err == nil {
			if err = d.addOne(r); err != nil {
				err = fmt.Errorf("%s: %w", r.t.from, err)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		added++
		if ctx.Err() != nil {
			break
		}
	}
	if many {
		debug.FreeOSMemory() // metadata that was read and is not kept
	}
	return added, errs
}

// inOrder calls f for 0 to n-1, as many at a time as there are processors, and yields the
// results in order. Few of them wait at a time.
func inOrder[T any](n int, f func(i int) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		workers := runtime.GOMAXPROCS(0)
		results := make([]chan T, min(n, 4*workers))
		start := func(i int) {
			c := make(chan T, 1)
			results[i%len(results)] = c
			go func() { c <- f(i) }() // ends with f
		}
		for i := range results {
			start(i)
		}
		for i := range n {
			r := <-results[i%len(results)]
			if next := i + len(results); next < n {
				start(next)
			}
			if !yield(r) {
				return
			}
		}
	}
}

// ready is a torrent that can be added.
type ready struct {
	t     *torrent
	meta  *metainfo.Meta // nil if it is missing, or kept in the state folder
	shape *shape
	err   error
}

// prepare does what can be done for several torrents at a time. many: the metadata is not
// kept in memory.
func (d *Daemon) prepare(get func() (found, error), many bool) ready {
	f, err := get()
	if err != nil {
		return ready{err: err}
	}
	meta := f.meta
	t := &torrent{daemon: d, hash: f.hash, hashV2: f.hashV2, label: f.label(), from: f.from, hints: f.peers, webSeeds: f.webSeeds, only: f.only}
	if meta == nil {
		meta = d.loadState(f.hash) // a magnet of before
	} else {
		t.hash = meta.Info.Hash
	}
	if meta != nil {
		t.webPieces = meta.WebPieces
		for _, s := range meta.WebSeeds {
			if !slices.Contains(t.webSeeds, s) {
				t.webSeeds = append(t.webSeeds, s)
			}
		}
	}
	t.trackers = tiers(f, meta, d.cfg.Trackers)
	for _, tier := range t.trackers {
		for i := range tier {
			tier[i] = unique.Make(tier[i]).Value() // thousands of torrents name the same ones
		}
	}
	r := ready{t: t, meta: meta}
	if meta == nil {
		return r
	}
	r.meta = d.firstSeen(t.hash, meta)
	if r.shape, err = t.newShape(r.meta); err != nil {
		return ready{err: fmt.Errorf("%s: %w", f.from, err)}
	}
	if meta.Info.V2 {
		t.short = meta.Info.Short()
	}
	if many && d.ensureState(t.hash, r.meta) == nil {
		r.meta = nil
	}
	return r
}

// addOne adds one torrent, with or without metadata.
func (d *Daemon) addOne(r ready) (err error) {
	t := r.t
	d.mu.Lock()
	other := d.byHash[t.hash]
	d.mu.Unlock()
	if other != nil && other.hash == t.hash {
		d.log.Info("torrent given twice", "torrent", t.hash, "source", t.from)
		return nil
	}
	if r.shape != nil {
		if err := t.mount(r); err != nil {
			return err
		}
	} else if t.handle, err = d.catalog.AddResolving(t.label, t.Identity(), t.reason); err != nil {
		return err
	}
	d.mu.Lock()
	d.torrents = append(d.torrents, t)
	d.byHash[t.hash] = t
	if t.short != (metainfo.InfoHash{}) && d.byHash[t.short] == nil {
		d.byHash[t.short] = t
	}
	d.mu.Unlock()
	t.pinMatches()
	d.mu.Lock()
	live := d.ctx != nil && (len(d.torrents) <= warmStart || r.shape == nil)
	d.mu.Unlock()
	if live {
		_, err = t.wake()
	}
	return err
}

// mount shows a torrent whose metadata is known from the start.
func (t *torrent) mount(r ready) (err error) {
	t.shape.Store(r.shape)
	if r.meta != nil {
		t.change.Lock()
		_, err = t.prepareLocked(r.meta)
		t.change.Unlock()
		if err != nil {
			return err
		}
	}
	if t.handle, err = t.daemon.catalog.Add(r.shape.name, t); err != nil {
		t.daemon.forget(t)
	}
	return err
}
