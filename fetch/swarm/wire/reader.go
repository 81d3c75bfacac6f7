package wire

import (
	"encoding/binary"
	"io"
	"sync/atomic"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

// Budget bounds what the buffers of many Readers may grow to beyond their first size, in
// bytes. (A single message longer than a buffer is read all the same: the lengths of
// messages are bounded, and the buffer is small again after it.)
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget of n bytes.
func NewBudget(n int64) *Budget {
	b := &Budget{}
	b.left.Store(n)
	return b
}

func (b *Budget) take(n int) bool {
	if b == nil {
		return true
	}
	if b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.left.Add(int64(n))
	return false
}

func (b *Budget) give(n int) {
	if b != nil {
		b.left.Add(int64(n))
	}
}

// Reader reads messages from one peer.
type Reader struct {
	src    io.Reader
	budget *Budget
	buf    []byte
	r, w   int
	size   int // that buf has earned; it is longer while a long message is read
	full   int // fills in a row that used up the buffer
	thin   int // fills in a row that used little of it
}

// manyThin is how many small fills in a row make a buffer smaller.
const manyThin = 64

// NewReader returns a Reader over src whose buffer grows without a budget.
func NewReader(src io.Reader) *Reader { return NewReaderWithin(nil, src) }

// NewReaderWithin returns a Reader over src whose buffer grows within a budget. Release gives
// back what it has of it.
func NewReaderWithin(b *Budget, src io.Reader) *Reader {
	return &Reader{src: src, budget: b, buf: make([]byte, firstBuffer), size: firstBuffer}
}

// Release gives back what the buffer has of the budget. The Reader is not used any more.
func (r *Reader) Release() {
	r.budget.give(r.size - firstBuffer)
	r.size = firstBuffer
}

// Ready reports whether a whole message is buffered: Read will not wait, and the payloads
// that were returned before it stay valid.
func (r *Reader) Ready() bool {
	have := r.w - r.r
	return have >= 4 && uint32(have-4) >= binary.BigEndian.Uint32(r.buf[r.r:])
}

// ReadyBlock reports whether a whole message is buffered that brings a block.
func (r *Reader) ReadyBlock() bool {
	return r.Ready() && r.w-r.r > 4 && pp.MessageType(r.buf[r.r+4]) == pp.Piece && r.buf[r.r+3]|r.buf[r.r+2]|r.buf[r.r+1]|r.buf[r.r] != 0
}

// need makes n bytes available at buf[r:].
func (r *Reader) need(n int) error {
	if r.r == r.w {
		r.shrink()
	}
	for r.w-r.r < n {
		if r.r > 0 && len(r.buf)-r.r < max(n, len(r.buf)/2) {
			copy(r.buf, r.buf[r.r:r.w])
			r.w, r.r = r.w-r.r, 0
		}
		if len(r.buf)-r.r < n {
			r.resize(n)
		}
		got, err := r.src.Read(r.buf[r.w:])
		r.w += got
		r.thin++
		if got > r.size/8 {
			r.thin = 0
		}
		if r.w == len(r.buf) {
			if r.full++; r.full >= 4 && r.size < lastBuffer && r.budget.take(r.size) {
				r.size *= 2
				r.resize(max(r.size, len(r.buf)))
			}
		} else {
			r.full = 0
		}
		if err != nil && r.w-r.r < n {
			if err == io.EOF && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// shrink makes an empty buffer smaller that was long for one message, or is long for a
// peer that has become slow.
func (r *Reader) shrink() {
	if r.thin >= manyThin && r.size > firstBuffer {
		r.thin = 0
		r.size /= 2
		r.budget.give(r.size)
	}
	if r.r, r.w = 0, 0; len(r.buf) > r.size {
		r.buf = make([]byte, r.size)
	}
}

func (r *Reader) resize(n int) {
	b := make([]byte, max(n, len(r.buf)))
	r.w = copy(b, r.buf[r.r:r.w])
	r.r, r.full, r.buf = 0, 0, b
}
