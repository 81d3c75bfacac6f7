package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// bound is what sockets are bound to. The zero value binds to nothing.
type bound struct {
	device string
	addr   netip.Addr
}

func (b bound) String() string {
	if b.device != "" {
		return b.device
	}
	return b.addr.String()
}

func (b bound) set() bool { return b.device != "" || b.addr.IsValid() }

// parseBind reads an address or the name of an interface, which must be there.
func parseBind(s string) (b bound, err error) {
	if s == "" {
		return b, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		b.addr = a.Unmap()
		if b.addr.IsUnspecified() || b.addr.IsMulticast() {
			return b, fmt.Errorf("bind to %s: this is no address of an interface; give one, or the name of an interface", s)
		}
		pc, err := net.ListenPacket("udp", netip.AddrPortFrom(b.addr, 0).String())
		if err != nil {
			return b, fmt.Errorf("bind to %s: no interface has this address (%w); give one that ip addr shows, or the name of an interface", s, cause(err))
		}
		return b, pc.Close()
	}
	ifi, err := net.InterfaceByName(s)
	if err != nil {
		return b, fmt.Errorf("bind to %.100q: there is no such interface, and it is no address; ip link shows those that there are", s)
	}
	if ifi.Flags&net.FlagUp == 0 {
		return b, fmt.Errorf("bind to %s: the interface is down; start it first, or bind to another", s)
	}
	b.device = ifi.Name
	return b, nil
}

// cause is the innermost error, the system's.
func cause(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// apply binds a socket to the device, before it is connected or listens. A device that
// is gone is an error, and so there is no socket.
func (b bound) apply(fd uintptr) error {
	if b.device == "" {
		return nil
	}
	err := unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, b.device)
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("bound to %s, which is gone", b.device)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("bind to %s: %w; this needs Linux 5.7, or root, or CAP_NET_RAW; an address needs none of these", b.device, err)
	}
	return err
}

// local is the address that a socket to dial from has.
func (b bound) local(network string) net.Addr {
	switch {
	case !b.addr.IsValid():
		return nil
	case strings.HasPrefix(network, "udp"):
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.addr, 0))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(b.addr, 0))
}

// listen puts the bound address into one to listen on.
func (b bound) listen(hostport string) (string, error) {
	if !b.addr.IsValid() {
		return hostport, nil
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", err
	}
	if a, err := netip.ParseAddr(host); host != "" && (err != nil || !a.IsUnspecified() && a.Unmap() != b.addr) {
		return "", fmt.Errorf("everything is bound to %v; give only the port, as in --listen :%s", b.addr, port)
	}
	return net.JoinHostPort(b.addr.String(), port), nil
}

// family refuses a kind of UDP that the bound address is not of.
func (b bound) family(network string) error {
	if b.addr.IsValid() && (network == "udp4" && !b.addr.Is4() || network == "udp6" && b.addr.Is4()) {
		return fmt.Errorf("bound to %v, which is of the other family", b.addr)
	}
	return nil
}

// bindResolver makes name servers be asked through what everything is bound to, except
// one of this machine: it is not reachable otherwise, and whom it asks is its own affair.
func (n *Network) bindResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		if to, err := netip.ParseAddrPort(server); err == nil && zoneOf(to.Addr()) == machine {
			return (&net.Dialer{}).DialContext(ctx, network, server)
		}
		d := net.Dialer{LocalAddr: n.bound.local(network), Control: n.control}
		return d.DialContext(ctx, network, server)
	}}
}
