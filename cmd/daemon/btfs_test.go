package daemon_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/btfstest"
	btfspeers "github.com/btmount/btmount/btfs/btfstest/peers"
	"github.com/btmount/btmount/cmd/daemon"
)

// openBTFS opens what the commands do, and returns how a read of an object ended.
func openBTFS(t *testing.T, cfg daemon.BTFSConfig, path btfs.Path) error {
	t.Helper()
	cfg.LookupTimeout = 3 * time.Second
	if cfg.Network == "" {
		cfg.Network = "main"
	}
	s, end, err := daemon.OpenBTFS(cfg)
	if err != nil {
		return err
	}
	defer end()
	_, err = s.Walk(t.Context(), path)
	return err
}

// connected counts those who are connected to a peer.
func connected(p *btfspeers.Peer) int { return len(p.Host.Network().Conns()) }

// BTFS's peers are reached through the proxy, over TCP and WebSocket, and not past it: not
// when it is gone, and no name is looked up.
func TestBTFSThroughTheProxy(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	path := btfs.Path{CID: btfstest.Named(t, fixtures, "file-mode").CID}
	for _, ws := range []bool{false, true} {
		p := btfspeers.New(t, btfspeers.Config{Store: store, WebSocket: ws})
		at := strings.Split(p.Addr(), "/")[4]
		// Where the peer is told to be nobody is; only the proxy knows.
		s := startSocks(t, "", "", map[string]string{"192.0.2.1:" + at: "127.0.0.1:" + at})
		cfg := daemon.BTFSConfig{Peers: []string{strings.Replace(p.Addr(), "127.0.0.1", "192.0.2.1", 1)}, Proxy: "socks5://" + s.Addr().String()}
		cfg.Bootstrap = cfg.Peers
		if err := openBTFS(t, cfg, path); err != nil || !s.wasAsked("192.0.2.1:"+at) {
			t.Errorf("WebSocket %v: %v", ws, err)
		}
		cfg.Peers = []string{strings.Replace(p.Addr(), "/ip4/127.0.0.1/", "/dns4/localhost/", 1)}
		cfg.Bootstrap = cfg.Peers
		if err := openBTFS(t, cfg, path); err == nil || !strings.Contains(err.Error(), "its name cannot be looked up") {
			t.Error(err)
		}
		s.Close()
		cfg.Peers = []string{p.Addr()}
		cfg.Bootstrap = cfg.Peers
		before := connected(p)
		if err := openBTFS(t, cfg, path); err == nil || !strings.Contains(err.Error(), "through the proxy") || connected(p) > before {
			t.Errorf("without the proxy: %v, %d connections", err, connected(p))
		}
	}
}

// What is bound to an address goes from there: to a peer on loopback not from an address
// that cannot reach it.
func TestBTFSIsBound(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	path := btfs.Path{CID: btfstest.Named(t, fixtures, "file-mode").CID}
	for _, ws := range []bool{false, true} {
		p := btfspeers.New(t, btfspeers.Config{Store: store, WebSocket: ws})
		cfg := daemon.BTFSConfig{Peers: []string{p.Addr()}, Bootstrap: []string{p.Addr()}, Bind: "127.0.0.7"}
		if err := openBTFS(t, cfg, path); err != nil {
			t.Errorf("WebSocket %v: %v", ws, err)
		}
		if len(p.Callers()) == 0 {
			t.Errorf("WebSocket %v: nobody connected", ws)
		}
		for _, addr := range p.Callers() {
			if !strings.Contains(addr, "127.0.0.7") {
				t.Errorf("from %s", addr)
			}
		}
	}
	if err := openBTFS(t, daemon.BTFSConfig{Bind: "198.51.100.77"}, path); err == nil || !strings.Contains(err.Error(), "no interface has this address") {
		t.Error(err)
	}
}

// Nodes of the world lead to no place in the private network or on this machine; those on
// this machine do.
func TestBTFSPolicy(t *testing.T) {
	world, home := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("127.0.0.1")
	for _, x := range []struct {
		to    string
		via   []netip.Addr
		typed bool
		ok    bool
	}{
		{"127.0.0.1:4001", nil, true, true},
		{"127.0.0.1:4001", nil, false, false},
		{"127.0.0.1:4001", []netip.Addr{home}, false, true},
		{"127.0.0.1:4001", []netip.Addr{home, world}, false, false},
		{"192.168.1.1:80", []netip.Addr{world}, false, false},
		{"169.254.169.254:80", []netip.Addr{world, home}, false, false},
		{"[fd00::1]:4001", []netip.Addr{world}, false, false},
		{"[64:ff9b::7f00:1]:4001", []netip.Addr{world}, false, false},
		{"8.8.4.4:4001", []netip.Addr{world}, false, true},
		{"8.8.4.4:0", []netip.Addr{world}, false, false},
	} {
		if err := daemon.BTFSMayDial(netip.MustParseAddrPort(x.to), x.typed, x.via); (err == nil) != x.ok {
			t.Errorf("%+v: %v", x, err)
		}
	}
}
