package daemon_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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

// Each of the others tells of itself by local discovery and is called, and hears of us and
// calls: every time the other way is shut, so that one of the two hears nothing.
func TestLSDWithEach(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	need(t, "nft")
	bridge(t, "lan", "203.0.113.1/24")
	n := 1
	at := func(t *testing.T, hook string) (boxed, string) {
		n++
		addr := fmt.Sprint("203.0.113.", n)
		return box(t, "lan", addr+"/24", "nft add table inet wall; nft add chain inet wall w '{ type filter hook "+hook+" priority 0; }'; nft add rule inet wall w udp dport 6771 drop"), addr
	}
	ours := []string{"--no-dht", "--no-port-mapping", "--listen", "203.0.113.1:0"}
	for name, run := range map[string]func(t boxed, p *payload, dir, at string){
		"libtorrent": func(t boxed, p *payload, dir, at string) {
			startLibtorrent(t, "--torrent", p.torrent, "--save", dir, "--lsd", "--address", at)
		},
		"transmission": func(t boxed, p *payload, dir, at string) {
			startTransmissionWith(t, p.torrent, dir, map[string]any{"lpd-enabled": true, "bind-address-ipv4": at})
		},
		"aria2": func(t boxed, p *payload, dir, at string) {
			startAria2(t, p.torrent, dir, "--bt-enable-lpd=true", "--bt-lpd-interface=eth", "--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000")
		},
	} {
		mute, muteAt := at(t, "output")
		deaf, deafAt := at(t, "input")
		t.Run(name+"/it hears us", func(t *testing.T) {
			t.Parallel()
			p, dir := single(t, name+" hears", 1<<20, metainfo.MakeConfig{}), t.TempDir()
			want := mustRead(t, p.dir)
			run(boxed{t, mute.box}, p, dir, muteAt)
			seed(t, p, ours...) // it tells of itself at once, and after ten seconds
			eventually(t, 2*patience, name+" has it all", func() bool {
				b, err := os.ReadFile(filepath.Join(dir, p.name()))
				return err == nil && bytes.Equal(b, want)
			})
		})
		t.Run(name+"/we hear it", func(t *testing.T) {
			t.Parallel()
			p := single(t, name+" tells", 1<<20, metainfo.MakeConfig{})
			m := mount(t, append(ours, p.torrent)...)
			run(boxed{t, deaf.box}, p, p.parent(), deafAt)
			same(t, "sequential", m.path(p.name()), p.dir)
			for _, s := range m.torrent(t).Swarm {
				if s.Source != "lsd" || !strings.HasPrefix(s.Addr, deafAt+":") {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}
