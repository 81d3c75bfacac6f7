package wire

import (
	"bytes"
	"io"
	"testing"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

// portions is a reader that hands out its parts one at a time.
type portions struct{ parts [][]byte }

func (p *portions) Read(b []byte) (int, error) {
	for len(p.parts) > 0 && len(p.parts[0]) == 0 {
		p.parts = p.parts[1:]
	}
	if len(p.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.parts[0])
	p.parts[0] = p.parts[0][n:]
	return n, nil
}

func drain(t *testing.T, r *Reader, n int) {
	t.Helper()
	for i := range n {
		if m, err := r.Read(); err != nil || m.Type == pp.Piece && len(m.Payload) != BlockSize {
			t.Fatal(i, m.Type, len(m.Payload), err)
		}
	}
}

// Buffers grow within a budget that all share, and give it back: when they are closed, and
// when their peer has become slow.
func TestBuffersShareABudget(t *testing.T) {
	block := append(AppendPieceHeader(nil, 0, 0, BlockSize), make([]byte, BlockSize)...)
	fast := bytes.Repeat(block, 400)
	budget := NewBudget(2*lastBuffer + firstBuffer/2)
	var all []*Reader
	total := 0
	slow := make([][]byte, 0, 20*manyThin)
	for range 20 * manyThin {
		slow = append(slow, AppendIndex(nil, pp.Have, 1))
	}
	for range 5 {
		r := NewReaderWithin(budget, &portions{append([][]byte{fast}, slow...)})
		drain(t, r, 400)
		all = append(all, r)
		total += len(r.buf) - firstBuffer
	}
	if total > 2*lastBuffer || len(all[0].buf) != lastBuffer || len(all[4].buf) != firstBuffer {
		t.Errorf("%d bytes in all; the first has %d, the last %d", total, len(all[0].buf), len(all[4].buf))
	}
	drain(t, all[0], len(slow))
	if len(all[0].buf) != firstBuffer {
		t.Errorf("a buffer of %d bytes for a slow peer", len(all[0].buf))
	}
	for _, r := range all {
		r.Release()
		r.Release()
	}
	if left := budget.left.Load(); left != 2*lastBuffer+firstBuffer/2 {
		t.Errorf("%d bytes are left of the budget", left)
	}
}

// A long message costs its length only while it is read, and comes whole.
func TestLongMessageLeavesNoLongBuffer(t *testing.T) {
	field := bytes.Repeat([]byte{0xa5}, MaxBitfield)
	stream := append(AppendField(nil, field), AppendIndex(nil, pp.Have, 7)...)
	r := NewReaderWithin(NewBudget(0), bytes.NewReader(stream))
	m, err := r.Read()
	if err != nil || m.Type != pp.Bitfield || !bytes.Equal(m.Payload, field) {
		t.Fatal(m.Type, len(m.Payload), err)
	}
	if m, err = r.Read(); err != nil || m.Type != pp.Have || m.Index != 7 {
		t.Fatal(m, err)
	}
	drainEnd := func() { _, err = r.Read() }
	if drainEnd(); err != io.EOF || len(r.buf) != firstBuffer {
		t.Errorf("%v, and a buffer of %d bytes", err, len(r.buf))
	}
}
