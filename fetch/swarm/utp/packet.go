package utp

import "encoding/binary"

// kind is the type of a packet.
type kind uint8

const (
	kindData kind = iota
	kindFin
	kindState
	kindReset
	kindSyn
)

const (
	version    = 1
	headerSize = 20
	extSack    = 1
	maxExts    = 8  // in one packet
	maxSack    = 32 // bytes of it that we send
)

// packet is one packet of uTP. sack and payload are parts of what was parsed.
type packet struct {
	kind    kind
	conn    uint16
	stamp   uint32 // when it was sent, in µs of the sender's clock
	diff    uint32 // the delay of what the sender got last, in µs
	window  uint32 // bytes that the sender is ready to get
	seq     uint16
	ack     uint16
	sack    []byte // bit i is packet ack+2+i
	payload []byte
}

// Is reports whether a packet looks like uTP. No packet of the DHT does, as these
// begin with a 'd'.
func Is(b []byte) bool {
	return len(b) >= headerSize && b[0]&0x0f == version && b[0]>>4 <= byte(kindSyn)
}

// parse reads a packet of a stranger.
func parse(b []byte) (p packet, ok bool) {
	if !Is(b) {
		return p, false
	}
	p = packet{
		kind: kind(b[0] >> 4), conn: binary.BigEndian.Uint16(b[2:]), stamp: binary.BigEndian.Uint32(b[4:]),
		diff: binary.BigEndian.Uint32(b[8:]), window: binary.BigEndian.Uint32(b[12:]),
		seq: binary.BigEndian.Uint16(b[16:]), ack: binary.BigEndian.Uint16(b[18:]),
	}
	ext, rest := b[1], b[headerSize:]
	for n := 0; ext != 0; n++ {
		if n == maxExts || len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return p, false
		}
		body := rest[2 : 2+int(rest[1])]
		if ext == extSack {
			p.sack = body
		}
		ext, rest = rest[0], rest[2+len(body):]
	}
	p.payload = rest
	return p, true
}

// append encodes the packet.
func (p *packet) append(b []byte) []byte {
	ext := byte(0)
	if len(p.sack) > 0 {
		ext = extSack
	}
	b = append(b, byte(p.kind)<<4|version, ext)
	b = binary.BigEndian.AppendUint16(b, p.conn)
	b = binary.BigEndian.AppendUint32(b, p.stamp)
	b = binary.BigEndian.AppendUint32(b, p.diff)
	b = binary.BigEndian.AppendUint32(b, p.window)
	b = binary.BigEndian.AppendUint16(b, p.seq)
	b = binary.BigEndian.AppendUint16(b, p.ack)
	if ext != 0 {
		b = append(b, 0, byte(len(p.sack)))
		b = append(b, p.sack...)
	}
	return append(b, p.payload...)
}

// after is how far a is behind b in the circle of 16-bit numbers; negative if before.
func after(a, b uint16) int { return int(int16(a - b)) }
