package swarm

import (
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/downlink"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	// Duplicates may cost this share of what has come, and a little to begin with,
	// while the rates of peers are not known yet; the latter only if somebody reads.
	wasteShare = 25 // 1/25 = 4 %
	wasteStart = 3 << 20
	// A peer that rejects a piece is not asked for it again for so long.
	refuseFor = 5 * time.Second
	// A silent peer is tried with one block at once, after this, then twice as long.
	muteFirst = 250 * time.Millisecond
	muteMost  = 30 * time.Second
	maxNudge  = 15 // blocks
	explore   = 4  // blocks until the rate of a peer is known
	// What is silent for less is waited for while nobody reads: most of it comes, and would
	// come twice (a libtorrent seed hashes every piece before it sends the first of it).
	patience  = 2 * time.Second
	onlyFirst = 2 * time.Second // before all of it is asked again of the only peer
	// A request that was taken back, and not answered after this, never will be.
	cancelWait = 2 * time.Second
	// A request that so many later ones overtook, and so old, was lost.
	lostSkips = 32
	lostAfter = 3 * time.Second
	needGap   = 50 * time.Millisecond // between reports to the downlink
	// A peer that owes blocks and sends none for so long is left.
	deadAfter = 30 * time.Second
)

// peers returns what the picker sees of the connections.
func (t *Torrent) peers() []*picker.Peer {
	out := make([]*picker.Peer, 0, len(t.conns))
	for c := range t.conns {
		if c.view.Has != nil {
			out = append(out, &c.view)
		}
	}
	return out
}

// fillAll asks every peer for what it should bring now: after a change of wants.
func (t *Torrent) fillAll() {
	if !t.hungry() {
		return
	}
	s := picker.View(t.peers(), t.clock)
	byView := make(map[*picker.Peer]*conn, len(t.conns))
	for c := range t.conns {
		byView[&c.view] = c
	}
	share := t.picks.Share(s)
	for _, v := range s.Peers() {
		t.fill(byView[v], s, v.Pipe.Limit(share), 1)
	}
	t.rate.Store(math.Float64bits(s.Rate()))
}

// report tells the downlink what has come and what is needed, so that it can be shared
// with other torrents.
func (t *Torrent) report() {
	n := downlink.Need{Busy: t.hungry()}
	if n.Busy {
		n.Late, n.Rate = t.picks.Need(t.clock, t.Rate(), downlink.Horizon)
	}
	t.nextNeed = t.clock.Add(needGap)
	t.flow.Report(t.clock, t.came, n)
}

// refill asks c for more, once enough room has come free to be worth a message.
func (t *Torrent) refill(c *conn) {
	if !t.hungry() || c.closed {
		return
	}
	s := picker.View(t.peers(), t.clock)
	limit := c.view.Pipe.Limit(t.picks.Share(s))
	t.fill(c, s, limit, max(1, limit/8))
}

// fill keeps limit blocks on the way from c, if at least so many are missing.
func (t *Torrent) fill(c *conn, s *picker.Swarm, limit, least int) {
	room := limit - c.view.Pipe.Outstanding()/wire.BlockSize
	if room < least {
		// Never above what the peer's queue holds: it would drop the rest.
		room = min(room+c.view.PassedOver(t.clock)/wire.BlockSize, c.view.Pipe.Most()-len(c.view.Asked))
	}
	if room < least || c.view.Mute || c.view.Choked && c.view.Allow == nil {
		return
	}
	if room = t.flow.Take(t.clock, room, wire.BlockSize); room == 0 {
		return // others are more in a hurry; the next tick asks again
	}
	spare := room
	if t.reading() {
		spare = min(room, c.view.Pipe.Spare()-c.view.Pipe.Outstanding()/wire.BlockSize)
	}
	asks := t.picks.Next(&c.view, s, room, spare)
	if more := spare - len(asks); more > 0 && t.pins.want(c, more) {
		asks = append(asks, t.picks.Next(&c.view, s, room-len(asks), more)...)
	}
	t.flow.Return(room-len(asks), wire.BlockSize)
	if len(asks) == 0 && !c.view.Pipe.Known() && c.view.Pipe.Outstanding() == 0 {
		asks = t.picks.Explore(&c.view, t.clock, min(room, explore))
	}
	t.send(c, asks)
}

