package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A seed and a mount that know nothing of each other meet at a tracker.
func TestTracker(t *testing.T) {
	for _, scheme := range []string{"http", "udp"} {
		t.Run(scheme, func(t *testing.T) {
			p := single(t, "film", 8<<20, metainfo.MakeConfig{})
			url := scheme + "://" + opentracker(t, p.meta.Info.Hash.String()) + "/announce"
			seed(t, p, "--no-dht", "--tracker", url)
			m := mount(t, p.torrent, "--no-dht", "--tracker", url)
			same(t, "sequential", m.path("film"), p.dir)
			s := m.torrent(t)
			// Either may have found the other first.
			if len(s.Trackers) != 1 || s.Trackers[0].Failure != "" || len(s.Swarm) == 0 {
				t.Errorf("trackers %+v, swarm %+v", s.Trackers, s.Swarm)
			}
		})
	}
}

// resolves waits until a magnet has become the real entry, without a remount, and
// compares it.
func resolves(t testing.TB, m *mounted, p *payload) {
	t.Helper()
	eventually(t, 2*patience, "metadata of "+p.name(), func() bool {
		_, err := os.Lstat(m.path(p.name()))
		return err == nil
	})
	if left, _ := filepath.Glob(m.path("*.resolving")); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	same(t, "sequential", m.path(p.name()), p.dir)
}

// reason expects a magnet to say why it is not there yet.
func reason(t testing.TB, m *mounted, p *payload) {
	t.Helper()
	b, err := os.ReadFile(m.path(p.name()+".resolving", "reason"))
	if err != nil || !strings.Contains(string(b), "waiting for the metadata of "+p.meta.Info.Hash.String()) {
		t.Errorf("reason: %q, %v", b, err)
	}
}

// The metadata of a magnet comes from each client; the mount is there before it.
func TestMagnetFromEach(t *testing.T) {
	t.Parallel()
	seeds := map[string]func(t testing.TB, p *payload, addr string){
		"btmount": func(t testing.TB, p *payload, addr string) { seed(t, p, "--no-dht", "--peer", addr) },
		"libtorrent": func(t testing.TB, p *payload, addr string) {
			startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--peer", addr)
		},
	}
	for name, start := range seeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 4<<20, metainfo.MakeConfig{PieceLength: 16 << 10})
			m := mount(t, p.magnet(), "--no-dht")
			reason(t, m, p)
			start(t, p, m.listen)
			resolves(t, m, p)
		})
	}
	// These can not be told of a peer, so they are first and we are told of them.
	t.Run("transmission", func(t *testing.T) {
		t.Parallel()
		p := single(t, "film", 4<<20, metainfo.MakeConfig{PieceLength: 16 << 10})
		tr := startTransmission(t, p.torrent, p.parent())
		tr.complete()
		resolves(t, mount(t, p.magnet(), "--no-dht", "--peer", tr.addr), p)
	})
	t.Run("aria2", func(t *testing.T) {
		t.Parallel()
		p := single(t, "film", 4<<20, metainfo.MakeConfig{PieceLength: 16 << 10})
		addr, _ := startAria2(t, p.torrent, p.parent(), "--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000")
		listens(t, addr)
		resolves(t, mount(t, p.magnet(), "--no-dht", "--peer", addr), p)
	})
}

// Nothing but the DHT: a seed and a magnet of ours find each other, and libtorrent's.
func TestDHTOnly(t *testing.T) {
	t.Parallel() // it waits for announces
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	q := single(t, "other film", 4<<20, metainfo.MakeConfig{})
	port := fetchtest.FreePort(t)
	node := fmt.Sprint("127.0.0.1:", port)
	seed(t, p, "--listen", node, "--dht-bootstrap", fmt.Sprint("127.0.0.1:", fetchtest.FreePort(t)))
	startLibtorrent(t, "--torrent", q.torrent, "--save", q.parent(), "--seed", "--dht", node)
	m := mount(t, p.magnet(), q.magnet(), "--dht-bootstrap", node)
	for _, p := range []*payload{p, q} {
		eventually(t, 3*patience, "metadata of "+p.name(), func() bool {
			_, err := os.Lstat(m.path(p.name()))
			return err == nil
		})
		same(t, "sequential", m.path(p.name()), p.dir)
	}
	s := m.status(t)
	if s.DHTNodes < 1 {
		t.Errorf("%d DHT nodes", s.DHTNodes)
	}
	for _, tr := range s.Torrents {
		for _, peer := range tr.Swarm {
			t.Logf("%s: %s from %s", tr.Name, peer.Client, peer.Source)
		}
	}
}
