package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/downlink"
	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/shaper"
)

// TorrentConfig says what to join and whom to ask.
type TorrentConfig struct {
	Hash     metainfo.InfoHash
	HashV2   [32]byte       // that of a magnet with urn:btmh: what comes has to match it
	Info     *metainfo.Info // nil: it comes from peers (BEP 9), OnInfo is called then
	Private  bool           // BEP 27; implied by Info.Private
	Trackers [][]string
	Typed    []string         // those of Trackers that the user named
	Peers    []netip.AddrPort // named by the user
	Hints    []netip.AddrPort // named by the magnet link
	Known    []Known          // what [Torrent.Known] returned before
	WebSeeds []string         // named by the metadata or the magnet link (BEP 19)
	Sent     int64            // payload bytes that former Torrents of this swarm sent
	// WebPieces are scripts that serve pieces, named by the metadata (BEP 17).
	WebPieces []string
	// OnInfo is called once, from a goroutine of its own, when the info dictionary has
	// come and passed the firewall; the caller then calls Attach. err != nil: the swarm
	// has an info dictionary that will never be mounted.
	OnInfo func(info *metainfo.Info, err error)
}

// Torrent is one swarm that we are part of. Run owns its state.
type Torrent struct {
	client *Client
	log    *slog.Logger
	cfg    TorrentConfig
	hash   metainfo.InfoHash
	short  atomic.Pointer[metainfo.InfoHash] // the v2 hash cut to 20 bytes, if there is one

	mail      chan func()
	gone      chan struct{}  // closed when Run handles nothing any more
	sated     chan struct{}  // closed when it was seeded enough
	ended     error          // why; written before gone is closed
	serving   sync.WaitGroup // connections; added to by Run only
	freed     chan struct{}  // closed when nothing of it touches the store any more
	served    atomic.Pointer[content]
	rate      atomic.Uint64 // bits of the measured download rate, bytes/s
	sources   atomic.Int64  // peers connected or known
	connected atomic.Int64
	yields    atomic.Int32 // connections that it could do without
	owes      atomic.Bool  // another torrent needs one of those
	left      atomic.Int64
	available atomic.Pointer[availability]
	asked     atomic.Bool // for a new one
	flying    flying
	fetched   atomic.Int64 // verified bytes from peers
	tossed    atomic.Int64 // bytes of pieces that failed their hash
	uploaded  atomic.Int64 // payload bytes sent
	wasted    atomic.Int64 // bytes that came twice or unasked, of connections that ended

	// Owned by Run.
	clock      time.Time // of the event being handled
	info       *metainfo.Info
	grid       *grid
	hashes     *hashing // nil where v1 piece hashes rule
	store      Store
	stock      survey    // of the store
	looked     time.Time // when a survey began last
	looking    bool      // it has not ended
	moved      bool      // something landed since it began
	during     []int     // pieces that became whole since it began
	doubt      bool      // left is not to be believed, except that it is not 0
	fresh      bool      // something is wanted that nobody was asked for yet
	conns      map[*conn]struct{}
	byID       map[[20]byte]*conn
	extensions []extension
	pool       pool
	webs       []*web
	webWanted  time.Time      // when something was wanted last
	webFrom    network.Origin // of their URLs; tests have typed them
	idleSeeds  time.Duration  // how long two that want nothing stay connected
	picks      *picker.Picker
	rare       *picker.Rarest // which pieces few peers have; set with store
	pins       pins
	wants      map[int][]*want  // by unit
	pushes     []pushing        // to be done, soonest first
	pushed     []*want          // by push, oldest first
	parked     []int            // begun units that nobody wants now, oldest first
	failures   map[int]*failure // by piece
	counter    int
	duplicates int64 // bytes asked twice
	twice      int64 // bytes that came twice
	recent     []Recent
	former     []Peer
	uplink     shaper.Link // what this torrent may send
	downLimits []*rate.Limiter
	flow       *downlink.Flow
	came       int64     // bytes of blocks, also those that came twice
	finished   time.Time // since when nothing is wanted
	enough     bool
	nextNeed   time.Time // when the flow is told of it
	nextChoke  time.Time
	nextTick   time.Time
	infoErr    error
	took       func(what string, d time.Duration) // for tests: how long an event took
}

