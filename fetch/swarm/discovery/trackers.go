package discovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	announceTimeout = 15 * time.Second
	stopTimeout     = 2 * time.Second
	hedgeAfter      = 2 * time.Second // silence before the tier's next tracker is asked too
	leftCheck       = 15 * time.Second
	hurryFloor      = 20 * time.Second

	minInterval     = 30 * time.Second
	maxInterval     = 2 * time.Hour
	defaultInterval = 30 * time.Minute

	firstBackoff = 15 * time.Second
	maxBackoff   = 30 * time.Minute
)

// Trackers announces one torrent to its trackers.
//
// The tiers of BEP 12 are asked all at the same time, and within each the
// trackers in turn until one answers, which then comes first. BEP 12 asks later
// tiers only after earlier ones fail, which saves trackers some load and costs a
// reader who waits for its first byte most of the peers.
type Trackers struct {
	c     Config
	hash  metainfo.InfoHash
	key   uint32 // proves to a tracker that we are the same after our address changed
	tiers []*tier
	stats func() Stats
	found func([]Peer)
	log   *slog.Logger
	// announce does the I/O; tests replace it.
	announce func(context.Context, *url.URL, request) (reply, error)

	mu sync.Mutex // guards the status fields of every tracker
}

// tier is a list of trackers that stand in for each other. Its goroutine owns it.
type tier struct {
	trackers []*tracker
	hurry    chan struct{}
}

type tracker struct {
	url  *url.URL
	from network.Origin

	// Owned by the one announce that is under way.
	started    bool   // it knows of us
	incomplete bool   // it thinks that we lack something
	port       uint16 // it thinks that we are called at
	id         string // its "tracker id", to be sent back

	status TrackerStatus // guarded by Trackers.mu
}

// TrackerStatus is what is known of one tracker.
type TrackerStatus struct {
	URL               string // may contain a secret key of the user
	Err               error  `json:"-"`               // of the last announce, nil if it worked
	Failure           string `json:"error,omitempty"` // Err in words
	Peers             int    // in the last reply
	Seeders, Leechers int    // in all, as the tracker says; -1 if it does not
	Completed         int    // downloads so far, as a scrape says; -1 if none does
	Last, Next        time.Time
}

// request is one announce.
type request struct {
	hash    metainfo.InfoHash
	peerID  [20]byte
	key     uint32
	event   event
	stats   Stats
	numWant int
	id      string
	from    network.Origin // of the tracker's URL
}

type event int

const (
	none event = iota // the values are those of BEP 15
	completed
	started
	stopped
)

func (e event) String() string { return [...]string{"", "completed", "started", "stopped"}[e] }

// reply is what a tracker answered, bounded but otherwise believed.
type reply struct {
	interval, min     time.Duration
	seeders, leechers int
	peers             []Peer
	id                string
}

// from notes who told of the peers.
func (r *reply) from(tracker netip.Addr) {
	for i := range r.peers {
		r.peers[i].Via = tracker
	}
}

// NewTrackers prepares announces of hash to tiers. URLs that are not http, https
// or udp are left out; those that typed lists were given by the user, the others by a
// .torrent or magnet link. stats and found may be called at the same time by several
// goroutines.
func NewTrackers(c Config, hash metainfo.InfoHash, tiers [][]string, typed []string, stats func() Stats, found func([]Peer)) *Trackers {
	if c.Network == nil {
		c.Network = network.System()
	}
	t := &Trackers{c: c, hash: hash, key: rand.Uint32(), stats: stats, found: found, log: loggerOr(c.Logger)}
	t.announce = t.overNetwork
	for _, urls := range tiers {
		ti := &tier{hurry: make(chan struct{}, 1)}
		for _, s := range urls {
			if u, err := url.Parse(s); err == nil && known(u.Scheme) && u.Host != "" {
				tr := &tracker{url: u, from: network.File, status: unasked(s)}
				if slices.Contains(typed, s) {
					tr.from = network.Typed
				}
				ti.trackers = append(ti.trackers, tr)
			}
		}
		if len(ti.trackers) > 0 {
			rand.Shuffle(len(ti.trackers), func(i, j int) {
				ti.trackers[i], ti.trackers[j] = ti.trackers[j], ti.trackers[i]
			})
			t.tiers = append(t.tiers, ti)
		}
	}
	return t
}

