package daemon_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A peer of a blocklist is not spoken to, even if the user names it.
func TestBlocklist(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	good, _ := seed(t, p, "--no-dht")
	bad, _ := seed(t, p, "--no-dht", "--listen", "127.0.0.2:0", "--log-level", "debug")
	list := filepath.Join(t.TempDir(), "list.p2p")
	if err := os.WriteFile(list, []byte("no range\nthe one:127.0.0.2-127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := mount(t, p.torrent, "--no-dht", "--peer", good, "--peer", bad, "--blocklist", list)
	same(t, "sequential", m.path("film"), p.dir)
	m.await(`level=WARN msg="blocklist has lines that are no ranges; the others are used".* used=1 bad=1 first=1`)
	m.await(`level=WARN msg="peer not dialled".*` + netip.MustParseAddrPort(bad).Addr().String() + `.*in a blocklist`)
	for _, peer := range m.torrent(t).Swarm {
		if peer.Addr == bad {
			t.Errorf("connected: %+v", peer)
		}
	}
}
