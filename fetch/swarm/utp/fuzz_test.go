package utp

import (
	"bytes"
	"testing"
	"time"
)

// What is parsed and encoded again says the same, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, p := range []packet{
		{kind: kindSyn, conn: 1, seq: 1},
		{kind: kindState, sack: []byte{1, 2, 3, 4}, ack: 65535},
		{kind: kindData, payload: []byte("data"), window: 1 << 31, stamp: 1, diff: 2},
	} {
		f.Add(p.append(nil))
	}
	f.Add([]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"))
	f.Add(append([]byte{0x01, 2}, make([]byte, 30)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if ok != (Is(b) && ok) || len(b) > 0 && b[0] == 'd' && ok {
			t.Fatal("what is no uTP was parsed")
		}
		if !ok {
			return
		}
		again, ok := parse(p.append(nil))
		if !ok {
			t.Fatal("what was encoded can not be parsed")
		}
		if again.kind != p.kind || again.conn != p.conn || again.stamp != p.stamp || again.diff != p.diff || again.window != p.window ||
			again.seq != p.seq || again.ack != p.ack || !bytes.Equal(again.sack, p.sack) || !bytes.Equal(again.payload, p.payload) {
			t.Fatalf("%+v became %+v", p, again)
		}
	})
}

// A connection that is sent anything, at any time, does not panic, holds no more memory
// than it may, and gives all of it back.
func FuzzMachine(f *testing.F) {
	f.Add(true, []byte{0x21, 0, 1, 1, 0, 0, 9, 9, 9, 9})
	f.Add(false, bytes.Repeat([]byte{0x01, 3, 0, 40, 200}, 40))
	f.Fuzz(func(t *testing.T, dials bool, b []byte) {
		var shared pool
		shared.free.Store(maxShared)
		now := time.Second
		var m *machine
		if dials {
			m = dialer(now, 7, 65533, payload4, &shared)
		} else {
			m = answerer(now, &packet{kind: kindSyn, conn: 7, seq: 3}, 65533, payload4, &shared)
		}
		buf := make([]byte, 10_000)
		for len(b) >= 8 {
			// Numbers near to what the machine expects get further than any.
			p := packet{
				kind: kind(b[0]) % 5, window: uint32(b[1]) << 12, stamp: uint32(b[2]) << 24, diff: uint32(b[2]) << 23,
				seq: m.ack + uint16(int8(b[3])), ack: m.seq + uint16(int8(b[4])), payload: buf[:int(b[5])*8],
			}
			if n := int(b[7]) % 8; n > 0 && len(b) >= 8+n {
				p.sack = b[8 : 8+n]
			}
			now += time.Duration(b[6]) * time.Duration(b[6]) * 100 * time.Microsecond
			m.input(now, now-time.Millisecond, &p)
			switch b[7] >> 4 {
			case 1:
				m.read(buf[:4000])
			case 2, 3, 4:
				m.write(buf)
			case 5:
				if b[6] == 255 {
					m.shut(now)
				}
			}
			m.output(now)
			if at := m.next(); at != 0 && at < now-time.Millisecond {
				t.Fatalf("%v is due, and it is %v", at, now)
			}
			sum := 0
			lost := 0
			for i := range m.sent {
				if fl := &m.sent[i]; fl.lost {
					lost++
				} else if !fl.got {
					sum += len(fl.data)
				}
			}
			if sum != m.onWay || lost != m.lost {
				t.Fatalf("%d bytes on the way, %d lost, want %d, %d", m.onWay, m.lost, sum, lost)
			}
			if m.held() > maxMemory || m.spare+ownMemory < m.held() || len(m.sent) > maxAhead || len(m.unsent) > mostWnd {
				t.Fatalf("holds %d, of the allowance %d, sent %d, unsent %d", m.held(), m.spare, len(m.sent), len(m.unsent))
			}
			if len(m.out.data) > 16<<20 {
				t.Fatal("an endless answer")
			}
			m.out = burst{}
			b = b[8:]
		}
		m.shut(now)
		m.output(now + linger)
		if left := shared.left(); left != maxShared {
			t.Fatalf("%d bytes of the allowance are gone", maxShared-left)
		}
	})
}
