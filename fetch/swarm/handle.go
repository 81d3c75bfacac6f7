package swarm

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/choker"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// join takes a connection in whose handshake is done.
func (t *Torrent) join(c *conn) error {
	if c.id == t.client.id {
		return errSelf
	}
	if old := t.byID[c.id]; old != nil && !t.settleTwice(old, c) {
		return errTwice
	}
	if t.full(c) && !t.yield(c) {
		return errFull
	}
	t.counter++
	c.view.Order, c.serve.Key = t.counter, t.counter
	c.view.Has, c.view.Choked, c.allow = c.hasUnit, true, map[int]bool{}
	c.view.Pipe.Line(rtt(c.net))
	c.view.Pipe.Answer(c.greeted)
	c.joined, c.serve.Since = t.clock, t.clock
	t.conns[c] = struct{}{}
	t.byID[c.id] = c
	t.countSources()
	t.greet(c)
	return nil
}

var (
	errSelf  = errors.New("that is ourselves")
	errTwice = errors.New("connected already")
)

// greet sends the messages that come first.
func (t *Torrent) greet(c *conn) {
	have, n := 0, 0
	if t.store != nil && !t.client.cfg.NoUpload {
		n, have = t.info.NumPieces(), t.stock.count
		if t.clock.Sub(t.looked) > surveyEvery {
			t.look() // for those who come next
		}
	}
	switch {
	case c.fast && have == 0:
		c.write(wire.AppendFlag(nil, pp.HaveNone))
	case c.fast && have == n:
		c.write(wire.AppendFlag(nil, pp.HaveAll))
	case have > 0:
		c.write(wire.AppendField(nil, t.stock.have))
	}
	if c.theirs != nil {
		t.sendExtended(c)
	}
}

// part takes a connection out that has ended.
func (t *Torrent) part(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	delete(t.conns, c)
	if t.byID[c.id] == c {
		delete(t.byID, c.id)
	}
	t.releaseAll(c)
	t.tally(c, false)
	t.pins.part()
	t.wasted.Add(c.wasted.Load())
	t.keep(c)
	t.replaceOnly(c)
	if t.hashes != nil {
		t.hashes.part(c)
		t.fresh = true
	}
	for _, e := range t.extensions {
		e.detach(c) // whether it speaks it now or not: it may have taken its word back
	}
	t.pool.left(c)
	t.countSources()
	if len(t.failures) > 0 {
		for p, f := range t.failures {
			if t.hopeless(p, f) {
				t.failPiece(p, &CorruptError{Hash: t.hash, Piece: p})
			}
		}
	}
	t.fillAll()
}

// handle handles a message; an error ends the connection.
func (t *Torrent) handle(c *conn, m *wire.Message) error {
	switch m.Type {
	case pp.Choke:
		c.view.Choked = true
		t.replaceOnly(c)
		if !c.fast {
			t.releaseAll(c) // with BEP 6 the rejects say which
			t.fillAll()
		}
	case pp.Unchoke:
		c.view.Choked = false
		c.view.Pipe.Line(rtt(c.net))
		t.fillAll()
	case pp.Interested, pp.NotInterested:
		c.serve.Interested = m.Type == pp.Interested
		t.chokeSoon()
	case pp.Have:
		return t.gotHave(c, int(m.Index))
	case pp.Bitfield:
		return t.gotField(c, m.Payload)
	case pp.HaveAll:
		t.tally(c, false)
		c.haveAll, c.field, c.haveCount = true, nil, 0
		t.gotMore(c)
	case pp.HaveNone:
		t.tally(c, false)
		c.haveAll, c.field, c.haveCount = false, nil, 0
		t.giveFast(c)
	case pp.AllowedFast:
		if len(c.allow) < 64 {
			c.allow[int(m.Index)] = true
			c.view.Allow = c.allowed
		}
	case pp.Reject:
		t.rejected(c, int(m.Index), int(m.Begin))
	case pp.Extended:
		return t.extended(c, m)
	case pp.HashRequest, pp.Hashes, pp.HashReject:
		return t.hashMessage(c, m)
	case pp.Port:
		t.client.addNode(c.addr, m.Payload)
	}
	return nil
}

func (t *Torrent) extended(c *conn, m *wire.Message) error {
	if c.theirs == nil {
		return errors.New("extension message without the extension bit")
	}
	if m.Extended == 0 {
		return t.gotExtended(c, m.Payload)
	}
	if i := int(m.Extended) - 1; i < len(t.extensions) {
		return t.extensions[i].message(c, m.Payload)
	}
	return nil
}

func (t *Torrent) gotHave(c *conn, piece int) error {
	if news, err := c.setHave(piece); err != nil {
		return err
	} else if news && t.rare != nil {
		t.rare.Gained(piece)
	}
	t.interest(c)
	if t.store == nil {
		return nil
	}
	for u, last := t.grid.of(piece); u < last && t.picks.Len() > 0; u++ {
		if t.picks.Find(u) != nil {
			t.refill(c)
			return nil
		}
	}
	if t.pins.missing() && c.view.Pipe.Outstanding() == 0 {
		t.refill(c)
	}
	return nil
}

func (t *Torrent) gotField(c *conn, field []byte) error {
	if len(field) > wire.MaxBitfield {
		return errors.New("bitfield too long")
	}
	t.tally(c, false)
	c.field, c.haveAll, c.haveCount = field, false, 0
	for _, b := range field {
		c.haveCount += bits.OnesCount8(b)
	}
	if t.info != nil {
		if err := t.checkField(c); err != nil {
			c.field, c.haveCount = nil, 0
			return err
		}
	}
	t.tally(c, true)
	t.gotMore(c)
	t.giveFast(c)
	return nil
}

