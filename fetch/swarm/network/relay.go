package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The numbers of SOCKS5 (RFC 1928, 1929).
const (
	socksVersion   = 5
	socksAssociate = 3
	socksIPv4      = 1
	socksName      = 3
	socksIPv6      = 4
	socksNoAuth    = 0
	socksPassword  = 2

	maxRelayed  = 16 << 10 // bytes of one packet, with its header
	relayRetry  = time.Second
	relayRetryX = time.Minute
)

// ErrUnreachable means that the proxy relays no packets now. It is asked again by itself.
var ErrUnreachable = errors.New("the proxy is gone; it is tried again")

// Relay is a UDP socket behind the proxy (RFC 1928, UDP ASSOCIATE): whatever is sent goes
// to the proxy, and what does not come from it is dropped. It lasts as long as a TCP
// connection to the proxy does, which is made anew when it ends; meanwhile nothing is
// sent. It is a net.PacketConn, and a UDP socket for package utp.
type Relay struct {
	n      *Network
	socket net.PacketConn
	ctx    context.Context // until Close
	cancel context.CancelFunc
	done   sync.WaitGroup
	buf    []byte // of Read, which one goroutine calls

	mu      sync.Mutex
	control net.Conn
	at      netip.AddrPort // where the proxy takes packets; not valid: nowhere
}

// Associate asks the proxy to relay packets. It fails if it does not, or if it was not
// said that it does.
func (n *Network) Associate(ctx context.Context) (*Relay, error) {
	if !n.proxyUDP {
		return nil, fmt.Errorf("UDP: %w", ErrProxied)
	}
	at, err := n.bound.listen(":0")
	if err != nil {
		return nil, fmt.Errorf("UDP: %w", err)
	}
	pc, err := (&net.ListenConfig{Control: n.control}).ListenPacket(ctx, "udp", at)
	if err != nil {
		return nil, fmt.Errorf("UDP: %w", bare(err))
	}
	r := &Relay{n: n, socket: pc, buf: make([]byte, maxRelayed)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.open(ctx); err != nil {
		r.cancel()
		pc.Close()
		return nil, err
	}
	r.done.Go(r.keep)
	return r, nil
}

// open asks the proxy for a relay.
func (r *Relay) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	c, err := toProxy{r.n}.DialContext(ctx, "tcp", r.n.proxy)
	if err != nil {
		return fmt.Errorf("UDP through the proxy %s: %v", r.n.proxy, cause(err))
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	at, err := r.n.associate(c)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("UDP through the proxy %s: %v", r.n.proxy, cause(err))
	}
	r.mu.Lock()
	r.control, r.at = c, at
	r.mu.Unlock()
	return nil
}

// keep waits for the end of the connection to the proxy, and makes another. It ends with
// Close.
func (r *Relay) keep() {
	defer context.AfterFunc(r.ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.control.Close()
	})()
	for {
		_, _ = io.Copy(io.Discard, r.control) // nothing comes; it ends
		r.mu.Lock()
		r.control.Close()
		r.at = netip.AddrPort{}
		r.mu.Unlock()
		for wait := relayRetry; ; wait = min(2*wait, relayRetryX) {
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(wait):
			}
			if r.open(r.ctx) == nil {
				break
			}
		}
		if r.ctx.Err() != nil { // closed meanwhile
			r.control.Close()
		}
	}
}

// associate does the handshake of SOCKS5 and returns where packets are taken.
func (n *Network) associate(c net.Conn) (at netip.AddrPort, err error) {
	method := byte(socksNoAuth)
	if n.auth != nil {
		method = socksPassword
	}
	if _, err := c.Write([]byte{socksVersion, 1, method}); err != nil {
		return at, err
	}
	var b [4]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return at, err
	}
	switch {
	case b[0] != socksVersion:
		return at, errors.New("it does not speak SOCKS5")
	case b[1] != method && n.auth == nil:
		return at, errors.New("it wants a user and a password")
	case b[1] != method:
		return at, errors.New("it does not take a user and a password")
	}
	if n.auth != nil {
		login := append([]byte{1, byte(len(n.auth.User))}, n.auth.User...)
		login = append(append(login, byte(len(n.auth.Password))), n.auth.Password...)
		if _, err := c.Write(login); err != nil {
			return at, err
		}
		if _, err := io.ReadFull(c, b[:2]); err != nil {
			return at, err
		}
		if b[1] != 0 {
			return at, errors.New("it refuses the user or the password")
		}
	}
	// From where packets will come is not said: behind a NAT we do not know it.
	if _, err := c.Write([]byte{socksVersion, socksAssociate, 0, socksIPv4, 0, 0, 0, 0, 0, 0}); err != nil {
		return at, err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return at, err
	}
	if b[1] != 0 {
		return at, errors.New(refusal(b[1]) + "; leave --proxy-udp out")
	}
	size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[b[3]]
	if size == 0 {
		return at, errors.New("its relay has no address")
	}
	where := make([]byte, size+2)
	if _, err := io.ReadFull(c, where); err != nil {
		return at, err
	}
	ip, _ := netip.AddrFromSlice(where[:size])
	if ip = ip.Unmap(); ip.IsUnspecified() { // the usual way to say: where I am
		ip = AddrPort(c.RemoteAddr()).Addr()
	}
	if at = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(where[size:])); at.Port() == 0 {
		return netip.AddrPort{}, errors.New("its relay has no port")
	}
	return at, nil
}