func unasked(url string) TrackerStatus {
	return TrackerStatus{URL: url, Seeders: -1, Leechers: -1, Completed: -1}
}

func known(scheme string) bool { return scheme == "http" || scheme == "https" || scheme == "udp" }

func (t *Trackers) overNetwork(ctx context.Context, u *url.URL, r request) (reply, error) {
	if u.Scheme == "udp" {
		return t.announceUDP(ctx, u, r)
	}
	return t.announceHTTP(ctx, u, r)
}

// Run announces until ctx ends, and then takes leave of the trackers, which may
// take two more seconds. It returns nil, or the fault of ours that ended it.
func (t *Trackers) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, ti := range t.tiers {
		wg.Go(func() {
			if err := fault.Catch(t.log, "the announces to trackers", func() error { t.runTier(ctx, ti); return nil }); err != nil {
				fail(err)
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	t.stop(context.WithoutCancel(ctx))
	if f := (*fault.Error)(nil); errors.As(context.Cause(ctx), &f) {
		return f
	}
	return nil
}

// call announces to a tracker. A fault of ours on its answer ends that one announce.
func (t *Trackers) call(ctx context.Context, tr *tracker, req request) (r reply, err error) {
	err = fault.Catch(t.log, "an announce to a tracker", func() (err error) {
		r, err = t.announce(ctx, tr.url, req)
		return err
	})
	return r, err
}

// Hurry asks every tier again as soon as its tracker permits, and not within 20
// seconds of the last time.
func (t *Trackers) Hurry() {
	for _, ti := range t.tiers {
		select {
		case ti.hurry <- struct{}{}:
		default:
		}
	}
}

// Status tells the state of every tracker, in no particular order.
func (t *Trackers) Status() []TrackerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []TrackerStatus
	for _, ti := range t.tiers {
		for _, tr := range ti.trackers {
			all = append(all, tr.status)
		}
	}
	return all
}

func (t *Trackers) runTier(ctx context.Context, ti *tier) {
	for failures := 0; ; {
		tr, r, err := t.round(ctx, ti)
		if ctx.Err() != nil {
			return
		}
		wait, floor := r.interval, r.min
		if failures++; err == nil {
			failures = 0
		} else {
			wait, floor = backoff(failures), hurryFloor
		}
		t.setNext(ti, tr, wait)
		if !t.sleep(ctx, ti, wait, floor, err == nil) {
			return
		}
	}
}

// backoff doubles per failure; the jitter keeps clients apart that lost the same
// tracker at the same moment.
func backoff(failures int) time.Duration {
	d := min(firstBackoff<<min(failures-1, 10), maxBackoff)
	return d - d/5 + rand.N(2*d/5)
}

// sleep waits until the next announce is due, and reports false if ctx ended.
func (t *Trackers) sleep(ctx context.Context, ti *tier, wait, floor time.Duration, working bool) bool {
	start := time.Now()
	due := time.NewTimer(wait)
	defer due.Stop()
	check := time.NewTicker(leftCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due.C:
			return true
		case <-ti.hurry:
			due.Reset(min(wait, max(floor, hurryFloor)) - time.Since(start))
		case <-check.C:
			// Nobody tells us that the torrent is complete, and a tracker that hands
			// out seeders should not learn it half an hour late.
			s := t.stats()
			if working && ti.trackers[0].incomplete && s.Left == 0 {
				return true
			}
			// Nor that a router has mapped another port to ours: whoever hears of us from this
			// tracker calls in vain until then.
			if working && ti.trackers[0].port != s.Port {
				due.Reset(max(0, hurryFloor-time.Since(start)))
			}
		}
	}
}

// round asks the trackers of a tier until one answers. A silent one is not
// waited for: after a moment the next is asked beside it.
func (t *Trackers) round(ctx context.Context, ti *tier) (*tracker, reply, error) {
	type result struct {
		tr  *tracker
		r   reply
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	asked, answered := 0, 0
	ask := func() {
		if asked < len(ti.trackers) {
			tr := ti.trackers[asked]
			asked++
			go func() { // ends with announceTimeout or ctx; its result is always received
				r, err := t.ask(ctx, tr)
				results <- result{tr, r, err}
			}()
		}
	}
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	var won result
	won.err = errors.New("no tracker")
	for ask(); answered < asked; {
		select {
		case <-hedge.C:
			if won.tr == nil && ctx.Err() == nil {
				ask()
			}
		case res := <-results:
			answered++
			switch {
			case res.err == nil && won.tr == nil:
				won = res
				cancel()
			case won.tr == nil && ctx.Err() == nil:
				won.err = res.err
				ask()
			}
		}
	}
	if won.tr != nil {
		t.promote(ti, won.tr)
	}
	return won.tr, won.r, won.err
}

// promote puts the tracker that works first (BEP 12).
func (t *Trackers) promote(ti *tier, tr *tracker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, x := range ti.trackers {
		if x == tr {
			copy(ti.trackers[1:i+1], ti.trackers[:i])
			ti.trackers[0] = tr
			return
		}
	}
}

// ask announces to one tracker and passes on what it finds.
func (t *Trackers) ask(ctx context.Context, tr *tracker) (reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, announceTimeout, errSilent)
	defer cancel()
	req := t.request(tr)
	r, err := t.call(ctx, tr, req)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return r, err // another tracker was faster, or Run ends: no fault of this one
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	t.record(tr, r, err)
	if err != nil {
		return r, err
	}
	tr.started, tr.incomplete, tr.port = true, req.stats.Left > 0, req.stats.Port
	if r.id != "" {
		tr.id = r.id
	}
	if len(r.peers) > 0 {
		t.found(r.peers)
	}
	return r, nil
}

func (t *Trackers) request(tr *tracker) request {
	req := request{hash: t.hash, peerID: t.c.PeerID, key: t.key, stats: t.stats(), numWant: maxPeers, id: tr.id, from: tr.from}
	switch {
	case !tr.started:
		req.event = started
	case tr.incomplete && req.stats.Left == 0:
		req.event = completed
	}
	return req
}

// record updates the status and logs changes; the host only, because paths of
// private trackers carry keys.
func (t *Trackers) record(tr *tracker, r reply, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &tr.status
	switch {
	case err != nil && (st.Err == nil || st.Err.Error() != err.Error()):
		t.log.Warn("tracker failed", "tracker", tr.url.Host, "err", err)
	case err == nil && (st.Err != nil || st.Last.IsZero()):
		t.log.Info("tracker answers", "tracker", tr.url.Host, "peers", len(r.peers))
	}
	st.Err, st.Failure, st.Last = err, "", time.Now()
	if err != nil {
		st.Failure = err.Error()
	}
	if err == nil {
		st.Peers, st.Seeders, st.Leechers = len(r.peers), r.seeders, r.leechers
		st.Next = st.Last.Add(r.interval)
	}
}

// setNext notes when the tracker that answered is due, or the whole tier if none
// did.
func (t *Trackers) setNext(ti *tier, tr *tracker, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range ti.trackers {
		x.status.Next = time.Time{}
		if tr == nil || tr == x {
			x.status.Next = time.Now().Add(wait)
		}
	}
}

// stop tells the trackers that know of us that we leave.
func (t *Trackers) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, ti := range t.tiers {
		for _, tr := range ti.trackers {
			if !tr.started {
				continue
			}
			req := t.request(tr)
			req.event, req.numWant = stopped, 0
			wg.Go(func() {
				if _, err := t.call(ctx, tr, req); err != nil {
					t.log.Debug("tracker was not told that we stop", "tracker", tr.url.Host, "err", err)
				}
			})
		}
	}
	wg.Wait()
}

// clampIntervals makes seconds from a tracker usable.
func clampIntervals(interval, atLeast int64) (time.Duration, time.Duration) {
	clamp := func(n int64, low, high time.Duration) time.Duration { // before they are nanoseconds, which overflow
		return time.Duration(min(max(n, int64(low/time.Second)), int64(high/time.Second))) * time.Second
	}
	every := clamp(interval, minInterval, maxInterval)
	return every, clamp(atLeast, hurryFloor, every)
}
