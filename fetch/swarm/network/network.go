package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/proxy"
)

// Config of a Network. The zero value is the network of the system.
type Config struct {
	Bind          string // address or name of an interface that every socket uses; "" for none
	Proxy         string // socks5://[user@]host:port that everything goes through; "" for none
	ProxyPassword string
	ProxyUDP      bool          // the proxy relays UDP too
	Resolver      *net.Resolver // nil: the system's; with Bind, one that is bound
}

// Network opens every socket of the engine. It is safe for use by several goroutines.
type Network struct {
	bound    bound
	proxy    string // host:port, "" for none
	proxyUDP bool   // it relays
	auth     *proxy.Auth
	resolver *net.Resolver
	blocked  Blocklist
}

// Open checks what the sockets are to use, now and whenever one is opened later: what
// is not there fails, and is not done without.
func Open(cfg Config) (*Network, error) {
	n := System()
	var err error
	if n.bound, err = parseBind(cfg.Bind); err != nil {
		return nil, err
	}
	switch {
	case cfg.Resolver != nil:
		n.resolver = cfg.Resolver
	case n.bound.set():
		n.resolver = n.bindResolver()
	}
	if cfg.Proxy != "" {
		n.proxy, n.auth, err = parseProxy(cfg.Proxy, cfg.ProxyPassword)
		n.proxyUDP = cfg.ProxyUDP
	} else if cfg.ProxyUDP {
		err = errors.New("proxy: it shall relay UDP and there is none; name it with --proxy")
	} else if cfg.ProxyPassword != "" {
		err = errors.New("proxy: there is a password and no proxy; name it with --proxy")
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// control is called for every socket before it is used.
func (n *Network) control(_, _ string, c syscall.RawConn) error {
	var applied error
	if err := c.Control(func(fd uintptr) { applied = n.bound.apply(fd) }); err != nil {
		return err
	}
	return applied
}

// System is the network as the system has it.
func System() *Network { return &Network{resolver: net.DefaultResolver} }

// Allow asks the policy and the blocklists. These are about peers, nodes and web seeds:
// a tracker or a download is asked for by name, and by the user.
func (n *Network) Allow(a Ask) error {
	if err := MayDial(a); err != nil {
		return err
	}
	if (a.Use == Peer || a.Use == Node || a.Use == WebSeed) && n.Blocked(a.To.Addr()) {
		return &BlockedError{a.Use, a.To.Addr()}
	}
	return nil
}

// Proxied reports whether everything goes through a proxy. There is no listening then,
// no looking up of names, and no UDP unless [Network.ProxiesUDP]: these fail with
// [ErrProxied].
func (n *Network) Proxied() bool { return n.proxy != "" }

// ProxiesUDP reports whether UDP goes through a proxy.
func (n *Network) ProxiesUDP() bool { return n.proxyUDP }

const (
	connectTimeout = 8 * time.Second
	keepAlive      = 60 * time.Second
)

// Dial connects to a.To over TCP if the policy allows it.
func (n *Network) Dial(ctx context.Context, a Ask) (net.Conn, error) {
	return n.dial(ctx, a.To.String(), &a)
}

// dial connects to host:port. The policy sees the address that is about to be
// connected to, however the name was resolved.
func (n *Network) dial(ctx context.Context, hostport string, a *Ask) (net.Conn, error) {
	if n.Proxied() {
		return n.throughProxy(ctx, hostport, a)
	}
	d := net.Dialer{
		Timeout: connectTimeout, KeepAlive: keepAlive, Resolver: n.resolver,
		LocalAddr: n.bound.local("tcp"),
		ControlContext: func(_ context.Context, network, address string, c syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			ask := *a
			ask.To = to
			if err := n.Allow(ask); err != nil {
				return err
			}
			return n.control(network, address, c)
		},
	}
	c, err := d.DialContext(ctx, cmp.Or(a.Only, "tcp"), hostport)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return nil, refused // net.OpError would repeat the address
	}
	if blocked := (*BlockedError)(nil); errors.As(err, &blocked) {
		return nil, blocked
	}
	return c, err
}

// Listen accepts connections of peers that are not blocked.
func (n *Network) Listen(ctx context.Context, addr string) (net.Listener, error) {
	if n.Proxied() {
		return nil, fmt.Errorf("listen on %s: %w", addr, ErrProxied)
	}
	at, err := n.bound.listen(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l, err := (&net.ListenConfig{Control: n.control}).Listen(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another with --listen (port 0 takes any)", addr, bare(err))
	}
	return listener{l, n}, nil
}

// ListenPacket opens a UDP socket; network is udp, udp4 or udp6. Behind a proxy that
// relays UDP it is a [*Relay], of any family.
func (n *Network) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if n.Proxied() {
		r, err := n.Associate(ctx) // its address is the proxy's choice
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	at, err := n.bound.listen(addr)
	if err == nil {
		err = n.bound.family(network)
	}
	var pc net.PacketConn
	if err == nil {
		pc, err = (&net.ListenConfig{Control: n.control}).ListenPacket(ctx, network, at)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (UDP): %w", addr, bare(err))
	}
	return pc, nil
}

// Resolve returns the addresses of host:port, at most one of each family. Name servers
// are asked as everything else is.
func (n *Network) Resolve(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, errors.New("address without a port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("port %.8q: must be 1 to 65535", portText)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(port))}, nil
	}
	if n.Proxied() {
		return nil, fmt.Errorf("looking up %.100q: %w; give an address", host, ErrProxied)
	}
	ips, err := n.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	var have4, have6 bool
	for _, ip := range ips {
		ip = ip.Unmap()
		have := &have6
		if ip.Is4() {
			have = &have4
		}
		if !*have {
			*have = true
			addrs = append(addrs, netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	return addrs, nil
}

// bare drops what net.OpError repeats of the address.
func bare(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// AddrPort reads an address of package net.
func AddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
