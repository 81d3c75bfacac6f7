package swarm

import (
	"fmt"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

// What happens when a piece does not match its hash:
//
// If one peer brought all of it, that peer lied: it is banned. Otherwise the piece
// is fetched again from one peer alone (picker.Piece.Only). That attempt ends in one
// of two certain ways: it fails, and that peer lied; or it succeeds, and comparing
// the fingerprints of the blocks names whoever sent others before. No peer is
// banned on suspicion, and a piece costs at most one mixed attempt.

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
	t.tossed.Add(int64(as.size))
	ev := as.evidence()
	f := t.failures[p]
	if f == nil {
		f = &failure{}
		t.failures[p] = f
	}
	f.times++
	f.at = t.clock
	blamed := ev.peers()
	t.log.Warn("piece does not match its hash", "piece", p, "peers", len(blamed), "times", f.times)
	// The assembly is over; its room stays charged to the piece until it is given up.
	t.store.Abandon(p)
	if len(blamed) == 1 {
		t.ban(blamed[0], lied{p})
	} else {
		f.evidence = append(f.evidence, ev)
		for _, c := range blamed {
			c.suspect = true
		}
	}
	if t.hopeless(p, f) {
		t.fail(p, &CorruptError{t.hash, p})
		return
	}
	if old := t.picks.Find(p); old != nil {
		t.picks.Unwant(p)
		t.pick(p)
		t.alone(p)
		t.fillAll()
	}
}

// alone chooses the one peer that may bring a piece that failed before.
func (t *Torrent) alone(p int) {
	pick := t.picks.Find(p)
	if pick == nil {
		return
	}
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
	if best != nil {
		pick.Only = &best.view
	} else {
		pick.Only = nil // whoever comes
	}
}

// replaceOnly chooses others for the pieces that only c may bring.
func (t *Torrent) replaceOnly(c *conn) {
	for _, p := range t.picks.OnlyFrom(&c.view) {
		t.alone(p)
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
	t.log.Warn("peer banned", "peer", c.addr, "client", c.version, "why", why)
	t.client.ban(c)
	t.pool.banned++
	for _, a := range t.flying.all() {
		if blocks := a.purge(c); len(blocks) > 0 {
			t.tossed.Add(int64(len(blocks)) * wire.BlockSize)
			t.picks.Missing(a.index, blocks)
		}
	}
	c.close(why)
	t.part(c)
}