// send makes sure that the units have a place and sends the requests.
func (t *Torrent) send(c *conn, asks []picker.Request) {
	good := asks[:0]
	for _, r := range asks {
		if t.begin(r.Piece) {
			good = append(good, r)
		}
	}
	c.request(good)
}

// begin makes room for a unit; if there is none its wants fail.
func (t *Torrent) begin(p int) bool {
	if t.flying.find(p) != nil {
		return true
	}
	if t.picks.Find(p) == nil {
		return false // failed just now
	}
	if err := t.store.Begin(p); err != nil {
		t.fail(p, err)
		return false
	}
	if t.hashes == nil {
		a := newPieceAssembly(p, t.grid.size(p), int64(p)*t.grid.unit, t.info.PieceHash(p), t.store, &t.client.held, func(b int) bool { return t.grid.padded(p, b) })
		if t.failures[p] != nil {
			a.suspected()
		}
		t.flying.put(a)
		return true
	}
	t.hashes.need(p) // forgotten, perhaps, since it was wanted
	t.flying.put(newUnitAssembly(p, t.grid, t.store, t.hashes.leaves(p)))
	return true
}

// fail ends the wants of a unit with an error and forgets it.
func (t *Torrent) fail(p int, err error) {
	for c, blocks := range t.owners(t.picks.Unwant(p)) {
		for _, b := range blocks {
			t.release(c, p, b)
		}
	}
	if t.flying.find(p) != nil {
		t.abandon(p)
	}
	ws := t.wants[p]
	delete(t.wants, p)
	for _, w := range ws {
		t.unwantPieces(w)
		if w.class == picker.Background {
			t.pins.failed(w, err)
		}
		w.finish(err)
	}
}

// release forgets that c was asked for a block.
func (t *Torrent) release(c *conn, piece, b int) {
	if r, ok := c.view.Done(piece, b); ok {
		c.view.Pipe.Gone(r.Size)
		t.picks.Lost(piece, b, &c.view)
	}
}

// releaseAll gives the blocks asked of c to others.
func (t *Torrent) releaseAll(c *conn) {
	for _, r := range c.view.Asked {
		c.view.Pipe.Gone(r.Size)
		t.picks.Lost(r.Piece, r.Block, &c.view)
	}
	c.view.Asked = nil
}

// arrived handles blocks that c brought.
func (t *Torrent) arrived(c *conn, batch []arrival) {
	if t.store == nil {
		return
	}
	for _, a := range batch {
		r, known := c.view.Done(a.piece, a.block)
		c.answered(a.piece, a.block)
		t.came += int64(a.size)
		if known {
			c.view.Pipe.Arrived(a.at, r.Sent, r.Due, a.size)
		}
		if c.view.Mute {
			c.view.Pipe.Paused(a.at.Sub(c.quiet))
		}
		c.view.Mute, c.muteWait, c.nudged = false, 0, false
		if as := t.flying.find(a.piece); a.what == stored && (as == nil || !as.here(a.block)) {
			// Taken out again by purge, or with the whole piece, or proven and landed.
			t.picks.Lost(a.piece, a.block, &c.view)
			continue
		}
		switch a.what {
		case lie:
			t.picks.Lost(a.piece, a.block, &c.view)
			t.tossed.Add(int64(a.size))
			t.lied(c, a.piece)
			continue
		case duplicate:
			t.twice += int64(a.size)
			t.picks.Lost(a.piece, a.block, &c.view)
			if as := t.flying.find(a.piece); as != nil && as.here(a.block) {
				t.picks.Got(a.piece, a.block, &c.view)
			}
			continue
		case failed:
			t.log.Debug("cannot store a block", "piece", a.piece, "err", a.err) // the cache has said why
			t.fail(a.piece, a.err)
			continue
		}
		for _, v := range t.picks.Got(a.piece, a.block, &c.view) {
			if o := t.connOf(v); o != nil {
				o.cancel(a.piece, func(int) int { return a.size }, a.block)
			}
		}
		switch a.what {
		case complete:
			t.landed(a.piece)
		case corrupt:
			t.spoiled(a.piece)
		default:
			if t.hashes != nil {
				t.hashes.tryWhole(a.piece)
			}
		}
	}
	if !c.closed {
		t.refill(c)
	}
}

