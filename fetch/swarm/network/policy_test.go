package network

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// examples has addresses of each zone.
var examples = map[zone][]string{
	nowhere: {"0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.192.152.143", "255.255.255.255", "240.0.0.1", "ff02::1", "ff0e::5", "100::1", "::ffff:0.0.0.0"},
	machine: {
		"127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1",
		"2001::80ff:fffe", "::7f00:1", "::ffff:0:7f00:1",
	},
	link:  {"169.254.0.1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"},
	site:  {"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "fec0::1", "192.0.0.1", "2002:c0a8:101::1"},
	world: {"1.2.3.4", "172.32.0.1", "100.128.0.1", "203.0.113.1", "198.18.0.1", "2606:4700::1", "2001:db8::1", "2002:102:304::1", "64:ff9b::808:808"},
}

func TestZones(t *testing.T) {
	for want, list := range examples {
		for _, s := range list {
			if got := zoneOf(netip.MustParseAddr(s)); got != want {
				t.Errorf("%s is %v, want %v", s, got, want)
			}
		}
	}
	if got := zoneOf(netip.Addr{}); got != nowhere {
		t.Errorf("the zero address is %v", got)
	}
}

// The policy as a table: for each origin, what is the nearest that it may name.
func TestMayDial(t *testing.T) {
	via := func(s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(s)
	}
	for _, c := range []struct {
		name    string
		ask     Ask
		nearest zone
	}{
		{"typed peer", Ask{Use: Peer, From: Typed}, machine},
		{"typed tracker", Ask{Use: Tracker, From: Typed}, machine},
		{"typed download", Ask{Use: Download, From: Typed}, machine},
		{"bootstrap node", Ask{Use: Node, From: Typed}, machine},
		{"peer of a magnet", Ask{Use: Peer, From: File}, world},
		{"web seed of a .torrent", Ask{Use: WebSeed, From: File, Path: "/announce"}, world},
		{"HTTP tracker of a .torrent", Ask{Use: Tracker, From: File, Path: "/announce"}, site},
		{"same, with a key", Ask{Use: Tracker, From: File, Path: "/0123456789/announce"}, site},
		{"HTTP tracker of a .torrent that is scraped", Ask{Use: Tracker, From: File, Path: "/scrape"}, site},
		{"HTTP tracker that is none", Ask{Use: Tracker, From: File, Path: "/apply.cgi"}, world},
		{"HTTP tracker without a path", Ask{Use: Tracker, From: File}, world},
		{"UDP tracker of a .torrent", Ask{Use: Tracker, From: File, UDP: true}, site},
		{"peer of a tracker of the world", Ask{Use: Peer, From: Told, Via: via("1.2.3.4")}, world},
		{"peer of a tracker of the LAN", Ask{Use: Peer, From: Told, Via: via("192.168.1.5")}, site},
		{"peer of a tracker here", Ask{Use: Peer, From: Told, Via: via("127.0.0.1")}, machine},
		{"peer exchange of the world", Ask{Use: Peer, From: Told, Via: via("2606:4700::1")}, world},
		{"peer exchange of the LAN", Ask{Use: Peer, From: Told, Via: via("10.9.8.7")}, site},
		{"peer of a node of the world", Ask{Use: Peer, From: Told, Via: via("203.0.113.1")}, world},
		{"local discovery over IPv4", Ask{Use: Peer, From: Told, Via: via("192.168.1.7")}, site},
		{"local discovery over IPv6", Ask{Use: Peer, From: Told, Via: via("fe80::7")}, link},
		{"nobody knows who told", Ask{Use: Peer, From: Told}, world},
		{"redirect of the world", Ask{Use: Tracker, From: Told, Via: via("1.2.3.4"), Path: "/announce"}, world},
		{"redirect behind NAT64", Ask{Use: Tracker, From: Told, Via: via("64:ff9b::808:808"), Path: "/announce"}, world},
		{"redirect of the LAN", Ask{Use: Download, From: Told, Via: via("fd00::1")}, site},
		{"node named by the world", Ask{Use: Node, From: Told, Via: via("1.2.3.4")}, world},
	} {
		for where, list := range examples {
			for _, s := range list {
				ask := c.ask
				ask.To = netip.AddrPortFrom(netip.MustParseAddr(s), 6881)
				err := MayDial(ask)
				if want := where != nowhere && where >= c.nearest; (err == nil) != want {
					t.Errorf("%s at %s: %v, want allowed: %v", c.name, s, err, want)
				}
				refused := (*RefusedError)(nil)
				if err != nil && (!errors.As(err, &refused) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "refused")) {
					t.Errorf("%s at %s: error %q", c.name, s, err)
				}
				ask.To = netip.AddrPortFrom(ask.To.Addr(), 0)
				if MayDial(ask) == nil {
					t.Errorf("%s at port 0 of %s is allowed", c.name, s)
				}
			}
		}
	}
}

func TestNearer(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	if !Nearer(a("127.0.0.1"), a("10.0.0.1")) || !Nearer(a("10.0.0.1"), netip.Addr{}) || Nearer(a("1.2.3.4"), netip.Addr{}) || Nearer(a("10.0.0.1"), a("::1")) {
		t.Error("wrong order")
	}
}
