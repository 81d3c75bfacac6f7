package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

// donthave is lt_donthave (BEP 54): a peer does not have a piece any more. A cache evicts,
// so we send it; other caches do too.
type donthave struct{ t *Torrent }

func (donthave) name() string { return "lt_donthave" }
func (donthave) attach(*conn) {}
func (donthave) detach(*conn) {}
func (donthave) tick()        {}

func (d donthave) message(c *conn, payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("lt_donthave of %d bytes, not 4", len(payload))
	}
	piece := binary.BigEndian.Uint32(payload)
	if piece >= wire.MaxBitfield*8 {
		return fmt.Errorf("does not have piece %d, which does not exist", piece)
	}
	return d.t.gotLost(c, int(piece))
}

// gotLost takes a piece from what a peer has. What was asked of it, it will reject.
func (t *Torrent) gotLost(c *conn, piece int) error {
	switch {
	case t.info == nil:
		if c.haveAll {
			return nil // of how many is not known; it rejects what is asked of it
		}
	case piece >= t.info.NumPieces():
		return fmt.Errorf("does not have piece %d, which does not exist", piece)
	case c.haveAll:
		n := t.info.NumPieces()
		c.haveAll, c.haveCount, c.field = false, n, make([]byte, (n+7)/8)
		for p := range n {
			c.field[p/8] |= 0x80 >> (p % 8)
		}
		t.tally(c, true)
	}
	if c.has(piece) {
		c.field[piece/8] &^= 0x80 >> (piece % 8)
		c.haveCount--
		if t.rare != nil {
			t.rare.Lost(piece)
		}
		t.interest(c)
	}
	return nil
}

// maxLost bounds how many pieces a peer is told of at a time; of others it is told when it
// asks for them.
const maxLost = 1024

// gone returns pieces that are in v and not in now.
func (v *survey) gone(now *survey) (pieces []int) {
	for i, b := range v.have {
		if i >= len(now.have) {
			break
		}
		for lost := b &^ now.have[i]; lost != 0 && len(pieces) < maxLost; {
			bit := bits.LeadingZeros8(lost)
			lost &^= 0x80 >> bit
			pieces = append(pieces, i*8+bit)
		}
	}
	return pieces
}

// tellLost tells peers of pieces that we do not have any more.
func (t *Torrent) tellLost(pieces []int) {
	if len(pieces) == 0 || t.client.cfg.NoUpload {
		return
	}
	for c := range t.conns {
		id := c.theirs["lt_donthave"]
		if id == 0 {
			continue
		}
		var b []byte
		for _, p := range pieces {
			if !c.has(p) { // else it was not told that we have it
				b = wire.AppendExtended(b, id, binary.BigEndian.AppendUint32(nil, uint32(p)))
			}
		}
		if len(b) > 0 {
			c.write(b)
		}
	}
}

// evicted is called when a piece that we said we have turned out not to be there.
func (t *Torrent) evicted(piece int) {
	if t.stock.has(piece) {
		t.stock.have[piece/8] &^= 0x80 >> (piece % 8)
		t.stock.count--
		t.tellLost([]int{piece})
		if t.complete() {
			t.recount()
		}
	}
}

// uploadOnly is BEP 21: who wants nothing says so, with a key of the extended handshake,
// and with a message when it changes.
type uploadOnly struct{ t *Torrent }

func (uploadOnly) name() string { return "upload_only" }
func (uploadOnly) attach(*conn) {}
func (uploadOnly) detach(*conn) {}
func (uploadOnly) tick()        {}

func (u uploadOnly) message(c *conn, payload []byte) error {
	if len(payload) != 1 {
		return fmt.Errorf("upload_only of %d bytes, not 1", len(payload))
	}
	c.uploadOnly = payload[0] != 0
	return nil
}

var errUseless = errors.New("neither wants anything of the other")

// wantsNothing reports whether a peer has all, or says that it wants nothing.
func (t *Torrent) wantsNothing(c *conn) bool {
	return c.uploadOnly || c.haveAll || t.info != nil && c.haveCount == t.info.NumPieces()
}

// uploadTick tells peers when we have all, or not any more; and parts with those that want
// nothing while we want nothing. Not at once: pieces may be evicted and read again, and
// peer exchange brings those who do want something.
func (t *Torrent) uploadTick() {
	if t.store == nil {
		return
	}
	all := t.complete()
	for c := range t.conns {
		if all != c.toldOnly {
			t.tellOnly(c, all)
		}
		switch {
		case !all || c.web != "" || !t.wantsNothing(c):
			c.useless = time.Time{}
		case c.useless.IsZero():
			c.useless = t.clock
		case t.clock.Sub(c.useless) > t.idleSeeds:
			c.close(errUseless)
		}
	}
}

func (t *Torrent) tellOnly(c *conn, all bool) {
	c.toldOnly = all
	switch id := c.theirs["upload_only"]; {
	case id != 0 && all:
		c.write(wire.AppendExtended(nil, id, []byte{1}))
	case id != 0:
		c.write(wire.AppendExtended(nil, id, []byte{0}))
	case c.theirs != nil:
		t.sendExtended(c)
	}
}
