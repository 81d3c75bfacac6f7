package swarm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// whole waits until all of a torrent is there.
func (p *peer) whole(t testing.TB) {
	t.Helper()
	p.ask(t, "all is there", func(tr *Torrent) bool { return tr.complete() })
}

// What is pinned comes though nobody reads it, and nothing else does.
func TestPinned(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := sample(t, 3<<20)
			meta := makeTorrent(t, dir, kind)
			l := leech(t, meta, Config{}, seed(t, meta, dir, Config{}), seed(t, meta, dir, Config{}))
			big := meta.Info.Files[0]
			for _, f := range meta.Info.Files {
				if f.Length > big.Length {
					big = f
				}
			}
			half := extent.Extent{Off: big.Offset, Len: big.Length / 2}
			l.torrent.Pin(half)
			l.ask(t, "half of the file is there", func(tr *Torrent) bool {
				return l.object.PresentIn(half) == half.Len && len(tr.pins.open) == 0
			})
			grid := newGrid(meta)
			l.object.Each(func(u int) {
				if e := extent.Unit(int64(grid.piece(u)), meta.Info.PieceLength, meta.Info.Length); e.Clip(half).Empty() {
					t.Errorf("unit %d came, which is not pinned", u)
				}
			})
			l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
			l.whole(t)
			same(t, l.object, meta.Info, dir)
			l.ask(t, "nothing is wanted any more", func(tr *Torrent) bool {
				return !tr.hungry() && len(tr.wants) == 0 && tr.pins.units == 0 && tr.client.held.Load() == 0
			})
		})
	}
}

// Pieces that one peer alone has come before those that several have.
func TestPinnedRarestFirst(t *testing.T) {
	dir := sample(t, 8<<20)
	meta := makeTorrent(t, dir, "v1")
	rare := func(p int) bool { return p%2 == 1 }
	some := func() *peer { // it has every other piece, and serves next to nothing
		return start(t, Config{EachUp: 1}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, func(*Torrent) Store {
			f, err := NewFiles(meta, dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			s := &forgetful{Store: f, gone: map[int]bool{}}
			for p := range meta.Info.NumPieces() {
				if rare(p) {
					s.gone[p] = true
				}
			}
			return s
		})
	}
	l := leech(t, meta, Config{}, seed(t, meta, dir, Config{EachUp: 4 << 20}), some(), some(), some())
	unchoked(t, l, 4)
	l.ask(t, "it is known how many have what", func(tr *Torrent) bool { // one has all, three every other piece
		return tr.Available(1) == 1 && tr.Available(2) == 4
	})
	l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
	l.whole(t)
	s, _ := l.torrent.Status(t.Context())
	first, n := s.Recent[:len(s.Recent)/2], 0
	for _, r := range first {
		if rare(r.Piece) {
			n++
		}
	}
	t.Logf("of the first %d pieces %d are rare; %d came", len(first), n, len(s.Recent))
	if n < len(first)*3/4 {
		t.Errorf("of the first %d pieces %d are those that one peer alone has", len(first), n)
	}
}

// A read does not wait for what is pinned.
func TestReadGoesBeforePins(t *testing.T) {
	dir := sample(t, 8<<20)
	meta := makeTorrent(t, dir, "v1")
	l := leech(t, meta, Config{}, seed(t, meta, dir, Config{EachUp: 2 << 20}))
	l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
	l.ask(t, "something came", func(tr *Torrent) bool { return tr.fetched.Load() > 0 })
	last := -1
	l.ask(t, "a piece that is not on its way", func(tr *Torrent) bool {
		for p := range meta.Info.NumPieces() {
			if tr.flying.find(p) == nil && !tr.store.Known(p) {
				last = p
			}
		}
		return true
	})
	if last < 0 {
		t.Fatal("everything is on its way at once")
	}
	before := l.torrent.fetched.Load()
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Unit(int64(last), meta.Info.PieceLength, meta.Info.Length), time.Now()); err != nil {
		t.Fatal(err)
	}
	came, left := l.torrent.fetched.Load()-before, l.torrent.left.Load()
	t.Logf("%d bytes came meanwhile, %d are left", came, left)
	if came > 2<<20 {
		t.Errorf("a read of one piece had to wait for %d bytes", came)
	}
	l.whole(t)
}

