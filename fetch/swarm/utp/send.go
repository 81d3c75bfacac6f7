package utp

import (
	"slices"
	"time"
)

const (
	leastUnsent = 32 << 10 // bytes that wait to be sent; what waits can not be taken back by a peer's cancel
	reorder     = 3        // packets sent later must have arrived for one to be lost
)

// room is how much Write may take now.
func (m *machine) room() int {
	if m.closing || m.state == over {
		return 0
	}
	return max(0, max(leastUnsent, int(m.cc.wnd)/2)-len(m.unsent))
}

// write takes bytes to be sent.
func (m *machine) write(b []byte) int {
	n := min(len(b), m.room())
	m.unsent = append(m.unsent, b[:n]...)
	return n
}

// push makes a packet that pump will send.
func (m *machine) push(k kind, data []byte) *flight {
	m.sent = append(m.sent, flight{kind: k, data: data, lost: true})
	m.seq++
	m.lost++
	return &m.sent[len(m.sent)-1]
}

// transmit sends a packet, perhaps again.
func (m *machine) transmit(i int, now time.Duration) {
	f := &m.sent[i]
	if f.lost {
		f.lost = false
		m.lost--
		m.onWay += len(f.data)
	}
	m.tx++
	f.tx, f.at = m.tx, now
	f.times++
	m.emit(f.kind, m.first()+uint16(i), f.data, now)
	if m.rtoAt == 0 {
		m.rtoAt = now + m.rto
	}
	m.probeAt = 0
	if m.state == open && m.timeouts == 0 {
		m.probeAt = now + max(2*m.srtt, m.srtt+probeAfter)
	}
}

// pump sends what may be sent.
func (m *machine) pump(now time.Duration) {
	if m.state == synGot || m.state == over {
		return
	}
	if len(m.sent) == 0 && len(m.unsent) > 0 && now-m.lastSent > max(m.rto, time.Second) {
		m.cc.rested(m.mss)
	}
	for i := 0; m.lost > 0 && i < len(m.sent); i++ {
		f := &m.sent[i]
		if !f.lost {
			continue
		}
		if m.onWay > 0 && m.onWay+len(f.data) > int(m.cc.wnd) {
			return
		}
		m.transmit(i, now)
	}
	if m.state != open {
		return
	}
	for len(m.unsent) > 0 {
		n := min(len(m.unsent), m.mss)
		if m.onWay > 0 && m.onWay+n > int(m.cc.wnd) || len(m.sent) >= maxAhead/2 {
			return
		}
		if m.onWay+n > m.peerWnd {
			if len(m.sent) == 0 && m.rtoAt == 0 {
				m.rtoAt = now + m.rto // to try it once in a while: a wider window may have been lost
			}
			return
		}
		m.packUnsent(n)
		m.transmit(len(m.sent)-1, now)
	}
	if m.closing && !m.finSent {
		m.finSent = true
		m.push(kindFin, nil)
		m.transmit(len(m.sent)-1, now)
	}
}

// packUnsent makes a packet of the first n bytes that wait.
func (m *machine) packUnsent(n int) {
	m.push(kindData, slices.Clone(m.unsent[:n]))
	m.unsent = m.unsent[n:]
	if len(m.unsent) == 0 && cap(m.unsent) > 4*leastUnsent {
		m.unsent = nil
	}
}

