package daemon_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// Clients of one network find each other with nothing but local discovery, ours and
// libtorrent's; of a private torrent nothing is said.
func TestLSD(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	g, err := network.System().Join(t.Context(), netip.MustParseAddrPort("239.192.152.143:6771"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			n, _, err := g.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			heard.Write(b[:n])
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { g.Close(); <-done })
	said := func(p *payload) bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(strings.ToLower(heard.String()), p.meta.Info.Hash.String())
	}

	const at = "198.51.100.2:0" // the address of wan
	public := single(t, "public", 1<<20, metainfo.MakeConfig{})
	private := single(t, "private", 1<<20, metainfo.MakeConfig{Private: true})
	magnet := single(t, "of libtorrent", 1<<20, metainfo.MakeConfig{})
	off := single(t, "off", 1<<20, metainfo.MakeConfig{})
	start(t, btmount, "seed", off.dir, "--out", off.torrent, "--state-dir", t.TempDir(), "--no-dht", "--listen", at, "--no-lsd", "--piece-length=16KiB").await("seeding")
	seed(t, private, "--no-dht", "--listen", at)
	seed(t, public, "--no-dht", "--listen", at)
	startLibtorrent(t, "--torrent", magnet.torrent, "--save", magnet.parent(), "--seed", "--lsd", "--address", "198.51.100.2")
	m := mount(t, private.torrent, public.torrent, magnet.magnet(), "--no-dht", "--listen", at)
	same(t, "sequential", m.path("public"), public.dir)
	resolves(t, m, magnet)
	for _, tr := range m.status(t).Torrents {
		found := slices.ContainsFunc(tr.Swarm, func(s swarm.Peer) bool { return s.Source == "lsd" || s.Source == "incoming" })
		if found == (tr.Name == "private") {
			t.Errorf("%s: %+v", tr.Name, tr.Swarm)
		}
	}
	if !said(public) || !said(magnet) || said(private) || said(off) {
		t.Errorf("said: public %v, magnet %v, private %v, off %v", said(public), said(magnet), said(private), said(off))
	}
}
