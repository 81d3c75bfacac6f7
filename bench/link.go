package main

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// link is the path between the near network and one address of the far one: packets are
// delayed both ways, and those towards the near side pass a line.
type link struct {
	at       string // host:port of who is at its end
	up, down *direction
	close    func()

	mu       sync.Mutex
	silent   bool    // packets vanish
	refusing bool    // packets are answered by a reset, as when the program at its end is gone
	loss     float64 // part of the packets from the far end that vanish
	until    time.Time
}

// line carries packets at a rate; several links can share one.
type line struct {
	rate float64 // bytes/s on the wire; 0: no limit

	mu   sync.Mutex
	free time.Time // when it can take the next packet
}

// queue is how much a line holds before it drops: 0.3 s of its rate, as home routers do.
const queue = 300 * time.Millisecond

// leave books n bytes and returns when they have left the line, which carries nothing
// before from. false: its queue is full.
func (l *line) leave(now, from time.Time, n int) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.free
	for _, t := range []time.Time{now, from} {
		if t.After(at) {
			at = t
		}
	}
	if l.rate == 0 {
		return at, true
	}
	if at.Sub(now) > queue {
		return at, false
	}
	l.free = at.Add(time.Duration(float64(n) / l.rate * 1e9))
	return l.free, true
}

// packet is an IP packet and when it arrives.
type packet struct {
	b  []byte
	at time.Time
}

// direction is one of the two of a link.
type direction struct {
	to      *os.File
	line    *line
	delay   time.Duration
	packets chan packet
}

func newDirection(to *os.File, on *line, delay time.Duration) *direction {
	return &direction{to, on, delay, make(chan packet, 16<<10)}
}

// run delivers packets until done is closed.
func (d *direction) run(done <-chan struct{}, dead func() bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case p := <-d.packets:
			timer.Reset(time.Until(p.at))
			select {
			case <-done:
				return
			case <-timer.C:
			}
			if len(p.b) > resetSize && dead() {
				continue // it was on the way when the end was gone
			}
			_, _ = d.to.Write(p.b) // a device that is down: it is lost
		}
	}
}

func (d *direction) put(p packet) {
	select {
	case d.packets <- p:
	default: // far more than any queue: it is lost
	}
}

func (k *link) dead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refusing || k.silent
}

// carry takes a packet from one of the ends, which does not own b any more.
func (k *link) carry(b []byte, up bool) {
	now := time.Now()
	k.mu.Lock()
	silent, refusing, from := k.silent, k.refusing, k.until
	lost := up && k.loss > 0 && rand.Float64() < k.loss
	k.mu.Unlock()
	there, back := k.down, k.up
	if up {
		there, back = k.up, k.down
	}
	switch {
	case silent || lost:
	case refusing:
		if r := reset(b); r != nil {
			back.put(packet{r, now.Add(2 * k.up.delay)})
		}
	default:
		if at, ok := there.line.leave(now, from, len(b)); ok {
			there.put(packet{b, at.Add(there.delay)})
		}
	}
}

// hush lets nothing pass any more, and closes nothing.
func (k *link) hush() { k.set(func() { k.silent = true }) }

// stall lets nothing pass for a time; what the queue does not hold is lost.
func (k *link) stall(d time.Duration) { k.set(func() { k.until = time.Now().Add(d) }) }

// leave ends the connections that pass, and refuses new ones until back is called.
func (k *link) leave() { k.set(func() { k.refusing = true }) }
func (k *link) back()  { k.set(func() { k.refusing = false }) }

func (k *link) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// resetSize is the length of an IPv4 packet that resets a connection, and of those that
// only acknowledge, without options.
const resetSize = 40

// reset is the packet that refuses an IPv4 packet of TCP (RFC 9293, section 3.5.2), nil if
// it is none, or a reset itself.
func reset(b []byte) []byte {
	const ack, syn, fin, rst = 1 << 4, 1 << 1, 1 << 0, 1 << 2
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != 6 {
		return nil
	}
	head := int(b[0]&15) * 4
	if head < 20 || len(b) < head+20 {
		return nil
	}
	tcp := b[head:]
	if tcp[13]&rst != 0 {
		return nil
	}
	r := make([]byte, resetSize)
	r[0], r[8], r[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(r[2:], resetSize)
	copy(r[12:16], b[16:20])
	copy(r[16:20], b[12:16])
	binary.BigEndian.PutUint16(r[10:], checksum(0, r[:20]))
	t := r[20:]
	copy(t[0:2], tcp[2:4])
	copy(t[2:4], tcp[0:2])
	t[12], t[13] = 5<<4, rst
	if tcp[13]&ack != 0 {
		copy(t[4:8], tcp[8:12]) // what is expected next, so that it is believed
	} else {
		n := uint32(len(tcp) - int(tcp[12]>>4)*4)
		for _, flag := range []byte{syn, fin} {
			if tcp[13]&flag != 0 {
				n++
			}
		}
		t[13] |= ack
		binary.BigEndian.PutUint32(t[8:], binary.BigEndian.Uint32(tcp[4:])+n)
	}
	binary.BigEndian.PutUint16(t[16:], checksum(6+20, r[12:20], t)) // protocol and length of the pseudo header
	return r
}

// checksum is that of IP and TCP (RFC 1071).
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