// acked handles the acknowledgements in a packet: of d packets in order, and of those
// in its SACK.
func (m *machine) acked(now time.Duration, d int, p *packet) {
	before, bytes := m.onWay, 0
	m.peerWnd = int(min(p.window, mostWnd))
	if p.diff != 0 {
		m.cc.delay(now, p.diff)
	}
	var sample time.Duration
	got := func(f *flight) {
		if f.got {
			return
		}
		f.got = true
		bytes += len(f.data)
		if f.lost { // it was only late
			f.lost = false
			m.lost--
		} else {
			m.onWay -= len(f.data)
		}
		if f.times == 1 {
			sample = now - f.at
		}
		// Which of two was acknowledged is known only if the second can not have been.
		if f.times == 1 || now-f.at >= m.minRTT {
			m.arrived = max(m.arrived, f.tx)
		}
		f.data = nil
	}
	for i := range m.sent[:d] {
		got(&m.sent[i])
	}
	m.sent = m.sent[d:]
	for i, b := range p.sack {
		for j := range 8 {
			if at := 1 + 8*i + j; b&(1<<j) != 0 && at < len(m.sent) {
				got(&m.sent[at])
			}
		}
	}
	if sample > 0 {
		m.measured(sample)
	}
	if d > 0 {
		m.dups = 0
		if m.inEvent && after(m.first(), m.eventEnd) >= 0 {
			m.inEvent = false
		}
	} else if p.kind == kindState && len(p.sack) == 0 && len(m.sent) > 0 && bytes == 0 {
		if m.dups++; m.dups == reorder && !m.sent[0].lost && m.sent[0].times == 1 {
			m.lose(0)
		}
	}
	if bytes > 0 || d > 0 {
		m.timeouts, m.rtoAt = 0, 0
		if m.srtt > 0 {
			m.rto = max(minRTO, m.srtt+4*m.rttvar)
		}
		m.probeAt = 0
		if len(m.sent) > 0 {
			m.rtoAt = now + m.rto
			m.probeAt = now + max(2*m.srtt, m.srtt+probeAfter)
		}
	}
	if m.peerWnd < m.mss {
		m.timeouts = 0 // it is there, and has no room
	} else if len(m.sent) == 0 {
		m.rtoAt = 0
	}
	for i := range m.sent {
		f := &m.sent[i]
		if f.tx >= m.arrived && f.times == 1 {
			break // later ones were sent later still
		}
		overdue := f.tx < m.arrived && now-f.at > m.srtt+m.srtt/2+2*ackDelay
		if !f.got && !f.lost && (overdue || f.tx+reorder <= m.arrived) {
			m.lose(i)
		}
	}
	if bytes > 0 && !m.inEvent {
		m.cc.acked(bytes, before, m.mss)
	}
}

// lose takes a packet as lost. Several at about the same time are one sign.
func (m *machine) lose(i int) {
	f := &m.sent[i]
	f.lost = true
	m.lost++
	m.onWay -= len(f.data)
	if !m.inEvent {
		m.inEvent, m.eventEnd = true, m.seq
		m.cc.lost(m.mss)
	}
}

func (m *machine) measured(rtt time.Duration) {
	if m.minRTT == 0 || rtt < m.minRTT {
		m.minRTT = rtt
	}
	if m.srtt == 0 {
		m.srtt, m.rttvar = rtt, rtt/2
		return
	}
	m.rttvar += ((m.srtt - rtt).Abs() - m.rttvar) / 4
	m.srtt += (rtt - m.srtt) / 8
}

// probe sends the last packet again before there is a reason to think that it is lost.
func (m *machine) probe(now time.Duration) {
	m.probeAt = 0
	for i := len(m.sent) - 1; i >= 0; i-- {
		if f := &m.sent[i]; !f.got && !f.lost {
			m.transmit(i, now)
			m.probeAt = 0
			return
		}
	}
}

// timeout is when nothing was acknowledged for long: all that is on the way is lost.
func (m *machine) timeout(now time.Duration) {
	m.rtoAt, m.probeAt = 0, 0
	m.timeouts++
	if m.state == synSent && m.timeouts >= synTries || m.timeouts > maxTimeout {
		if m.state == synSent {
			m.end(errTimeout)
		} else {
			m.abort(errTimeout)
		}
		return
	}
	m.rto = min(2*m.rto, maxRTO)
	if m.state == synSent {
		m.rto = time.Duration(m.timeouts+1) * firstRTO
	}
	if len(m.sent) == 0 {
		if len(m.unsent) > 0 { // the other side has no room: a packet asks whether it is still so
			m.packUnsent(min(len(m.unsent), m.mss))
			m.timeouts--
			m.transmit(0, now)
		}
		return
	}
	if m.timeouts >= 2 {
		m.mss = min(m.mss, payload6)
	}
	for i := range m.sent {
		if f := &m.sent[i]; !f.got && !f.lost {
			f.lost = true
			m.lost++
			m.onWay -= len(f.data)
		}
	}
	m.cc.timeout(m.mss)
	m.inEvent = false
}
