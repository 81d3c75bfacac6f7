package utp

import (
	"net"
	"os"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/fault"
)

// Conn is one connection. Reads may be done by one goroutine beside another that writes.
type Conn struct {
	socket *Socket
	key    key
	sendID uint16

	readable, writable chan struct{} // capacity 1
	opened, done       chan struct{} // closed when it is open, and when it is over
	reading, writing   sync.Mutex    // held by a Read, a Write

	touchedNow bool // is in Socket.touched; Run's

	mu                          sync.Mutex
	m                           *machine
	half                        bool // counts as half open
	isOpen, isOver              bool
	sending                     bool // somebody takes what is in m.out
	spare                       burst
	timer                       *time.Timer
	timerAt                     time.Duration
	readDeadline, writeDeadline time.Time
}

func newConn(s *Socket, k key, m *machine) *Conn {
	return &Conn{
		socket: s, key: k, sendID: m.sendID, m: m, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		opened: make(chan struct{}), done: make(chan struct{}),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// touch has the connection answer when all that was read is handed out. Run calls it.
func (c *Conn) touch() {
	if !c.touchedNow {
		c.touchedNow = true
		c.socket.touched = append(c.socket.touched, c)
	}
}

// arrived takes a packet. Run calls it.
func (c *Conn) arrived(now, arrived time.Duration, p *packet) {
	c.mu.Lock()
	c.safeLocked(func() { c.m.input(now, arrived, p) })
	c.mu.Unlock()
	c.touch()
}

// answer sends what the packets that came make due. Run calls it.
func (c *Conn) answer() {
	c.touchedNow = false
	c.step(c.socket.now())
}

// safeLocked lets the machine do something. A fault in it ends this connection alone.
func (c *Conn) safeLocked(f func()) {
	if err := fault.Catch(c.socket.log, "a uTP connection", func() error { f(); return nil }); err != nil {
		c.m.end(err)
	}
}

// step lets the machine go on and tells everybody whom it concerns.
func (c *Conn) step(now time.Duration) {
	c.mu.Lock()
	c.safeLocked(func() { c.m.output(now) })
	m := c.m
	if m.in.len() > 0 || m.readErr() != nil {
		signal(c.readable)
	}
	if m.room() > 0 || m.writeErr() != nil {
		signal(c.writable)
	}
	var proved, ended, wasHalf bool
	if !c.isOpen && m.state == open && (!c.half || m.begun) {
		c.isOpen = true
		close(c.opened)
		proved, c.half = c.half, false
	}
	if !c.isOver && m.state == over {
		c.isOver, ended = true, true
		wasHalf, c.half = c.half, false
	}
	c.scheduleLocked(now)
	c.flushLocked()
	if proved {
		c.socket.proved(c)
	}
	if ended {
		c.socket.forget(c, wasHalf)
		close(c.done)
	}
}

// scheduleLocked sets the timer, if what it is set to is too late.
func (c *Conn) scheduleLocked(now time.Duration) {
	at := c.m.next()
	switch {
	case at == 0:
		if c.timer != nil {
			c.timer.Stop()
		}
	case c.timer == nil:
		c.timerAt = at
		c.timer = time.AfterFunc(max(0, at-now), c.ring) // ends with the machine, whose times all end
	case c.timerAt == 0 || at < c.timerAt:
		c.timerAt = at
		c.timer.Reset(max(0, at-now))
	}
}

// ring is what the timer does.
func (c *Conn) ring() {
	c.mu.Lock()
	c.timerAt = 0
	c.mu.Unlock()
	c.step(c.socket.now())
}

// flushLocked sends what the machine wants to be sent, and unlocks. Who comes while
// another sends leaves that to the other, so that packets leave in order.
func (c *Conn) flushLocked() {
	if c.sending {
		c.mu.Unlock()
		return
	}
	c.sending = true
	for len(c.m.out.ends) > 0 {
		out := c.m.out
		c.m.out = burst{c.spare.data[:0], c.spare.ends[:0]}
		c.mu.Unlock()
		from := 0
		for _, to := range out.ends {
			_ = c.socket.udp.Write(out.data[from:to], c.key.from) // else it is one that was lost
			from = to
		}
		c.mu.Lock()
		if cap(out.data) > 256<<10 {
			out.data = nil
		}
		c.spare = out
	}
	if len(c.m.sent) == 0 && cap(c.spare.data) > 4<<10 {
		c.spare, c.m.out = burst{}, burst{}
	}
	c.sending = false
	c.mu.Unlock()
}

// end ends it at once.
func (c *Conn) end(err error) {
	c.mu.Lock()
	c.m.abort(err)
	c.mu.Unlock()
	c.step(c.socket.now())
}

func (c *Conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.err
}

// Read takes bytes that came.
func (c *Conn) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		c.mu.Lock()
		deadline := c.readDeadline
		n, err := 0, c.m.readErr()
		if !c.m.closing && !past(deadline) {
			n = c.m.read(b)
		}
		update := c.m.ackNow
		c.mu.Unlock()
		if update && n > 0 {
			c.step(c.socket.now())
		}
		switch {
		case n > 0 || len(b) == 0:
			return n, nil
		case err != nil:
			return 0, err
		}
		if err := wait(c.readable, deadline); err != nil {
			return 0, err
		}
	}
}

// Write takes all of b to be sent. It waits as long as too much waits.
func (c *Conn) Write(b []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for len(b) > 0 {
		c.mu.Lock()
		deadline := c.writeDeadline
		err := c.m.writeErr()
		k := 0
		if err == nil && !past(deadline) {
			k = c.m.write(b)
		}
		c.mu.Unlock()
		if err != nil {
			return n, err
		}
		if k > 0 {
			n, b = n+k, b[k:]
			c.step(c.socket.now())
			continue
		}
		if err := wait(c.writable, deadline); err != nil {
			return n, err
		}
	}
	return n, nil
}

func past(deadline time.Time) bool { return !deadline.IsZero() && time.Until(deadline) <= 0 }

// wait waits for a signal until a deadline. A signal may mean that the deadline changed.
func wait(c chan struct{}, deadline time.Time) error {
	if deadline.IsZero() {
		<-c
		return nil
	}
	left := time.Until(deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-c:
		return nil
	case <-t.C:
		return os.ErrDeadlineExceeded
	}
}

// Close sends what was written, for three seconds at most, without waiting for it.
func (c *Conn) Close() error {
	now := c.socket.now()
	c.mu.Lock()
	c.m.shut(now)
	c.mu.Unlock()
	c.step(now)
	return nil
}

// RTT returns the smallest round trip seen, 0 if there was none.
func (c *Conn) RTT() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.minRTT
}

// LocalAddr returns where our socket listens.
func (c *Conn) LocalAddr() net.Addr { return c.socket.Addr() }

// RemoteAddr returns a *net.UDPAddr.
func (c *Conn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.key.from) }

// SetDeadline is for Read and Write.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline holds for a Read that waits too.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.readDeadline = t
	c.mu.Unlock()
	signal(c.readable)
	return nil
}

// SetWriteDeadline holds for a Write that waits too.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.writeDeadline = t
	c.mu.Unlock()
	signal(c.writable)
	return nil
}