// content is what other goroutines may see of a torrent once its info is known.
type content struct {
	info  *metainfo.Info
	grid  *grid
	store Store
	meta  *metainfo.Meta
}

// want is one Fetch call.
type want struct {
	first, last int // units [first, last)
	missing     int
	due         time.Time
	class       picker.Class // Urgent: it was due when it was asked for
	done        chan error   // capacity 1; sent to when the want is deleted
}

// failure is what is known of a piece that did not match its hash.
type failure struct {
	times    int
	evidence []evidence
	at       time.Time
}

// flying is the set of units on their way; the goroutines of peers look them up.
type flying struct {
	mu sync.RWMutex
	m  map[int]assembly
}

func (f *flying) find(unit int) assembly {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.m[unit]
}

func (f *flying) put(a assembly) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[a.number()] = a
}

func (f *flying) drop(unit int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.m, unit)
}

func (f *flying) all() (out []assembly) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, a := range f.m {
		out = append(out, a)
	}
	return out
}

// NoSourceError means that no peer is known at all.
type NoSourceError struct{ Hash metainfo.InfoHash }

func (e *NoSourceError) Error() string {
	return fmt.Sprintf("torrent %s: no peer known; add a tracker (--tracker) or a peer (--peer), or wait", e.Hash)
}

// NoSource marks the error for the kernel side.
func (e *NoSourceError) NoSource() bool { return true }

// CorruptError means that every peer that has a piece sent bytes that do not match its hash.
type CorruptError struct {
	Hash   metainfo.InfoHash
	Piece  int
	Halves bool // they match the hash of v1, and not that of v2
}

func (e *CorruptError) Error() string {
	if e.Halves {
		return fmt.Sprintf("torrent %s piece %d: its v1 and v2 halves hash different bytes; get another copy of the content", e.Hash, e.Piece)
	}
	return fmt.Sprintf("torrent %s piece %d: no peer has bytes that match its hash", e.Hash, e.Piece)
}

// Corrupt marks the error for the kernel side, Permanent for the scheduler.
func (e *CorruptError) Corrupt() bool   { return true }
func (e *CorruptError) Permanent() bool { return true }

const (
	tickBusy = 10 * time.Millisecond // while blocks are on their way
	tickIdle = time.Second
	maxPark  = 64 // begun units kept that nobody wants now, or 16 MiB of them
)

func newTorrent(c *Client, cfg TorrentConfig) *Torrent {
	t := &Torrent{
		client: c, log: c.log.With("torrent", cfg.Hash), cfg: cfg, hash: cfg.Hash,
		mail: make(chan func(), 256), gone: make(chan struct{}), sated: make(chan struct{}), freed: make(chan struct{}),
		conns: map[*conn]struct{}{}, byID: map[[20]byte]*conn{}, picks: picker.New(), wants: map[int][]*want{},
		failures: map[int]*failure{}, flying: flying{m: map[int]assembly{}},
	}
	t.pool = newPool(c, t)
	t.pins = pins{t: t, open: map[int]*want{}}
	t.webFrom = network.File
	t.left.Store(1)
	t.extensions = []extension{newMetadata(t), donthave{t}, uploadOnly{t}}
	t.idleSeeds = time.Minute
	for _, e := range c.cfg.Extensions {
		t.extensions = append(t.extensions, newPlugged(t, e(cfg.Hash)))
	}
	t.uplink.SetRate(float64(c.cfg.EachUp))
	t.downLimits = []*rate.Limiter{limiter(c.cfg.EachDown), c.downLimit}
	return t
}

// Hash returns the info-hash.
func (t *Torrent) Hash() metainfo.InfoHash { return t.hash }

// Rate returns the measured download rate, bytes/s, 0 if unknown.
func (t *Torrent) Rate() float64 { return math.Float64frombits(t.rate.Load()) }

// Uploaded returns the payload bytes sent.
func (t *Torrent) Uploaded() int64 { return t.uploaded.Load() }

// Freed is closed when Run is over but for its farewell to the trackers, which may take
// two seconds: the store may be closed then, or given to another Torrent.
func (t *Torrent) Freed() <-chan struct{} { return t.freed }

