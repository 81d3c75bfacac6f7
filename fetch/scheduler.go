package fetch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
)

// Download is one object's way in. Fetch returns nil when every byte of e is
// verified and committed to the object. Calling it again for the same e with an
// earlier due moves it forward; cancelling ctx withdraws it and cancels what is on
// the wire for nobody else. An error that matches Permanent ends the reads that
// wait for e; any other is tried again while someone wants e.
type Download interface {
	Fetch(ctx context.Context, e extent.Extent, due time.Time) error
}

// Rater is a Download that knows how fast it is, in bytes per second; 0 = not yet known.
type Rater interface{ Rate() float64 }

// Permanent is the shape of an error that waiting does not mend.
type Permanent interface{ Permanent() bool }

// Target pairs an object with the download that fills it.
type Target struct {
	Object   *cache.Object
	Download Download
}

// Config sets the bounds of a Scheduler.
type Config struct {
	// MaxAhead bounds the read-ahead of one reader, in bytes; 0 means 32 MiB.
	MaxAhead int64
	// AllAhead returns the bound on the read-ahead of all readers together, which
	// has to fit into the cache beside what is read; nil means no bound.
	AllAhead func() int64
	Logger   *slog.Logger
}

const (
	linger  = 400 * time.Millisecond // before a flight that nobody claims is cancelled
	backoff = 500 * time.Millisecond // before a failed flight is tried again
	seconds = 3                      // read-ahead in time of the swarm's rate
)

// Scheduler turns what readers do into fetches. It implements cache.Source.
type Scheduler struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	mail    []func(*state, time.Time)
	stopped bool
	ring    chan struct{} // capacity 1: mail has come
}

// New returns a scheduler; it does nothing until Run.
func New(cfg Config) *Scheduler {
	if cfg.MaxAhead == 0 {
		cfg.MaxAhead = 32 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{cfg: cfg, log: cfg.Logger, ring: make(chan struct{}, 1)}
}

// send leaves a message for Run. After Run has returned nobody reads it: readers
// that still wait end by their own context.
func (s *Scheduler) send(f func(*state, time.Time)) {
	s.mu.Lock()
	if !s.stopped {
		s.mail = append(s.mail, f)
	}
	s.mu.Unlock()
	select {
	case s.ring <- struct{}{}:
	default:
	}
}

// Add makes an object known. Its readers may be opened before or after.
func (s *Scheduler) Add(t Target) {
	s.send(func(st *state, now time.Time) { st.add(t) })
}

// Remove forgets an object and cancels its flights.
func (s *Scheduler) Remove(key cache.Key) {
	s.send(func(st *state, now time.Time) { st.remove(key) })
}

// Demand implements cache.Source.
func (s *Scheduler) Demand(id cache.ReaderID, d cache.Demand) {
	s.send(func(st *state, now time.Time) { st.demand(id, d, now) })
}

// Withdraw implements cache.Source.
func (s *Scheduler) Withdraw(id cache.ReaderID) {
	s.send(func(st *state, now time.Time) { st.withdraw(id, now) })
}

// Run serves until ctx ends, then waits for every worker.
func (s *Scheduler) Run(ctx context.Context) error {
	st := &state{s: s, ctx: ctx, objects: map[cache.Key]*object{}, readers: map[cache.ReaderID]*reader{}, idle: map[*flight]struct{}{}, walking: map[*object]struct{}{}}
	defer st.workers.Wait()
	defer s.stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ring:
		case <-timer.C:
		}
		s.mu.Lock()
		mail := s.mail
		s.mail = nil
		s.mu.Unlock()
		now := time.Now()
		for _, f := range mail {
			f(st, now)
		}
		if next := st.sweep(now); next > 0 {
			timer.Reset(next)
		}
	}
}

func (s *Scheduler) stop() {
	s.mu.Lock()
	s.stopped, s.mail = true, nil
	s.mu.Unlock()
}

// state is what Run owns.
type state struct {
	s       *Scheduler
	ctx     context.Context
	workers sync.WaitGroup
	objects map[cache.Key]*object
	readers map[cache.ReaderID]*reader
	idle    map[*flight]struct{} // unclaimed or waiting to be tried again
	active  int                  // streams with a window
	walking map[*object]struct{} // whose walk has one
}

type object struct {
	Target
	unit    int64
	files   map[extent.Extent]*file
	flights map[int]*flight
	walk    walk
}

type file struct {
	span    extent.Extent
	readers int
	streams streams
}

type reader struct {
	obj   *object
	file  *file
	needs map[int]int // unit -> how many waiting reads need it
}

// flight is one unit on its way.
type flight struct {
	obj    *object
	unit   int
	cancel context.CancelFunc
	ctx    context.Context
	calls  int // Fetch calls that have not returned
	due    time.Time
	needs  int                  // reads that wait
	ahead  map[*stream]struct{} // streams that want it later
	until  time.Time            // when unclaimed: end of its linger
	retry  time.Time            // when failed: not before
}

