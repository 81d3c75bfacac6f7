package daemon_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A peer of a blocklist is not spoken to, even if the user names it.
func TestBlocklist(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	good, _ := seed(t, p, "--no-dht")
	bad, _ := seed(t, p, "--no-dht", "--listen", "127.0.0.2:0", "--log-level", "debug")
	list := filepath.Join(t.TempDir(), "list.p2p")
	if err := os.WriteFile(list, []byte("no range\nthe one:127.0.0.2-127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := mount(t, p.torrent, "--no-dht", "--peer", good, "--peer", bad, "--blocklist", list)
	same(t, "sequential", m.path("film"), p.dir)
	m.await(`level=WARN msg="blocklist has lines that are no ranges; the others are used".* used=1 bad=1 first=1`)
	m.await(`level=WARN msg="peer not dialled".*` + netip.MustParseAddrPort(bad).Addr().String() + `.*in a blocklist`)
	for _, peer := range m.torrent(t).Swarm {
		if peer.Addr == bad {
			t.Errorf("connected: %+v", peer)
		}
	}
}

// A blocked peer that is the only one is not even connected to, over TCP or uTP; nor is it
// let in when it calls.
func TestBlockedPeerIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	l, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	udp, err := net.ListenPacket("udp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	list := filepath.Join(t.TempDir(), "list.p2p")
	if err := os.WriteFile(list, []byte("the one:127.0.0.2-127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--peer", l.Addr().String(), "--blocklist", list, "--read-timeout", "3s")
	if err := head(m.path("film")); err == nil {
		t.Error("it is read")
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond)) // what waits is taken at once
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("it was called")
	}
	_ = udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _, err := udp.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("it was sent a packet of %d bytes", n)
	}
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp4", m.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	caller := &rawPeer{Conn: c, meta: p.meta}
	if err := caller.hello(); err == nil && caller.hear() == nil {
		t.Error("it is let in")
	}
}

// world are flags that make btmount send to the world in every way that it knows.
var world = []string{
	"--peer", "203.0.113.5:6881", "--tracker", "http://203.0.113.6/announce", "--tracker", "udp://203.0.113.7:6969/announce",
	"--dht-bootstrap", "203.0.113.8:6881",
}

// A mount that is bound to an interface reads through it, and sends nothing through
// another one: not while the interface is there, not when it has gone.
func TestBind(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	other := start(t, "unshare", "-n", "sh", "-c", "echo ready; exec sleep 1000") // a namespace for the other end
	other.await("ready")
	pid := strconv.Itoa(other.cmd.Process.Pid)
	veth(t, "vpn", "10.8.0.2/24")
	ip(t, "link set vpn-end netns "+pid)
	output(t, patience, "nsenter", "-t", pid, "-n", "sh", "-c", "ip link set lo up; ip link set vpn-end up; ip addr add 10.8.0.1/24 dev vpn-end")
	p := single(t, "film", 8<<20, metainfo.MakeConfig{})
	s := start(t, "nsenter", "-t", pid, "-n", btmount, "seed", p.dir, "--out", p.torrent, "--state-dir", t.TempDir(), "--no-dht",
		"--listen", "10.8.0.1:0", fmt.Sprintf("--piece-length=%dB", p.pieces))
	addr := s.await(`^seeding .* on (\S+);`)[1]

	// Without LSD: the kernel takes leave of its multicast group for seconds after it.
	free := mount(t, append([]string{p.torrent, "--listen", "198.51.100.2:7001", "--no-lsd"}, world...)...)
	eventually(t, patience, "a packet to the world", func() bool { return sent(t, "wan") > 3 })
	free.stop()
	before := sent(t, "wan")
	m := mount(t, append([]string{p.torrent, "--bind", "vpn", "--listen", "10.8.0.2:0", "--peer", addr, "--log-level", "debug"}, world...)...)
	output(t, patience, "dd", "if="+m.path("film"), "of=/dev/null", "bs=1M", "count=2", "status=none")
	m.await(`tracker failed.* tracker=203.0.113.6 `)
	ip(t, "link del vpn")
	m.await(`cannot connect.*bound to vpn, which is gone`)
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets went past the interface", now-before)
	}
	// And it does not start without it.
	f := newFolders(t)
	r := start(t, btmount, "mount", f.point, p.torrent, "--cache-dir", f.cache, "--state-dir", f.state, "--bind", "vpn")
	r.ended(patience)
	if text := r.out.String(); r.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, `bind to "vpn": there is no such interface`) {
		t.Errorf("%v: %s", r.cmd.ProcessState, text)
	}
}
