package swarm

import (
	"crypto/sha1"
	"fmt"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

// What happens when a piece does not match its hash:
//
// If one peer brought all of it, that peer lied: it is banned. Otherwise the piece
// is fetched again from one peer alone (picker.Piece.Only). That attempt ends in one
// of two certain ways: it fails, and that peer lied; or it succeeds, and comparing
// the fingerprints of the blocks names whoever sent others before. No peer is
// banned on suspicion, and a piece costs at most one mixed attempt.
//
// Where the v2 tree rules and its leaves are known, none of this is needed: a block
// that differs from its leaf condemns who sent it, and is asked of another (lied).

// maxFailures of one piece, beyond one for each banned peer: it can not be had.
const maxFailures = 3

type lied struct{ piece int }

func (e lied) Error() string {
	return fmt.Sprintf("sent bytes of piece %d that do not match its hash", e.piece)
}

// spoiled handles a piece whose bytes do not match its hash.
func (t *Torrent) spoiled(p int) {
	as := t.flying.find(p)
	if as == nil {
		return
	}
	t.flying.drop(p)
	t.tossed.Add(int64(as.bytes()))
	// The assembly is over; its room stays charged to the piece until it is given up.
	t.store.Abandon(p)
	f := t.blame(p, as.evidence())
	if t.hopeless(p, f) {
		t.fail(p, &CorruptError{Hash: t.hash, Piece: p})
		return
	}
	if old := t.picks.Find(p); old != nil {
		t.picks.Unwant(p)
		t.pick(p)
		t.alone(p)
		t.fillAll()
	}
}

// blame notes that a piece failed. Who sent all of it is banned; of several each is a
// suspect until a good copy tells.
func (t *Torrent) blame(p int, ev evidence) *failure {
	f := t.failure(p)
	f.times++
	f.at = t.clock
	blamed := ev.peers()
	t.log.Warn("piece does not match its hash", "piece", p, "peers", len(blamed), "times", f.times)
	if len(blamed) == 1 {
		t.ban(blamed[0], lied{p})
	} else {
		f.evidence = append(f.evidence, ev)
		for _, c := range blamed {
			c.suspect = true
		}
	}
	return f
}

// spoiledWhole is spoiled for a piece that was fetched whole because nobody has its
// leaves; units are what came of it. Who sent it has hashed it by now, so the leaves
// are asked for again: they would say who lied.
func (t *Torrent) spoiledWhole(p int, units []*unitAssembly) {
	first, last := t.grid.of(p)
	per := int(t.grid.unit / wire.BlockSize)
	ev := evidence{from: make([]*conn, (last-first)*per), prints: make([]uint64, (last-first)*per)}
	for _, a := range units {
		e := a.evidence()
		copy(ev.from[(a.index-first)*per:], e.from)
		copy(ev.prints[(a.index-first)*per:], e.prints)
	}
	halves := t.info.V1 && t.matchesV1(p)
	for _, a := range units {
		a.stop()
		t.flying.drop(a.index)
		t.tossed.Add(int64(a.size))
		t.store.Abandon(a.index)
	}
	if halves {
		// Nobody lied: this is what v1 peers have. The tree rules, so nobody gets it.
		t.failPiece(p, &CorruptError{Hash: t.hash, Piece: p, Halves: true})
		return
	}
	f := t.blame(p, ev)
	if t.hopeless(p, f) {
		t.failPiece(p, &CorruptError{Hash: t.hash, Piece: p})
		return
	}
	for c := range t.conns {
		c.hash.noLeaves = time.Time{}
	}
	for s := range t.hashes.open {
		clear(s.refused)
	}
	for u := first; u < last; u++ {
		if t.picks.Find(u) != nil {
			t.picks.Unwant(u)
			t.pick(u)
		}
	}
	t.alone(p)
	t.fresh = true
}

// matchesV1 reports whether what came of a piece matches its v1 hash.
func (t *Torrent) matchesV1(p int) bool {
	b := make([]byte, t.info.PieceSize(p))
	off := int64(p) * t.info.PieceLength
	if t.store.ReadBack(b[:t.grid.end(p)-off], off) != nil {
		return false
	}
	return sha1.Sum(b) == t.info.PieceHash(p)
}

// failure returns what is known of a piece that was sent wrong.
func (t *Torrent) failure(p int) *failure {
	f := t.failures[p]
	if f == nil {
		f = &failure{}
		t.failures[p] = f
	}
	return f
}

// lied ends a peer that was proven to have sent a wrong block of a unit.
func (t *Torrent) lied(c *conn, u int) {
	p := t.grid.piece(u)
	f := t.failure(p)
	t.ban(c, lied{p})
	if t.hopeless(p, f) {
		t.failPiece(p, &CorruptError{Hash: t.hash, Piece: p})
	}
}

// failPiece ends the wants of all units of a piece.
func (t *Torrent) failPiece(p int, err error) {
	if t.hashes != nil {
		t.hashes.dropWhole(p)
	}
	for u, last := t.grid.of(p); u < last; u++ {
		if t.picks.Find(u) != nil {
			t.fail(u, err)
		}
	}
}

// alone chooses the one peer that may bring a piece that failed before.
func (t *Torrent) alone(p int) {
	var best *conn
	better := func(a, b *conn) bool {
		if a.suspect != b.suspect {
			return !a.suspect
		}
		return a.view.Pipe.Rate() > b.view.Pipe.Rate()
	}
	for c := range t.conns {
		if c.closed || c.view.Mute || c.view.Choked || !c.has(p) {
			continue
		}
		if best == nil || better(c, best) {
			best = c
		}
	}
	for u, last := t.grid.of(p); u < last; u++ {
		switch pick := t.picks.Find(u); {
		case pick == nil:
		case best != nil:
			pick.Only = &best.view
		default:
			pick.Only = nil // whoever comes
		}
	}
}

// replaceOnly chooses others for the pieces that only c may bring.
func (t *Torrent) replaceOnly(c *conn) {
	done := -1
	for _, u := range t.picks.OnlyFrom(&c.view) {
		if p := t.grid.piece(u); p != done {
			t.alone(p)
			done = p
		}
	}
}

// hopeless reports whether nobody is left who could bring piece p.
func (t *Torrent) hopeless(p int, f *failure) bool {
	if f.times >= maxFailures+t.pool.banned {
		return true
	}
	for c := range t.conns {
		if !c.closed && c.has(p) {
			return false
		}
	}
	return !t.pool.more()
}

// judge bans who sent blocks that differ from the good ones.
func (t *Torrent) judge(f *failure, good evidence) {
	for _, ev := range f.evidence {
		for _, c := range ev.liars(good) {
			t.ban(c, fmt.Errorf("sent bytes that do not match a hash"))
		}
	}
	for c := range t.conns {
		c.suspect = false
	}
	for _, other := range t.failures {
		for _, ev := range other.evidence {
			for _, c := range ev.peers() {
				c.suspect = true
			}
		}
	}
}

// ban ends a peer for good and takes its blocks out of the pieces on their way.
func (t *Torrent) ban(c *conn, why error) {
	if c.barred.Swap(true) {
		return
	}
	t.log.Warn("peer banned", "peer", c.name(), "client", c.version, "why", why)
	t.client.ban(c)
	t.pool.banned++
	for _, a := range t.flying.all() {
		if blocks := a.purge(c); len(blocks) > 0 {
			t.tossed.Add(int64(len(blocks)) * wire.BlockSize)
			t.picks.Missing(a.number(), blocks)
		}
	}
	c.close(why)
	t.part(c)
}