func (st *state) add(t Target) {
	if st.objects[t.Object.Key] == nil {
		st.objects[t.Object.Key] = &object{Target: t, unit: t.Object.Unit, files: map[extent.Extent]*file{}, flights: map[int]*flight{}}
	}
}

func (st *state) remove(key cache.Key) {
	o := st.objects[key]
	if o == nil {
		return
	}
	delete(st.objects, key)
	delete(st.walking, o)
	for _, f := range o.flights {
		f.cancel()
		delete(st.idle, f)
	}
	for id, r := range st.readers {
		if r.obj == o {
			delete(st.readers, id)
		}
	}
}

// demand notes what a reader did and wants.
func (st *state) demand(id cache.ReaderID, d cache.Demand, now time.Time) {
	r := st.readers[id]
	if r == nil {
		o := st.objects[d.Key]
		if o == nil {
			return // removed meanwhile: the read ends by its own context
		}
		f := o.files[d.Span]
		if f == nil {
			f = &file{span: d.Span}
			o.files[d.Span] = f
		}
		f.readers++
		r = &reader{obj: o, file: f, needs: map[int]int{}}
		st.readers[id] = r
	}
	st.need(r, d.Needs, now)
	if !d.At.Empty() {
		st.advance(r, id, d, now)
		st.walked(r.obj, id, r.file.span, d, now)
	}
}

// need replaces the reads of r that wait.
func (st *state) need(r *reader, needs []extent.Extent, now time.Time) {
	if len(needs) == 0 && len(r.needs) == 0 {
		return
	}
	old := r.needs
	r.needs = map[int]int{}
	for _, e := range needs {
		first, last := e.Units(r.obj.unit)
		for u := int(first); u < int(last); u++ {
			r.needs[u]++
			if old[u] == 0 && r.needs[u] == 1 {
				if f := st.flight(r.obj, u, now, now); f != nil {
					f.needs++
				}
			}
		}
	}
	for u := range old {
		if f := r.obj.flights[u]; f != nil && r.needs[u] == 0 {
			f.needs--
			st.unclaimed(f, now, linger)
		}
	}
}

// advance moves the stream that a read belongs to and claims its window.
func (st *state) advance(r *reader, id cache.ReaderID, d cache.Demand, now time.Time) {
	at := d.At
	f := r.file
	s := f.streams.match(at)
	if s == nil {
		if dropped := f.streams.begin(id, at, now); dropped != nil {
			st.release(r.obj, dropped, now)
		}
		for _, other := range f.streams {
			if other.asleep {
				st.release(r.obj, other, now)
			}
		}
		return
	}
	s.touch(id, at, d.Hit, now, limits{unit: r.obj.unit, most: st.most(r.obj)})
	st.claim(r.obj, f.span, s, now)
}

// most returns the largest window that a stream of o may have now.
func (st *state) most(o *object) int64 {
	most := st.s.cfg.MaxAhead
	if rate := o.rate(); rate > 0 {
		most = min(most, max(4<<20, int64(seconds*rate)))
	} else {
		most = min(most, 8<<20)
	}
	most = min(most, 512*o.unit)
	if st.s.cfg.AllAhead != nil {
		most = min(most, st.s.cfg.AllAhead()/int64(max(1, st.active)))
	}
	return most
}

func (o *object) rate() float64 {
	if r, ok := o.Download.(Rater); ok {
		return r.Rate()
	}
	return 0
}

// claim moves the claims of s to its window of now, which ends with span.
func (st *state) claim(o *object, span extent.Extent, s *stream, now time.Time) {
	lo, hi := s.window(span, o.unit)
	if (s.lo < s.hi) != (lo < hi) {
		if lo < hi {
			st.active++
		} else {
			st.active--
		}
	}
	for u := s.lo; u < s.hi; u++ {
		if u < lo || u >= hi {
			st.unclaim(o, u, s, now)
		}
	}
	s.lo, s.hi = lo, hi
	o.Object.Guard(s, lo, hi)
	swarm := o.rate()
	for u := lo; u < hi; u++ {
		due := s.due(int64(u)*o.unit, now, swarm)
		if fl := st.flight(o, u, due, now); fl != nil {
			fl.ahead[s] = struct{}{}
		}
	}
}

// release gives all claims of s back.
func (st *state) release(o *object, s *stream, now time.Time) {
	if s.lo < s.hi {
		st.active--
	}
	for u := s.lo; u < s.hi; u++ {
		st.unclaim(o, u, s, now)
	}
	s.lo, s.hi = 0, 0
	o.Object.Guard(s, 0, 0)
}

