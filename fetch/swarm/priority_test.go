package swarm

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/discovery"
)

// The two examples of BEP 40, and what follows from its text.
func TestPriority(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		a, b string
		want uint32
	}{
		{"123.213.32.10:1", "98.76.54.32:2", 0xec2d7224},
		{"123.213.32.10:1", "123.213.32.234:2", 0x99568189},
		{"1.2.3.4:1", "[2001:db8::1]:2", 0},
	} {
		if got := priority(at(c.a), at(c.b)); got != c.want {
			t.Errorf("%s and %s: %x, want %x", c.a, c.b, got, c.want)
		}
		if priority(at(c.a), at(c.b)) != priority(at(c.b), at(c.a)) {
			t.Errorf("%s and %s: the other end comes to another number", c.a, c.b)
		}
	}
	if priority(at("1.2.3.4:1"), at("1.2.3.4:2")) == priority(at("1.2.3.4:1"), at("1.2.3.4:3")) {
		t.Error("of one address the port does not count")
	}
	// Far away, the last bits of an address do not count as they are: 0x55 passes over some.
	if priority(at("1.2.3.4:1"), at("9.8.7.1:1")) != priority(at("1.2.3.4:1"), at("9.8.7.3:1")) {
		t.Error("who has a network chooses their priority")
	}
	if priority(at("[2001:db8::1]:1"), at("[2001:db9::1]:1")) != priority(at("[2001:db8::1]:1"), at("[2001:db9::3]:1")) {
		t.Error("of IPv6, who has a network chooses their priority")
	}
	if priority(netip.AddrPort{}, at("1.2.3.4:1")) != 0 {
		t.Error("an unknown address has an order")
	}
}

// Our address is what most peers say, if more than one does.
func TestOuter(t *testing.T) {
	var o outer
	say := func(s string, times int) {
		for range times {
			a := netip.MustParseAddr(s)
			o.vote(string(a.AsSlice()))
		}
	}
	say("9.9.9.9", 1)
	if a := o.like(netip.MustParseAddr("1.1.1.1")); a.IsValid() {
		t.Errorf("one peer alone makes us %v", a)
	}
	say("203.0.113.1", 3)
	say("9.9.9.9", 1)
	say("::ffff:203.0.113.1", 1)
	say("2001:db8::1", 2)
	for _, bad := range []string{"", "123", "\x00\x00\x00\x00", "\xe0\x00\x00\x01"} {
		for range 9 {
			o.vote(bad)
		}
	}
	if four, six := o.like(netip.IPv4Unspecified()), o.like(netip.IPv6Unspecified()); four.String() != "203.0.113.1" || six.String() != "2001:db8::1" {
		t.Errorf("%v and %v", four, six)
	}
	for i := range 300 {
		o.vote(string([]byte{1, 2, byte(i >> 8), byte(i)}))
	}
	if len(o.votes) > maxVotes {
		t.Errorf("%d addresses are counted", len(o.votes))
	}
}

// Of peers that failed equally often, the one with the highest priority is called first.
func TestDialsByPriority(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	l := leech(t, meta, Config{MaxPeers: 1, Encryption: EncryptionForbid})
	ours := netip.MustParseAddr("203.0.113.1")
	for range minVotes {
		l.client.outer.vote(string(ours.AsSlice()))
	}
	called := make(chan netip.AddrPort, 100)
	var found []discovery.Peer
	rank := func(a netip.AddrPort) uint32 { return priority(netip.AddrPortFrom(ours, l.client.Port()), a) }
	most := uint32(0) // several may have it
	var group sync.WaitGroup
	defer group.Wait()
	for i := range 12 {
		s, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", 2+i))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		at := s.Addr().(*net.TCPAddr).AddrPort()
		group.Go(func() { // ends with the listener
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				called <- at
				c.Close()
			}
		})
		most = max(most, rank(at))
		found = append(found, discovery.Peer{Addr: at, Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")})
	}
	l.torrent.postFound(found)
	select {
	case at := <-called:
		if rank(at) != most {
			t.Errorf("%v is called first, which has %x and not %x", at, rank(at), most)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody is called")
	}
	l.stop()
}
