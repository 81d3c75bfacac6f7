package swarm

import (
	"net/netip"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Which peers are believed depends on who names them: nobody may name what is nearer
// to us than they are.
func TestFoundAsksThePolicy(t *testing.T) {
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1}})
	if err != nil {
		t.Fatal(err)
	}
	tr.pool.start(t.Context(), nil)
	tr.pool.dialing = maxDialing // nothing is dialled here
	var none netip.Addr
	far, lan, here := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.9"), netip.MustParseAddr("127.0.0.1")
	for i, c := range []struct {
		source string
		via    netip.Addr
		addr   string
		known  bool
	}{
		{"pex", far, "127.0.0.1:22", false},
		{"pex", far, "192.168.1.1:80", false},
		{"pex", far, "[::ffff:10.0.0.1]:80", false},
		{"pex", far, "203.0.113.7:0", false},
		{"pex", far, "203.0.113.7:6881", true},
		{"pex", lan, "192.168.1.7:6881", true},
		{"pex", lan, "127.0.0.1:22", false},
		{"dht", far, "10.0.0.1:80", false},
		{"dht", here, "127.0.0.1:6881", true},
		{"tracker", far, "192.168.1.1:80", false},
		{"tracker", lan, "192.168.1.7:6881", true},
		{"tracker", none, "192.168.1.7:6881", false},
		{"magnet", none, "127.0.0.1:22", false},
		{"magnet", none, "203.0.113.7:6881", true},
		{"given", none, "127.0.0.1:6881", true},
		{"given", none, "224.0.0.1:6881", false},
	} {
		clear(tr.pool.known_)
		tr.found([]netip.AddrPort{netip.MustParseAddrPort(c.addr)}, c.source, c.via)
		if known := len(tr.pool.known_) == 1; known != c.known {
			t.Errorf("%d: %s of %s from %v: known %v", i, c.addr, c.source, c.via, known)
		}
	}
}
