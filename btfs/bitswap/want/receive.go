package want

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/btmount/btmount/btfs/block"
)

const (
	least       = 1 << 10   // bytes that came at once, of which more come most likely: not what is said of a block
	firstBuffer = 512 << 10 // bytes that a message may announce before it sends them
	maxHeld     = 32 << 20  // bytes of one peer's messages that have not come whole
	maxHeldAll  = 96 << 20  // of all, before one may have no more than a message
	maxBlocks   = 4096      // of a message
	maxSaid     = 16384     // things that a message says of blocks
)

var errMany = errors.New("a message of more parts than any peer would send")

// reply is what matters of a message.
type reply struct {
	blocks [][]byte
	said   []presence
}

type presence struct {
	key  digest
	said answer
}

// Receive reads what a peer sends on a stream, until its end or the first message that is
// none, of which the error tells.
func (c *Client) Receive(p peer.ID, stream io.Reader) error {
	in := bufio.NewReader(&moves{Reader: stream, c: c, p: p})
	for {
		held := int64(0)
		b, err := readMessage(in, func(n int64) error {
			held += n
			return c.hold(p, n)
		})
		_ = c.hold(p, -held)
		if err != nil {
			if errors.Is(err, ErrFlood) {
				c.cfg.Leave(p, err)
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
		m, err := parse(b)
		if err != nil {
			return err
		}
		c.received(p, m)
	}
}

// moves notes when bytes come.
type moves struct {
	io.Reader
	c *Client
	p peer.ID
	r *remote
}

func (m *moves) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.r == nil {
		m.c.mu.Lock()
		m.r = m.c.peers[m.p]
		m.c.mu.Unlock()
	}
	if m.r != nil && n >= least {
		m.r.moved.Store(int64(time.Since(m.c.begun)))
	}
	return n, err
}

// hold counts bytes of messages that have not come whole. A peer may have so many of them,
// and fewer if all together have too many.
func (c *Client) hold(p peer.ID, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds += n
	r := c.peers[p]
	if r == nil {
		return nil // it is gone, and its stream too
	}
	r.holds += n
	if n > 0 && (r.holds > maxHeld || r.holds > network.MessageSizeMax && c.holds > maxHeldAll) {
		return ErrFlood
	}
	return nil
}

// readMessage reads one, with its length before it. io.EOF: there is none. hold is told of
// bytes before they are read.
func readMessage(in *bufio.Reader, hold func(n int64) error) ([]byte, error) {
	size, err := binary.ReadUvarint(in)
	switch {
	case err != nil:
		return nil, err
	case size > network.MessageSizeMax:
		return nil, fmt.Errorf("a message of %d bytes; at most %d", size, network.MessageSizeMax)
	}
	b := bytes.NewBuffer(make([]byte, 0, min(size, firstBuffer)))
	for rest := int64(size); rest > 0; {
		n := min(rest, firstBuffer)
		if err := hold(n); err != nil {
			return nil, err
		}
		if _, err := io.CopyN(b, in, n); err != nil {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		rest -= n
	}
	return b.Bytes(), nil
}

// parse reads the fields of message.proto (boxo/bitswap/message/pb) that tell of blocks. The
// library would make an object of each of the others, and hash blocks as their sender says.
func parse(b []byte) (m reply, err error) {
	err = fields(b, func(number protowire.Number, v []byte) error {
		switch number {
		case 2: // a block of bitswap 1.0.0
			m.blocks = append(m.blocks, v)
		case 3:
			var data []byte
			if err := fields(v, func(number protowire.Number, v []byte) error {
				if number == 2 {
					data = v
				}
				return nil
			}, nil); err != nil {
				return err
			}
			m.blocks = append(m.blocks, data)
		case 4:
			p, ok, err := parsePresence(v)
			if err != nil {
				return err
			}
			if ok {
				m.said = append(m.said, p)
			}
		}
		if len(m.blocks) > maxBlocks || len(m.said) > maxSaid {
			return errMany
		}
		return nil
	}, nil)
	return m, err
}

func parsePresence(b []byte) (p presence, ok bool, err error) {
	p.said = has
	var id cid.Cid
	err = fields(b, func(number protowire.Number, v []byte) (err error) {
		if number == 1 {
			id, err = cid.Cast(v)
		}
		return err
	}, func(number protowire.Number, v uint64) {
		if number == 2 && v == 1 {
			p.said = lacks
		}
	})
	if err == nil {
		p.key, ok = block.Digest(id)
	}
	return p, ok, err
}

// fields calls text or number of each field of a protobuf message.
func fields(b []byte, text func(protowire.Number, []byte) error, number func(protowire.Number, uint64)) error {
	for len(b) > 0 {
		id, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		switch kind {
		case protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				if err := text(id, v); err != nil {
					return err
				}
			}
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 && number != nil {
				number(id, v)
			}
		default:
			n = protowire.ConsumeFieldValue(id, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}

// received takes what a peer said into account.
func (c *Client) received(p peer.ID, m reply) {
	keys := make([]digest, len(m.blocks))
	for i, b := range m.blocks {
		if len(b) <= block.MaxSize {
			keys[i] = sha256.Sum256(b)
		}
	}
	now := time.Now()
	c.mu.Lock()
	left := false
	if r := c.peers[p]; r != nil && !c.closed {
		for i, b := range m.blocks {
			if len(m.blocks) > 1 {
				b = bytes.Clone(b) // one of them would keep all in memory
			}
			c.cameLocked(r, keys[i], b, now)
		}
		for _, s := range m.said {
			c.saidLocked(r, s, now)
		}
		c.fillLocked(now)
		left = r.unasked > maxUnasked
	}
	c.mu.Unlock()
	if left {
		c.cfg.Leave(p, ErrUnasked)
	}
}

// cameLocked takes a block.
func (c *Client) cameLocked(r *remote, key digest, b []byte, now time.Time) {
	w := c.wants[key]
	switch {
	case w == nil && c.asked.set[key]:
		r.heard, r.came = now, now
		c.wasted += int64(len(b))
	case w == nil:
		r.unasked++
		c.liedLocked(r, now)
	default:
		r.heard, r.came = now, now
		if q := w.at[r]; q != nil {
			r.trippedLocked(q, now)
			r.gaveLocked(q, len(b), now)
		}
		w.group.score[r] = min(w.group.score[r]+1, maxScore)
		w.bytes = b[:len(b):len(b)]
		c.endLocked(w, r)
		close(w.done)
	}
}

// liedLocked asks others for what a peer was asked that sent something else.
func (c *Client) liedLocked(r *remote, now time.Time) {
	r.restLocked(now)
	for _, q := range r.asked {
		delete(q.w.group.score, r)
		if q.open() {
			q.late = true
			r.owes--
			if !q.w.openLocked() {
				c.placeLocked(q.w, now)
			}
		}
	}
}

// saidLocked takes into account that a peer has a block, or lacks it.
func (c *Client) saidLocked(r *remote, s presence, now time.Time) {
	q := r.asked[s.key]
	if q == nil || q.said == s.said {
		return
	}
	w := q.w
	r.heard = now
	r.trippedLocked(q, now)
	wasOpen := q.open()
	q.said = s.said
	r.owes += btoi(q.open()) - btoi(wasOpen)
	switch g := w.group; {
	case s.said == has:
		g.score[r] = max(g.score[r], 1)
	case q.block:
		r.came = now
		if g.score[r] -= 2; g.score[r] <= 0 {
			delete(g.score, r)
		}
	}
	if !w.openLocked() {
		c.placeLocked(w, now)
	}
}

// trippedLocked notes what the first answer to a question took.
func (r *remote) trippedLocked(q *question, now time.Time) {
	if q.said != nothing {
		return
	}
	took := max(now.Sub(q.since), time.Microsecond)
	if r.trip == 0 {
		r.trip = took
	}
	r.trip += (took - r.trip) / 8
}