// A slow peer does not hold up the end: what it owes is asked of another as well.
func TestPinnedEnd(t *testing.T) {
	dir := sample(t, 4<<20)
	meta := makeTorrent(t, dir, "v1")
	slow := seed(t, meta, dir, Config{EachUp: 40 << 10})
	l := leech(t, meta, Config{}, slow, seed(t, meta, dir, Config{}))
	unchoked(t, l, 2)
	l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
	l.whole(t)
	same(t, l.object, meta.Info, dir)
	l.ask(t, "late blocks were asked twice", func(tr *Torrent) bool { return tr.duplicates > 0 })
}

// tight is a store that takes nothing while it is full.
type tight struct {
	Store
	full atomic.Bool
}

func (s *tight) Begin(u int) error {
	if s.full.Load() {
		return errors.New("full")
	}
	return s.Store.Begin(u)
}

// A store that is full stops it, and the next look goes on; it finds what is gone as well.
func TestPinnedGoesOn(t *testing.T) {
	dir := sample(t, 2<<20)
	meta := makeTorrent(t, dir, "v1")
	o := object(t, meta)
	store := &tight{Store: o}
	store.full.Store(true)
	s := seed(t, meta, dir, Config{})
	l := start(t, Config{NoUpload: true}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(s)}, func(*Torrent) Store { return store })
	l.object = o
	l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
	l.ask(t, "it pauses", func(tr *Torrent) bool { return tr.pins.paused && !tr.hungry() && len(tr.pins.open) == 0 })
	store.full.Store(false)
	again := func(tr *Torrent) bool { tr.looked = time.Time{}; return true } // a minute later
	l.ask(t, "a look", again)
	l.whole(t)
	l.torrent.post(func() {
		l.torrent.store = &forgetful{Store: store, gone: map[int]bool{2: true, 3: true}}
		l.torrent.looked = time.Time{}
	})
	l.ask(t, "what is gone came again", func(tr *Torrent) bool { return tr.store.Has(2) && tr.store.Has(3) })
}

// When the only peer that has a piece leaves, the piece waits for the next one.
func TestPinnedWaitsForPeers(t *testing.T) {
	for _, kind := range []string{"v1", "v2"} {
		dir := sample(t, 4<<20)
		meta := makeTorrent(t, dir, kind)
		first := seed(t, meta, dir, Config{EachUp: 1 << 20})
		l := leech(t, meta, Config{}, first)
		l.torrent.Pin(extent.Extent{Len: meta.Info.Length})
		l.ask(t, "something came", func(tr *Torrent) bool { return tr.fetched.Load() > 0 })
		first.stop()
		l.ask(t, "nothing is on its way", func(tr *Torrent) bool {
			return len(tr.conns) == 0 && len(tr.pins.open) == 0 && tr.picks.Len() == 0 && tr.rare.Len() > 0
		})
		next := seed(t, meta, dir, Config{})
		l.torrent.post(func() { l.torrent.found(peersAt(next), "given", addr(next.client).Addr()) })
		l.whole(t)
		same(t, l.object, meta.Info, dir)
	}
}

