package daemon_test

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// dhtNode runs a node of ours at an address until the end of the test.
func dhtNode(t *testing.T, at netip.Addr, bootstrap ...string) *discovery.DHT {
	t.Helper()
	d, err := discovery.NewDHT(discovery.DHTConfig{Listen: netip.AddrPortFrom(at, 0).String(), Bootstrap: bootstrap})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

// finds announces port, and asks until a peer is told of that is as it should be.
func finds(t *testing.T, d *discovery.DHT, hash metainfo.InfoHash, port uint16, what string, ok func(discovery.Peer) bool) {
	t.Helper()
	var told []discovery.Peer
	for end := time.Now().Add(2 * patience); time.Now().Before(end) && t.Context().Err() == nil; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // by itself it repeats after half a minute
		yes := false
		d.Announce(ctx, hash, func() uint16 { return port }, func(peers []discovery.Peer) {
			told = peers
			yes = yes || slices.ContainsFunc(peers, ok)
		})
		cancel()
		if yes {
			return
		}
	}
	nodes, good := d.Status()
	t.Fatalf("%s: %d nodes, %d of them good, told of %v", what, nodes, good, told)
}

// theirID is the id of the node of Transmission, which keeps it in a file.
var theirID = metainfo.InfoHash{1, 2, 3, 4, 5, 6, 7, 8, 9}

// dhtLeechers run a client at an address that has nothing of a torrent and finds peers by the
// DHT alone. It returns where its peers and its node are.
var dhtLeechers = map[string]func(t *testing.T, p *payload, dir string, at netip.Addr, nodes []*discovery.DHT) (peer, node netip.AddrPort){
	"libtorrent": func(t *testing.T, p *payload, dir string, at netip.Addr, nodes []*discovery.DHT) (peer, node netip.AddrPort) {
		host := at.String()
		if at.Is6() {
			host = "[" + host + "]"
		}
		l := startLibtorrent(t, "--torrent", p.torrent, "--save", dir, "--address", host, "--dht", nodes[0].Addr().String())
		port, _ := strconv.ParseUint(l.await(`"port": ([1-9]\d*)`)[1], 10, 16)
		peer = netip.AddrPortFrom(at, uint16(port))
		return peer, peer
	},
	// It looks for peers once it knows more than eight nodes. Those of its file it asks two
	// seconds apart; the others ask it.
	"transmission": func(t *testing.T, p *payload, dir string, at netip.Addr, nodes []*discovery.DHT) (peer, node netip.AddrPort) {
		conf := t.TempDir()
		key, family, list := "nodes", "bind-address-ipv4", ""
		if at.Is6() {
			key, family = "nodes6", "bind-address-ipv6"
		}
		for _, n := range nodes[:5] {
			b, err := n.Addr().MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			list += string(append(b[:len(b)-2:len(b)-2], b[len(b)-1], b[len(b)-2])) // Go has its port the other way round
		}
		if err := os.WriteFile(filepath.Join(conf, "dht.dat"), bencode.MustMarshal(map[string]string{"id": string(theirID[:]), key: list}), 0o644); err != nil {
			t.Fatal(err)
		}
		tr := startTransmissionIn(t, conf, p.torrent, dir, map[string]any{"dht-enabled": true, family: at.String()})
		peer = netip.AddrPortFrom(at, netip.MustParseAddrPort(tr.addr).Port())
		for _, n := range nodes[5:] {
			n.AddNode(peer)
		}
		return peer, peer
	},
	"aria2": func(t *testing.T, p *payload, dir string, at netip.Addr, nodes []*discovery.DHT) (peer, node netip.AddrPort) {
		port := fetchtest.FreePort(t)
		args := []string{"--dht-listen-port", strconv.Itoa(port), "--interface", at.String(), "--seed-time=1000"}
		if at.Is4() {
			args = append(args, "--enable-dht=true", "--dht-file-path", filepath.Join(t.TempDir(), "dht.dat"), "--dht-entry-point", nodes[0].Addr().String())
		} else {
			args = append(args, "--enable-dht6=true", "--dht-file-path6", filepath.Join(t.TempDir(), "dht6.dat"), "--dht-entry-point6", nodes[0].Addr().String(), "--disable-ipv6=false", "--dht-listen-addr6", at.String())
		}
		addr, _ := startAria2(t, p.torrent, dir, args...)
		return netip.AddrPortFrom(at, netip.MustParseAddrPort(addr).Port()), netip.AddrPortFrom(at, uint16(port))
	},
}

// The DHT with others (BEP 5), and over IPv6 (BEP 32). They ask our nodes: a client that
// knows nodes of ours and nothing else finds our seed, and they are told of it. We ask its
// node: it tells one of ours what another one told it. They are out in the world, since
// Transmission's node speaks to nobody on loopback, at an address of their own, by which
// what they tell is known.
func TestDHTWithEach(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 198.51.100.3/24 dev wan")
	for _, a := range []string{"2001:db8::2", "2001:db8::3"} {
		ip(t, "-6 addr add "+a+"/64 dev wan nodad")
	}
	ip(t, "-6 route add default via 2001:db8::1 dev wan") // Transmission looks which address it has there
	for family, at := range map[string][2]netip.Addr{
		"IPv4": {netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")},
		"IPv6": {netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::3")},
	} {
		ours, theirs := at[0], at[1]
		for name, leech := range dhtLeechers {
			t.Run(name+"/"+family, func(t *testing.T) {
				t.Parallel()
				count := 3
				if name == "transmission" {
					count = 14
				}
				var nodes []*discovery.DHT
				for len(nodes) < count {
					var bootstrap []string
					if len(nodes) > 0 {
						bootstrap = []string{nodes[0].Addr().String()}
					}
					nodes = append(nodes, dhtNode(t, ours, bootstrap...))
				}
				p, dir := single(t, "film", 1<<20, metainfo.MakeConfig{}), t.TempDir()
				want := mustRead(t, p.dir)
				addr, _ := seed(t, p, "--no-dht", "--no-lsd", "--no-port-mapping", "--listen", netip.AddrPortFrom(ours, 0).String())
				at := netip.MustParseAddrPort(addr)
				finds(t, nodes[1], p.meta.Info.Hash, at.Port(), "our seed", func(f discovery.Peer) bool { return f.Addr == at })
				peer, node := leech(t, p, dir, theirs, nodes)

				// Close to its id, so that it is one of the eight that are told.
				hash := theirID
				hash[19]++
				one := dhtNode(t, ours, node.String())
				finds(t, one, hash, 1001, name+" keeps what it is told", func(f discovery.Peer) bool { return f.Via == theirs })
				other := dhtNode(t, ours, node.String())
				finds(t, other, hash, 0, name+" tells", func(f discovery.Peer) bool {
					return f.Via == theirs && f.Addr == netip.AddrPortFrom(ours, 1001)
				})
				eventually(t, 2*patience, name+" finds our seed", func() bool {
					b, err := os.ReadFile(filepath.Join(dir, "film"))
					return err == nil && bytes.Equal(b, want)
				})
				finds(t, nodes[1], p.meta.Info.Hash, 0, name+" announces itself", func(f discovery.Peer) bool { return f.Addr == peer && f.Via == ours })
			})
		}
	}
}
