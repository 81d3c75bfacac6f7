package swarm

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

// punch is ut_holepunch (BEP 55): a peer that is connected to two others which can not
// reach each other tells both to call at the same time, over uTP. Their calls make the
// routers in front of them let in the other's. It is not made for a private torrent,
// nor without uTP.
//
// A stranger can have us send a few packets to somebody: three SYNs, to an address that
// the policy lets this stranger name, as many times as punchBurst and punchEvery say.
type punch struct {
	t     *Torrent
	doors map[*conn]*door
}

// door is what one peer may ask of us.
type door struct {
	left  int // messages
	since time.Time
	asked map[netip.AddrPort]time.Time // what we asked of it
}

const (
	punchBurst = 8               // messages of one peer at once
	punchEvery = 2 * time.Second // and then one
	punchAgain = time.Minute     // until we ask for the same peer
	punchMost  = 256             // peers asked for, of one relay
)

// punchKind is what a message is.
type punchKind byte

const (
	punchRendezvous punchKind = iota // the initiator to the relay: let us meet
	punchConnect                     // the relay to both: call
	punchError                       // the relay to the initiator
)

// The errors of BEP 55.
const (
	punchNoSuchPeer   uint32 = 1 + iota // no address of a peer
	punchNotConnected                   // the relay does not know it
	punchNoSupport                      // it does not speak the extension
	punchNoSelf                         // the initiator means itself
)

// punchMessage is one message.
type punchMessage struct {
	kind punchKind
	addr netip.AddrPort
	code uint32
}

var errPunch = errors.New("ut_holepunch: no message of it")

// parsePunch reads a message. The error code may be left out where there is none.
func parsePunch(b []byte) (m punchMessage, err error) {
	if len(b) < 2 || b[0] > byte(punchError) || b[1] > 1 {
		return m, errPunch
	}
	size := 4
	if b[1] == 1 {
		size = 16
	}
	m.kind = punchKind(b[0])
	rest := b[2:]
	if len(rest) < size+2 {
		return m, errPunch
	}
	a, _ := netip.AddrFromSlice(rest[:size])
	m.addr = netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(rest[size:]))
	if rest = rest[size+2:]; len(rest) >= 4 {
		m.code = binary.BigEndian.Uint32(rest)
	}
	return m, nil
}

func (m punchMessage) append(b []byte) []byte {
	family := byte(0)
	if !m.addr.Addr().Is4() {
		family = 1
	}
	b = append(b, byte(m.kind), family)
	b = append(b, m.addr.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, m.addr.Port())
	return binary.BigEndian.AppendUint32(b, m.code)
}

func newPunch(t *Torrent) *punch { return &punch{t: t, doors: map[*conn]*door{}} }

const punchName = "ut_holepunch"

func (x *punch) name() string { return punchName }

func (x *punch) attach(c *conn) {
	if x.doors[c] != nil {
		return // else it could have as many messages as it likes
	}
	x.doors[c] = &door{left: punchBurst, since: x.t.now(), asked: map[netip.AddrPort]time.Time{}}
}

func (x *punch) detach(c *conn) { delete(x.doors, c) }

func (x *punch) tick() {}

// may counts a message of a peer; false: it sends too many.
func (d *door) may(now time.Time) bool {
	if n := int(now.Sub(d.since) / punchEvery); n > 0 {
		d.left = min(punchBurst, d.left+n)
		d.since = d.since.Add(time.Duration(n) * punchEvery)
	}
	if d.left == 0 {
		return false
	}
	d.left--
	return true
}

func (x *punch) message(c *conn, payload []byte) error {
	d := x.doors[c]
	if d == nil || !d.may(x.t.now()) {
		return nil
	}
	m, err := parsePunch(payload)
	if err != nil {
		return err
	}
	switch m.kind {
	case punchRendezvous:
		x.relay(c, m.addr)
	case punchConnect:
		x.call(c, m.addr)
	case punchError:
		x.t.log.Debug("no rendezvous", "peer", m.addr, "relay", c.name(), "code", m.code)
	}
	return nil
}

// meet is where others reach a peer over uTP: from where it sends, if that is uTP.
func (c *conn) meet() netip.AddrPort {
	if c.transport() == "utp" || !c.listen.IsValid() {
		return c.addr
	}
	return c.listen
}

// relay tells two peers of each other. Both know each other's address by us anyway, as
// peer exchange has it.
func (x *punch) relay(from *conn, to netip.AddrPort) {
	refuse := func(code uint32) {
		from.send(x, punchMessage{punchError, to, code}.append(nil))
	}
	if !to.Addr().IsValid() || to.Addr().IsUnspecified() || to.Port() == 0 {
		refuse(punchNoSuchPeer)
		return
	}
	var target *conn
	for c := range x.t.conns {
		if c.addr == to || c.listen == to {
			target = c
			break
		}
	}
	switch {
	case target == nil:
		refuse(punchNotConnected)
	case target == from:
		refuse(punchNoSelf)
	case target.theirs[punchName] == 0:
		refuse(punchNoSupport)
	default:
		target.send(x, punchMessage{kind: punchConnect, addr: from.meet()}.append(nil))
		from.send(x, punchMessage{kind: punchConnect, addr: to}.append(nil))
	}
}

// call calls a peer that a relay tells of, since we or it asked for that.
func (x *punch) call(relay *conn, to netip.AddrPort) {
	p, via := &x.t.pool, relay.addr.Addr()
	if x.t.client.cfg.Network.Allow(network.Ask{Use: network.Peer, From: network.Told, Via: via, To: to}) != nil {
		return
	}
	x.t.log.Debug("told to call", "peer", to, "relay", relay.name())
	x.t.learn([]netip.AddrPort{to}, "pex", via)
	k := p.known_[to]
	if k == nil || k.busy || p.dialing >= maxDialing || len(x.t.conns)+p.dialing >= x.t.client.cfg.MaxPeers || !p.room(false) {
		return
	}
	p.call(k, p.client.punched)
}

// ask has whoever told us of a peer that can not be reached arrange a meeting.
func (x *punch) ask(k *candidate) {
	now := x.t.now()
	for c, d := range x.doors {
		if c.addr.Addr() != k.via || now.Sub(d.asked[k.addr]) < punchAgain {
			continue
		}
		if len(d.asked) >= punchMost {
			clear(d.asked)
		}
		d.asked[k.addr] = now
		c.send(x, punchMessage{kind: punchRendezvous, addr: k.addr}.append(nil))
	}
}

// punching is the extension, nil if the torrent has none.
func (t *Torrent) punching() *punch {
	for _, e := range t.extensions {
		if x, ok := e.(*punch); ok {
			return x
		}
	}
	return nil
}

// settleTwice decides between two connections to one peer when both of us called at
// once: each side must keep the same one, that of the larger peer id. It returns
// whether the new one replaces the old.
func (t *Torrent) settleTwice(old, c *conn) bool {
	if c.transport() != "utp" || old.transport() != "utp" || old.incoming == c.incoming || t.clock.Sub(old.joined) > punchEvery {
		return false
	}
	ours := string(t.client.id[:]) > string(c.id[:])
	if ours == c.incoming { // the larger did not make the new one
		return false
	}
	old.close(errTwice)
	t.part(old)
	if k := t.pool.known_[c.listen]; k != nil {
		t.pool.take(k)
		k.busy = true
	}
	return true
}
