package swarm

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// The example of BEP 6.
func TestFastSet(t *testing.T) {
	var hash metainfo.InfoHash
	for i := range hash {
		hash[i] = 0xaa
	}
	ip := netip.MustParseAddr("80.4.4.200")
	nine := []int{1059, 431, 808, 1217, 287, 376, 1188, 353, 508}
	for k := range nine {
		if got := fastSet(ip, hash, 1313, k); !slices.Equal(got, nine[:k]) {
			t.Errorf("%d: %v", k, got)
		}
	}
	if got := fastSet(netip.MustParseAddr("::ffff:80.4.4.7"), hash, 1313, 9); !slices.Equal(got, nine) {
		t.Error("another address of the network: ", got)
	}
	if got := fastSet(netip.MustParseAddr("2001:db8::1"), hash, 1313, 9); got != nil {
		t.Error(got)
	}
	if got := fastSet(ip, hash, 3, 9); len(got) != 3 {
		t.Error("of a torrent of three pieces: ", got)
	}
	if got := fastSet(ip, hash, 0, 9); got != nil {
		t.Error(got)
	}
}

// told waits until a leech knows what its only peer allows, and returns it.
func told(t *testing.T, l *peer, n int) (pieces []int) {
	t.Helper()
	l.ask(t, "pieces are allowed", func(tr *Torrent) bool {
		if c := tr.only(); c != nil && len(c.allow) == n {
			for p := range c.allow {
				pieces = append(pieces, p)
			}
			return true
		}
		return false
	})
	return pieces
}

// A choked peer has of us what it was allowed, each byte twice at most; and nothing once
// the torrent was seeded enough.
func TestGift(t *testing.T) {
	meta, dir := fastTorrent(t)
	length := meta.Info.PieceLength
	s := seed(t, meta, dir, Config{UploadSlots: -1})
	l := leech(t, meta, Config{}, s)
	pieces := told(t, l, maxFast)
	read := func(l *peer, piece int) error {
		return l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Off: int64(piece) * length, Len: meta.Info.PieceSize(piece)}, time.Now())
	}
	if err := read(l, pieces[0]); err != nil {
		t.Fatal(err)
	}
	s.ask(t, "the rules hold", func(tr *Torrent) bool {
		c := tr.only()
		k := blockKey{pieces[1], 0, wire.BlockSize}
		most, taken := 2*int(meta.Info.PieceSize(k.piece))/k.size, 0
		for range 3 * most {
			c.mu.Lock()
			left := c.gift[k.piece]
			c.mu.Unlock()
			if err := c.asks(k); err != nil {
				t.Error(err)
			}
			c.mu.Lock()
			if c.gift[k.piece] < left {
				taken++
			}
			c.mu.Unlock()
		}
		if taken != most {
			t.Errorf("%d requests were taken, want %d", taken, most)
		}
		other := 0
		for slices.Contains(pieces, other) {
			other++
		}
		c.mu.Lock()
		if c.giftLocked(blockKey{other, 0, wire.BlockSize}) {
			t.Error("a piece that was not allowed is given")
		}
		// Who is unchoked and choked again loses what waits, but for what is allowed.
		c.choking, c.uploads = false, []blockKey{{other, 0, 100}, {pieces[2], 0, 100}, {pieces[1], 0, 100}}
		c.mu.Unlock()
		c.choke(true)
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.uploads) > 1 || len(c.uploads) == 1 && c.uploads[0].piece != pieces[2] {
			t.Errorf("%v wait", c.uploads)
		}
		return true
	})
	s.ask(t, "nothing is given any more", func(tr *Torrent) bool {
		tr.client.cfg.Share.Ratio = 1e-9
		tr.choose()
		c := tr.only()
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.gift) == 0
	})
}

// Nobody is allowed anything by who sends nothing, and who has enough needs none.
func TestNoGift(t *testing.T) {
	meta, dir := fastTorrent(t)
	s := seed(t, meta, dir, Config{UploadSlots: -1, NoUpload: true})
	l := leech(t, meta, Config{}, s)
	l.ask(t, "they are connected", func(tr *Torrent) bool { c := tr.only(); return c != nil && c.theirs["ut_pex"] != 0 })
	s.ask(t, "nothing is allowed", func(tr *Torrent) bool { return tr.only().gift == nil })
	full := seed(t, meta, dir, Config{})
	other := leech(t, meta, Config{UploadSlots: -1}, full)
	if err := other.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: 20 * meta.Info.PieceLength}, time.Now()); err != nil {
		t.Fatal(err)
	}
	third := leech(t, meta, Config{}, other)
	if err := third.torrent.Fetch(within(t, 10*time.Second), extent.Extent{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	allowed := fastSet(netip.AddrFrom4([4]byte{127, 0, 0, 1}), meta.Info.Hash, meta.Info.NumPieces(), maxFast)
	n := 0
	for _, p := range allowed {
		if p < 20 {
			n++
		}
	}
	told(t, third, n) // of those that it has
}
