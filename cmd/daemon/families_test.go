package daemon_test

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Over IPv6: peers that are named, that call, and that are learned by peer exchange;
// and a mount that listens as it does by itself is called over both families.
func TestBothFamilies(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no IPv6: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	first, _ := seed(t, p, "--no-dht", "--listen", "[::1]:0")
	second, _ := seed(t, p, "--no-dht", "--listen", "[::1]:0", "--peer", first, "--no-dht")
	m := mount(t, p.torrent, "--no-dht", "--listen", "[::1]:0", "--peer", second)
	if !strings.HasPrefix(first, "[::1]:") || !strings.HasPrefix(second, "[::1]:") {
		t.Fatal(first, second)
	}
	// The first and the mount can only know of each other by peer exchange; either may
	// be the one that calls. If the second met the first later than us, we hear of it in
	// a minute. Nothing is read before: those who have all do not call each other.
	eventually(t, 3*patience, "a peer over IPv6 by peer exchange", func() bool {
		n := 0
		for _, s := range m.torrent(t).Swarm {
			if s.Connected && strings.HasPrefix(s.Addr, "[::1]:") {
				n++
			}
		}
		return n == 2
	})
	same(t, "sequential", m.path("film"), p.dir)

	// Nobody is named to this one: it is called.
	f := newFolders(t)
	b := &mounted{folders: f, proc: command(t, btmount, "mount", f.point, p.torrent, "--cache-dir", f.cache, "--state-dir", f.state, "--no-dht", "--log-level", "info")}
	b.start()
	t.Cleanup(b.stop)
	port := b.await(`^mounted .*; peers reach us at port (\d+);`)[1]
	seed(t, p, "--no-dht", "--peer", "[::1]:"+port, "--listen", "[::1]:0")
	seed(t, p, "--no-dht", "--peer", "127.0.0.1:"+port)
	eventually(t, patience, "peers of both families", func() bool {
		peers := b.torrent(t).Swarm
		has := func(prefix string) bool {
			return slices.ContainsFunc(peers, func(s swarm.Peer) bool {
				return s.Source == "incoming" && s.Connected && strings.HasPrefix(s.Addr, prefix)
			})
		}
		return has("[::1]:") && has("127.0.0.1:")
	})
	same(t, "sequential", b.path("film"), p.dir)
}
