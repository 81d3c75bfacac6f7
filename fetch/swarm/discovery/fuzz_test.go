package discovery

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkReply holds what a tracker said against what it may say.
func checkReply(t *testing.T, r reply, err error) {
	t.Helper()
	if err != nil {
		if r.peers != nil || len(err.Error()) > 2000 {
			t.Fatalf("%d peers beside an error of %d bytes", len(r.peers), len(err.Error()))
		}
		return
	}
	switch {
	case r.interval < minInterval, r.interval > maxInterval, r.min < hurryFloor, r.min > r.interval:
		t.Fatalf("interval %v, at least %v", r.interval, r.min)
	case r.seeders < -1, r.leechers < -1, len(r.id) > 256, len(r.peers) > maxPeers:
		t.Fatalf("%+v", r)
	}
	seen := map[netip.AddrPort]bool{}
	for _, p := range r.peers {
		a := p.Addr.Addr()
		if seen[p.Addr] || p.Source != "tracker" || a.Is4In6() || a.Zone() != "" || !usableNode(p.Addr) || a == broadcast {
			t.Fatalf("%+v is believed", p)
		}
		seen[p.Addr] = true
	}
}

// FuzzHTTPReply: of any body the numbers are in bounds and the peers are such as can be.
func FuzzHTTPReply(f *testing.F) {
	for _, s := range []string{
		"d8:completei3e10:incompletei4e8:intervali1800e12:min intervali60e5:peers12:" + peer1 + "\x7f\x00\x00\x01\x00\x16" + "10:tracker id2:abe",
		"d8:intervali1800e5:peersld2:ip9:127.0.0.14:porti80eed2:ip11:2001:db8::17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881eeee",
		"d8:intervali1800e5:peers0:6:peers618:\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe1e",
		"d6:peers618:\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04\x00\x50e",
		"d5:peersld2:ip10:fe80::1%lo4:porti80eed2:ip15:::ffff:127.0.0.14:porti80eeee",
		"d14:failure reason9:no\nfriende", "d14:failure reasoni5ee", "d15:warning message2:hm5:peers0:e",
		"d8:intervali-9223372037e5:peers6:" + peer1 + "e", "d8:intervali9223372036854775808e12:min intervali-1eeTRAILING",
		"d8:completei-5e10:incompletei99999999999e5:peersi5ee", "<html>", "", "de", "d5:peers" + strings.Repeat("l", 70),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseHTTP(b)
		checkReply(t, r, err)
	})
}

// replies is the socket of a tracker's conversation: whatever is sent, what comes is what
// the test has prepared, with the transaction id where it says so.
type replies struct {
	net.PacketConn
	from net.Addr
	in   [][]byte
	id   []byte // of the last packet that was sent
	sent int
}

var errNoMore = errors.New("no more replies")

func (r *replies) WriteTo(b []byte, _ net.Addr) (int, error) {
	r.id, r.sent = append([]byte(nil), b[12:16]...), r.sent+1
	return len(b), nil
}

func (r *replies) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(r.in) == 0 {
		return 0, nil, errNoMore
	}
	p := r.in[0]
	r.in = r.in[1:]
	if len(p) >= 8 && string(p[4:8]) == "THE " {
		copy(p[4:], r.id)
	}
	return copy(b, p), r.from, nil
}

func (r *replies) SetReadDeadline(time.Time) error { return nil }
func (r *replies) Close() error                    { return nil }

// FuzzUDPReply: the packets of a conversation, each with its length before it. What comes
// from elsewhere, or answers something else, is passed over.
func FuzzUDPReply(f *testing.F) {
	saying := func(packets ...string) (b []byte) {
		for _, p := range packets {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		return b
	}
	connect := "\x00\x00\x00\x00THE connect!"
	announce := "\x00\x00\x00\x01THE \x00\x00\x07\x08\x00\x00\x00\x03\x00\x00\x00\x04"
	f.Add(saying(connect, announce+peer1+"\x7f\x00\x00\x01\x00\x16"), false, false)
	f.Add(saying(connect, announce+strings.Repeat("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe1", 3)), true, false)
	f.Add(saying(connect, announce+peer1), false, true)
	f.Add(saying("\x00\x00\x00\x03THE go away"), false, false)
	f.Add(saying(connect, "\x00\x00\x00\x03THE "), false, false)
	f.Add(saying("\x00\x00\x00\x00OTHRconnect!", "", "\x00", connect, "\x00\x00\x00\x01OTHR", announce[:19]), false, false)
	f.Add(saying(connect, "\x00\x00\x00\x01THE \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"+peer1[:5]), false, false)
	f.Fuzz(func(t *testing.T, b []byte, six, elsewhere bool) {
		tracker := netip.MustParseAddrPort("203.0.113.1:80")
		if six {
			tracker = netip.MustParseAddrPort("[2001:db8::2]:80")
		}
		pc := &replies{from: net.UDPAddrFromAddrPort(tracker)}
		if elsewhere {
			pc.from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(tracker.Addr(), 81))
		}
		for len(b) >= 2 && len(pc.in) < 32 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			pc.in, b = append(pc.in, append([]byte(nil), b[2:2+n]...)), b[2+n:]
		}
		body, from, err := conversation(t.Context(), pc, net.UDPAddrFromAddrPort(tracker), actionAnnounce, announceBody("/", testRequest))
		if pc.sent > 2 || err == nil && (elsewhere || pc.sent != 2 || from != tracker.Addr()) {
			t.Fatalf("%d packets sent, answered by %v: %v", pc.sent, from, err)
		}
		if err != nil {
			return
		}
		r, err := parseUDP(body, from.Is6())
		checkReply(t, r, err)
		for _, p := range r.peers {
			if p.Addr.Addr().Is6() && !six {
				t.Fatalf("%v from a tracker of IPv4", p.Addr)
			}
		}
	})
}

// FuzzNodesFile: of any file the nodes are few and such as can be, and kept again they are
// the same.
func FuzzNodesFile(f *testing.F) {
	id := strings.Repeat("ab", 20)
	f.Add([]byte(id + "\n" + id + " 1.2.3.4:5\n" + id + " [2001:db8::1]:6\n"))
	f.Add([]byte("rubbish\n" + id + " 1.2.3.4:0\nzz 1.2.3.4:5\n" + id + " [fe80::1%lo]:6\n" + id + " [::ffff:1.2.3.4]:5"))
	f.Add([]byte(strings.Repeat(id+" 1.2.3.4:5\n", maxSavedNodes+1)))
	f.Add([]byte(strings.Repeat("x", 70_000)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "nodes")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := loadNodes(path)
		if len(s.nodes) > maxSavedNodes {
			t.Fatalf("%d nodes", len(s.nodes))
		}
		for _, n := range s.nodes {
			if a := n.Addr.UDP().AddrPort(); !usableNode(a) {
				t.Fatalf("%v is believed", a)
			}
		}
		kept := filepath.Join(dir, "kept")
		if err := s.save(kept); err != nil {
			t.Fatal(err)
		}
		again, err := loadNodes(kept)
		os.Remove(path) // to replace a file takes some filesystems a while
		os.Remove(kept)
		if err != nil || again.id != s.id || len(again.nodes) != len(s.nodes) {
			t.Fatalf("%v; kept again, %d nodes became %d", err, len(s.nodes), len(again.nodes))
		}
		for i, n := range again.nodes {
			if n.ID != s.nodes[i].ID || n.Addr.String() != s.nodes[i].Addr.String() {
				t.Fatalf("%v became %v", s.nodes[i], n)
			}
		}
	})
}