func (t *Torrent) connOf(v *picker.Peer) *conn {
	for c := range t.conns {
		if &c.view == v {
			return c
		}
	}
	return nil
}

// landed handles a unit that is verified and committed.
func (t *Torrent) landed(u int) {
	as := t.flying.find(u)
	if as == nil {
		return
	}
	t.flying.drop(u)
	for c, blocks := range t.owners(t.picks.Unwant(u)) { // asked twice, and proven since
		c.cancel(u, func(b int) int { return t.grid.blockSize(u, b) }, blocks...)
	}
	size, piece := int64(t.grid.size(u)), t.grid.piece(u)
	t.fetched.Add(size - t.grid.padding(u))
	t.note(piece, as.evidence())
	if f := t.failures[piece]; f != nil && t.hashes == nil {
		t.judge(f, as.evidence())
		delete(t.failures, piece)
	} else if f != nil && len(f.evidence) == 0 {
		delete(t.failures, piece)
	}
	ws := t.wants[u]
	delete(t.wants, u)
	for _, w := range ws {
		if w.missing--; w.missing == 0 {
			w.finish(nil)
			if w.class == picker.Background {
				t.pins.closed(w)
			}
		}
	}
	if t.hashes != nil {
		t.hashes.unwanted(u)
	}
	whole := t.grid.all(u, t.store.Has)
	t.stocked(size, piece, whole)
	if !whole {
		return
	}
	for o := range t.conns {
		t.announceTo(o, piece)
		t.interest(o)
	}
}

// hedge asks late blocks of a second peer.
func (t *Torrent) hedge(s *picker.Swarm) {
	// What was asked elsewhere because its peer seemed silent, and came twice, is waste too.
	spare := t.fetched.Load()/wasteShare - max(t.duplicates, t.twice)
	budget := spare + wasteStart
	if budget < wire.BlockSize {
		return
	}
	for _, d := range t.picks.Hedge(s, int(min(budget, 1<<20)), int(min(spare, 1<<20))) {
		if c := t.connOf(d.Peer); c != nil {
			t.duplicates += int64(d.Size)
			c.request([]picker.Request{d.Request})
		}
	}
}

// other reports whether anybody else serves us. A peer that is the only one keeps
// what it was asked for, however late it is: asked again, it would all come twice.
func (t *Torrent) other(than *conn) bool {
	for c := range t.conns {
		if c != than && c.serves() {
			return true
		}
	}
	return false
}

// serves reports whether the peer would bring something if it were asked.
func (c *conn) serves() bool {
	return !c.view.Mute && !c.view.Choked && (c.haveAll || c.haveCount > 0)
}

// useful returns how many peers serve us.
func (t *Torrent) useful() (n int) {
	for c := range t.conns {
		if c.serves() {
			n++
		}
	}
	return n
}

// answered notes that a block came. If it was asked for twice, with a cancel between,
// the second answer may come, or not.
func (c *conn) answered(piece, block int) {
	key := blockKey{piece: piece, begin: block * wire.BlockSize}
	if _, ok := c.cancelled[key]; !ok {
		return
	}
	if slices.ContainsFunc(c.view.Asked, func(r picker.Request) bool { return r.Piece == piece && r.Block == block }) {
		c.cancelled[key] = c.t.clock
	} else {
		delete(c.cancelled, key)
	}
}

