package daemon_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A router of the default route that speaks NAT-PMP gives another port than ours: status
// and peers are told of it, and it is given back in the end. With --no-port-mapping the
// router hears nothing.
func TestPortMapping(t *testing.T) {
	if !namespaced(t) {
		return
	}
	ip(t, "link add d0 type veth peer name d1")
	ip(t, "link set d1 up")
	ip(t, "addr add 203.0.113.2/24 dev d0")
	ip(t, "link set d0 up")
	ip(t, "route replace default via 203.0.113.1 dev d0")
	ip(t, "addr add 203.0.113.1/32 dev lo") // last: no route goes over an address of our own
	pc, err := net.ListenPacket("udp4", "203.0.113.1:5351")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	mapped := map[byte]bool{}
	asked, most := 0, 0
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		b := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			asked++
			a := []byte{0, 128 + b[1], 0, 0, 0, 0, 0, 1, 198, 51, 100, 7}
			if n == 12 {
				a = append(a[:8], b[4], b[5], 0x1f, 0x40, 0, 0, 0, 0) // port 8000
				lease := binary.BigEndian.Uint32(b[8:])
				binary.BigEndian.PutUint32(a[12:], lease)
				if mapped[b[1]] = lease > 0; lease == 0 {
					delete(mapped, b[1])
				}
				most = max(most, len(mapped))
			}
			mu.Unlock()
			_, _ = pc.WriteTo(a, from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	p := single(t, "file", 100_000, metainfo.MakeConfig{})
	m := mount(t, p.torrent, "--no-dht", "--listen", "203.0.113.2:0")
	eventually(t, patience, "the port is mapped", func() bool {
		s := m.status(t).PortMapping
		return s != nil && s.TCP == 8000 && s.UDP == 8000 && s.Method == "NAT-PMP" && s.External.String() == "198.51.100.7"
	})
	raw, err := dialRaw(m.listen, p.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if h, err := raw.handshakeOf(); err != nil || h["p"] != int64(8000) {
		t.Errorf("a peer is told %v, %v", h["p"], err)
	}
	m.stop()
	mu.Lock()
	if most != 2 || len(mapped) != 0 {
		t.Errorf("%d mappings, %d of them were not given back", most, len(mapped))
	}
	asked = 0
	mu.Unlock()
	m = mount(t, p.torrent, "--no-dht", "--listen", "203.0.113.2:0", "--no-port-mapping")
	if s := m.status(t).PortMapping; s != nil {
		t.Errorf("%+v", s)
	}
	m.stop()
	mu.Lock()
	defer mu.Unlock()
	if asked != 0 {
		t.Errorf("asked %d times", asked)
	}
}

// miniupnpd, the router that most boxes have, lets a peer from behind it call us: a seed
// that knows our outer address alone is read from. In PCP, and in UPnP if it has no PCP.
func TestPortMappingByMiniupnpd(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	need(t, "miniupnpd")
	need(t, "nft")
	// Us, a router, and the internet. The router believes in addresses of the world only.
	inside := func(p *proc, script string) {
		output(t, patience, "nsenter", "-t", strconv.Itoa(p.cmd.Process.Pid), "-n", "sh", "-ec", script)
	}
	box := func() *proc {
		p := start(t, "unshare", "-n", "sh", "-c", "echo ready; exec sleep 1000")
		p.await("ready")
		return p
	}
	router, internet := box(), box()
	ip(t, "link add lan type veth peer name lan-r")
	ip(t, fmt.Sprint("link set lan-r netns ", router.cmd.Process.Pid))
	ip(t, "addr add 192.168.77.2/24 dev lan")
	ip(t, "link set lan up")
	ip(t, "link add inet-r type veth peer name inet")
	ip(t, fmt.Sprint("link set inet-r netns ", router.cmd.Process.Pid))
	ip(t, fmt.Sprint("link set inet netns ", internet.cmd.Process.Pid))
	inside(router, `ip link set lo up; ip link set lan-r up; ip link set inet-r up; ip addr add 192.168.77.1/24 dev lan-r
		ip addr add 11.1.1.1/24 dev inet-r; echo 1 >/proc/sys/net/ipv4/ip_forward
		nft add table inet filter; nft add chain inet filter miniupnpd
		nft add chain inet filter prerouting '{ type nat hook prerouting priority -100; }'
		nft add chain inet filter postrouting '{ type nat hook postrouting priority 100; }'
		nft add chain inet filter prerouting_miniupnpd; nft add chain inet filter postrouting_miniupnpd
		nft add rule inet filter prerouting jump prerouting_miniupnpd
		nft add rule inet filter postrouting jump postrouting_miniupnpd
		nft add rule inet filter postrouting oifname inet-r masquerade`)
	inside(internet, `ip link set lo up; ip link set inet up; ip addr add 11.1.1.2/24 dev inet`)
	ip(t, "route replace default via 192.168.77.1 dev lan")
	for _, c := range []struct{ pcp, method string }{{"yes", "PCP"}, {"no", "UPnP"}} {
		conf := filepath.Join(t.TempDir(), "miniupnpd.conf")
		text := "ext_ifname=inet-r\nlistening_ip=lan-r\nport=0\nenable_upnp=yes\nenable_natpmp=" + c.pcp + `
secure_mode=yes
system_uptime=no
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=00000000-0000-0000-0000-000000000000
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d := start(t, "nsenter", "-t", strconv.Itoa(router.cmd.Process.Pid), "-n", "-m", "miniupnpd", "-d", "-f", conf, "-P", filepath.Join(t.TempDir(), "pid"))
		p := single(t, "file", 1<<20, metainfo.MakeConfig{})
		m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--listen", "192.168.77.2:0")
		var outer string
		eventually(t, patience, "the port is mapped by "+c.method, func() bool {
			s := m.status(t).PortMapping
			if s == nil || s.TCP == 0 || s.UDP == 0 || s.Method != c.method || s.External.String() != "11.1.1.1" {
				return false
			}
			outer = netip.AddrPortFrom(s.External, s.TCP).String()
			return true
		})
		start(t, "nsenter", "-t", strconv.Itoa(internet.cmd.Process.Pid), "-n", btmount, "seed", p.dir, "--out", p.torrent, "--state-dir", t.TempDir(),
			"--no-dht", "--no-lsd", "--no-port-mapping", "--listen", "11.1.1.2:0", fmt.Sprintf("--piece-length=%dB", p.pieces), "--peer", outer)
		same(t, "sequential", m.path("file"), p.dir)
		m.stop()
		if text := output(t, patience, "nsenter", "-t", strconv.Itoa(router.cmd.Process.Pid), "-n", "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"); strings.Contains(text, "dnat") {
			t.Errorf("%s: not given back: %s", c.method, text)
		}
		d.kill()
	}
}
