package swarm

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// pool is the set of peers that a torrent knows of, and who looks for more. It is
// owned by the torrent's goroutine.
type pool struct {
	t        *Torrent
	client   *Client
	ctx      context.Context
	fail     context.CancelCauseFunc // ends ctx
	group    *sync.WaitGroup
	farewell sync.WaitGroup     // announces: at the end they take leave, which takes time
	stopMore context.CancelFunc // ends the DHT search and local discovery
	known_   map[netip.AddrPort]*candidate
	lines    *lines // those of them that are not busy
	dialing  int
	calls    []*candidate // those, in the order called
	banned   int
	trackers *discovery.Trackers
	dht      bool
	searched time.Time              // last time more peers were asked for out of turn
	port     uint16                 // that peers were told
	traded   time.Time              // last time that a place changed hands
	idle     map[[20]byte]time.Time // who lost its place: not before
}

const (
	maxKnown    = 2000
	maxDialing  = 12 // per torrent, and mostDialing of one of which someone waits in vain
	mostDialing = 48
	spare       = 4 // connections that a torrent may have whatever the others have, if someone waits
	maxFails    = 6 // then a peer is forgotten, unless the user named it
	searchGap   = 30 * time.Second
	// retryGap is the time after which a peer is tried again however often it failed,
	// when someone waits and nobody is connected; or fewer than enough serve us and it
	// did not fail often.
	retryGap = 3 * time.Second
	lookGap  = 250 * time.Millisecond // between looks for those
	enough   = 4
	often    = 4
	// slowCall is when a call that is not answered stops counting, if someone waits in vain:
	// most of the addresses that trackers name can not be reached, some take calls and say
	// nothing, and each keeps its place for up to 16 s.
	slowCall = 1500 * time.Millisecond
)

func newPool(c *Client, t *Torrent) pool {
	return pool{t: t, client: c, known_: map[netip.AddrPort]*candidate{}, lines: newLines(), idle: map[[20]byte]time.Time{}}
}

func (p *pool) start(ctx context.Context, fail context.CancelCauseFunc, group *sync.WaitGroup) {
	p.ctx, p.fail, p.group = ctx, fail, group
}

// background runs f beside the torrent, in a group. A fault in it ends the torrent.
func (p *pool) background(group *sync.WaitGroup, in string, f func() error) {
	group.Go(func() {
		err := fault.Catch(p.t.log, in, f)
		if e := (*fault.Error)(nil); errors.As(err, &e) {
			p.fail(e)
		}
	})
}

// discover starts looking for peers. A private torrent asks its trackers only:
// no DHT, no PEX, no LSD (BEP 27). What is not known to be public asks the trackers and
// the DHT, since a magnet without trackers has nothing else; gotInfo stops the
// rest when the info turns out to be private.
func (t *Torrent) discover(ctx context.Context, private bool) {
	p := &t.pool
	for _, h := range t.names() {
		if len(t.cfg.Trackers) == 0 {
			break
		}
		tr := discovery.NewTrackers(t.client.discovery, h, t.cfg.Trackers, t.cfg.Typed, t.stats, func(ps []discovery.Peer) { t.postFound(ps) })
		if h == t.hash {
			p.trackers = tr // of which status tells
		}
		p.background(&p.farewell, "the announces to trackers", func() error { return tr.Run(ctx) })
	}
	if private {
		return
	}
	t.extensions = append(t.extensions, newPex(t)) // and what has to do with it after it: see private
	if t.client.cfg.UTP != nil {
		t.extensions = append(t.extensions, newPunch(t))
	}
	more, cancel := context.WithCancel(ctx)
	p.stopMore = cancel
	if l := t.client.cfg.LSD; l != nil {
		for _, h := range t.names() {
			p.background(&p.farewell, "the local search", func() error {
				return l.Announce(more, h, t.client.Port, func(ps []discovery.Peer) { t.postFound(ps) })
			})
		}
	}
	if d := t.client.cfg.DHT; d != nil {
		p.dht = true
		for _, h := range t.names() {
			p.background(&p.farewell, "the DHT search", func() error {
				return d.Announce(more, h, t.client.public, func(ps []discovery.Peer) { t.postFound(ps) })
			})
		}
	}
}