// Totals returns what was counted since the start. It is complete once Run has ended.
func (t *Torrent) Totals() Totals {
	return Totals{Downloaded: t.fetched.Load(), Uploaded: t.uploaded.Load(), Wasted: t.wasted.Load(), Corrupt: t.tossed.Load()}
}

// Sources returns how many peers are connected or known.
func (t *Torrent) Sources() int { return int(t.sources.Load()) }

// post hands f to Run; false if Run has ended. It waits when Run is behind, which
// slows a peer that sends too much. Run itself must not call it.
func (t *Torrent) post(f func()) bool {
	select {
	case t.mail <- f:
		return true
	case <-t.gone:
		return false
	}
}

func (t *Torrent) now() time.Time { return t.clock }

// Attach gives the torrent its info and a store of units of UnitLength. It may be
// called before Run, or from OnInfo.
func (t *Torrent) Attach(meta *metainfo.Meta, store Store) {
	c := &content{info: meta.Info, grid: newGrid(meta), store: store, meta: meta}
	stock := c.grid.survey(store)
	t.left.Store(stock.left)
	t.served.Store(c)
	t.post(func() { t.attach(c, stock) }) // before Run the mailbox keeps it
}

func (t *Torrent) complete() bool { return t.left.Load() == 0 }

// Run joins the swarm until ctx ends. Then every connection is closed and every
// Fetch has returned. A fault of ours ends it too: the error is a *[FaultError] then,
// and the torrent has to be made anew, since nobody knows what state it is in.
func (t *Torrent) Run(ctx context.Context) error {
	var group sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	t.pool.start(ctx, cancel, &group)
	t.flow = t.client.downlink.Join()
	defer t.flow.Leave()
	defer t.pool.farewell.Wait()
	defer close(t.freed)
	err := fault.Catch(t.log, "the torrent", func() error { t.loop(ctx); return nil })
	if err == nil {
		err = context.Cause(ctx)
	}
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		err = &FaultError{Hash: t.hash, Cause: f}
	}
	cancel(err)
	t.ended = err
	close(t.gone)
	for c := range t.conns {
		c.close(err)
	}
	group.Wait()
	t.serving.Wait()
	for c := range t.conns {
		t.wasted.Add(c.wasted.Load())
	}
	_ = fault.Catch(t.log, "the end of the torrent", func() error { t.end(err); return nil })
	if f := (*FaultError)(nil); errors.As(err, &f) {
		return f
	}
	return nil
}

// FaultError means that a fault of ours ended a torrent. The log has its stack.
type FaultError struct {
	Hash  metainfo.InfoHash
	Cause error
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("torrent %s: %v; the log has more, please report it", e.Hash, e.Cause)
}

func (e *FaultError) Unwrap() error { return e.Cause }

// Permanent marks the error for the scheduler: who waits is not to wait for a restart.
func (e *FaultError) Permanent() bool { return true }

// loop handles one event after the other until ctx ends.
func (t *Torrent) loop(ctx context.Context) {
	t.clock = time.Now()
	if t.cfg.Info != nil && t.info == nil {
		t.setInfo(t.cfg.Info)
	} else {
		t.discover(ctx, t.cfg.Private)
	}
	t.found(t.cfg.Peers, "given", netip.Addr{})
	t.found(t.cfg.Hints, "magnet", netip.Addr{})
	t.webFound(t.cfg.WebSeeds, false)
	t.webFound(t.cfg.WebPieces, true)
	t.remember(t.cfg.Known)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case f := <-t.mail:
			t.clock = time.Now()
			t.timed("message", f)
			t.drain()
			t.timed("settle", t.settle)
		case <-timer.C:
			t.clock = time.Now()
		}
		t.timed("tick", t.tick)
		timer.Reset(t.rest())
	}
}

// drain handles what else is in the mailbox, bounded so that the tick gets its turn.
func (t *Torrent) drain() {
	for range 64 {
		select {
		case f := <-t.mail:
			t.timed("message", f)
		default:
			return
		}
	}
}

// timed handles a part of an event. None may take long: every peer and every reader of
// the torrent waits for it.
func (t *Torrent) timed(what string, f func()) {
	if t.took == nil {
		f()
		return
	}
	began := time.Now()
	f()
	t.took(what, time.Since(began))
}

