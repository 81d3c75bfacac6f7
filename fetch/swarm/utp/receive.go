package utp

import (
	"slices"
	"time"
)

const (
	ownMemory  = 64 << 10 // that a connection may hold, whatever the others hold
	maxMemory  = 4 << 20  // and with what all share
	maxAhead   = 4096     // packets by which one may overtake another
	aheadCost  = 128      // of a packet that waits, beside its bytes
	updateStep = 256 << 10
)

// held is what is in memory of what came.
func (m *machine) held() int { return m.in.len() + m.aheadBy }

// window is how many bytes may come.
func (m *machine) window() int {
	most := maxMemory
	if m.shared != nil {
		most = min(most, ownMemory+m.spare+m.shared.left())
	}
	return max(0, most-m.held())
}

// fits takes n bytes of memory.
func (m *machine) fits(n int) bool {
	want := m.held() + n
	if want > maxMemory {
		return false
	}
	if more := want - ownMemory - m.spare; more > 0 && m.shared != nil {
		more = (more + 16<<10 - 1) &^ (16<<10 - 1)
		if !m.shared.take(more) {
			return false
		}
		m.spare += more
	}
	return true
}

// settle gives memory back that is not needed any more.
func (m *machine) settle() {
	if m.spare == 0 {
		return
	}
	if free := m.spare - max(0, m.held()-ownMemory); m.held() == 0 || free > 128<<10 {
		m.shared.give(free)
		m.spare -= free
	}
}

// data takes a packet with payload.
func (m *machine) data(now time.Duration, p *packet) {
	d := after(p.seq, m.ack)
	if d <= 0 || d > maxAhead || m.fin && after(p.seq, m.finSeq) >= 0 {
		m.ackNow = true // it came again, since what we told was lost
		return
	}
	m.begun = true
	if d > 1 {
		m.ackNow = true
		if _, ok := m.ahead[p.seq]; ok || m.closing || !m.fits(len(p.payload)+aheadCost) {
			return
		}
		if m.ahead == nil {
			m.ahead = map[uint16][]byte{}
		}
		m.ahead[p.seq] = slices.Clone(p.payload)
		m.aheadBy += len(p.payload) + aheadCost
		return
	}
	if !m.closing {
		if !m.fits(len(p.payload)) {
			m.ackNow = true
			return
		}
		m.in.write(p.payload)
	}
	m.ack = p.seq
	for len(m.ahead) > 0 {
		b, ok := m.ahead[m.ack+1]
		if !ok {
			m.ackNow = true // something else is missing
			break
		}
		m.ack++
		delete(m.ahead, m.ack)
		m.aheadBy -= len(b) + aheadCost
		m.in.write(b)
	}
	m.checkEnd()
	if m.owed++; m.owed >= 2 {
		m.ackNow = true
	} else if m.ackAt == 0 {
		m.ackAt = now + ackDelay
	}
}

// gotFin notes where the other side ends.
func (m *machine) gotFin(p *packet) {
	m.ackNow = true
	if d := after(p.seq, m.ack); !m.fin && d > 0 && d <= maxAhead {
		m.fin, m.finSeq = true, p.seq
	}
	m.checkEnd()
}

func (m *machine) checkEnd() {
	if m.fin && !m.eof && m.ack+1 == m.finSeq {
		m.ack, m.eof, m.ackNow = m.finSeq, true, true
	}
}

// read takes bytes that came.
func (m *machine) read(b []byte) int {
	n := m.in.read(b)
	if n == 0 {
		return 0
	}
	m.settle()
	// The other side may have stopped for want of room.
	if w := m.window(); m.told < maxMemory/2 && w-m.told >= min(updateStep, ownMemory/2) && m.state == open {
		m.ackNow = true
	}
	return n
}

// sack is which packets came beyond the one that is missing.
func (m *machine) sack() []byte {
	if len(m.ahead) == 0 {
		return nil
	}
	bits := make([]byte, maxSack)
	last := -1
	for seq := range m.ahead {
		if i := after(seq, m.ack) - 2; i >= 0 && i < 8*maxSack {
			bits[i/8] |= 1 << (i % 8)
			last = max(last, i)
		}
	}
	if last < 0 {
		return nil
	}
	return bits[:(last/32+1)*4]
}

// buffer is bytes in order. It grows as needed, and is let go when it is empty and large.
type buffer struct {
	b    []byte
	from int
}

func (q *buffer) len() int { return len(q.b) - q.from }

func (q *buffer) write(p []byte) {
	if q.from > 0 && len(q.b)+len(p) > cap(q.b) && q.from >= cap(q.b)/2 {
		q.b = q.b[:copy(q.b, q.b[q.from:])]
		q.from = 0
	}
	q.b = append(q.b, p...)
}

func (q *buffer) read(p []byte) int {
	n := copy(p, q.b[q.from:])
	if q.from += n; q.from == len(q.b) {
		q.b, q.from = q.b[:0], 0
		if cap(q.b) > 2*ownMemory {
			q.b = nil
		}
	}
	return n
}

func (q *buffer) drop() { q.b, q.from = nil, 0 }
