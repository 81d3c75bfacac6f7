package utp

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

const maxOthers = 256 // packets that wait to be read; more are lost, as in a kernel

// Others is the socket as a net.PacketConn for what is not uTP: the DHT, which
// peers expect on the same port. Nothing comes before somebody calls Open.
type Others struct {
	socket *Socket
	queue  chan network.Datagram
	gone   chan struct{}
	once   sync.Once

	mu       sync.Mutex
	open     bool
	deadline time.Time
}

func newOthers(s *Socket) *Others {
	return &Others{socket: s, queue: make(chan network.Datagram, maxOthers), gone: make(chan struct{})}
}

// Open begins to keep packets for ReadFrom.
func (o *Others) Open() net.PacketConn {
	o.mu.Lock()
	o.open = true
	o.mu.Unlock()
	return o
}

func (o *Others) put(d network.Datagram) {
	o.mu.Lock()
	open := o.open
	o.mu.Unlock()
	if !open || len(d.Data) == 0 || d.Data[0] != 'd' {
		return
	}
	d.Data = bytes.Clone(d.Data)
	select {
	case o.queue <- d:
	default:
	}
}

func (o *Others) stop() { o.once.Do(func() { close(o.gone) }) }

// ReadFrom returns the next packet.
func (o *Others) ReadFrom(b []byte) (int, net.Addr, error) {
	o.mu.Lock()
	deadline := o.deadline
	o.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	select {
	case d := <-o.queue:
		return copy(b, d.Data), net.UDPAddrFromAddrPort(d.From), nil
	case <-o.gone:
		return 0, nil, net.ErrClosed
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo sends a packet.
func (o *Others) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-o.gone:
		return 0, net.ErrClosed
	default:
	}
	var at netip.AddrPort
	if u, ok := to.(*net.UDPAddr); ok {
		at = u.AddrPort()
	} else {
		var err error
		if at, err = netip.ParseAddrPort(to.String()); err != nil {
			return 0, err
		}
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if err := o.socket.udp.Write(b, at); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends this use of the socket, and not the socket.
func (o *Others) Close() error {
	o.stop()
	return nil
}

// LocalAddr returns where the socket listens.
func (o *Others) LocalAddr() net.Addr { return o.socket.Addr() }

// SetDeadline is for ReadFrom; WriteTo does not wait.
func (o *Others) SetDeadline(t time.Time) error { return o.SetReadDeadline(t) }

// SetReadDeadline is for the next ReadFrom.
func (o *Others) SetReadDeadline(t time.Time) error {
	o.mu.Lock()
	o.deadline = t
	o.mu.Unlock()
	return nil
}

// SetWriteDeadline does nothing.
func (o *Others) SetWriteDeadline(time.Time) error { return nil }
