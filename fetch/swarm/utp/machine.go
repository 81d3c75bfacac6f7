package utp

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

type state uint8

const (
	synSent state = iota // we call
	synGot               // we are called, and the other side has not proved that it hears us
	open
	over
)

const (
	payload4 = 1400 // bytes in a packet over IPv4
	payload6 = 1200 // over IPv6, and where larger ones seem not to arrive

	synTries   = 3 // one, two and three seconds
	ackDelay   = 10 * time.Millisecond
	minRTO     = 500 * time.Millisecond
	maxRTO     = 16 * time.Second
	firstRTO   = time.Second
	maxTimeout = 6 // in a row, about half a minute: then the other side is gone
	keepAlive  = 29 * time.Second
	linger     = 3 * time.Second // after Close, for what is still to be sent
	probeAfter = 120 * time.Millisecond
	halfOpen   = 10 * time.Second
)

var (
	errRefused = fmt.Errorf("uTP: %w", syscall.ECONNREFUSED)
	errReset   = fmt.Errorf("uTP: %w", syscall.ECONNRESET)
	errTimeout = fmt.Errorf("uTP: %w", syscall.ETIMEDOUT)
	errStopped = fmt.Errorf("uTP: the socket is closed: %w", net.ErrClosed)
)

// allowance is memory that all connections share. A nil one has no end.
type allowance interface {
	take(n int) bool
	give(n int)
	left() int
}

// machine is one connection. Times count from when the socket was opened. What it wants
// to send is in out after a call of output. It is not safe for several goroutines.
type machine struct {
	state   state
	recvID  uint16 // in what we get
	sendID  uint16 // in what we send
	err     error  // why it is over
	mss     int
	shared  allowance
	opened  time.Duration
	closing bool // Close was called
	out     burst

	// What we send.
	seq      uint16 // of the next packet
	sent     []flight
	unsent   []byte
	onWay    int // payload bytes of what was sent and is neither acknowledged nor lost
	lost     int // packets to be sent again
	tx       uint64
	arrived  uint64 // the largest flight.tx that was acknowledged
	inEvent  bool   // a loss was answered, and what was on the way then is not all in
	eventEnd uint16
	dups     int
	cc       ledbat
	peerWnd  int
	srtt     time.Duration
	rttvar   time.Duration
	minRTT   time.Duration
	rto      time.Duration
	rtoAt    time.Duration // 0: nothing to wait for
	probeAt  time.Duration
	timeouts int
	lastSent time.Duration
	finSent  bool
	closeAt  time.Duration

	// What we get.
	ack     uint16 // the last one that came in order
	in      buffer
	ahead   map[uint16][]byte // what overtook others
	aheadBy int               // bytes of it
	fin     bool              // its number is known
	finSeq  uint16
	eof     bool // everything until the end is in
	spare   int  // bytes taken from the allowance
	owed    int  // packets not acknowledged
	ackAt   time.Duration
	ackNow  bool
	told    int // the window that was told last
	diff    uint32
	heard   time.Duration
	begun   bool // payload came
}

// flight is a packet on its way. Its number is its place in machine.sent.
type flight struct {
	kind  kind
	data  []byte
	at    time.Duration
	tx    uint64 // its place among all that was sent, those sent again included
	times int
	got   bool // SACK says so
	lost  bool
}

// burst is packets to be sent, one behind the other.
type burst struct {
	data []byte
	ends []int
}

func (b *burst) add(p *packet) {
	b.data = p.append(b.data)
	b.ends = append(b.ends, len(b.data))
}

// dialer begins a connection; output has its SYN.
func dialer(now time.Duration, id, seq uint16, mss int, shared allowance) *machine {
	m := &machine{
		state: synSent, recvID: id, sendID: id + 1, seq: seq, mss: mss, shared: shared,
		opened: now, heard: now, lastSent: now, rto: firstRTO, cc: newLedbat(mss), peerWnd: mss,
	}
	m.push(kindSyn, nil)
	m.told = m.window()
	return m
}

// answerer is the other end, made of a SYN.
func answerer(now time.Duration, p *packet, seq uint16, mss int, shared allowance) *machine {
	return &machine{
		state: synGot, recvID: p.conn + 1, sendID: p.conn, seq: seq, ack: p.seq, mss: mss, shared: shared,
		opened: now, heard: now, lastSent: now, rto: firstRTO, cc: newLedbat(mss), peerWnd: int(min(p.window, mostWnd)), ackNow: true,
	}
}

// first is the number of the first packet in sent.
func (m *machine) first() uint16 { return m.seq - uint16(len(m.sent)) }

// end makes the connection be over.
func (m *machine) end(err error) {
	if m.state == over {
		return
	}
	m.state, m.err = over, err
	m.sent, m.unsent, m.ahead, m.onWay, m.lost = nil, nil, nil, 0, 0
	m.aheadBy = 0
	m.settle() // what came in order can still be read
}

