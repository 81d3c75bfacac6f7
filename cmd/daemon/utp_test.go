package daemon_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// transports are how the peers of a mount that brought something are connected.
func transports(t *testing.T, m *mounted) (all []string) {
	t.Helper()
	for _, p := range m.torrent(t).Swarm {
		if p.Down+p.Up > 0 {
			all = append(all, p.Transport)
		}
	}
	return all
}

// libtorrent, which speaks uTP alone here, is read from and reads from us, encrypted or not.
func TestUTPWithLibtorrent(t *testing.T) {
	t.Parallel()
	for name, encryption := range map[string]int{"encrypted": 0, "clear": 2} {
		ours := map[string]string{"encrypted": "prefer", "clear": "allow"}[name]
		t.Run("we call/"+name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 20<<20, metainfo.MakeConfig{})
			l := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--utp", "--encryption", fmt.Sprint(encryption))
			m := mount(t, p.torrent, "--no-dht", "--peer", l.addr(), "--encryption", ours)
			readsOverUTP(t, m, p, name == "encrypted")
		})
		t.Run("it calls/"+name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 20<<20, metainfo.MakeConfig{})
			m := mount(t, p.torrent, "--no-dht", "--encryption", ours)
			startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--utp", "--encryption", fmt.Sprint(encryption), "--peer", m.listen)
			readsOverUTP(t, m, p, name == "encrypted")
		})
		t.Run("it reads/"+name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 20<<20, metainfo.MakeConfig{})
			addr, _ := seed(t, p, "--no-dht", "--encryption", ours)
			dir := t.TempDir()
			l := startLibtorrent(t, "--torrent", p.torrent, "--save", dir, "--utp", "--encryption", fmt.Sprint(encryption), "--peer", addr)
			l.await(`"state": "seeding"`)
			same(t, "sequential", filepath.Join(dir, "film"), p.dir)
		})
	}
}

func readsOverUTP(t *testing.T, m *mounted, p *payload, encrypted bool) {
	t.Helper()
	same(t, "sequential", m.path("film"), p.dir)
	s := m.torrent(t)
	if s.Corrupt != 0 || s.Banned != 0 {
		t.Errorf("corrupt %d, banned %d", s.Corrupt, s.Banned)
	}
	for _, peer := range s.Swarm {
		if peer.Down > 0 && (peer.Transport != "utp" || peer.Encrypted != encrypted) {
			t.Errorf("%s over %s, encrypted: %v", peer.Client, peer.Transport, peer.Encrypted)
		}
	}
}

// The DHT works beside uTP on one port, and uTP without the DHT.
func TestNoUTP(t *testing.T) {
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	l := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--utp")
	m := mount(t, p.torrent, "--no-dht", "--no-utp", "--peer", l.addr(), "--read-timeout", "4s")
	if got := transports(t, m); len(got) != 0 || m.torrent(t).Peers != 0 {
		t.Errorf("%v", got)
	}
}
