package swarm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// random makes a file of n bytes, the same for the same seed.
func random(t testing.TB, name string, n int64, seed byte) string {
	t.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// unhashed makes a seeder reject every hash request, as one that has not hashed its data.
func unhashed(p *peer) *peer {
	p.torrent.post(func() { p.torrent.hashes.byRoot = nil })
	return p
}

func TestUnitsTranslate(t *testing.T) {
	dir := sample(t, 5<<20+17)
	for _, kind := range kinds {
		meta := makeTorrent(t, dir, kind)
		g := newGrid(meta)
		if unit := UnitLength(meta); (kind == "v1") != (unit == meta.Info.PieceLength) || kind != "v1" && unit != 16<<10 {
			t.Errorf("%s: units of %d", kind, unit)
		}
		total := int64(0)
		for u := range g.units() {
			total += int64(g.size(u))
			for b := 0; b*wire.BlockSize < g.size(u); b++ {
				piece, begin := g.wire(u, b)
				if u2, b2, ok := g.block(piece, begin); !ok || u2 != u || b2 != b {
					t.Fatalf("%s: unit %d block %d becomes piece %d at %d becomes %d %d", kind, u, b, piece, begin, u2, b2)
				}
				if end := int64(begin + g.blockSize(u, b)); int64(piece)*meta.Info.PieceLength+end > g.end(piece) {
					t.Fatalf("%s: unit %d block %d reaches behind the content", kind, u, b)
				}
			}
		}
		if want := payload(meta); kind == "v1" && total != meta.Info.Length || kind != "v1" && total != want {
			t.Errorf("%s: units of %d bytes together", kind, total)
		}
		for _, at := range [][2]int{{-1, 0}, {meta.Info.NumPieces(), 0}, {0, 1}, {0, -16384}, {0, 1 << 30}, {1 << 31, 0}} {
			if _, _, ok := g.block(at[0], at[1]); ok {
				t.Errorf("%s: there is a block %v", kind, at)
			}
		}
	}
}

func TestUnitsOfHugeTorrentsAreLarger(t *testing.T) {
	for _, c := range []struct{ size, want int64 }{{1, 16 << 10}, {16 << 30, 16 << 10}, {16<<30 + 1<<21, 32 << 10}, {1 << 40, 1 << 20}, {1 << 44, 4 << 20}} {
		m := &metainfo.Meta{Info: &metainfo.Info{V2: true, PieceLength: 4 << 20, Length: c.size}}
		if got := UnitLength(m); got != c.want {
			t.Errorf("%d bytes: units of %d, want %d", c.size, got, c.want)
		}
	}
}

// A read of v2 brings the blocks that it touches and no others, whether the piece layer
// was in the .torrent or is asked of peers.
func TestReadPaysForBlocks(t *testing.T) {
	path := random(t, "film", 40<<20, 3)
	meta, err := metainfo.Make(t.Context(), path, metainfo.MakeConfig{PieceLength: 4 << 20, V2: true})
	if err != nil {
		t.Fatal(err)
	}
	bare := *meta
	bare.PieceLayers = nil
	s := seed(t, meta, path, Config{})
	for _, m := range []*metainfo.Meta{meta, &bare} {
		l := leech(t, m, Config{}, s)
		at := extent.Extent{Off: 13<<20 + 4096, Len: 64 << 10}
		if err := l.torrent.Fetch(within(t, 20*time.Second), at, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, _ := l.object.Count(); n != 5 {
			t.Errorf("%d units of 16 KiB came for 64 KiB", n)
		}
		got := make([]byte, at.Len)
		want, _ := os.ReadFile(path)
		if err := l.object.ReadPresent(got, at.Off); err != nil || !bytes.Equal(got, want[at.Off:at.End()]) {
			t.Errorf("wrong bytes, %v", err)
		}
	}
}

// Nobody has hashed its data: pieces are fetched whole, and of two peers the one that
// lies is found and banned.
func TestWholePiecesWithoutHashes(t *testing.T) {
	path := random(t, "film", 3<<20+5, 4)
	for _, kind := range []string{"hybrid", "v2"} {
		for _, every := range []int64{0, 1, 7} {
			meta := makeTorrent(t, path, kind)
			from := []*peer{unhashed(seed(t, meta, path, Config{})), unhashed(seed(t, meta, path, Config{}))}
			if every > 0 {
				from = append(from, unhashed(poisoner(t, meta, path, every)))
			}
			l := leech(t, meta, Config{}, from...)
			one := extent.Extent{Off: 1 << 20, Len: 1}
			if err := l.torrent.Fetch(within(t, 20*time.Second), one, time.Now()); err != nil {
				t.Fatal(err)
			}
			_, _ = l.torrent.Status(within(t, 5*time.Second)) // Run has landed them all
			if n, _ := l.object.Count(); n != 16 {
				t.Errorf("%s: %d units came, want those of one piece", kind, n)
			}
			if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
				dump(t, l.torrent)
				t.Fatal(err)
			}
			got := make([]byte, meta.Info.Length)
			want, _ := os.ReadFile(path)
			if err := l.object.ReadPresent(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: wrong bytes, %v", kind, err)
			}
			s, _ := l.torrent.Status(within(t, 5*time.Second))
			t.Logf("%s, one block in %d bad: corrupt %d, banned %d, %d peers left", kind, every, s.Corrupt, s.Banned, s.Peers)
			if s.Banned > 1 || s.Peers < 2 || every == 0 && s.Corrupt > 0 {
				t.Errorf("banned %d, corrupt %d, %d peers left", s.Banned, s.Corrupt, s.Peers)
			}
		}
	}
}

// The only peer lies, and gives the right hashes, or none.
func TestSolePoisonerOfV2(t *testing.T) {
	path := random(t, "film", 2<<20, 5)
	meta := makeTorrent(t, path, "v2")
	for _, hashed := range []bool{true, false} {
		bad := poisoner(t, meta, path, 1)
		if !hashed {
			unhashed(bad)
		} else {
			good := seed(t, meta, path, Config{})
			store := good.torrent.served.Load().store
			bad.torrent.post(func() { bad.torrent.store = store }) // leaves are hashed from here
		}
		l := leech(t, meta, Config{}, bad)
		err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: 1}, time.Now())
		if !errors.As(err, new(*CorruptError)) {
			t.Fatalf("hashed %v: %v", hashed, err)
		}
		s, _ := l.torrent.Status(within(t, 5*time.Second))
		if s.Banned != 1 || s.Corrupt > 2*meta.Info.PieceLength || hashed && s.Corrupt > 6*wire.BlockSize {
			t.Errorf("hashed %v: banned %d, corrupt %d", hashed, s.Banned, s.Corrupt)
		}
	}
}