func refusal(code byte) string {
	switch code {
	case 2:
		return "it does not allow UDP"
	case 7:
		return "it does not know UDP"
	}
	return fmt.Sprintf("it refuses UDP (%d)", code)
}

// WriteTo sends a packet to a *net.UDPAddr, or to a name of [Network.Targets].
func (r *Relay) WriteTo(b []byte, to net.Addr) (int, error) {
	head := make([]byte, 3, 3+1+1+255+2+len(b))
	switch to := to.(type) {
	case *net.UDPAddr:
		a := AddrPort(to)
		kind := byte(socksIPv4)
		if a.Addr().Is6() {
			kind = socksIPv6
		}
		head = append(append(head, kind), a.Addr().AsSlice()...)
		head = binary.BigEndian.AppendUint16(head, a.Port())
	case name:
		host, portText, err := net.SplitHostPort(string(to))
		port, perr := strconv.ParseUint(portText, 10, 16)
		if err != nil || perr != nil || len(host) > 255 {
			return 0, net.InvalidAddrError("no host:port")
		}
		head = append(append(head, socksName, byte(len(host))), host...)
		head = binary.BigEndian.AppendUint16(head, uint16(port))
	default:
		return 0, net.InvalidAddrError("not of UDP")
	}
	r.mu.Lock()
	at := r.at
	r.mu.Unlock()
	if !at.IsValid() {
		return 0, ErrUnreachable
	}
	if _, err := r.socket.WriteTo(append(head, b...), net.UDPAddrFromAddrPort(at)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom waits for a packet that the proxy relays.
func (r *Relay) ReadFrom(b []byte) (int, net.Addr, error) {
	buf := make([]byte, maxRelayed)
	data, from, err := r.receive(buf)
	if err != nil {
		return 0, nil, err
	}
	return copy(b, data), net.UDPAddrFromAddrPort(from), nil
}

// receive returns what is in the next packet of the proxy, in buf, and who sent it.
func (r *Relay) receive(buf []byte) ([]byte, netip.AddrPort, error) {
	for {
		n, by, err := r.socket.ReadFrom(buf)
		if err != nil {
			return nil, netip.AddrPort{}, err
		}
		r.mu.Lock()
		at := r.at
		r.mu.Unlock()
		if AddrPort(by) != at {
			continue
		}
		if data, from, ok := unwrap(buf[:n]); ok {
			return data, from, nil
		}
	}
}

// unwrap takes the header off a packet. Fragments, which nobody sends, and names, which
// say nothing of who sent it, are dropped.
func unwrap(b []byte) (data []byte, from netip.AddrPort, ok bool) {
	if len(b) < 4 || b[2] != 0 {
		return nil, from, false
	}
	size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[b[3]]
	if b = b[4:]; size == 0 || len(b) < size+2 {
		return nil, from, false
	}
	ip, _ := netip.AddrFromSlice(b[:size])
	return b[size+2:], netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[size:])), true
}

// Read waits for a packet and hands it to f; its Data is valid in f only.
func (r *Relay) Read(f func(Datagram)) error {
	data, from, err := r.receive(r.buf)
	if err == nil {
		f(Datagram{Data: data, From: from})
	}
	return err
}

// Write sends a packet.
func (r *Relay) Write(b []byte, to netip.AddrPort) error {
	_, err := r.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

// Addr is our end of the way to the proxy.
func (r *Relay) Addr() netip.AddrPort { return AddrPort(r.socket.LocalAddr()) }

// LocalAddr is Addr.
func (r *Relay) LocalAddr() net.Addr { return r.socket.LocalAddr() }

// SetDeadline is that of the way to the proxy, as are the others.
func (r *Relay) SetDeadline(t time.Time) error      { return r.socket.SetDeadline(t) }
func (r *Relay) SetReadDeadline(t time.Time) error  { return r.socket.SetReadDeadline(t) }
func (r *Relay) SetWriteDeadline(t time.Time) error { return r.socket.SetWriteDeadline(t) }

// Close ends the relay.
func (r *Relay) Close() error {
	r.cancel()
	err := r.socket.Close()
	r.done.Wait()
	return err
}

// Targets returns where packets for host:port are sent to: its addresses, at most one of
// each family, or the name itself if the proxy looks it up and relays to it. Who answers
// from there is known then by its answer alone.
func (n *Network) Targets(ctx context.Context, hostport string) ([]net.Addr, error) {
	host, port, err := net.SplitHostPort(hostport)
	if _, ip := netip.ParseAddr(host); err == nil && ip != nil && n.proxyUDP {
		if !isLocal(host) {
			return []net.Addr{name(hostport)}, nil
		}
		hostport = net.JoinHostPort("127.0.0.1", port)
	}
	addrs, err := n.Resolve(ctx, hostport)
	if err != nil {
		return nil, err
	}
	targets := make([]net.Addr, len(addrs))
	for i, a := range addrs {
		targets[i] = net.UDPAddrFromAddrPort(a)
	}
	return targets, nil
}

// isLocal reports whether a name is of this machine by definition.
func isLocal(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
