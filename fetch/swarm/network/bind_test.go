package network

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func TestBindRefuses(t *testing.T) {
	for bind, reason := range map[string]string{
		"192.0.2.77": "no interface has this address", "2001:db8::77": "no interface has this address",
		"0.0.0.0": "no address of an interface", "::": "no address of an interface", "224.0.0.1": "no address of an interface",
		"nosuch0": "no such interface", "a b": "no such interface", strings.Repeat("x", 1000): "no such interface",
	} {
		if _, err := Open(Config{Bind: bind}); err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20s: %v", bind, err)
		}
	}
	n, err := Open(Config{Bind: "127.0.0.7"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := n.Listen(t.Context(), "127.0.0.8:0"); err == nil {
		t.Error("listens on", l.Addr())
	}
	if pc, err := n.ListenPacket(t.Context(), "udp6", ":0"); err == nil {
		t.Error("listens on", pc.LocalAddr())
	}
	for _, at := range []string{":0", "0.0.0.0:0", "[::]:0", "127.0.0.7:0"} {
		l, err := n.Listen(t.Context(), at)
		if err != nil {
			t.Fatal(at, err)
		}
		if ip := AddrPort(l.Addr()).Addr(); ip.String() != "127.0.0.7" {
			t.Errorf("%s listens on %v", at, ip)
		}
		l.Close()
	}
}

// sent is how many packets left through an interface.
func sent(t *testing.T, device string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); name == device {
			return strings.Fields(rest)[9]
		}
	}
	t.Fatal("no interface ", device)
	return ""
}

// attempt is how long a connection is tried that nobody answers: its first packet has
// gone long before.
const attempt = 200 * time.Millisecond

// unbound is bound to nothing, with a resolver that can be asked as the others.
func unbound(t *testing.T) *Network {
	t.Helper()
	n, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	n.resolver = n.bindResolver()
	return n
}

// tryAll opens every kind of socket and sends.
func tryAll(t *testing.T, n *Network) (errs []error) {
	ctx, cancel := context.WithTimeout(t.Context(), attempt)
	defer cancel()
	to := netip.MustParseAddrPort("203.0.113.5:6881")
	c, err := n.Dial(ctx, Ask{Use: Peer, From: Typed, To: to})
	if err == nil {
		c.Close()
	}
	errs = append(errs, err)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://203.0.113.5/announce", nil)
	if resp, _, err := n.Do(req, Tracker, Typed); err == nil {
		resp.Body.Close()
	} else {
		errs = append(errs, err)
	}
	pc, err := n.ListenPacket(ctx, "udp4", ":0")
	if err == nil {
		_, err = pc.WriteTo([]byte("hello"), &net.UDPAddr{IP: to.Addr().AsSlice(), Port: 6969})
		pc.Close()
	}
	errs = append(errs, err)
	// A server of the world, so that the question would leave this machine.
	if c, err := n.resolver.Dial(ctx, "udp", "203.0.113.53:53"); err == nil {
		_, err = c.Write([]byte("question"))
		c.Close()
		errs = append(errs, err)
	} else {
		errs = append(errs, err)
	}
	if l, err := n.Listen(ctx, ":0"); err == nil {
		l.Close()
	}
	return errs
}

// What is bound to one interface sends nothing through another, though the way of
// everything leads there: not while the interface is up, not when it has gone.
func TestBoundToInterface(t *testing.T) {
	if !namespaced(
		t, "link add wan type veth peer name wan-end", "link add vpn type veth peer name vpn-end",
		"addr add 198.51.100.2/24 dev wan", "addr add 10.8.0.2/24 dev vpn",
		"link set wan addrgenmode none", "link set vpn addrgenmode none", "link set wan-end addrgenmode none", "link set vpn-end addrgenmode none",
		"link set wan up", "link set wan-end up", "link set vpn up", "link set vpn-end up",
		"route add default via 198.51.100.1 dev wan", "neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev wan",
		"route add default via 10.8.0.1 dev vpn metric 1000", "neigh add 10.8.0.1 lladdr 02:00:00:00:00:02 dev vpn",
	) {
		return
	}
	// Nothing bound: that the counter counts.
	before := sent(t, "wan")
	tryAll(t, unbound(t))
	if sent(t, "wan") == before {
		t.Fatal("the counter does not count")
	}
	for _, bind := range []string{"vpn", "10.8.0.2"} {
		n, err := Open(Config{Bind: bind})
		if err != nil {
			t.Fatal(err)
		}
		// An address leaves the way to the routing table.
		if bind == "10.8.0.2" {
			ip(t, "rule add from 10.8.0.2 lookup 100")
			ip(t, "route add default via 10.8.0.1 dev vpn table 100")
		}
		wan, vpn := sent(t, "wan"), sent(t, "vpn")
		pc, err := n.ListenPacket(t.Context(), "udp4", ":0") // as the DHT's, open for long
		if err != nil {
			t.Fatal(err)
		}
		tryAll(t, n)
		if sent(t, "vpn") == vpn {
			t.Errorf("%s: nothing went through it", bind)
		}
		if now := sent(t, "wan"); now != wan {
			t.Errorf("%s: packets through the other interface: %s before, %s now", bind, wan, now)
		}
		ip(t, "link del vpn")
		for _, err := range tryAll(t, n) {
			if err == nil {
				t.Errorf("%s: works though it is gone", bind)
			}
		}
		_, err = pc.WriteTo([]byte("hello"), &net.UDPAddr{IP: []byte{203, 0, 113, 5}, Port: 6881})
		if err == nil {
			t.Errorf("%s: an old socket still sends", bind)
		}
		pc.Close()
		if now := sent(t, "wan"); now != wan {
			t.Errorf("%s, gone: packets through the other interface: %s before, %s now", bind, wan, now)
		}
		if _, err := Open(Config{Bind: bind}); err == nil {
			t.Errorf("%s: opened though it is gone", bind)
		}
		// Back again, it works again for what is opened then.
		for _, s := range []string{
			"link add vpn type veth peer name vpn-end", "addr add 10.8.0.2/24 dev vpn", "link set vpn addrgenmode none", "link set vpn-end addrgenmode none",
			"link set vpn up", "link set vpn-end up", "route add default via 10.8.0.1 dev vpn metric 1000", "neigh add 10.8.0.1 lladdr 02:00:00:00:00:02 dev vpn",
		} {
			ip(t, s)
		}
		if bind == "10.8.0.2" {
			ip(t, "route add default via 10.8.0.1 dev vpn table 100")
		}
		vpn = sent(t, "vpn")
		tryAll(t, n)
		if sent(t, "vpn") == vpn {
			t.Errorf("%s: nothing goes through it when it is back", bind)
		}
	}
}