// expire stops counting on answers to requests that were taken back some time ago:
// there may never be any, and meanwhile they stand for blocks on the way.
func (c *conn) expire() (freed bool) {
	if len(c.cancelled) == 0 {
		return false
	}
	old := func(at time.Time) bool { return c.t.clock.Sub(at) > cancelWait }
	c.view.Asked = slices.DeleteFunc(c.view.Asked, func(r picker.Request) bool {
		at, ok := c.cancelled[blockKey{piece: r.Piece, begin: r.Block * wire.BlockSize}]
		gone := ok && old(at) && !r.Sent.After(at)
		if gone {
			c.view.Pipe.Gone(r.Size)
			freed = true
		}
		return gone
	})
	maps.DeleteFunc(c.cancelled, func(_ blockKey, at time.Time) bool { return old(at) })
	return freed
}

// watch looks for peers that fell silent, tries silent ones again, and asks again for
// what was lost.
func (t *Torrent) watch() (freed bool) {
	for c := range t.conns {
		freed = c.expire() || t.lost(c) || freed
		switch {
		case c.view.Mute && t.clock.After(c.retryMute):
			c.backOff()
			t.releaseAll(c)
			t.probe(c)
		case c.view.Mute:
		case !c.nudged && c.view.Pipe.Pausing(t.clock):
			// A libtorrent seed that checks pieces while it serves them leaves the requests
			// for those aside, and may stop until another one comes.
			c.nudged = true
			c.nudges = min(2*c.nudges+1, maxNudge)
			if asks := t.picks.Explore(&c.view, t.clock, c.nudges); len(asks) > 0 {
				t.send(c, asks)
			} else {
				t.probe(c)
			}
		case !c.view.Pipe.Silent(t.clock) || !t.reading() && c.view.Pipe.Quiet(t.clock) < patience:
		case t.other(c):
			c.view.Mute = true
			c.quiet = t.clock.Add(-c.view.Pipe.Quiet(t.clock))
			c.backOff()
			t.releaseAll(c)
			t.replaceOnly(c)
			t.probe(c)
			t.log.Debug("peer is silent, its blocks go to others", "peer", c.name())
			freed = true
		case !c.view.Choked && c.view.Pipe.Quiet(t.clock) > deadAfter:
			c.close(errSilent)
		case c.muteWait == 0:
			c.backOff() // a little patience first
			c.retryMute = t.clock.Add(onlyFirst)
		case t.clock.After(c.retryMute):
			c.backOff()
			c.again()
		}
	}
	return freed
}

// probe asks a peer that pauses for the block that is wanted last. If it was silent,
// it stays so for the others until it sends something.
func (t *Torrent) probe(c *conn) {
	if r, ok := t.picks.Probe(&c.view, t.clock); ok {
		t.send(c, []picker.Request{r})
	}
}

var errSilent = errors.New("owes blocks and sends none")

// backOff leaves a silent peer alone until retryMute, each time for longer.
func (c *conn) backOff() {
	c.muteWait = min(max(muteFirst, 2*c.muteWait), muteMost)
	c.retryMute = c.t.clock.Add(c.muteWait)
}

// lost gives up the oldest request if the peer passed it over. Clients without BEP 6
// drop requests without a word, when their queue is full for example.
func (t *Torrent) lost(c *conn) bool {
	if len(c.view.Asked) == 0 {
		return false
	}
	r := c.view.Asked[0]
	if r.Skipped < lostSkips || t.clock.Sub(r.Sent) < lostAfter {
		return false
	}
	t.release(c, r.Piece, r.Block)
	return true
}

// again repeats all requests to the only peer, which is silent: it may have dropped
// them. Each is taken back before, so that a peer that has it still in its queue
// answers once. (With BEP 6 nothing is dropped without a reject.)
func (c *conn) again() {
	if c.fast {
		return
	}
	var b []byte
	for i := range c.view.Asked {
		r := &c.view.Asked[i]
		r.Sent = c.t.clock
		piece, begin := c.t.grid.wire(r.Piece, r.Block)
		b = wire.AppendRange(b, pp.Cancel, piece, begin, r.Size)
		b = wire.AppendRange(b, pp.Request, piece, begin, r.Size)
	}
	c.write(b)
}
