package swarm

import (
	"cmp"
	"errors"
	"time"

	"github.com/btmount/btmount/fetch/swarm/downlink"
)

// # Who gives its place to whom
//
// When all places are taken (MaxPeers of a torrent, MaxConns of all together), the
// connection of least worth may have to go: a peer that is of no use, and never one that
// serves us now, that gives us anything, that came just now, that the user named, or a web
// seed. How little of use it has to be depends on how few of the others have what is
// wanted: see worth and need.
//
// Somebody else is called first, and takes the place when it answers, so that who can not
// be reached costs nobody's place. One place changes hands in tradeGap; up to spare of them in
// tradeSoon when nobody has what a reader waits for. Who lost its place is not called again for
// idleAgain, nor taken in if it calls while all places are taken: two that are both full
// would otherwise take turns for ever.
//
// Rejected: to leave a peer that may be of use because another may be of more. What a
// stranger has and how fast it is shows only when it is connected, and a connection takes
// up to half a minute until it is unchoked.

// worth is what a connection is good for.
type worth int

const (
	worthless worth = iota // neither has anything for the other
	elsewhere              // it has something, nothing of what is wanted now, and wants nothing
	refusing               // it has what is wanted, and has not served us for long, nor we it
	taking                 // it has nothing of what is wanted now, and wants something of us
	held                   // it is never parted with to make room
)

// need is how few peers have what is wanted.
type need int

const (
	wellServed   need = iota // nothing is wanted, or enough peers bring it
	poorlyServed             // few of them do, or it will be late
	unserved                 // nobody does
)

const (
	newcomer  = 5 * time.Second  // it has told what it has by then
	unheard   = time.Minute      // after which a peer that does not serve us is not waited for
	onTrial   = time.Minute      // how long who is served may take before it gives something
	trickle   = 256              // bytes/s that are less than any use
	tradeGap  = 5 * time.Second  // between two trades
	tradeSoon = time.Second      // the same of who is unserved
	idleAgain = 10 * time.Minute // until who lost its place is called again
	windowTop = 64               // wanted pieces that are looked at
	mostAsked = 256              // connections that are looked at
	maxIdle   = 256              // ids of peers that lost their place
)

// errPlace is why a connection is closed that gave its place to another; errFull, why a
// new one is.
var (
	errPlace = errors.New("of no use, its place is given to another")
	errFull  = errors.New("enough peers")
)

// standing is what is known of a connection.
type standing struct {
	fixed   bool          // the user named it, or it is a web seed
	age     time.Duration // since it was connected
	window  bool          // it has something of what is wanted now
	news    bool          // it has something at all that we may lack
	serves  bool          // it would send what it is asked for
	unheard time.Duration // since it last would
	asks    bool          // it wants something of us, and we share
	served  bool          // it gets it
	gives   float64       // payload bytes/s
	takes   float64
}

// worth values a connection.
func (s standing) worth() worth {
	switch {
	case s.fixed, s.age < newcomer, s.window && s.serves, s.gives > trickle:
		return held
	case s.window && (s.served || s.unheard < unheard):
		return held
	case s.window:
		return refusing
	case s.asks && s.served && s.age < onTrial:
		return held
	case s.asks:
		return taking
	case s.news:
		return elsewhere
	}
	return worthless
}

// parts reports whether a torrent with such a need parts with a connection of worth w.
func (n need) parts(w worth) bool {
	switch n {
	case unserved:
		return w <= taking
	case poorlyServed:
		return w <= refusing
	}
	return w == worthless
}

func (n need) gap() time.Duration {
	if n == unserved {
		return tradeSoon
	}
	return tradeGap
}

// calls is how many more than there are places for are called at a time: where nobody
// serves us several, since many can not be reached.
func (n need) calls() int {
	if n == unserved {
		return spare
	}
	return 1
}

// standing looks at a connection.
func (t *Torrent) standing(c *conn) standing {
	s := standing{
		fixed: c.web != "" || c.source == "given", age: t.clock.Sub(c.joined),
		asks: c.serve.Interested && !t.client.cfg.NoUpload, served: c.serve.Unchoked,
		gives: c.given, takes: c.taken,
	}
	if k := t.pool.known_[c.listen]; k != nil && k.source == "given" {
		s.fixed = true // though it called us
	}
	if !c.unheard.IsZero() {
		s.unheard = t.clock.Sub(c.unheard)
	}
	switch {
	case t.info == nil: // then the metadata is what is wanted
		s.window = c.theirs["ut_metadata"] != 0 && c.metadataSize > 0 && !c.metadataBad
		s.serves, s.news = s.window, s.window
	case t.store != nil:
		s.news = !t.complete() && (c.haveAll || c.haveCount > 0)
		s.window = s.news && t.picks.Has(&c.view, windowTop)
		s.serves = c.serves()
	}
	return s
}

// need tells how well the torrent is served.
func (t *Torrent) need() need {
	if !t.wanting() {
		return wellServed
	}
	looked, serving := 0, 0
	for c := range t.conns {
		if s := t.standing(c); s.window && s.serves {
			serving++
		}
		if looked++; serving >= enough || looked == mostAsked {
			break
		}
	}
	switch {
	case serving == 0:
		return unserved
	case t.info == nil:
		return wellServed
	case serving < enough:
		return poorlyServed
	}
	if late, _ := t.picks.Need(t.clock, t.Rate(), downlink.Horizon); late {
		return poorlyServed
	}
	return wellServed
}