// A hybrid whose halves hash different bytes, both of one length: what peers of v1 have
// is never served, and they are not banned for it.
func TestHalvesThatDiffer(t *testing.T) {
	a, b := random(t, "film", 1<<20, 6), random(t, "film", 1<<20, 7)
	v1, v2 := makeTorrent(t, a, "hybrid"), makeTorrent(t, b, "hybrid")
	r1, r2 := v1.Info.Files[0].Root, v2.Info.Files[0].Root
	mixed := *v1
	mixed.PieceLayers = v2.PieceLayers
	var err error
	if mixed.Info, err = metainfo.ParseInfo(bytes.Replace(v1.Info.Raw, r1[:], r2[:], 1)); err != nil {
		t.Fatal(err)
	}
	meta, err := metainfo.Parse(mixed.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !meta.ByTree() {
		t.Fatal("the tree does not rule")
	}
	l := leech(t, meta, Config{}, seed(t, meta, a, Config{}), seed(t, meta, a, Config{}))
	err = l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: 1}, time.Now())
	if c := (*CorruptError)(nil); !errors.As(err, &c) || !c.Halves {
		t.Fatalf("v1 bytes: %v", err)
	}
	s, _ := l.torrent.Status(within(t, 5*time.Second))
	if s.Banned != 0 || s.Peers != 2 {
		t.Errorf("banned %d, %d peers", s.Banned, s.Peers)
	}
	l = leech(t, meta, Config{}, seed(t, meta, b, Config{}))
	if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatalf("v2 bytes: %v", err)
	}
	got := make([]byte, meta.Info.Length)
	want, _ := os.ReadFile(b)
	if err := l.object.ReadPresent(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong bytes, %v", err)
	}
}

// A hybrid is found, and upgraded to v2, under both of its hashes.
func TestHybridUnderBothHashes(t *testing.T) {
	path := random(t, "film", 1<<20, 8)
	meta := makeTorrent(t, path, "hybrid")
	s := seed(t, meta, path, Config{})
	for _, h := range []metainfo.InfoHash{meta.Info.Hash, meta.Info.Short()} {
		o := object(t, meta)
		l := start(t, Config{}, meta, TorrentConfig{Hash: h, Info: meta.Info, Peers: peersAt(s)}, func(*Torrent) Store { return o })
		if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: 1}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, _ := o.Count(); n != 1 {
			t.Errorf("%d units for one byte: no hashes came", n)
		}
	}
}

// What a store has after a crash is verified without any peer.
func TestVerifyByTag(t *testing.T) {
	dir := sample(t, 1<<20)
	for _, kind := range kinds {
		meta := makeTorrent(t, dir, kind)
		g, verify := newGrid(meta), Verify(meta)
		files, err := NewFiles(meta, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		for u := range g.units() {
			e := extent.Unit(int64(u), g.unit, meta.Info.Length)
			p := make([]byte, e.Len)
			if err := files.ReadPresent(p, e.Off); err != nil {
				t.Fatal(err)
			}
			tag := g.tag(merkle.SumBlocks(p[:g.size(u)]))
			if !verify(u, p, tag[:TagSize(meta)]) {
				t.Fatalf("%s: unit %d is refused", kind, u)
			}
			if g.size(u) == 0 {
				continue // padding
			}
			p[g.size(u)/2] ^= 1
			if verify(u, p, tag[:TagSize(meta)]) {
				t.Fatalf("%s: unit %d passes with a wrong bit", kind, u)
			}
		}
	}
}
