package daemon_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

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

// Transmission has libutp, the first uTP of all.
func TestUTPWithTransmission(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 2<<20, metainfo.MakeConfig{})
	tr := startTransmissionWith(t, p.torrent, p.parent(), map[string]any{"utp-enabled": true})
	tr.complete()
	readsOverUTP(t, mount(t, p.torrent, "--no-dht", "--peer", udpOnly(t, tr.addr)), p, false)
}

// udpOnly is an address at which the UDP of another is reached, by one caller, and no TCP.
func udpOnly(t *testing.T, addr string) string {
	t.Helper()
	to := netip.MustParseAddrPort(addr)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: fetchtest.FreePort(t)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-ended })
	go func() {
		defer close(ended)
		var caller netip.AddrPort
		for b := make([]byte, 4096); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if from == to {
				_, _ = c.WriteToUDPAddrPort(b[:n], caller)
				continue
			}
			caller = from
			_, _ = c.WriteToUDPAddrPort(b[:n], to)
		}
	}()
	return c.LocalAddr().String()
}

// Who is told to speak no uTP does not reach somebody who speaks nothing else.
func TestNoUTP(t *testing.T) {
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	l := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--utp")
	m := mount(t, p.torrent, "--no-dht", "--no-utp", "--peer", l.addr(), "--read-timeout", "2s")
	if b, err := os.ReadFile(m.path("film")); err == nil {
		t.Errorf("%d bytes were read; %+v", len(b), m.torrent(t).Swarm)
	}
}
