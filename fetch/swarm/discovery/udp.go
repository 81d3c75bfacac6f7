package discovery

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

// The numbers of BEP 15.
const (
	udpProtocol    = 0x41727101980
	actionConnect  = 0
	actionAnnounce = 1
	actionScrape   = 2
	actionError    = 3

	maxDatagram = 8 << 10 // 200 peers of IPv6 are 3.6 KB
	udpResend   = 3 * time.Second
	otherFamily = 2 * time.Second // waited for, once one has answered
)

// announceUDP announces to the tracker's first IPv4 and first IPv6 address at
// the same time, because each hands out only peers of its own kind (BEP 7, 15). A proxy
// that looks up its name chooses one.
func (t *Trackers) announceUDP(ctx context.Context, u *url.URL, r request) (reply, error) {
	targets, err := t.c.Network.Targets(ctx, u.Host)
	if err != nil {
		return reply{}, err
	}
	return all(ctx, targets, func(ctx context.Context, to net.Addr) (reply, error) {
		return t.udpExchange(ctx, to, u.RequestURI(), r)
	})
}

// all announces in several ways at once and joins the replies. After the first one it
// does not wait long for the others: a family that leads nowhere is silent.
func all[W any](ctx context.Context, ways []W, announce func(context.Context, W) (reply, error)) (reply, error) {
	type result struct {
		reply
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(ways))
	for _, way := range ways {
		go func() { // ends with ctx
			rep, err := announce(ctx, way)
			results <- result{rep, err}
		}()
	}
	sum, answered := reply{}, false
	err := errors.New("no address")
	var enough <-chan time.Time
	for range ways {
		select {
		case <-enough:
			return sum, nil
		case res := <-results:
			switch {
			case res.err != nil:
				err = worse(err, res.err)
			case !answered:
				sum, answered = res.reply, true
				enough = time.After(otherFamily)
			default:
				sum.join(res.reply)
			}
		}
	}
	if answered {
		return sum, nil
	}
	return sum, err
}

// worse prefers an error that tells something to one that a host lacks a family.
func worse(a, b error) error {
	if addr := (*net.AddrError)(nil); errors.As(b, &addr) && a.Error() != "no address" {
		return a
	}
	return b
}

// join adds the reply of another family.
func (r *reply) join(o reply) {
	r.peers = append(r.peers, o.peers...)
	r.interval = max(r.interval, o.interval)
	r.seeders, r.leechers = max(r.seeders, o.seeders), max(r.leechers, o.leechers)
}

// udpConn is a conversation with one tracker.
type udpConn struct {
	pc   net.PacketConn
	to   net.Addr       // a *net.UDPAddr, or the name of one that a proxy looks up
	from netip.AddrPort // who answers; of a name, whoever did first
}

func (t *Trackers) udpExchange(ctx context.Context, to net.Addr, uri string, r request) (reply, error) {
	b, from, err := t.c.overUDP(ctx, to, r.from, actionAnnounce, announceBody(uri, r))
	if err != nil {
		return reply{}, err
	}
	rep, err := parseUDP(b, from.Is6())
	rep.from(from)
	return rep, err
}

// overUDP does one action at a tracker and returns the body of the reply, and whose it is.
func (c Config) overUDP(ctx context.Context, to net.Addr, from network.Origin, action uint32, body []byte) ([]byte, netip.Addr, error) {
	family := "udp"
	if ua, ok := to.(*net.UDPAddr); ok {
		at := network.AddrPort(ua)
		if err := c.Network.Allow(network.Ask{Use: network.Tracker, From: from, To: at, UDP: true}); err != nil {
			return nil, netip.Addr{}, err
		}
		if family = "udp4"; at.Addr().Is6() {
			family = "udp6"
		}
	}
	pc, err := c.Network.ListenPacket(ctx, family, ":0")
	if err != nil {
		return nil, netip.Addr{}, err
	}
	defer pc.Close()
	return conversation(ctx, pc, to, action, body)
}