// Early blocks beyond the bound are not kept in memory, and the piece is right all the same.
func TestHeldIsBounded(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s, l := seed(t, meta, dir, Config{}), object(t, meta)
	var held atomic.Int64
	held.Store(maxHeld - 20<<10) // one more block
	p := newGrid(meta).units() / 2
	if err := l.Begin(p); err != nil {
		t.Fatal(err)
	}
	from, none := &conn{}, func(int) bool { return false }
	a := newPieceAssembly(p, int(meta.Info.PieceSize(p)), int64(p)*meta.Info.PieceLength, meta.Info.PieceHash(p), l, &held, none)
	content := make([]byte, meta.Info.PieceSize(p))
	if err := s.torrent.served.Load().store.ReadPresent(content, int64(p)*meta.Info.PieceLength); err != nil {
		t.Fatal(err)
	}
	for b := len(a.state) - 1; b >= 0; b-- { // each overtakes all before it
		want := stored
		if b == 0 {
			want = complete
		}
		var o [1]outcome
		if err := a.accept(b, [][]byte{content[b*16<<10 : min((b+1)*16<<10, len(content))]}, o[:], from); o[0] != want || err != nil {
			t.Fatalf("block %d: %v %v", b, o, err)
		}
		if n := held.Load(); n > maxHeld {
			t.Fatalf("%d bytes are held", n)
		}
	}
	if n := held.Load(); n != maxHeld-20<<10 || !l.Has(p) {
		t.Errorf("%d bytes are held at the end; there: %v", n-(maxHeld-20<<10), l.Has(p))
	}
	b := newPieceAssembly(p, 64<<10, 0, metainfo.InfoHash{}, l, &held, none)
	var o [1]outcome
	if err := b.accept(3, [][]byte{content[:16<<10]}, o[:], from); o[0] != stored || err != nil {
		t.Fatal(o, err)
	}
	if b.stop(); held.Load() != maxHeld-20<<10 {
		t.Error("a piece that was given up still holds memory")
	}
}

// Of a hybrid that is read by its v1 half nobody has to send the pad files, which are most of
// one that has small files.
func TestPaddingIsNotAsked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sample")
	content := int64(0)
	for i := range 30 {
		n := 3000*i + 1
		if i == 29 {
			n = 600_000 // several pieces
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d", i)), bytes.Repeat([]byte{byte(i + 1)}, n), 0o644); err != nil {
			t.Fatal(err)
		}
		content += int64(n)
	}
	meta := makeTorrent(t, dir, "hybrid")
	half := &metainfo.Meta{Info: meta.Info} // as of a magnet: without the hashes of v2
	if half.ByTree() {
		t.Fatal("it is read by the v2 half")
	}
	s, o := seed(t, meta, dir, Config{}), object(t, half)
	l := start(t, Config{}, half, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(s)}, func(*Torrent) Store { return o })
	l.object = o
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	same(t, o, meta.Info, dir)
	most := content + 30*16<<10 // whole blocks
	if n := s.torrent.Uploaded(); n > most || n < content || l.torrent.fetched.Load() > most {
		t.Errorf("%d bytes were sent and %d counted of %d of content, in %d with padding", n, l.torrent.fetched.Load(), content, meta.Info.Length)
	}
}

// Which blocks are padding, at the edges.
func TestPadded(t *testing.T) {
	const k = 16 << 10
	info := &metainfo.Info{Length: 16*k - 1, PieceLength: 4 * k, V1: true, Files: []metainfo.File{
		{Offset: 0, Length: k + 1},
		{Offset: k + 1, Length: k, Pad: true},
		{Offset: 2*k + 1, Length: 2*k - 1, Pad: true}, // up to the end of the piece
		{Offset: 4 * k, Length: 4 * k, Pad: true},     // all of one
		{Offset: 8 * k, Length: 0, Pad: true},
		{Offset: 8 * k, Length: k},
		{Offset: 9 * k, Length: k - 1, Pad: true},
		{Offset: 10*k - 1, Length: 3 * k},
		{Offset: 13*k - 1, Length: 3 * k, Pad: true},
	}}
	g := newGrid(&metainfo.Meta{Info: info})
	for u, want := range []string{"..pp", "ppp.", "....", ".ppp"} {
		got, n := "", int64(0)
		for b := range 4 {
			c := "."
			if g.padded(u, b) {
				c = "p"
				n += int64(g.blockSize(u, b))
			}
			got += c
		}
		if got != want || g.padding(u) != n {
			t.Errorf("piece %d: %s, want %s; %d bytes, want %d", u, got, want, g.padding(u), n)
		}
	}
}
