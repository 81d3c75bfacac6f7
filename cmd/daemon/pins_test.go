package daemon_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

func TestPinned(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"film", "film", true},
		{"film", "film/part/1.mkv", true},
		{"film", "filmed", false},
		{"film/part", "film", false},
		{"*", "film/part/1.mkv", true},
		{"*/*.mkv", "film/1.mkv", true},
		{"*/*.mkv", "film/part/1.mkv", false},
		{"*/*.mkv", "film/1.txt", false},
		{"*/*/*.mkv", "film/part/1.mkv", true},
		{"film [[]1080p]", "film [1080p]/a", true},
		{"film ?", "film 1", true},
		{"film ?", "film 12", false},
		{"", "film", false},
	} {
		if got := daemon.Pinned(c.pattern, c.path); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.path, got)
		}
	}
}

// What is pinned comes from others without a reader, stays while the cache is turned over,
// and is read after a restart without any peer.
func TestPin(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"v2", "hybrid"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := treeLibrary(t, kind == "hybrid")
			source := p.torrent
			if kind == "hybrid" {
				source = p.magnet()
			}
			peers := peers(startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed").addr(), startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed").addr())
			at := newFolders(t)
			pins := []string{"--no-dht", "--cache-size", "24MiB", "--pin", "library/mmap", "--pin", "library/tree/[0-6]"}
			m := at.mount(t, append(append(pins, source), peers...)...)
			here := func() bool {
				s := m.torrent(t)
				return s.Pinned > 8<<20 && s.PinnedPresent == s.Pinned
			}
			eventually(t, 2*patience, "what is pinned is there", here)
			s := m.torrent(t)
			t.Logf("%d bytes came, and %d for nothing, for %d that are pinned", s.Downloaded, s.Wasted, s.Pinned)
			if s.Downloaded+s.Wasted > s.Pinned*21/20+150<<14 { // small files are whole blocks
				t.Errorf("%d bytes came, and %d for nothing, for %d that are pinned", s.Downloaded, s.Wasted, s.Pinned)
			}
			same(t, "sequential", m.path("library", "sequential"), p.file("sequential"))
			same(t, "sequential", m.path("library", "random"), p.file("random"))
			if s := m.status(t); !here() || s.Cache.Used > s.Cache.Limit {
				t.Errorf("after 16 MiB were read: %d of %d pinned bytes are there, %d are used", s.Torrents[0].PinnedPresent, s.Torrents[0].Pinned, s.Cache.Used)
			}
			m.stop()
			m = at.mount(t, append(pins, source)...)
			same(t, "sequential", m.path("library", "mmap"), p.file("mmap"))
			sameTree(t, m.path("library", "tree", "3"), p.file("tree/3"))
			if s := m.torrent(t); s.Downloaded > 0 {
				t.Errorf("%d bytes came from nobody", s.Downloaded)
			}
		})
	}
}

// More than fits is refused in words, and read as ever.
func TestPinTooMuch(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 16<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := mount(t, p.torrent, "--no-dht", "--peer", addr, "--cache-size", "8MiB", "--pin", "*")
	m.await("cannot pin.* raise --cache-size or pin less")
	same(t, "sequential", m.path("film"), p.dir)
	if s := m.torrent(t); s.Pinned != 16<<20 || !strings.Contains(s.PinError, "raise --cache-size") {
		t.Errorf("pinned are %d bytes, %q", s.Pinned, s.PinError)
	}
}

// Of many torrents that nobody reads the one that is pinned wakes, and sleeps when all of it
// is there.
func TestPinWakes(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 4<<20, metainfo.MakeConfig{PieceLength: 64 << 10})
	dir := many(t, 70, p)
	addr, _ := seed(t, p, "--no-dht")
	d, _, _ := inProcess(t, daemon.Config{
		NoDHT: true, NoLSD: true, NoUpload: true, Peers: []netip.AddrPort{netip.MustParseAddrPort(addr)}, Idle: 300 * time.Millisecond,
		Pins: []string{"film"},
	}, dir)
	_ = os.RemoveAll(dir)
	eventually(t, patience, "it is there, and asleep", func() bool {
		if sessions, loaded := d.Awake(); sessions+loaded > 0 {
			return false
		}
		for _, s := range d.Status().Torrents {
			if s.Name == "film" {
				return s.Pinned == 4<<20 && s.PinnedPresent == s.Pinned && s.State == "dormant"
			}
		}
		return false
	})
}