// settle asks for what was wanted by the messages just handled: the hashes first, so
// that they are there when the blocks are.
func (t *Torrent) settle() {
	if !t.fresh {
		return
	}
	t.fresh = false
	if t.hashes != nil {
		t.hashes.ask()
	}
	t.pool.dial()
	t.report()
	t.webTick()
	t.fillAll()
}

// rest is the time until the next tick is due.
func (t *Torrent) rest() time.Duration {
	if t.picks.Len() > 0 && len(t.conns) > 0 {
		return tickBusy
	}
	return tickIdle
}

func (t *Torrent) end(cause error) {
	for _, ws := range t.wants {
		for _, w := range ws {
			w.finish(cause)
		}
	}
	for _, a := range t.flying.all() {
		t.abandon(a.number())
	}
	for {
		select {
		case f := <-t.mail: // Fetch calls that were posted before gone was closed
			_ = f
		default:
			return
		}
	}
}

func (w *want) finish(err error) {
	select {
	case w.done <- err:
	default:
	}
}

// setInfo notes the info; pieces are handled once Attach has brought the store.
func (t *Torrent) setInfo(info *metainfo.Info) {
	t.info = info
	t.discover(t.pool.ctx, t.cfg.Private || info.Private)
}

// findByV2 makes a torrent known by its v2 hash, if that is known.
func (t *Torrent) findByV2() {
	if t.cfg.HashV2 != [32]byte{} {
		t.setShort(metainfo.InfoHash(t.cfg.HashV2[:20]))
	}
	if t.cfg.Info != nil && t.cfg.Info.V2 {
		t.setShort(t.cfg.Info.Short())
	}
}

// setShort makes the torrent known by its v2 hash as well.
func (t *Torrent) setShort(h metainfo.InfoHash) {
	t.short.Store(&h)
	t.client.alias(t, h)
}

// names returns the info-hashes under which the torrent is announced: those of a
// hybrid are two swarms, as far as trackers and the DHT can know. Of a magnet it is
// what the link has.
func (t *Torrent) names() []metainfo.InfoHash {
	if short := t.short.Load(); short != nil && *short != t.hash {
		return []metainfo.InfoHash{t.hash, *short}
	}
	return []metainfo.InfoHash{t.hash}
}

// gotInfo is called when a peer has brought the info.
func (t *Torrent) gotInfo(info *metainfo.Info) {
	if info.V2 {
		t.setShort(info.Short())
	}
	t.log.Info("metadata complete", "name", printable(info.Name, 80), "bytes", len(info.Raw))
	t.info = info
	if info.Private {
		t.pool.private()
	}
	t.pool.background(t.pool.group, "the mounting of metadata", func() error { t.cfg.OnInfo(info, nil); return nil })
}

// badInfo is called when the swarm's info will never be mounted.
func (t *Torrent) badInfo(err error) {
	if t.infoErr != nil {
		return
	}
	t.infoErr = err
	t.pool.background(t.pool.group, "the refusal of metadata", func() error { t.cfg.OnInfo(nil, err); return nil })
}

// maxTold is how many pieces a peer is told of, one by one, that came before the metadata:
// it gets no bitfield any more.
const maxTold = 4096

func (t *Torrent) attach(c *content, stock survey) {
	t.info, t.store, t.grid, t.stock, t.looked = c.info, c.store, c.grid, stock, t.clock
	if c.grid.tree {
		t.hashes = newHashing(t, c.grid, c.meta.PieceLayers)
	}
	t.rare = picker.NewRarest(c.info.NumPieces())
	var have []int
	for p := 0; len(have) < min(t.stock.count, maxTold); p++ {
		if t.stock.has(p) {
			have = append(have, p)
		}
	}
	for p := range t.conns {
		if err := t.checkField(p); err != nil {
			p.close(err)
			continue
		}
		t.tally(p, true)
		t.sendExtended(p) // now with metadata_size
		t.interest(p)
		for _, piece := range have {
			t.announceTo(p, piece)
		}
	}
	t.fillAll()
}

// Peers returns how many peers are connected.
func (t *Torrent) Peers() int { return int(t.connected.Load()) }
