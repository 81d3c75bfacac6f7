// Package wire reads and writes the messages of the BitTorrent peer protocol:
// BEP 3 (base), BEP 6 (fast), BEP 10 (extensions), BEP 52 (hashes). It holds no
// state of a torrent.
//
// The Reader hands out payloads that live in its own buffer, so a block can be
// hashed and written while it is still warm in the processor's cache, without a
// copy. The buffer starts small and grows for peers that fill it: fifty idle peers
// cost little, one fast peer gets few large reads (measured: 64 KiB reads cost a
// third more CPU per byte than 1 MiB ones). What all buffers grow to is bounded by a
// [Budget] that connections share.
//
// Every length is checked before anything is allocated for it.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/merkle"
)

// BlockSize is the length of a request; every client serves 16 KiB.
const BlockSize = 16 << 10

const (
	// MaxExtended bounds an extension message, MaxBitfield a bitfield (2^24 pieces).
	MaxExtended = 1 << 20
	MaxBitfield = 2 << 20
	// MaxHashes bounds an answer to a hash request: we ask for 512 and their proof.
	MaxHashes = 512 + 64

	hashHead = 32 + 4*4 // root, base layer, index, length, proof layers

	firstBuffer = 32 << 10
	lastBuffer  = 1 << 20
)

// Message is one message. Payload is valid until a call of Read that finds the Reader not Ready.
type Message struct {
	Type      pp.MessageType
	Keepalive bool
	Index     uint32 // piece
	Begin     uint32
	Length    uint32 // of a request
	Extended  byte   // extension message id
	Payload   []byte // block, bitfield, extension payload, or hashes
	// Hashes is of a hash request, hashes or hash reject.
	Hashes merkle.Request
}

// ErrTooLong means that a peer announced a message longer than its kind may be.
var ErrTooLong = errors.New("message too long")

// limit returns the longest body of a message kind, type byte included.
func limit(t pp.MessageType) int {
	switch t {
	case pp.Choke, pp.Unchoke, pp.Interested, pp.NotInterested, pp.HaveAll, pp.HaveNone:
		return 1
	case pp.Have, pp.Suggest, pp.AllowedFast:
		return 5
	case pp.Port:
		return 3
	case pp.Request, pp.Cancel, pp.Reject:
		return 13
	case pp.Piece:
		return 9 + BlockSize
	case pp.Bitfield:
		return 1 + MaxBitfield
	case pp.Extended:
		return 2 + MaxExtended
	case pp.HashRequest, pp.HashReject:
		return 1 + hashHead
	case pp.Hashes:
		return 1 + hashHead + 32*MaxHashes
	default:
		return 64 << 10 // unknown kinds: read and ignored
	}
}

