package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

const maxServed = 128 << 10 // longest request that is served; BEP 3 names 16 KiB, old clients ask more

var errFlood = errors.New("more requests than it was told to send")

// asks queues a request of the peer, or rejects it. Called by the reading goroutine.
func (c *conn) asks(k blockKey) error {
	var store Store
	size := int64(0)
	if s := c.t.served.Load(); s != nil {
		if store = s.store; k.piece >= 0 && k.piece < s.info.NumPieces() {
			if size = s.info.PieceSize(k.piece); s.grid.tree {
				size = s.info.PieceLength // libtorrent asks for padding behind every v2 file, the last as well
			}
		}
	}
	if k.size <= 0 || k.size > maxServed || k.begin < 0 || int64(k.begin)+int64(k.size) > size {
		return fmt.Errorf("asks for %d bytes at %d of piece %d, which does not exist", k.size, k.begin, k.piece)
	}
	c.mu.Lock()
	n := len(c.uploads)
	refused := c.choking && !c.giftLocked(k)
	if !refused && n < 2*reqq && store != nil {
		c.uploads = append(c.uploads, k)
	}
	c.mu.Unlock()
	switch {
	case n >= 2*reqq:
		return errFlood
	case refused || store == nil:
		c.reject(k)
	}
	c.wake()
	return nil
}

// reject says that a request is not served; without BEP 6 silence says it.
func (c *conn) reject(keys ...blockKey) {
	if !c.fast {
		return
	}
	var b []byte
	for _, k := range keys {
		b = wire.AppendRange(b, pp.Reject, k.piece, k.begin, k.size)
	}
	c.write(b)
}

// unask takes a request back that is not yet served.
func (c *conn) unask(k blockKey) {
	c.mu.Lock()
	i := slices.Index(c.uploads, k)
	if i >= 0 {
		c.uploads = slices.Delete(c.uploads, i, i+1)
	}
	c.mu.Unlock()
	if i >= 0 {
		c.reject(k)
	}
}

// choke sets whether the peer is served.
func (c *conn) choke(on bool) {
	c.mu.Lock()
	if c.choking == on {
		c.mu.Unlock()
		return
	}
	c.choking = on
	var kept, dropped []blockKey
	for _, k := range c.uploads {
		if !on || c.giftLocked(k) {
			kept = append(kept, k)
		} else {
			dropped = append(dropped, k)
		}
	}
	c.uploads = kept
	c.mu.Unlock()
	if on {
		c.write(wire.AppendFlag(nil, pp.Choke))
		c.reject(dropped...)
	} else {
		c.write(wire.AppendFlag(nil, pp.Unchoke))
	}
}

// upload sends the block that is first in the queue; granted bytes may be sent for it.
// buf is reused.
//
// Rejected: to have the kernel send the block from the file (sendfile). Blocks of 16 KiB are
// too short for it: a header and a block take, over loopback, 0.25 CPU s/GB with one read
// and one write, 0.35 to 0.40 with net's ReadFrom, whose header is a packet of its own,
// 0.31 to 0.34 with MSG_MORE, and 0.23 to 0.25 with nothing but the two system calls. It
// would be 0.20 with blocks of 128 KiB, which nobody asks for. All of a seed is 0.65 (with
// libtorrent as the leecher). And what was verified could change on its way: a piece that
// is evicted would have to be kept until the peer has acknowledged it.
func (c *conn) upload(granted int, buf []byte) ([]byte, error) {
	c.mu.Lock()
	var k blockKey
	if len(c.uploads) > 0 {
		k = c.uploads[0]
		c.uploads = c.uploads[1:]
	}
	c.mu.Unlock()
	c.refund(granted - k.size) // others than was asked for, after a cancel
	if k.size == 0 {
		return buf, nil
	}
	s := c.t.served.Load()
	buf = wire.AppendPieceHeader(buf[:0], k.piece, k.begin, k.size)
	head := len(buf)
	buf = append(buf, make([]byte, k.size)...)
	// Padding is zeros that we keep nowhere.
	off := int64(k.piece)*s.info.PieceLength + int64(k.begin)
	content := min(int64(k.size), max(0, s.grid.end(k.piece)-off))
	clear(buf[head+int(content):])
	if content > 0 && s.store.ReadPresent(buf[head:head+int(content)], off) != nil {
		c.reject(k) // evicted since it was announced
		c.t.post(func() { c.t.evicted(k.piece) })
		c.refund(k.size)
		return buf, nil
	}
	if _, err := c.rw.Write(buf); err != nil {
		return buf, err
	}
	c.up.Add(int64(k.size))
	c.t.uploaded.Add(int64(k.size))
	return buf, nil
}

// refund gives bytes back that were granted and not sent.
func (c *conn) refund(n int) {
	for _, f := range c.turns {
		if n != 0 {
			f.Refund(n)
		}
	}
}

// setWeight sets the share of c on a limited uplink.
func (c *conn) setWeight(w float64) {
	for _, f := range c.turns {
		f.SetWeight(w)
	}
}

// take waits until n bytes may pass a limiter, or the connection ends; nil lets
// everything pass.
func (c *conn) take(ctx context.Context, l *rate.Limiter, n int) error {
	for l != nil && n > 0 {
		part := min(n, l.Burst())
		n -= part
		r := l.ReserveN(time.Now(), part)
		d := r.Delay()
		if d == 0 {
			continue
		}
		wait := time.NewTimer(d)
		select {
		case <-wait.C:
			continue
		case <-c.gone:
		case <-ctx.Done():
		}
		wait.Stop()
		r.Cancel()
		return net.ErrClosed
	}
	return nil
}
