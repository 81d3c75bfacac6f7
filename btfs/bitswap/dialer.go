package bitswap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Ask is an address that is to be dialled, and who named it.
type Ask struct {
	To    netip.AddrPort
	Typed bool         // by the user
	Via   []netip.Addr // otherwise: of the nodes that the user named, one of which led to it
}

// Dialer opens every connection of a Node, and decides whom it may speak to.
type Dialer interface {
	// Allow returns why an address is not dialled. It is asked before each Dial as well.
	Allow(Ask) error
	// Dial connects over TCP if Allow allows.
	Dial(ctx context.Context, a Ask) (net.Conn, error)
	// Resolve looks up host:port, which the user typed.
	Resolve(ctx context.Context, hostport string) ([]netip.AddrPort, error)
}

// typed is a peer that the user named, or a node of the list.
type typed struct {
	text string
	id   peer.ID
	addr ma.Multiaddr // without the id
}

// parsePeer reads /ip4/ADDRESS/tcp/PORT/p2p/ID, with ip6, dns, dns4 or dns6 in place of
// ip4, and with /ws behind the port.
func parsePeer(text string) (typed, error) {
	const shape = "give it as /ip4/ADDRESS/tcp/PORT/p2p/ID"
	if len(text) > 1024 {
		return typed{}, errors.New("it is too long; " + shape)
	}
	m, err := ma.NewMultiaddr(text)
	if err != nil {
		return typed{}, errors.New("it is no multiaddr; " + shape)
	}
	addr, id := peer.SplitAddr(m)
	if id == "" {
		return typed{}, errors.New("the name of the peer is missing at its end; " + shape)
	}
	codes := []int{}
	for _, c := range addr {
		codes = append(codes, c.Protocol().Code)
	}
	ok := len(codes) == 2 || len(codes) == 3 && codes[2] == ma.P_WS
	if ok {
		switch codes[0] {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			ok = codes[1] == ma.P_TCP
		default:
			ok = false
		}
	}
	if !ok {
		return typed{}, errors.New("BTFS nodes are reached over TCP, or WebSocket (/ws) on it; " + shape)
	}
	return typed{text: text, id: id, addr: addr}, nil
}

// CheckPeer tells what is wrong with the multiaddr of a peer.
func CheckPeer(text string) error {
	_, err := parsePeer(text)
	return err
}

// host returns HOST, PORT of a name that has to be looked up, or ok = false.
func (t typed) host() (hostport string, ok bool) {
	switch t.addr[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return net.JoinHostPort(t.addr[0].Value(), t.addr[1].Value()), true
	}
	return "", false
}

// at is the multiaddr with an address for its name.
func (t typed) at(to netip.AddrPort) (ma.Multiaddr, error) {
	kind := "ip6"
	if to.Addr().Is4() {
		kind = "ip4"
	}
	text := fmt.Sprintf("/%s/%s/tcp/%d", kind, to.Addr(), to.Port())
	for _, c := range t.addr[2:] {
		text += "/" + c.Protocol().Name
	}
	return ma.NewMultiaddr(text)
}

// addrPort is where an address of TCP or WebSocket leads. Names are not looked up.
func addrPort(m ma.Multiaddr) (netip.AddrPort, bool) {
	if len(m) < 2 || len(m) > 3 || m[1].Protocol().Code != ma.P_TCP || len(m) == 3 && m[2].Protocol().Code != ma.P_WS {
		return netip.AddrPort{}, false
	}
	a, err := manet.ToNetAddr(m[:2])
	if err != nil {
		return netip.AddrPort{}, false
	}
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	to := t.AddrPort()
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), true
}

// errNotDialled is what libp2p is told of addresses that no socket is opened to.
var errNotDialled = errors.New("not an address of TCP or WebSocket")

// ask asks about an address: it was typed, or came from whoever we know.
func (n *Node) ask(m ma.Multiaddr) (Ask, error) {
	to, ok := addrPort(m)
	if !ok {
		return Ask{}, errNotDialled
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.typedAt[to] {
		return Ask{To: to, Typed: true}, nil
	}
	return Ask{To: to, Via: n.via}, nil
}

// gate keeps libp2p from dialling where the Dialer would not.
type gate struct{ n *Node }

var _ connmgr.ConnectionGater = gate{}

func (g gate) InterceptPeerDial(p peer.ID) bool { return g.n.mayDialPeer(p) }

func (g gate) InterceptAddrDial(_ peer.ID, m ma.Multiaddr) bool {
	a, err := g.n.ask(m)
	return err == nil && g.n.cfg.Dialer.Allow(a) == nil
}

func (g gate) InterceptAccept(network.ConnMultiaddrs) bool { return false }

func (g gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }

func (g gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// dial opens a connection for libp2p.
func (n *Node) dial(ctx context.Context, m ma.Multiaddr) (net.Conn, error) {
	a, err := n.ask(m)
	if err != nil {
		return nil, err
	}
	c, err := n.cfg.Dialer.Dial(ctx, a)
	if err != nil {
		return nil, &unreachableError{bare(err)}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reached[a.To] = time.Now()
	return c, nil
}

// reachedSince reports whether there was a connection to one of the addresses.
func (n *Node) reachedSince(t time.Time, all []ma.Multiaddr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(all, func(m ma.Multiaddr) bool {
		to, ok := addrPort(m)
		return ok && n.reached[to].After(t)
	})
}

// unreachableError says that there was not even a connection.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// bare drops what net.OpError repeats of the address.
func bare(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// plainly makes one line of what libp2p says of a dial that failed. If there was a
// connection, it is most likely that of another network.
func plainly(err error, reached bool) error {
	if u := (*unreachableError)(nil); errors.As(err, &u) {
		return fmt.Errorf("cannot connect: %w", u.err)
	}
	said := err.Error()
	switch {
	case strings.Contains(said, "gater disallows"):
		return errors.New("it may not be dialled, or lied, or was silent")
	case strings.Contains(said, "peer id mismatch"):
		return errors.New("another peer than the one that was named is at this address")
	case !reached && (errors.Is(err, context.DeadlineExceeded) || strings.Contains(said, "deadline exceeded")):
		return fmt.Errorf("cannot connect: no answer within %v", dialTimeout)
	case strings.Contains(said, "negotiate") || errors.Is(err, context.DeadlineExceeded):
		return errors.New("it was reached, and nothing it says makes sense; wrong swarm key? (--btfs-network)")
	}
	if i := strings.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	return errors.New(strings.TrimLeft(said, " *"))
}

// tcpDialer is the [tcp.ContextDialer] of one address.
type tcpDialer struct {
	n *Node
	m ma.Multiaddr
}

func (d tcpDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return d.n.dial(ctx, d.m)
}

// overTCP has libp2p's TCP open no socket by itself.
func (n *Node) overTCP() tcp.Option {
	return tcp.WithDialerForAddr(func(m ma.Multiaddr) (tcp.ContextDialer, error) { return tcpDialer{n, m}, nil })
}