func (st *state) unclaim(o *object, u int, s *stream, now time.Time) {
	if fl := o.flights[u]; fl != nil {
		if _, ok := fl.ahead[s]; ok {
			delete(fl.ahead, s)
			st.unclaimed(fl, now, 0)
		}
	}
}

// unclaimed cancels a flight that nobody wants, after a grace.
func (st *state) unclaimed(f *flight, now time.Time, grace time.Duration) {
	if f.needs > 0 || len(f.ahead) > 0 {
		return
	}
	if grace == 0 {
		st.end(f)
		return
	}
	f.until = now.Add(grace)
	st.idle[f] = struct{}{}
}

// end cancels a flight and forgets it.
func (st *state) end(f *flight) {
	f.cancel()
	delete(st.idle, f)
	if f.obj.flights[f.unit] == f {
		delete(f.obj.flights, f.unit)
	}
}

// withdraw forgets a reader whose file was closed.
func (st *state) withdraw(id cache.ReaderID, now time.Time) {
	r := st.readers[id]
	if r == nil {
		return
	}
	delete(st.readers, id)
	for u := range r.needs {
		if f := r.obj.flights[u]; f != nil {
			f.needs--
			st.unclaimed(f, now, 0)
		}
	}
	r.file.readers--
	rest := r.file.streams[:0]
	for _, s := range r.file.streams {
		if r.file.readers == 0 || s.reader == id {
			st.release(r.obj, s, now)
		} else {
			rest = append(rest, s)
		}
	}
	clear(r.file.streams[len(rest):])
	r.file.streams = rest
	if r.file.readers == 0 {
		delete(r.obj.files, r.file.span)
	}
}

// flight returns the flight of a unit, started or moved forward to due; nil if
// the unit is in the cache.
func (st *state) flight(o *object, u int, due, now time.Time) *flight {
	f := o.flights[u]
	if f == nil {
		if o.Object.Known(u) {
			return nil
		}
		f = &flight{obj: o, unit: u, due: due, ahead: map[*stream]struct{}{}}
		f.ctx, f.cancel = context.WithCancel(st.ctx)
		o.flights[u] = f
		st.fetch(f)
		return f
	}
	if f.needs == 0 && len(f.ahead) == 0 && f.retry.IsZero() {
		delete(st.idle, f) // wanted again within its linger
	}
	// Worth a second call only if it matters: by more than a quarter of what is left.
	if d := f.due.Sub(due); d > 50*time.Millisecond && 4*d > f.due.Sub(now) {
		f.due = due
		if f.retry.IsZero() {
			st.fetch(f)
		}
	}
	return f
}

// fetch calls the download in a worker.
func (st *state) fetch(f *flight) {
	f.calls++
	due, dl, e := f.due, f.obj.Download, f.obj.Object.UnitExtent(f.unit)
	st.workers.Go(func() {
		err := dl.Fetch(f.ctx, e, due)
		st.s.send(func(st *state, now time.Time) { st.landed(f, err, now) })
	})
}

// landed notes the end of a Fetch call.
func (st *state) landed(f *flight, err error, now time.Time) {
	f.calls--
	if f.obj.flights[f.unit] != f {
		return // ended before
	}
	if err == nil {
		if f.needs > 0 && !f.obj.Object.Known(f.unit) {
			// It came as read-ahead and was evicted before the read that now waits for it
			// began: what a read waits for is not evicted, so once more is enough.
			if f.calls == 0 {
				st.fetch(f)
			}
			return
		}
		st.end(f)
		return
	}
	if p := Permanent(nil); errors.As(err, &p) && p.Permanent() {
		st.s.log.Warn("unit can not be had", "object", f.obj.Object.Key, "unit", f.unit, "err", err)
		f.obj.Object.Fail(f.unit, err)
		st.end(f)
		return
	}
	if f.calls == 0 {
		st.s.log.Debug("fetch failed, will try again", "object", f.obj.Object.Key, "unit", f.unit, "err", err)
		f.retry = now.Add(backoff)
		st.idle[f] = struct{}{}
	}
}

// sweep ends lingering flights and walks and retries failed flights; it returns when to come
// again, 0 = no need.
func (st *state) sweep(now time.Time) (next time.Duration) {
	next = st.sweepWalks(now)
	for f := range st.idle {
		wanted := f.needs > 0 || len(f.ahead) > 0
		at := f.until
		if wanted {
			at = f.retry
		}
		switch {
		case wanted && f.retry.IsZero():
			delete(st.idle, f)
			continue
		case !now.Before(at) && wanted:
			f.retry = time.Time{}
			delete(st.idle, f)
			st.fetch(f)
			continue
		case !now.Before(at):
			st.end(f)
			continue
		}
		if d := at.Sub(now); next == 0 || d < next {
			next = d
		}
	}
	return next
}
