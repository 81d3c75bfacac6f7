package utp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	maxConns    = 2048 // of all kinds
	maxHalfOpen = 256
	maxBacklog  = 64
	maxShared   = 64 << 20
	maxResets   = 50 // a second
	idTries     = 16
)

var errFull = errors.New("uTP: too many connections")

// key names a connection to us: who sends, and the number in what it sends.
type key struct {
	from netip.AddrPort
	id   uint16
}

// Socket is all uTP of one UDP port. It is a net.Listener. Run reads; without it nothing
// arrives.
type Socket struct {
	udp     Packets
	network *network.Network
	log     *slog.Logger
	began   time.Time
	backlog chan *Conn
	gone    chan struct{} // closed by Close
	resets  *rate.Limiter
	memory  pool
	others  *Others

	mu     sync.Mutex
	conns  map[key]*Conn
	half   int // connections in state synGot
	closed bool

	touched []*Conn // by the packets of one read; Run's
}

// Packets is a UDP socket: a *network.UDP, or one behind a router that tests make.
type Packets interface {
	Read(f func(network.Datagram)) error // waits for some, and hands each to f
	Write(b []byte, to netip.AddrPort) error
	Addr() netip.AddrPort
	Close() error
}

// New makes a Socket of a UDP socket, which is the Socket's from then on.
func New(u Packets, n *network.Network, log *slog.Logger) *Socket {
	s := &Socket{
		udp: u, network: n, log: log, began: time.Now(), backlog: make(chan *Conn, maxBacklog),
		gone: make(chan struct{}), resets: rate.NewLimiter(maxResets, maxResets), conns: map[key]*Conn{},
	}
	s.memory.free.Store(maxShared)
	s.others = newOthers(s)
	return s
}

// pool is the memory that connections share.
type pool struct{ free atomic.Int64 }

func (p *pool) take(n int) bool {
	if p.free.Add(-int64(n)) >= 0 {
		return true
	}
	p.free.Add(int64(n))
	return false
}
func (p *pool) give(n int) { p.free.Add(int64(n)) }
func (p *pool) left() int  { return int(max(0, p.free.Load())) }

// now is the time of machines. It is never 0, which means never.
func (s *Socket) now() time.Duration { return time.Since(s.began) + time.Second }

// Others is the socket as those see it whose packets are not uTP.
func (s *Socket) Others() *Others { return s.others }

// Addr returns where we listen.
func (s *Socket) Addr() net.Addr { return net.UDPAddrFromAddrPort(s.udp.Addr()) }

// Run reads until ctx ends, then ends every connection.
func (s *Socket) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	defer s.Close()
	failed := false
	for {
		err := fault.Catch(s.log, "packets of uTP", func() error { return s.udp.Read(s.packet) })
		s.answer()
		if err == nil {
			failed = false
			continue
		}
		select {
		case <-s.gone:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if !failed {
			s.log.Warn("UDP socket", "err", err)
			failed = true
		}
		select { // an interface that is down for a while is no reason to end
		case <-s.gone:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Close ends every connection, and frees the port.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.gone)
	var all []*Conn
	for _, c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.end(errStopped)
	}
	s.others.stop()
	return s.udp.Close()
}

// Accept returns the next connection of a peer that called.
func (s *Socket) Accept() (net.Conn, error) {
	select {
	case c := <-s.backlog:
		return c, nil
	case <-s.gone:
		return nil, errStopped
	}
}

// packet hands one packet to whom it is for.
func (s *Socket) packet(d network.Datagram) {
	if !Is(d.Data) {
		s.others.put(d)
		return
	}
	p, ok := parse(d.Data)
	if !ok {
		return
	}
	now := s.now()
	k := key{d.From, p.conn}
	if p.kind == kindSyn {
		k.id++
	}
	s.mu.Lock()
	c := s.conns[k]
	if c == nil && p.kind == kindReset {
		c = s.resetOfLocked(k)
	}
	s.mu.Unlock()
	switch {
	case c != nil:
		c.arrived(now, now-d.Ago, &p)
	case p.kind == kindSyn:
		s.called(now, now-d.Ago, k, &p)
	case p.kind != kindReset && s.resets.Allow():
		r := packet{kind: kindReset, conn: p.conn, stamp: uint32(now.Microseconds()), seq: uint16(rand.Uint32()), ack: p.seq}
		_ = s.udp.Write(r.append(nil), d.From)
	}
}

// resetOfLocked finds whom a RESET is for that has the number of what we sent: who knows
// nothing of a connection knows no other.
func (s *Socket) resetOfLocked(k key) *Conn {
	for _, id := range []uint16{k.id + 1, k.id - 1} {
		if c := s.conns[key{k.from, id}]; c != nil && c.sendID == k.id {
			return c
		}
	}
	return nil
}

// called begins a connection of somebody who calls.
func (s *Socket) called(now, arrived time.Duration, k key, p *packet) {
	if s.network.Blocked(k.from.Addr()) {
		return
	}
	m := answerer(now, p, uint16(rand.Uint32()), mssOf(k.from), &s.memory)
	m.diff = uint32(arrived.Microseconds()) - p.stamp
	c := newConn(s, k, m)
	c.half = true
	s.mu.Lock()
	full := s.closed || s.half >= maxHalfOpen || len(s.conns) >= maxConns
	if !full {
		s.half++
		s.conns[k] = c
	}
	s.mu.Unlock()
	if !full {
		c.touch()
	}
}

// answer lets every connection that got something send what it has to.
func (s *Socket) answer() {
	for i, c := range s.touched {
		c.answer()
		s.touched[i] = nil
	}
	s.touched = s.touched[:0]
}

// mssOf is how much we put into a packet.
func mssOf(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return payload4
	}
	return payload6
}

// Dial calls a peer if the policy allows it.
func (s *Socket) Dial(ctx context.Context, a network.Ask) (net.Conn, error) {
	if err := s.network.Allow(a); err != nil {
		return nil, err
	}
	now := s.now()
	c, err := s.newDialer(now, a.To)
	if err != nil {
		return nil, err
	}
	c.step(now)
	select {
	case <-c.opened:
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("%v: %w", a.To, c.cause())
	case <-ctx.Done():
		c.end(context.Cause(ctx))
		return nil, context.Cause(ctx)
	}
}

func (s *Socket) newDialer(now time.Duration, to netip.AddrPort) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errStopped
	}
	if len(s.conns) >= maxConns {
		return nil, errFull
	}
	for range idTries {
		k := key{to, uint16(rand.Uint32())}
		if s.conns[k] == nil {
			c := newConn(s, k, dialer(now, k.id, uint16(rand.Uint32()), mssOf(to), &s.memory))
			s.conns[k] = c
			return c, nil
		}
	}
	return nil, errFull
}

// forget takes a connection that is over out of the table.
func (s *Socket) forget(c *Conn, half bool) {
	s.mu.Lock()
	if s.conns[c.key] == c {
		delete(s.conns, c.key)
	}
	if half {
		s.half--
	}
	s.mu.Unlock()
}

// proved takes a connection out of those that are half open and offers it to Accept.
func (s *Socket) proved(c *Conn) {
	s.mu.Lock()
	s.half--
	s.mu.Unlock()
	select {
	case s.backlog <- c:
	default:
		c.end(errFull)
	}
}
