package main

import (
	"encoding/binary"
	"testing"
	"time"
)

// What leaves a line leaves at its rate, and what its queue does not hold is lost.
func TestLine(t *testing.T) {
	l := &line{rate: 1e6}
	now := time.Unix(0, 0)
	kept := 0
	for range 1000 {
		if at, ok := l.leave(now, time.Time{}, 1000); ok {
			kept++
			if want := now.Add(time.Duration(kept) * time.Millisecond); !at.Equal(want) {
				t.Fatalf("packet %d leaves at %v, want %v", kept, at, want)
			}
		}
	}
	if want := int(queue/time.Millisecond) + 1; kept != want {
		t.Errorf("%d packets kept, want %d", kept, want)
	}
	later := now.Add(time.Hour)
	if at, ok := l.leave(later, later.Add(200*time.Millisecond), 1000); !ok || at.Sub(later) != 201*time.Millisecond {
		t.Errorf("a stalled line: %v %v", at.Sub(later), ok)
	}
	if _, ok := l.leave(later, later.Add(400*time.Millisecond), 1000); ok {
		t.Error("a line that is stalled for longer than its queue is took a packet")
	}
	free := &line{}
	if at, ok := free.leave(now, time.Time{}, 1e9); !ok || !at.Equal(now) {
		t.Errorf("a line without a rate: %v %v", at, ok)
	}
}

// segment is an IPv4 packet of TCP.
func segment(flags byte, seq, ack uint32, payload int) []byte {
	b := make([]byte, 40+payload)
	b[0], b[9] = 0x45, 6
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	t := b[20:]
	copy(t, []byte{0x12, 0x34, 0x1a, 0xe1})
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = 5<<4, flags
	return b
}

// A reset comes from whom the packet was for, and is one that its sender believes.
func TestReset(t *testing.T) {
	for _, c := range []struct {
		name     string
		b        []byte
		flags    byte
		seq, ack uint32
	}{
		{"a call", segment(0x02, 100, 0, 0), 0x14, 0, 101},
		{"data", segment(0x18, 100, 7000, 500), 0x04, 7000, 0},
		{"a farewell", segment(0x11, 100, 7001, 0), 0x04, 7001, 0},
		{"data without an acknowledgement", segment(0, 100, 0, 5), 0x14, 0, 105},
	} {
		r := reset(c.b)
		if len(r) != resetSize {
			t.Fatalf("%s: %d bytes", c.name, len(r))
		}
		if [4]byte(r[12:]) != [4]byte{10, 0, 0, 2} || [4]byte(r[16:]) != [4]byte{10, 0, 0, 1} || [4]byte(r[20:]) != [4]byte{0x1a, 0xe1, 0x12, 0x34} {
			t.Errorf("%s: from and to %v", c.name, r[12:24])
		}
		if seq, ack := binary.BigEndian.Uint32(r[24:]), binary.BigEndian.Uint32(r[28:]); r[33] != c.flags || seq != c.seq || ack != c.ack {
			t.Errorf("%s: flags %x seq %d ack %d", c.name, r[33], seq, ack)
		}
		// The sum over all, with the checksum in it, is zero.
		if checksum(0, r[:20]) != 0 || checksum(26, r[12:20], r[20:]) != 0 {
			t.Errorf("%s: wrong checksums", c.name)
		}
	}
	udp := segment(0, 0, 0, 0)
	udp[9] = 17
	long := segment(2, 0, 0, 0)
	long[0] = 0x4f
	for name, b := range map[string][]byte{"a reset": segment(0x04, 1, 2, 0), "UDP": udp, "nothing": nil, "half a head": segment(2, 0, 0, 0)[:25], "a head longer than the packet": long} {
		if r := reset(b); r != nil {
			t.Errorf("%s is answered by %v", name, r)
		}
	}
}
