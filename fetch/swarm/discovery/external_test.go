package discovery

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
)

// The examples of BEP 42: address, last byte of the id, first 21 bits.
func TestSecureID(t *testing.T) {
	for _, c := range []struct {
		ip    string
		last  byte
		first string
	}{
		{"124.31.75.21", 1, "5fbfbf"},
		{"21.75.31.124", 86, "5a3ce9"},
		{"65.23.51.170", 22, "a5d432"},
		{"84.124.73.14", 65, "1b0321"},
		{"43.213.53.83", 90, "e56f6c"},
	} {
		want, _ := hex.DecodeString(c.first)
		id := krpc.ID{2: want[2] & 7, 19: c.last}
		us := netip.MustParseAddr(c.ip)
		dht.SecureNodeId(&id, us.AsSlice())
		if id[0] != want[0] || id[1] != want[1] || id[2]&0xf8 != want[2]&0xf8 {
			t.Errorf("%s: %x, want %s", c.ip, id[:3], c.first)
		}
		var e external
		if e.fitting(krpc.ID{9}) != (krpc.ID{9}) {
			t.Error("an id changes although nobody knows our address")
		}
		for i := range minVotes {
			e.vote(netip.AddrFrom4([4]byte{1, 2, byte(i), 3}), us)
		}
		if got := e.fitting(krpc.ID{9}); got == (krpc.ID{9}) || !dht.NodeIdSecure(got, us.AsSlice()) || e.fitting(got) != got {
			t.Errorf("%s: %x", c.ip, got)
		}
	}
}

// Many addresses of one network are one vote, near addresses none, and without agreement
// nothing is known.
func TestExternalVotes(t *testing.T) {
	us, lie := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.7")
	us6 := netip.MustParseAddr("2001:db8::9")
	var e external
	for i := range 200 {
		e.vote(netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}), lie)
		e.vote(netip.AddrFrom4([4]byte{8, 8, byte(i), 1}), netip.MustParseAddr("192.168.1.5"))
		e.vote(netip.AddrFrom4([4]byte{8, 8, byte(i), 1}), us6)
	}
	if e.addr().IsValid() || len(e.votes) != 1 {
		t.Error(e.addr(), len(e.votes))
	}
	for i := range 20 {
		e.vote(netip.AddrFrom4([4]byte{7, byte(i), 1, 1}), us)
	}
	if e.addr() != us {
		t.Error(e.addr())
	}
	for i := range 30 {
		e.vote(netip.AddrFrom4([4]byte{6, byte(i), 1, 1}), lie)
	}
	if e.addr().IsValid() || len(e.votes) > maxVotes {
		t.Error(e.addr(), len(e.votes))
	}
	for i := range minVotes {
		e.vote(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i), 1}), us6)
	}
	if e.addr() != us6 {
		t.Error(e.addr())
	}
}

// The id that fits what nodes say is the one of the next start.
func TestDHTHasASecureID(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes")
	other := runDHT(t, DHTConfig{})
	var before krpc.ID
	t.Run("first", func(t *testing.T) {
		d := runDHT(t, DHTConfig{NodesFile: file})
		d.AddNode(other.Addr())
		<-d.joined
		before = d.server.ID()
		for i := range minVotes {
			packet := bencode.MustMarshal(map[string]any{"t": "x", "y": "r", "ip": "\x7c\x1f\x4b\x15\x00\x50", "r": map[string]any{"id": strings.Repeat("r", 20)}})
			b := make([]byte, 500)
			if n := d.conn.pass(b, copy(b, packet), &net.UDPAddr{IP: net.IP{1, 2, byte(i), 3}, Port: 5}); n != len(packet) {
				t.Fatal(n)
			}
		}
	})
	after := runDHT(t, DHTConfig{NodesFile: file}).conn.answers.id
	if us := (net.IP{0x7c, 0x1f, 0x4b, 0x15}); after == before || !dht.NodeIdSecure(after, us) {
		text, _ := os.ReadFile(file)
		t.Errorf("%x, then %x: %s", before, after, text)
	}
}