// abort ends it at once and tells the other side.
func (m *machine) abort(err error) {
	if m.state != over {
		m.emit(kindReset, m.seq, nil, m.opened)
	}
	m.end(err)
}

// shut is Close: what was written is sent, then a FIN. What comes is taken no more.
func (m *machine) shut(now time.Duration) {
	if m.closing {
		return
	}
	m.closing = true
	m.in.drop()
	m.ahead, m.aheadBy = nil, 0
	m.settle()
	if m.state == over {
		return
	}
	m.closeAt = now + linger
	if m.state != open { // nobody there to take leave of
		m.abort(net.ErrClosed)
	}
}

// input takes a packet that is for this connection. arrived is when it reached the
// machine, which may be some time ago.
func (m *machine) input(now, arrived time.Duration, p *packet) {
	if m.state == over {
		return
	}
	if p.kind == kindReset {
		if behind := after(m.seq, p.ack); behind >= 0 && behind <= len(m.sent)+1 {
			if m.state == synSent {
				m.end(errRefused)
			} else {
				m.end(errReset)
			}
		}
		return
	}
	if p.kind == kindSyn {
		if m.state == synGot {
			m.ackNow = true // ours was lost
		}
		return
	}
	d := after(p.ack, m.first()-1)
	switch m.state {
	case synSent:
		if p.kind != kindState || d != 1 {
			return
		}
		m.ack = p.seq - 1
		m.state = open
	case synGot:
		if d != 0 {
			return
		}
		m.state = open
	}
	if d > len(m.sent) || d < -4096 {
		return // acknowledges what was never sent
	}
	m.heard = now
	if m.diff = uint32(arrived.Microseconds()) - p.stamp; m.diff == 0 {
		m.diff = 1 // 0 means that nothing was measured
	}
	if d >= 0 {
		m.acked(now, d, p)
	}
	switch p.kind {
	case kindData:
		m.data(now, p)
	case kindFin:
		m.gotFin(p)
	}
}

// output does what is due and fills out.
func (m *machine) output(now time.Duration) {
	if m.state == over {
		return
	}
	m.due(now)
	if m.state == over {
		return
	}
	m.pump(now)
	if m.ackAt != 0 && now >= m.ackAt {
		m.ackNow = true
	}
	if m.state != synSent && now-m.lastSent >= keepAlive {
		m.ackNow = true
	}
	if m.ackNow {
		m.emit(kindState, m.seq, nil, now)
	}
	if m.closing && m.finSent && len(m.sent) == 0 {
		m.end(net.ErrClosed)
	}
}

// due handles the times that have come.
func (m *machine) due(now time.Duration) {
	switch {
	case m.closing && now >= m.closeAt:
		m.abort(net.ErrClosed)
	case m.state == synGot && now-m.opened >= halfOpen:
		m.end(errTimeout)
	case m.probeAt != 0 && now >= m.probeAt:
		m.probe(now)
	}
	if m.state != over && m.rtoAt != 0 && now >= m.rtoAt {
		m.timeout(now)
	}
}

// next is when output has to be called, whatever happens; 0: never.
func (m *machine) next() (at time.Duration) {
	if m.state == over {
		return 0
	}
	sooner := func(t time.Duration) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	sooner(m.rtoAt)
	sooner(m.probeAt)
	sooner(m.ackAt)
	sooner(m.closeAt)
	if m.state == synGot {
		sooner(m.opened + halfOpen)
	} else {
		sooner(m.lastSent + keepAlive)
	}
	return at
}

// emit puts a packet into out, with what there is to acknowledge.
func (m *machine) emit(k kind, seq uint16, data []byte, now time.Duration) {
	p := packet{
		kind: k, conn: m.sendID, stamp: uint32(now.Microseconds()), diff: m.diff, window: uint32(m.window()),
		seq: seq, ack: m.ack, payload: data,
	}
	switch {
	case k == kindSyn:
		p.conn, p.ack = m.recvID, 0
	case k == kindReset:
	default:
		p.sack = m.sack()
		m.owed, m.ackAt, m.ackNow = 0, 0, false
	}
	m.told = int(p.window)
	m.lastSent = now
	m.out.add(&p)
}

// readErr is what Read returns when there is nothing to read any more; nil: wait.
func (m *machine) readErr() error {
	switch {
	case m.closing:
		return net.ErrClosed
	case m.eof:
		return io.EOF
	case m.state == over:
		return m.err
	}
	return nil
}

// writeErr is why Write can not go on.
func (m *machine) writeErr() error {
	switch {
	case m.closing:
		return net.ErrClosed
	case m.state == over:
		return m.err
	}
	return nil
}
