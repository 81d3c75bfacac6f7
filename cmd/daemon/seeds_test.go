package daemon_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readAll reads a mounted library in every way and compares all of it.
func readAll(t *testing.T, m *mounted, lib *payload) {
	t.Helper()
	for _, way := range []string{"tail-head", "both-ends", "random", "mmap", "sequential"} {
		same(t, way, m.path("library", way), lib.file(way))
	}
	copied := filepath.Join(t.TempDir(), "tree")
	began := time.Now()
	output(t, 4*patience, "cp", "-r", m.path("library", "tree"), copied)
	t.Logf("cp -r of a tree after %v", time.Since(began).Round(time.Millisecond))
	sameTree(t, copied, lib.file("tree"))
}

func peers(addrs ...string) (flags []string) {
	for _, a := range addrs {
		flags = append(flags, "--peer", a)
	}
	return append(flags, "--no-dht")
}

// What the clients of other people seed is read through a mount.
func TestReadFromLibtorrent(t *testing.T) {
	lib := theLibrary(t)
	l := startLibtorrent(t, "--torrent", lib.torrent, "--save", lib.parent(), "--seed")
	m := mount(t, append(peers(l.addr()), lib.torrent)...)
	readAll(t, m, lib)
	s := m.torrent(t)
	t.Logf("downloaded %d, wasted %d, of %d", s.Downloaded, s.Wasted, s.Size)
	if s.Corrupt != 0 || s.Banned != 0 {
		t.Errorf("corrupt %d, banned %d", s.Corrupt, s.Banned)
	}
}

// BEP 52: v2 alone and hybrids, from a .torrent and from a magnet, from seeders that
// have hashed their data and give the hashes of its blocks, and from those that have
// not. A block is a unit then: little more comes than is read.
func TestReadFromLibtorrentV2(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		lib := treeLibrary(t, hybrid)
		for _, hashed := range []bool{true, false} {
			for _, source := range []string{lib.torrent, lib.magnet()} {
				kind := "torrent"
				if source != lib.torrent {
					kind = "magnet"
				}
				t.Run(fmt.Sprintf("hybrid=%v/hashed=%v/%s", hybrid, hashed, kind), func(t *testing.T) {
					args := []string{"--torrent", lib.torrent, "--save", lib.parent()}
					if !hashed {
						args = append(args, "--seed")
					}
					l := startLibtorrent(t, args...)
					l.await(`"state": "seeding"`)
					m := mount(t, append(peers(l.addr()), source)...)
					eventually(t, patience, "the metadata", func() bool { return m.torrent(t).Files > 0 })
					same(t, "across", m.path("library", "random"), lib.file("random"))
					s := m.torrent(t)
					// The rest of the second piece is pushed behind if the path is long, or seems so.
					most := lib.pieces + 32<<10
					if !hashed || hybrid && kind == "magnet" {
						most = 2 * lib.pieces // without the hashes of blocks, pieces are what is verified
					}
					if s.Present > most {
						t.Errorf("one read of 64 KiB brought %d bytes, want %d at most", s.Present, most)
					}
					if kind == "torrent" && hashed {
						readAll(t, m, lib)
					}
					sameTree(t, m.path("library"), lib.dir)
					if s := m.torrent(t); s.Corrupt != 0 || s.Banned != 0 {
						t.Errorf("corrupt %d, banned %d", s.Corrupt, s.Banned)
					}
				})
			}
		}
	}
}

func TestReadFromTransmission(t *testing.T) {
	t.Parallel() // it answers twice a second
	lib := theLibrary(t)
	tr := startTransmission(t, lib.torrent, lib.parent())
	tr.complete()
	m := mount(t, append(peers(tr.addr), lib.torrent)...)
	readAll(t, m, lib)
}

func TestReadFromAria2(t *testing.T) {
	lib := theLibrary(t)
	addr, p := startAria2(t, lib.torrent, lib.parent(), "--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000")
	p.await("(?i)seed(ing)?|download complete|verification finished")
	m := mount(t, append(peers(addr), lib.torrent)...)
	readAll(t, m, lib)
}

// One of four seeders has a wrong byte in every block. It is found and banned, and
// no reader ever gets one.
func TestOneOfFourPoisons(t *testing.T) {
	lib := theLibrary(t)
	var addrs []string
	for range 3 {
		addrs = append(addrs, startLibtorrent(t, "--torrent", lib.torrent, "--save", lib.parent(), "--seed").addr())
	}
	poisoner := startLibtorrent(t, "--torrent", lib.torrent, "--save", spoil(t, lib), "--seed", "--blind").addr()
	m := mount(t, append(peers(append(addrs, poisoner)...), lib.torrent)...)
	eventually(t, patience, "four peers", func() bool { return m.torrent(t).Peers == 4 })
	readAll(t, m, lib)
	s := m.torrent(t)
	t.Logf("downloaded %d, corrupt %d, wasted %d, banned %d", s.Downloaded, s.Corrupt, s.Wasted, s.Banned)
	if s.Banned != 1 || s.Peers != 3 {
		t.Errorf("banned %d, still %d peers", s.Banned, s.Peers)
	}
	if pieces := s.Corrupt / lib.pieces; pieces > 8 { // as many as are on their way together
		t.Errorf("%d pieces were corrupt before the poisoner was banned", pieces)
	}
	if waste := float64(s.Corrupt+s.Wasted) / float64(s.Downloaded); waste > 0.25 { // seeders that are starved look silent; bench measures it
		t.Errorf("%.1f%% of what came was wasted", 100*waste)
	}
	for _, p := range s.Swarm {
		if p.Addr == poisoner && p.Connected {
			t.Error("the poisoner is still connected")
		}
	}
	if !strings.Contains(m.out.String(), "peer banned") {
		t.Error("the ban is not in the log")
	}
}