// Read returns the next message.
func (r *Reader) Read() (m Message, err error) {
	if err := r.need(4); err != nil {
		return m, err
	}
	n := int(binary.BigEndian.Uint32(r.buf[r.r:]))
	if n == 0 {
		r.r += 4
		m.Keepalive = true
		return m, nil
	}
	if err := r.need(5); err != nil {
		return m, noEOF(err)
	}
	m.Type = pp.MessageType(r.buf[r.r+4])
	if n > limit(m.Type) {
		return m, fmt.Errorf("%w: %d bytes of kind %d", ErrTooLong, n, m.Type)
	}
	if err := r.need(4 + n); err != nil {
		return m, noEOF(err)
	}
	body := r.buf[r.r+5 : r.r+4+n]
	r.r += 4 + n
	return m, m.decode(body)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (m *Message) decode(b []byte) error {
	want := -1
	switch m.Type {
	case pp.Choke, pp.Unchoke, pp.Interested, pp.NotInterested, pp.HaveAll, pp.HaveNone:
		want = 0
	case pp.Have, pp.Suggest, pp.AllowedFast:
		want = 4
	case pp.Request, pp.Cancel, pp.Reject:
		want = 12
	case pp.HashRequest, pp.HashReject:
		want = hashHead
	}
	if want >= 0 && len(b) != want || m.Type == pp.Piece && len(b) < 8 || m.Type == pp.Extended && len(b) < 1 ||
		m.Type == pp.Hashes && (len(b) < hashHead || (len(b)-hashHead)%32 != 0) {
		return fmt.Errorf("message of kind %d has %d bytes", m.Type, len(b))
	}
	switch m.Type {
	case pp.Have, pp.Suggest, pp.AllowedFast:
		m.Index = binary.BigEndian.Uint32(b)
	case pp.Request, pp.Cancel, pp.Reject:
		m.Index, m.Begin, m.Length = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	case pp.Piece:
		m.Index, m.Begin, m.Payload = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[8:]
	case pp.Extended:
		m.Extended, m.Payload = b[0], b[1:]
	case pp.HashRequest, pp.Hashes, pp.HashReject:
		be := binary.BigEndian
		m.Hashes = merkle.Request{
			Root: merkle.Hash(b), Base: be.Uint32(b[32:]), Index: be.Uint32(b[36:]), Length: be.Uint32(b[40:]), Proof: be.Uint32(b[44:]),
		}
		m.Payload = b[hashHead:]
	default:
		m.Payload = b
	}
	return nil
}

// Append functions add one encoded message to b.

// AppendKeepalive appends a keep-alive.
func AppendKeepalive(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// AppendFlag appends a message without a body (choke, interested, have all, ...).
func AppendFlag(b []byte, t pp.MessageType) []byte { return append(b, 0, 0, 0, 1, byte(t)) }

// AppendIndex appends have, suggest or allowed fast.
func AppendIndex(b []byte, t pp.MessageType, piece int) []byte {
	b = append(b, 0, 0, 0, 5, byte(t))
	return binary.BigEndian.AppendUint32(b, uint32(piece))
}

// AppendRange appends request, cancel or reject.
func AppendRange(b []byte, t pp.MessageType, piece, begin, length int) []byte {
	b = append(b, 0, 0, 0, 13, byte(t))
	b = binary.BigEndian.AppendUint32(b, uint32(piece))
	b = binary.BigEndian.AppendUint32(b, uint32(begin))
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// AppendPieceHeader appends all of a piece message but its block of n bytes.
func AppendPieceHeader(b []byte, piece, begin, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(9+n))
	b = append(b, byte(pp.Piece))
	b = binary.BigEndian.AppendUint32(b, uint32(piece))
	return binary.BigEndian.AppendUint32(b, uint32(begin))
}

// AppendField appends a bitfield that is encoded already.
func AppendField(b, field []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(field)))
	return append(append(b, byte(pp.Bitfield)), field...)
}

// AppendBitfield appends a bitfield of n pieces.
func AppendBitfield(b []byte, n int, has func(int) bool) []byte {
	size := (n + 7) / 8
	b = binary.BigEndian.AppendUint32(b, uint32(1+size))
	b = append(b, byte(pp.Bitfield))
	at := len(b)
	b = append(b, make([]byte, size)...)
	for i := range n {
		if has(i) {
			b[at+i/8] |= 0x80 >> (i % 8)
		}
	}
	return b
}

// AppendHashes appends a hash request, hashes or hash reject.
func AppendHashes(b []byte, t pp.MessageType, r merkle.Request, hashes ...merkle.Hash) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, uint32(1+hashHead+32*len(hashes)))
	b = append(b, byte(t))
	b = append(b, r.Root[:]...)
	for _, n := range []uint32{r.Base, r.Index, r.Length, r.Proof} {
		b = be.AppendUint32(b, n)
	}
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return b
}

// AppendExtended appends an extension message.
func AppendExtended(b []byte, id byte, payload ...[]byte) []byte {
	n := 2
	for _, p := range payload {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, byte(pp.Extended), id)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}
