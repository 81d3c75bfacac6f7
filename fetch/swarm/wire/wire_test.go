package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/merkle"
)

// every message that we send, encoded by us.
func every() []byte {
	var b []byte
	b = AppendKeepalive(b)
	for _, t := range []pp.MessageType{pp.Choke, pp.Unchoke, pp.Interested, pp.NotInterested, pp.HaveAll, pp.HaveNone} {
		b = AppendFlag(b, t)
	}
	b = AppendIndex(b, pp.Have, 77)
	b = AppendRange(b, pp.Request, 1, 16384, 16384)
	b = AppendRange(b, pp.Cancel, 2, 0, 5)
	b = AppendRange(b, pp.Reject, 3, 1, 2)
	b = AppendPieceHeader(b, 9, 32768, 5)
	b = append(b, "block"...)
	b = AppendBitfield(b, 11, func(i int) bool { return i%2 == 0 })
	b = AppendExtended(b, 3, []byte("d1:ai1e"), []byte("e"))
	b = AppendHashes(b, pp.HashRequest, hashes)
	b = AppendHashes(b, pp.Hashes, hashes, merkle.Hash{7}, merkle.Hash{8})
	return AppendHashes(b, pp.HashReject, hashes)
}

var hashes = merkle.Request{Root: merkle.Hash{1, 2}, Base: 3, Index: 4, Length: 5, Proof: 6}

// TestAgainstTheLibrary compares with anacrolix's encoding of the same messages.
func TestAgainstTheLibrary(t *testing.T) {
	var want []byte
	field := make([]bool, 11)
	for i := range field {
		field[i] = i%2 == 0
	}
	for _, m := range []pp.Message{
		{Keepalive: true},
		{Type: pp.Choke},
		{Type: pp.Unchoke},
		{Type: pp.Interested},
		{Type: pp.NotInterested},
		{Type: pp.HaveAll},
		{Type: pp.HaveNone},
		{Type: pp.Have, Index: 77},
		{Type: pp.Request, Index: 1, Begin: 16384, Length: 16384},
		{Type: pp.Cancel, Index: 2, Length: 5},
		{Type: pp.Reject, Index: 3, Begin: 1, Length: 2},
		{Type: pp.Piece, Index: 9, Begin: 32768, Piece: []byte("block")},
		{Type: pp.Bitfield, Bitfield: field},
		{Type: pp.Extended, ExtendedID: 3, ExtendedPayload: []byte("d1:ai1ee")},
		{Type: pp.HashRequest, PiecesRoot: hashes.Root, BaseLayer: 3, Index: 4, Length: 5, ProofLayers: 6},
		{Type: pp.Hashes, PiecesRoot: hashes.Root, BaseLayer: 3, Index: 4, Length: 5, ProofLayers: 6, Hashes: [][32]byte{{7}, {8}}},
		{Type: pp.HashReject, PiecesRoot: hashes.Root, BaseLayer: 3, Index: 4, Length: 5, ProofLayers: 6},
	} {
		want = append(want, m.MustMarshalBinary()...)
	}
	if got := every(); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestReadWhateverTheChunks(t *testing.T) {
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		r := NewReader(wrap(bytes.NewReader(every())))
		var got []Message
		for {
			m, err := r.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m.Payload = bytes.Clone(m.Payload)
			got = append(got, m)
		}
		if len(got) != 17 {
			t.Fatalf("%s: %d messages", name, len(got))
		}
		if p := got[11]; p.Type != pp.Piece || p.Index != 9 || p.Begin != 32768 || string(p.Payload) != "block" {
			t.Errorf("%s: piece %+v", name, p)
		}
		if x := got[13]; x.Extended != 3 || string(x.Payload) != "d1:ai1ee" {
			t.Errorf("%s: extended %+v", name, x)
		}
		for i, n := range []int{0, 64, 0} {
			if x := got[14+i]; x.Hashes != hashes || len(x.Payload) != n {
				t.Errorf("%s: hashes %+v", name, x)
			}
		}
	}
}

func TestBufferGrowsForFastPeers(t *testing.T) {
	var stream []byte
	data := make([]byte, BlockSize)
	for i := range 400 {
		stream = append(AppendPieceHeader(stream, i, 0, BlockSize), data...)
	}
	r := NewReader(bytes.NewReader(stream))
	for i := range 400 {
		m, err := r.Read()
		if err != nil || int(m.Index) != i || len(m.Payload) != BlockSize {
			t.Fatal(i, m.Index, len(m.Payload), err)
		}
	}
	if len(r.buf) != lastBuffer {
		t.Errorf("buffer of %d bytes after 6 MiB without a pause", len(r.buf))
	}
}

func TestLengthsAreCheckedBeforeAllocation(t *testing.T) {
	for _, c := range []struct {
		kind pp.MessageType
		n    uint32
	}{
		{pp.Piece, 10 + BlockSize},
		{pp.Bitfield, 2 + MaxBitfield},
		{pp.Extended, 3 + MaxExtended},
		{pp.Have, 6},
		{pp.Choke, 2},
		{pp.Request, 14},
		{pp.HashRequest, 50},
		{pp.HashReject, 50},
		{pp.Hashes, 50 + 32*MaxHashes},
		{99, 1 << 31},
		{pp.Piece, 1<<32 - 1},
	} {
		b := binary.BigEndian.AppendUint32(nil, c.n)
		b = append(b, byte(c.kind))
		r := NewReader(io.MultiReader(bytes.NewReader(b), zeros{}))
		if _, err := r.Read(); !errors.Is(err, ErrTooLong) {
			t.Errorf("kind %d of %d bytes: %v", c.kind, c.n, err)
		}
		if len(r.buf) > firstBuffer {
			t.Errorf("kind %d of %d bytes: %d allocated", c.kind, c.n, len(r.buf))
		}
	}
	for _, b := range [][]byte{{0, 0, 0, 1, byte(pp.Have)}, {0, 0, 0, 1, byte(pp.Piece)}, {0, 0, 0, 1, byte(pp.Extended)}, {0, 0, 0, 5, byte(pp.Request), 0, 0, 0, 0}, {0, 0, 0, 5, byte(pp.HashRequest), 0, 0, 0, 0}, {0, 0, 0, 1, byte(pp.Hashes)}, append([]byte{0, 0, 0, 50, byte(pp.Hashes)}, make([]byte, 49)...)} {
		if _, err := NewReader(bytes.NewReader(b)).Read(); err == nil {
			t.Errorf("short message %x accepted", b)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// FuzzReader: no input makes the reader panic, read on for ever, or hand out more
// than its kind allows.
func FuzzReader(f *testing.F) {
	f.Add(every())
	f.Add([]byte{255, 255, 255, 255, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for total := 0; ; {
			m, err := r.Read()
			if err != nil {
				return
			}
			if len(m.Payload) > limit(m.Type) {
				t.Fatalf("%d bytes of kind %d", len(m.Payload), m.Type)
			}
			if total += 4 + len(m.Payload); total > len(b)+4 {
				t.Fatal("more out than in")
			}
		}
	})
}