// private stops what a private torrent may not do.
func (p *pool) private() {
	if p.stopMore != nil {
		p.stopMore()
		p.dht = false
	}
	for i, e := range p.t.extensions {
		if e.name() == "ut_pex" {
			p.t.extensions = p.t.extensions[:i:i]
		}
	}
	for _, c := range p.known_ {
		if c.source != "tracker" && c.source != "given" && !c.busy {
			p.forget(c)
		}
	}
	for c := range p.t.conns {
		delete(c.theirs, "ut_pex")
		delete(c.theirs, punchName)
		if c.source != "tracker" && c.source != "given" && c.source != "incoming" && c.web == "" {
			c.close(errors.New("torrent is private"))
		}
	}
}

func (t *Torrent) stats() discovery.Stats {
	return discovery.Stats{Uploaded: t.uploaded.Load(), Downloaded: t.fetched.Load(), Left: t.left.Load(), Port: t.client.public()}
}

func (t *Torrent) postFound(ps []discovery.Peer) {
	t.post(func() {
		for _, p := range ps {
			t.learn([]netip.AddrPort{p.Addr}, p.Source, p.Via)
		}
		t.countSources()
		t.pool.dial()
	})
}

// found notes addresses of peers and dials them if more are wanted. via is the address
// of who named them.
func (t *Torrent) found(addrs []netip.AddrPort, source string, via netip.Addr) {
	t.learn(addrs, source, via)
	t.countSources()
	t.pool.dial()
}

func (t *Torrent) learn(addrs []netip.AddrPort, source string, via netip.Addr) {
	p := &t.pool
	from := network.Told
	switch source {
	case "given":
		from = network.Typed
	case "magnet":
		from = network.File
	}
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if t.client.isBanned(a) {
			continue
		}
		if err := t.client.cfg.Network.Allow(network.Ask{Use: network.Peer, From: from, Via: via, To: a}); err != nil {
			level := slog.LevelDebug
			if from == network.Typed {
				level = slog.LevelWarn
			}
			t.log.Log(p.ctx, level, "peer not dialled", "source", source, "err", err)
			continue
		}
		if c := p.known_[a]; c != nil {
			if c.source != source && (source == "tracker" || source == "given") {
				p.change(c, func() { c.source = source })
			}
			continue
		}
		p.add(&candidate{addr: a, source: source, via: via})
	}
}

// dial connects to known peers while more are wanted.
func (p *pool) dial() {
	t := p.t
	lost := len(t.conns) == 0 && (t.info == nil || t.hungry())
	short := lost || t.hungry() && t.useful() < enough
	early := func(c *candidate) bool {
		return (lost || short && !c.idle && c.fails <= often) && t.clock.Sub(c.tried) >= retryGap
	}
	for len(t.conns)+p.dialing < t.client.cfg.MaxPeers && p.dialing < p.most(lost) {
		best := p.best(early)
		if best == nil || !p.room(lost) {
			return
		}
		p.call(best, p.client.dial)
	}
}

// most is how many may be dialled at a time.
func (p *pool) most(lost bool) int {
	if !lost {
		return maxDialing
	}
	slow := 0
	for slow < len(p.calls) && p.t.clock.Sub(p.calls[slow].tried) > slowCall {
		slow++
	}
	return min(maxDialing+slow, mostDialing)
}

// room takes one place among the connections of all torrents that are being made. When
// there is none, the next tick asks again. A torrent of which someone waits and which
// has no peer at all gets a few beyond the limits: else the reads of one torrent would
// wait for what others read long ago.
func (p *pool) room(lost bool) bool {
	c := p.client
	half := c.halfOpen.Add(1)
	if lost && p.dialing < spare {
		return true
	}
	most := int64(c.cfg.MaxConns)
	if !p.t.wanting() {
		most -= most / 16 // the last places are for those of which something is wanted
	}
	if half <= int64(c.cfg.MaxHalfOpen) && half+c.conns.Load() <= most {
		return true
	}
	c.halfOpen.Add(-1)
	return false
}

// connect dials a peer and serves the connection until it ends. It runs in a
// goroutine of its own.
func (p *pool) connect(c *candidate, source string, dial dialer) {
	t := p.t
	var conn *conn
	err := fault.Catch(t.log, "the dialling of a peer", func() (err error) {
		conn, err = dial(p.ctx, t, c.addr)
		return err
	})
	p.client.halfOpen.Add(-1)
	if err == nil {
		conn.source = source
	}
	t.post(func() {
		p.dialing--
		if i := slices.Index(p.calls, c); i >= 0 {
			p.calls = slices.Delete(p.calls, i, i+1)
		}
		if err != nil {
			p.failed(c, err)
			if x := t.punching(); x != nil && c.via.IsValid() {
				x.ask(c)
			}
		}
		p.dial()
	})
	if err == nil {
		t.serve(p.ctx, conn)
	}
}

