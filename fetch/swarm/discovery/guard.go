package discovery

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// guard stands between the network and anacrolix/dht, which
//
//   - panics when its socket reports any error before Close,
//   - panics on a query without arguments and on addresses of less than two
//     bytes, each a single packet from anybody,
//   - writes a line to stderr for each packet that it cannot parse.
//
// So a packet passes only if it parses here first, where a panic is caught. The
// price is a second decoding of some hundred bytes.
//
// Outwards it asks the policy of addresses: nodes name nodes, and may not name a
// service of this machine or LAN. Near addresses are spoken to if they spoke first, or
// if the user named a node as near as they are to begin with.
type guard struct {
	net.PacketConn
	network *network.Network
	log     *slog.Logger
	answers *answers
	outside external
	knocks  string               // the transaction id of our knocks
	knocked func(netip.AddrPort) // is told who answered one
	once    sync.Once
	closed  chan struct{}

	mu      sync.Mutex
	known   map[netip.AddrPort]bool
	nearest netip.Addr // of the nodes that the user named
}

func newGuard(pc net.PacketConn, n *network.Network, a *answers, log *slog.Logger) *guard {
	return &guard{PacketConn: pc, network: n, answers: a, log: log, knocks: random(8), closed: make(chan struct{}), known: map[netip.AddrPort]bool{}}
}

// maxNodeValues is how many values a packet of the DHT may have: peers come as one each.
const maxNodeValues = 1000

const maxKnownNear = 1000 // near addresses; the world's need not be known

// know notes an address that may be spoken to.
func (g *guard) know(a netip.AddrPort) {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if g.network.Allow(network.Ask{Use: network.Node, From: network.Told, To: a}) == nil {
		return // as it is
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) >= maxKnownNear {
		clear(g.known)
	}
	g.known[a] = true
}

// trust notes the address of a node that the user named.
func (g *guard) trust(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if network.Nearer(a, g.nearest) {
		g.nearest = a
	}
}

// knock pings a node that is known by name, to a proxy that looks it up: its address is
// that of the answer.
func (g *guard) knock(to net.Addr) error {
	args := map[string]any{"id": string(g.answers.id[:])}
	_, err := g.PacketConn.WriteTo(bencode.MustMarshal(map[string]any{"t": g.knocks, "y": krpc.YQuery, "q": "ping", "a": args}), to)
	return err
}

// WriteTo refuses what the policy does not allow.
func (g *guard) WriteTo(b []byte, to net.Addr) (int, error) {
	ua, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not of UDP")
	}
	a := netip.AddrPortFrom(ua.AddrPort().Addr().Unmap(), ua.AddrPort().Port())
	g.mu.Lock()
	ask := network.Ask{Use: network.Node, From: network.Told, Via: g.nearest, To: a}
	if g.known[a] {
		ask.From = network.Typed
	}
	g.mu.Unlock()
	if err := g.network.Allow(ask); err != nil {
		return 0, err
	}
	if _, err := g.PacketConn.WriteTo(g.answers.finish(b, a.Addr()), to); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close makes ReadFrom fail, which the server expects after its own Close only.
func (g *guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.PacketConn.Close()
}

// ReadFrom returns the next packet that is safe to pass on. Errors are waited
// out until Close: an interface that is down for a while is no reason to end.
func (g *guard) ReadFrom(b []byte) (int, net.Addr, error) {
	failed := false
	for {
		n, from, err := g.PacketConn.ReadFrom(b)
		if err == nil {
			ua, ok := from.(*net.UDPAddr)
			if ok && !g.network.Blocked(ua.AddrPort().Addr()) {
				if n = g.pass(b, n, ua); n > 0 {
					return n, ua, nil
				}
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			<-g.closed // closed by somebody else: wait for our own Close
			return 0, nil, err
		}
		if !failed {
			g.log.Warn("DHT socket", "err", err)
			failed = true
		}
		select {
		case <-g.closed:
			return 0, nil, net.ErrClosed
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pass prepares the packet in b[:n] for the library and returns its new length; 0: it is
// not for the library.
func (g *guard) pass(b []byte, n int, from *net.UDPAddr) int {
	m, ok := acceptable(b[:n])
	if !ok {
		return 0
	}
	g.know(from.AddrPort())
	if ip := from.IP.To4(); ip != nil { // on a socket of both families it looks like IPv6
		from.IP = ip
	}
	if m.Y != krpc.YQuery {
		if us, ok := netip.AddrFromSlice(m.IP.IP); ok {
			g.outside.vote(from.AddrPort().Addr(), us.Unmap())
		}
		if m.T == g.knocks && g.knocked != nil {
			g.knocked(from.AddrPort())
		}
		return n
	}
	if reply := g.answers.put(b[:n], from.AddrPort()); reply != nil {
		_, _ = g.WriteTo(reply, from) // one that is lost is asked for again
	}
	if p := g.answers.query(b[:n], &m); len(p) <= len(b) {
		return copy(b, p)
	}
	return 0
}

// acceptable decodes b, and reports whether the server can handle it without harm.
func acceptable(b []byte) (m krpc.Msg, ok bool) {
	defer func() {
		if recover() != nil { // that of the decoder, on b: there is no state to be left broken
			ok = false
		}
	}()
	if _, err := metainfo.Measure(b, maxNodeValues); err != nil {
		return m, false
	}
	if err := bencode.Unmarshal(b, &m); err != nil {
		if _, trailing := errors.AsType[bencode.ErrUnusedTrailingBytes](err); !trailing {
			return m, false
		}
	}
	switch m.Y {
	case krpc.YQuery:
		return m, m.A != nil
	case krpc.YResponse:
		return m, m.R != nil
	}
	return m, m.Y == krpc.YError
}
