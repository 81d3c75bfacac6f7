package discovery

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	peer_store "github.com/anacrolix/dht/v2/peer-store"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// Packets any of which would end the process, or flood its stderr.
var hostilePackets = []string{
	"", "d", "de", "le", "i5e", "garbage", "d1:q", "\x00\x00",
	"d1:q13:announce_peer1:t2:aa1:y1:qe",
	"d1:q3:put1:t2:aa1:y1:qe",
	"d1:q9:find_node1:t2:aa1:y1:qe",
	"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaa6:valuesl0:ee1:t2:aa1:y1:re",
	"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaa6:valuesl1:aee1:t2:aa1:y1:re",
	"d2:ip0:1:q4:ping1:t2:aa1:y1:qe",
	"d1:rd2:id3:aaa5:nodes7:aaaaaaae1:t2:aa1:y1:re",
	"d1:t2:aa1:y1:re",
	"d1:ei5e1:t2:aa1:y1:ee",
	"d1:el0:e1:t2:aa1:y1:ee",
	"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaa4:porti99999999ee1:q13:announce_peer1:t2:aa1:y1:qe",
	"d1:a" + strings.Repeat("l", 60000),
}

func TestDHTSurvivesHostilePackets(t *testing.T) {
	a := runDHT(t, DHTConfig{})
	conn, err := net.Dial("udp4", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, p := range hostilePackets {
		if len(p) < 1<<16 {
			conn.Write([]byte(p))
		}
	}
	// It still answers.
	conn.Write([]byte("d1:ad2:id20:bbbbbbbbbbbbbbbbbbbbe1:q4:ping1:t2:zz1:y1:qe"))
	b := make([]byte, 2000)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b[:n]), "2:zz") {
			return
		}
	}
}

func FuzzAcceptable(f *testing.F) {
	for _, p := range hostilePackets {
		f.Add([]byte(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) { acceptable(b) })
}

func TestGuardOutlivesItsSocket(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := runDHT(t, DHTConfig{PacketConn: pc})
	<-d.ready
	pc.Close() // the library would panic
	if _, err := NewDHT(DHTConfig{Bootstrap: []string{"no port"}}); err == nil {
		t.Error("bootstrap node without port accepted")
	}
}

func TestPeerStoreIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s peerStore
		for i := range 3000 {
			hash := peer_store.InfoHash{byte(i), byte(i >> 8)}
			s.AddPeer(hash, krpc.NodeAddr{IP: net.IP{1, 2, 3, 4}, Port: 5})
			s.AddPeer(peer_store.InfoHash{1}, krpc.NodeAddr{IP: net.IP{1, 2, byte(i >> 8), byte(i)}, Port: 5})
		}
		s.AddPeer(peer_store.InfoHash{1}, krpc.NodeAddr{IP: net.IP{1}, Port: 5})
		s.AddPeer(peer_store.InfoHash{1}, krpc.NodeAddr{IP: net.IP{1, 2, 3, 4}, Port: 99999})
		if n, m := len(s.hashes), len(s.hashes[peer_store.InfoHash{1}]); n > storeHashes || m > storePeers || m < 1 {
			t.Error(n, m)
		}
		after(time.Hour)
		if list := s.GetPeers(peer_store.InfoHash{1}); len(list) != 0 {
			t.Error("peers do not expire", list)
		}
	})
}

func TestNodesFileDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes")
	id := strings.Repeat("ab", 20)
	text := "rubbish\n" + id + "\n" + id + " 1.2.3.4:0\n" + id + " 1.2.3.4:5\nzz 1.2.3.4:5\n" + id + " [::1]:6\n" + id + " 0.0.0.0:6\n" + strings.Repeat("x", 70000)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _ := loadNodes(file)
	if len(s.nodes) != 2 || s.id[0] != 0xab {
		t.Errorf("%+v", s)
	}
}

func TestDHTAnnounceEndsBeforeRun(t *testing.T) {
	d, err := NewDHT(DHTConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.conn.Close()
	announceDHT(t, d, metainfo.InfoHash{1}, 1) // its cleanup waits for the end
	d.AddNode(netip.MustParseAddrPort("224.0.0.1:5"))
	d.AddNode(netip.MustParseAddrPort("1.2.3.4:0"))
	if n, good := d.Status(); n != 0 || good != 0 || len(d.seeds) != 0 {
		t.Error(n, good, d.seeds)
	}
}

// Nodes name nodes: what is near is spoken to only if it spoke first, or if the user
// named a node as near.
func TestGuardPolicy(t *testing.T) {
	open := func() net.PacketConn {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		return pc
	}
	near, ours := open(), open()
	g := newGuard(ours, network.System(), newAnswers(krpc.ID{1}, &peerStore{}), slog.New(slog.DiscardHandler))
	const packet = "d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t1:x1:y1:qe"
	// reaches says whether a packet arrives: the one sent after it always does.
	reaches := func() bool {
		t.Helper()
		_, refused := g.WriteTo([]byte(packet), near.LocalAddr())
		if _, err := ours.WriteTo([]byte("end"), near.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		for got, b := false, make([]byte, 100); ; {
			n, _, err := near.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			if string(b[:n]) == "end" {
				if got != (refused == nil) {
					t.Error(got, refused)
				}
				return got
			}
			got = true
		}
	}
	if reaches() {
		t.Error("a near node that nobody knows is spoken to")
	}
	if _, err := near.WriteTo([]byte(packet), ours.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.ReadFrom(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if !reaches() {
		t.Error("a near node that spoke first is not answered")
	}
	g = newGuard(ours, network.System(), newAnswers(krpc.ID{1}, &peerStore{}), slog.New(slog.DiscardHandler))
	g.trust(netip.MustParseAddr("10.0.0.1"))
	if reaches() {
		t.Error("a node of this machine is spoken to because one of the LAN was named")
	}
	g.trust(netip.MustParseAddr("127.0.0.5"))
	if !reaches() {
		t.Error("a node as near as one that the user named is not spoken to")
	}
}