func (p *pool) failed(c *candidate, err error) {
	p.take(c)
	c.fails++
	c.next = p.t.clock.Add(min(time.Duration(c.fails*c.fails)*2*time.Second, 5*time.Minute))
	if errors.Is(err, errSelf) || errors.Is(err, errBanned) || c.fails > maxFails && c.source != "given" {
		p.forget(c)
	} else {
		p.put(c)
	}
	p.t.log.Debug("cannot connect", "peer", c.addr, "err", err)
}

// refused notes that a new connection was not taken in.
func (p *pool) refused(c *conn, err error) {
	k := p.known_[c.listen]
	if k == nil || c.incoming {
		return
	}
	if first := p.t.byID[c.id]; errors.Is(err, errTwice) && first != nil {
		// The address belongs to a peer that is connected already, perhaps because it
		// came to us. It is dialled again when that connection has ended.
		if !first.listen.IsValid() || first.listen == c.listen {
			first.listen = c.listen
			return
		}
		k.next = p.t.clock.Add(time.Minute)
		p.put(k)
		return
	}
	if errors.Is(err, errFull) {
		k.next = p.t.clock.Add(retryGap)
		p.put(k)
		return
	}
	p.failed(k, err)
}

// left notes that a connection ended.
func (p *pool) left(c *conn) {
	k := p.known_[c.listen]
	if k == nil {
		if !c.listen.IsValid() {
			return
		}
		if k = p.add(&candidate{addr: c.listen, source: c.source}); k == nil {
			return
		}
	}
	p.take(k)
	if p.client.isBanned(c.listen) {
		p.forget(k)
		return
	}
	k.seed, k.idle = p.t.wantsNothing(c), c.idle
	// A peer that served us is worth coming back to soon.
	wait := 10 * time.Second
	if c.down.Load() == 0 && p.t.clock.Sub(c.joined) < time.Minute {
		k.fails++
		wait = time.Duration(min(k.fails*k.fails, 60)) * 2 * time.Second
	} else {
		k.fails = 0
	}
	if c.down.Load() > 0 {
		wait = time.Second
	}
	k.learn(c)
	if c.idle {
		wait = idleAgain
	}
	k.next = p.t.clock.Add(wait)
	p.put(k)
}

// tellPort tells peers when a router maps another port to ours. (Trackers and the DHT
// notice by themselves.)
func (p *pool) tellPort() {
	port := p.client.public()
	if port == p.port {
		return
	}
	first := p.port == 0
	p.port = port
	for c := range p.t.conns {
		if !first && c.theirs != nil {
			p.t.sendExtended(c)
		}
	}
}

// tick dials again and asks for more peers when there are too few.
func (p *pool) tick() {
	p.t.webTick()
	p.tellPort()
	p.dial()
	p.trade()
	if p.trackers != nil && p.t.hungry() && p.t.useful() < 3 && p.t.clock.Sub(p.searched) > searchGap {
		p.searched = p.t.clock
		p.trackers.Hurry()
	}
}

// serve runs a connection whose handshake is done, until it ends.
func (t *Torrent) serve(ctx context.Context, c *conn) {
	joined := make(chan error, 1)
	if !t.post(func() {
		err := t.join(c)
		if err != nil {
			t.pool.refused(c, err)
		} else {
			t.serving.Add(1)
		}
		joined <- err
	}) {
		c.close(errStopped)
		return
	}
	var err error
	select {
	case err = <-joined:
	case <-t.gone:
		select {
		case err = <-joined:
		default:
			err = errStopped
		}
	}
	if err != nil {
		c.close(err)
		return
	}
	defer t.serving.Done()
	t.client.conns.Add(1)
	defer t.client.conns.Add(-1)
	var wg sync.WaitGroup
	wg.Go(func() { c.close(fault.Catch(t.log, "what is sent to a peer", func() error { return c.writer(ctx) })) })
	c.close(fault.Catch(t.log, "what a peer sent", func() error { return c.read(ctx) }))
	wg.Wait()
	t.log.Debug("peer left", "peer", c.name(), "why", c.cause())
	t.post(func() { t.part(c) })
}
