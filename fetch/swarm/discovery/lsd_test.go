package discovery

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

const lsdHex = "0101010101010101010101010101010101010101"

func lsdText(lines ...string) string {
	return "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n\r\n"
}

func TestParseLSD(t *testing.T) {
	many := strings.Split(strings.Repeat("Infohash: "+lsdHex+"\n", 90), "\n")
	for _, c := range []struct {
		name, packet string
		hashes       int
		port         uint16
		ok           bool
	}{
		{"one", lsdText("Port: 6881", "Infohash: "+lsdHex, "cookie: x"), 1, 6881, true},
		{"two", lsdText("Port: 6881", "Infohash: "+lsdHex, "Infohash: "+strings.ToUpper(strings.Replace(lsdHex, "01", "ab", 1))), 2, 6881, true},
		{"no cookie, one line end", strings.TrimSuffix(lsdText("Port: 1", "Infohash: "+lsdHex), "\r\n"), 1, 1, true},
		{"none", lsdText("Port: 6881"), 0, 6881, true},
		{"bad hash", lsdText("Port: 6881", "Infohash: zz", "Infohash: 0101", "Infohash: "+lsdHex), 1, 6881, true},
		{"many", lsdText(append([]string{"Port: 6881"}, many[:90]...)...), lsdHashes, 6881, true},
		{"port 0", lsdText("Port: 0", "Infohash: "+lsdHex), 0, 0, false},
		{"port 65536", lsdText("Port: 65536", "Infohash: "+lsdHex), 0, 0, false},
		{"no port", lsdText("Infohash: " + lsdHex), 0, 0, false},
		{"another method", strings.Replace(lsdText("Port: 6881"), "BT-SEARCH", "M-SEARCH", 1), 0, 0, false},
		{"empty", "", 0, 0, false},
		{"cut", "BT-SEARCH * HTTP/1.1\r\nHo", 0, 0, false},
		{"lines", "BT-SEARCH * HTTP/1.1\r\n" + strings.Repeat("a:\n", 400), 0, 0, false},
	} {
		hashes, port, _, err := parseLSD([]byte(c.packet))
		if (err == nil) != c.ok || len(hashes) != c.hashes || port != c.port {
			t.Errorf("%s: %v, %d, %v", c.name, hashes, port, err)
		}
	}
}

func FuzzLSD(f *testing.F) {
	f.Add([]byte(lsdText("Port: 6881", "Infohash: "+lsdHex, "cookie: x")))
	f.Fuzz(func(t *testing.T, packet []byte) {
		hashes, port, _, err := parseLSD(packet)
		if err == nil && port == 0 || err != nil && hashes != nil || len(hashes) > lsdHashes {
			t.Error(hashes, port, err)
		}
	})
}

// What is heard is passed on for our torrents only, as told by who sent it; our own
// packets are not.
func TestLSDHeard(t *testing.T) {
	l := NewLSD(network.System(), nil)
	var got []Peer
	ours := metainfo.InfoHash([20]byte{0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1, 17: 1, 18: 1, 19: 1})
	l.found[ours] = func(ps []Peer) { got = append(got, ps...) }
	l.ports[ours] = func() uint16 { return 7 }
	from := netip.MustParseAddr("192.168.1.7")
	l.heard(l.packet(ours), from)
	l.heard([]byte(lsdText("Port: 6881", "Infohash: "+strings.Repeat("02", 20))), from)
	if len(got) != 0 {
		t.Error("heard", got)
	}
	l.heard([]byte(lsdText("Port: 6881", "Infohash: "+lsdHex)), from)
	if len(got) != 1 || fmt.Sprint(got[0]) != "{192.168.1.7:6881 lsd 192.168.1.7}" {
		t.Error("heard", got)
	}
	l.ports[ours] = func() uint16 { return 0 }
	if p := l.packet(ours); p != nil {
		t.Errorf("announced though nobody can call: %q", p)
	}
}
