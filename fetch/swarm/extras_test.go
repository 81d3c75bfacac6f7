package swarm

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
)

// ask runs f in the goroutine of a torrent until it says yes.
func (p *peer) ask(t testing.TB, what string, f func(tr *Torrent) bool) {
	t.Helper()
	for ctx := within(t, 10*time.Second); ; {
		answer := make(chan bool, 1)
		p.torrent.post(func() { answer <- f(p.torrent) })
		select {
		case ok := <-answer:
			if ok {
				return
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			t.Fatal("still not: ", what)
		}
	}
}

// only returns the one connection of a torrent, nil if it has none.
func (t *Torrent) only() *conn {
	for c := range t.conns {
		return c
	}
	return nil
}

// cached is a peer that has all of a torrent in a store that forgets, and one that is
// connected to it and has nothing.
func cached(t *testing.T, kind string) (has *peer, store *forgetful, other *peer) {
	dir := sample(t, 3<<20)
	meta := makeTorrent(t, dir, kind)
	s := seed(t, meta, dir, Config{})
	has = leech(t, meta, Config{}, s)
	if err := has.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	store = &forgetful{Store: has.object, gone: map[int]bool{}}
	has.torrent.post(func() { has.torrent.store = store })
	other = leech(t, meta, Config{}, has)
	other.ask(t, "it knows that the other is a seed that wants nothing", func(tr *Torrent) bool {
		c := tr.only()
		return c != nil && c.uploadOnly && tr.wantsNothing(c) && c.theirs["lt_donthave"] != 0
	})
	has.ask(t, "both others speak the extension", func(tr *Torrent) bool {
		n := 0
		for c := range tr.conns {
			if c.theirs["lt_donthave"] != 0 && c.theirs["upload_only"] != 0 {
				n++
			}
		}
		return n == 2
	})
	return has, store, other
}

// A piece that was evicted is taken back from the peers that were told of it (BEP 54), and
// who had all and has not says that it wants again (BEP 21). When it is back, so are both.
func TestEvictedIsTold(t *testing.T) {
	for _, kind := range kinds {
		has, store, other := cached(t, kind)
		first, _ := has.torrent.served.Load().grid.of(3)
		store.mu.Lock()
		store.gone[first] = true
		store.mu.Unlock()
		has.torrent.post(has.torrent.look)
		n := has.torrent.served.Load().info.NumPieces()
		other.ask(t, "it knows that piece 3 is gone", func(tr *Torrent) bool {
			c := tr.only()
			return !c.has(3) && c.has(2) && c.has(4) && c.haveCount == n-1 && !c.uploadOnly && !tr.wantsNothing(c)
		})
		if err := has.torrent.Fetch(within(t, 30*time.Second), has.object.UnitExtent(first), time.Now()); err != nil {
			t.Fatal(err)
		}
		other.ask(t, "it knows that piece 3 is back", func(tr *Torrent) bool {
			c := tr.only()
			return c.has(3) && c.haveCount == n && c.uploadOnly
		})
	}
}

// Also when it is noticed because it is asked for.
func TestEvictedIsToldWhenAsked(t *testing.T) {
	has, _, other := cached(t, "v1")
	has.torrent.post(func() { has.torrent.evicted(3) })
	other.ask(t, "it knows that piece 3 is gone", func(tr *Torrent) bool { return !tr.only().has(3) })
	// It is there after all: a look finds it.
	has.torrent.post(has.torrent.look)
	has.ask(t, "it is complete", func(tr *Torrent) bool { return tr.complete() && tr.stock.has(3) })
}

func TestMessagesOfDonthave(t *testing.T) {
	_, _, other := cached(t, "v1")
	n := other.torrent.served.Load().info.NumPieces()
	number := func(p int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(p)) }
	other.ask(t, "all are judged", func(tr *Torrent) bool {
		c, d := tr.only(), donthave{tr}
		for _, bad := range [][]byte{nil, {1}, make([]byte, 5), number(n), number(-1)} {
			if d.message(c, bad) == nil {
				t.Errorf("%x is taken", bad)
			}
		}
		for range 2 {
			if err := d.message(c, number(n-1)); err != nil || c.haveAll || c.haveCount != n-1 || c.has(n-1) || !c.has(n-2) {
				t.Errorf("%v, %d pieces", err, c.haveCount)
			}
		}
		for p := range n {
			if err := d.message(c, number(p)); err != nil || c.haveCount != min(n-1, n-2-p) && c.haveCount != 0 {
				t.Errorf("%v, %d pieces after %d", err, c.haveCount, p)
			}
		}
		if c.haveCount != 0 || c.interested {
			t.Errorf("%d pieces left, interested: %v", c.haveCount, c.interested)
		}
		u := uploadOnly{tr}
		if u.message(c, nil) == nil || u.message(c, []byte{0, 0}) == nil || u.message(c, []byte{0}) != nil || c.uploadOnly {
			t.Error("upload_only is judged wrong")
		}
		return true
	})
}

// Two that have everything part, and do not call each other again; who wants something
// stays.
func TestSeedsPart(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	l := leech(t, meta, Config{})
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(s, l)}
	files, err := NewFiles(meta, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	second := start(t, Config{}, meta, tc, func(tr *Torrent) Store { tr.idleSeeds = time.Second; return files })
	second.ask(t, "both are known", func(tr *Torrent) bool { return len(tr.conns) == 2 })
	second.ask(t, "the seed has left and is not called", func(tr *Torrent) bool {
		k := tr.pool.known_[addr(s.client)]
		return len(tr.conns) == 1 && k.seed && !k.busy && tr.pool.dialing == 0 && tr.clock.After(k.next.Add(2*time.Second)) && k.in == &tr.pool.lines.seeds
	})
	second.ask(t, "the one that wants stays", func(tr *Torrent) bool { return len(tr.conns) == 1 && !tr.wantsNothing(tr.only()) })
	second.stop()
}