// checkField refuses a bitfield that does not fit the torrent.
func (t *Torrent) checkField(c *conn) error {
	n := t.info.NumPieces()
	if len(c.field) > (n+7)/8 {
		return fmt.Errorf("bitfield of %d bytes for %d pieces", len(c.field), n)
	}
	if n%8 != 0 && len(c.field) == (n+7)/8 && c.field[len(c.field)-1]&(0xff>>(n%8)) != 0 {
		return errors.New("bitfield with spare bits set")
	}
	return nil
}

// tally counts what a peer has, or has no more: before that changes as a whole.
func (t *Torrent) tally(c *conn, gained bool) {
	if t.rare != nil && !c.haveAll {
		t.rare.Field(c.field, gained)
	}
}

func (t *Torrent) gotMore(c *conn) {
	t.interest(c)
	t.fillAll()
}

// interest tells a peer whether it has anything for us. We say so before anyone
// reads: being served already is what makes a first read fast.
func (t *Torrent) interest(c *conn) {
	if t.store == nil {
		return
	}
	want := !t.complete() && (c.haveAll || c.haveCount > 0)
	if want == c.interested {
		return
	}
	c.interested = want
	kind := pp.Interested
	if !want {
		kind = pp.NotInterested
	}
	c.write(wire.AppendFlag(nil, kind))
}

// announceTo tells a peer that we have a piece, if it may want it.
func (t *Torrent) announceTo(c *conn, piece int) {
	if !t.client.cfg.NoUpload && !c.has(piece) {
		c.write(wire.AppendIndex(nil, pp.Have, piece))
	}
}

func (t *Torrent) rejected(c *conn, piece, begin int) {
	if t.grid == nil {
		return
	}
	unit, block, ok := t.grid.block(piece, begin)
	if !ok {
		return
	}
	t.release(c, unit, block)
	key := blockKey{piece: unit, begin: block * wire.BlockSize}
	_, cancelled := c.cancelled[key]
	delete(c.cancelled, key)
	// The answer to a cancel says nothing about what the peer would serve.
	if !c.view.Choked && !cancelled {
		if c.view.Refuse == nil {
			c.view.Refuse = map[int]time.Time{}
		}
		if len(c.view.Refuse) > 256 {
			clear(c.view.Refuse)
		}
		c.view.Refuse[unit] = t.clock.Add(refuseFor)
	}
	t.fillAll()
}

// chokeSoon serves who became interested at once if a slot is free.
func (t *Torrent) chokeSoon() {
	used, waiting := 0, 0
	for c := range t.conns {
		if c.serve.Interested {
			waiting++
		}
		if c.serve.Unchoked {
			used++
		}
	}
	if used < t.client.cfg.UploadSlots && waiting > 0 {
		t.choose()
	}
}

// choose decides whom to serve.
func (t *Torrent) choose() {
	t.nextChoke = t.clock.Add(choker.Round)
	if t.client.cfg.NoUpload || t.store == nil {
		return
	}
	list := make([]*choker.Peer, 0, len(t.conns))
	for c := range t.conns {
		c.serve.Given = c.given
		c.serve.Have = float64(c.haveCount) / float64(t.info.NumPieces())
		list = append(list, &c.serve)
	}
	slots := t.client.cfg.UploadSlots
	if t.shared() {
		slots = 0
		for c := range t.conns {
			c.noGift()
		}
	}
	choker.Choose(list, slots, t.complete(), t.clock)
	for c := range t.conns {
		c.choke(!c.serve.Unchoked)
	}
}

// tick does what time brings.
func (t *Torrent) tick() {
	if t.store != nil && t.picks.Len() > 0 {
		freed := t.watch()
		if t.hashes != nil {
			t.unpush()
			t.pushDue()
			t.settle()
			t.hashes.ask()
		}
		t.pins.hurry()
		t.hedge(picker.View(t.peers(), t.clock))
		if !t.clock.Before(t.nextNeed) {
			t.report()
		}
		if freed || !math.IsInf(t.flow.Held(), 1) {
			t.fillAll()
		}
	}
	if t.clock.Before(t.nextTick) {
		return
	}
	t.measure(tickIdle)
	if t.doubt {
		t.look()
	}
	t.report()
	if t.hashes != nil {
		t.hashes.server.tick()
	}
	t.nextTick = t.clock.Add(tickIdle)
	for _, e := range t.extensions {
		e.tick()
	}
	sated := t.enough
	if t.shared() && !sated {
		t.choose() // at once: the ratio was reached
	} else if !t.clock.Before(t.nextChoke) && len(t.conns) > 0 {
		t.choose()
	}
	t.fillAll() // whatever was missed costs a second at most
	if t.stale() {
		t.look()
	}
	t.uploadTick()
	t.pool.tick()
	t.countSources()
	t.tellAvailability()
}

// measure notes the payload rates of the last second.
func (t *Torrent) measure(d time.Duration) {
	for c := range t.conns {
		down, up := c.down.Load(), c.up.Load()
		c.given += (float64(down-c.lastDown)/d.Seconds() - c.given) / 4
		c.taken += (float64(up-c.lastUp)/d.Seconds() - c.taken) / 4
		c.lastDown, c.lastUp = down, up
		c.nudges /= 2
		c.greetings = max(0, c.greetings-1)
		if c.serves() {
			c.unheard = time.Time{}
		} else if c.unheard.IsZero() {
			c.unheard = t.clock
		}
	}
}

func (t *Torrent) countSources() {
	web, _ := t.webMore()
	t.sources.Store(int64(len(t.conns) + t.pool.known() + web))
	t.connected.Store(int64(len(t.conns)))
}
