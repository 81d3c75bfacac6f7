package unixfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Wire types of protobuf.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// field is one field of a protobuf message.
type field struct {
	number uint64
	wire   uint8
	value  uint64 // of a number
	bytes  []byte // of wireBytes; it points into the message
}

var (
	errCut    = errors.New("cut short")
	errVarint = errors.New("a number of more than 64 bits")
)

// message reads fields one after another. There is no nesting in it, so that depth and
// memory are the caller's to decide.
type message struct{ b []byte }

// next returns the next field, or false at the end.
func (m *message) next() (f field, ok bool, err error) {
	if len(m.b) == 0 {
		return f, false, nil
	}
	key, err := m.varint()
	if err != nil {
		return f, false, err
	}
	f.number, f.wire = key>>3, uint8(key&7)
	if f.number == 0 {
		return f, false, errors.New("a field without a number")
	}
	switch f.wire {
	case wireVarint:
		f.value, err = m.varint()
	case wire64:
		err = m.fixed(8, &f.value)
	case wire32:
		err = m.fixed(4, &f.value)
	case wireBytes:
		f.bytes, err = m.bytes()
	default:
		err = fmt.Errorf("field %d has wire type %d", f.number, f.wire)
	}
	return f, err == nil, err
}

func (m *message) varint() (uint64, error) {
	v, n := binary.Uvarint(m.b)
	switch {
	case n == 0:
		return 0, errCut
	case n < 0:
		return 0, errVarint
	}
	m.b = m.b[n:]
	return v, nil
}

func (m *message) fixed(n int, v *uint64) error {
	if len(m.b) < n {
		return errCut
	}
	var wide [8]byte
	copy(wide[:], m.b[:n])
	*v, m.b = binary.LittleEndian.Uint64(wide[:]), m.b[n:]
	return nil
}

func (m *message) bytes() ([]byte, error) {
	n, err := m.varint()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(m.b)) {
		return nil, fmt.Errorf("%w: %d bytes are promised and %d are there", errCut, n, len(m.b))
	}
	out := m.b[:n:n]
	m.b = m.b[n:]
	return out, nil
}

// want returns an error unless a field has the wire type that its message says.
func (f *field) want(wire uint8, name string) error {
	if f.wire != wire {
		return fmt.Errorf("%s has wire type %d, not %d", name, f.wire, wire)
	}
	return nil
}