// least returns the connection of least worth, and of how many n parts with. Of equals it
// is the one with which the least is exchanged, then the oldest.
func (t *Torrent) least(n need) (least *conn, parting int) {
	var low worth
	looked := 0
	for c := range t.conns { // of many, others each time
		if looked++; looked > mostAsked {
			break
		}
		w := t.standing(c).worth()
		if !n.parts(w) {
			continue
		}
		parting++
		if least == nil || cmp.Or(cmp.Compare(w, low), cmp.Compare(c.given+c.taken, least.given+least.taken), cmp.Compare(c.serve.Key, least.serve.Key)) < 0 {
			least, low = c, w
		}
	}
	return least, parting
}

// full reports whether no place is free for c. A torrent that has hardly any peers gets a
// few places beyond those that all together have.
func (t *Torrent) full(c *conn) bool {
	return len(t.conns) >= t.client.cfg.MaxPeers || t.client.full() && (c.incoming || len(t.conns) >= spare)
}

func (c *Client) full() bool { return c.conns.Load() >= int64(c.cfg.MaxConns) }

// parting returns how many places may be given away now, and with what need.
func (t *Torrent) parting() (n need, places int) {
	n = t.need()
	if t.clock.Sub(t.pool.traded) < n.gap() {
		return n, 0
	}
	_, places = t.least(n)
	return n, min(places, n.calls())
}

// parts reports whether a place may be given away now.
func (t *Torrent) parts() bool {
	_, places := t.parting()
	return places > 0
}

// yield gives the place of the connection of least worth to c, if there is such a one.
// Whom we called was called for that.
func (t *Torrent) yield(c *conn) bool {
	n := t.need()
	if c.incoming && (!t.clock.After(t.pool.idle[c.id]) || t.clock.Sub(t.pool.traded) < n.gap()) {
		return false
	}
	least, _ := t.least(n)
	if least == nil {
		return false
	}
	t.pool.traded = t.clock
	t.giveUp(least)
	return true
}

// giveUp parts with a connection that is of no use.
func (t *Torrent) giveUp(c *conn) {
	p := &t.pool
	if len(p.idle) >= maxIdle {
		clear(p.idle)
	}
	p.idle[c.id] = t.clock.Add(idleAgain)
	c.idle = true
	t.log.Debug("peer gives its place to another", "peer", c.name(), "worth", t.standing(c).worth())
	c.close(errPlace)
	t.part(c)
}

// wanting reports whether something is wanted of anybody.
func (t *Torrent) wanting() bool { return t.info == nil || t.hungry() }

// trade calls others while all places are taken and one of them is of no use: who answers
// gets it (see join). Where another torrent has the place, that one is asked for it.
func (p *pool) trade() {
	t := p.t
	t.yields.Store(t.spared())
	if t.owes.Swap(false) {
		if c := t.sleepiest(); c != nil {
			t.giveUp(c)
		}
	}
	beyond := len(t.conns) + p.dialing - t.client.cfg.MaxPeers
	if !t.wanting() || beyond < 0 && !t.client.full() {
		return
	}
	n, places := t.parting()
	if places == 0 && n != wellServed && beyond < 0 {
		t.client.squeeze()
	}
	never := func(*candidate) bool { return false }
	for ; places > max(beyond, 0) && p.dialing < maxDialing; places-- {
		best := p.best(never)
		if best == nil || !p.room(true) {
			return
		}
		p.call(best, p.client.dial)
	}
}

// spared returns how many connections the torrent could do without if another was in
// need: those of no worth; while nothing is wanted all but a few that are not in use.
func (t *Torrent) spared() int32 {
	if !t.client.full() {
		return 0
	}
	nothing, asleep, looked := int32(0), int32(0), 0
	for c := range t.conns {
		if looked++; looked > mostAsked {
			break
		}
		if t.standing(c).worth() == worthless {
			nothing++
		}
		if t.asleep(c) {
			asleep++
		}
	}
	return max(nothing, asleep-2*spare)
}

// asleep reports whether nothing flows between us and a peer, and nothing is wanted.
func (t *Torrent) asleep(c *conn) bool {
	s := t.standing(c)
	if s.worth() == worthless {
		return true
	}
	return t.info != nil && !t.hungry() && !s.fixed && s.age >= newcomer && !s.served && s.gives+s.takes < trickle
}

// sleepiest returns one of those that spared counts, nil if there are none.
func (t *Torrent) sleepiest() (least *conn) {
	if t.spared() == 0 {
		return nil
	}
	for c := range t.conns {
		if t.asleep(c) && (least == nil || cmp.Or(cmp.Compare(t.standing(c).worth(), t.standing(least).worth()), cmp.Compare(c.serve.Key, least.serve.Key)) < 0) {
			least = c
		}
	}
	return least
}

// squeeze has the torrent that could do without most connections part with one within a
// second, for one that is in need.
func (c *Client) squeeze() {
	if t := c.roomiest(); t != nil {
		t.yields.Add(-1)
		t.owes.Store(true)
	}
}

// roomiest returns the torrent that could do without most connections, nil if none could.
func (c *Client) roomiest() (most *Torrent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.torrents {
		if n := t.yields.Load(); n > 0 && (most == nil || n > most.yields.Load()) {
			most = t
		}
	}
	return most
}
