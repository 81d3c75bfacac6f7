package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Group is a multicast group of IPv4, on every interface of the machine that can do
// multicast, or on the one that everything is bound to.
type Group struct {
	n    *Network
	addr *net.UDPAddr
	pc   net.PacketConn
	v4   *ipv4.PacketConn
}

// Join opens a socket for a multicast group. Others on this machine may have it too.
func (n *Network) Join(ctx context.Context, group netip.AddrPort) (*Group, error) {
	if n.Proxied() {
		return nil, fmt.Errorf("multicast: %w", ErrProxied)
	}
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		var reuse error
		if err := c.Control(func(fd uintptr) {
			reuse = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}); err != nil || reuse != nil {
			return errors.Join(err, reuse)
		}
		return n.control(network, address, c)
	}}
	// Bound to the group, and so it gets nothing that is sent to this machine alone.
	pc, err := lc.ListenPacket(ctx, "udp4", group.String())
	if err != nil {
		return nil, fmt.Errorf("multicast %v: %w", group, cause(err))
	}
	g := &Group{n: n, addr: net.UDPAddrFromAddrPort(group), pc: pc, v4: ipv4.NewPacketConn(pc)}
	// One hop: it is about the own network. Others on this machine are told, too.
	if err := errors.Join(g.v4.SetMulticastTTL(1), g.v4.SetMulticastLoopback(true)); err != nil {
		pc.Close()
		return nil, fmt.Errorf("multicast %v: %w", group, cause(err))
	}
	g.join()
	return g, nil
}

// join joins the group on every interface, and returns these. An interface may have
// come since the last time; one that was joined already says so, and is not asked.
func (g *Group) join() (joined []net.Interface) {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, ifi := range all {
		if ifi.Flags&net.FlagUp == 0 || ifi.Flags&net.FlagMulticast == 0 || !g.n.bound.uses(ifi) {
			continue
		}
		err := g.v4.JoinGroup(&ifi, &net.UDPAddr{IP: g.addr.IP})
		if err == nil || errors.Is(err, unix.EADDRINUSE) {
			joined = append(joined, ifi)
		}
	}
	return joined
}

// uses reports whether sockets that are bound may use an interface.
func (b bound) uses(ifi net.Interface) bool {
	if !b.addr.IsValid() {
		return b.device == "" || b.device == ifi.Name
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == b.addr {
			return true
		}
	}
	return false
}

// Send sends to the group through every interface. It may not be called by several
// goroutines at a time.
func (g *Group) Send(b []byte) error {
	sent, last := 0, errors.New("no interface can do multicast")
	for _, ifi := range g.join() {
		err := g.v4.SetMulticastInterface(&ifi)
		if err == nil {
			_, err = g.v4.WriteTo(b, nil, g.addr)
		}
		if err != nil {
			last = err
			continue
		}
		sent++
	}
	if sent > 0 {
		return nil
	}
	return cause(last)
}

// ReadFrom returns the next packet and who sent it.
func (g *Group) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	n, from, err := g.pc.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, AddrPort(from), nil
}

// Close ends ReadFrom.
func (g *Group) Close() error { return g.pc.Close() }