func conversation(ctx context.Context, pc net.PacketConn, to net.Addr, action uint32, body []byte) ([]byte, netip.Addr, error) {
	defer context.AfterFunc(ctx, func() { pc.Close() })() // unblocks ReadFrom
	c := udpConn{pc: pc, to: to}
	if ua, ok := to.(*net.UDPAddr); ok {
		c.from = network.AddrPort(ua)
	}
	b, err := c.roundTrip(ctx, binary.BigEndian.AppendUint64(nil, udpProtocol), actionConnect, nil)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	if len(b) < 8 {
		return nil, netip.Addr{}, errors.New("reply to connect is too short")
	}
	b, err = c.roundTrip(ctx, b[:8], action, body)
	return b, c.from.Addr(), err
}

// roundTrip sends a request, again when nothing comes, and returns the body of
// the reply. The connection id stays valid for a minute, which is longer than
// any announce may take.
func (c *udpConn) roundTrip(ctx context.Context, connection []byte, action uint32, body []byte) ([]byte, error) {
	id := make([]byte, 4)
	rand.Read(id)
	packet := binary.BigEndian.AppendUint32(append([]byte(nil), connection...), action)
	packet = append(append(packet, id...), body...)
	buf := make([]byte, maxDatagram)
	for wait := udpResend; ; wait *= 2 {
		if _, err := c.pc.WriteTo(packet, c.to); err != nil {
			return nil, cause(ctx, err)
		}
		if err := c.pc.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, cause(ctx, err)
		}
		b, err := c.receive(buf, [4]byte(id), action)
		if err == nil || !isTimeout(err) {
			return b, cause(ctx, err)
		}
	}
}

// receive waits for the reply to transaction id. What others send, or what
// answers something else, is passed over: that is how a stranger would try to
// inject peers.
func (c *udpConn) receive(buf []byte, id [4]byte, action uint32) ([]byte, error) {
	for {
		n, from, err := c.pc.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		at := network.AddrPort(from)
		if n < 8 || [4]byte(buf[4:8]) != id || c.from.IsValid() && withoutZone(at) != withoutZone(c.from) {
			continue
		}
		c.from = at
		switch got := binary.BigEndian.Uint32(buf); got {
		case action:
			return buf[8:n], nil
		case actionError:
			return nil, failure(buf[8:n])
		default:
			return nil, fmt.Errorf("reply to action %d has action %d", action, got)
		}
	}
}

func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// cause prefers the reason why ctx ended to "use of closed connection".
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func announceBody(uri string, r request) []byte {
	b := append(append([]byte(nil), r.hash[:]...), r.peerID[:]...)
	for _, n := range []int64{r.stats.Downloaded, r.stats.Left, r.stats.Uploaded} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, n := range []uint32{uint32(r.event), 0 /* our address: as seen */, r.key, uint32(r.numWant)} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint16(b, r.stats.Port)
	if uri == "" || uri == "/" || uri == "/announce" {
		return b
	}
	for len(uri) > 0 { // BEP 41: keys and passwords are in the path
		n := min(len(uri), 255)
		b = append(append(b, 2, byte(n)), uri[:n]...)
		uri = uri[n:]
	}
	return b
}

func parseUDP(b []byte, ipv6 bool) (reply, error) {
	if len(b) < 12 {
		return reply{}, errors.New("reply to announce is too short")
	}
	field := func(i int) int64 { return int64(int32(binary.BigEndian.Uint32(b[4*i:]))) }
	var r reply
	r.interval, r.min = clampIntervals(field(0), 0)
	r.leechers, r.seeders = int(max(field(1), -1)), int(max(field(2), -1))
	set := peerSet{source: "tracker"}
	size := 4
	if ipv6 {
		size = 16
	}
	set.addCompact(b[12:], size)
	r.peers = set.peers
	return r, nil
}
