package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Use is what an address is to be dialled for.
type Use uint8

// The uses.
const (
	Peer     Use = iota // to speak BitTorrent
	Node                // of the DHT
	Tracker             // over HTTP or UDP
	WebSeed             // content over HTTP
	Download            // a .torrent or a blocklist that the user asked for
)

func (u Use) String() string {
	return [...]string{"peer", "DHT node", "tracker", "web seed", "download"}[u]
}

// Origin is how an address was learned.
type Origin uint8

// The origins.
const (
	Typed Origin = iota // by the user: command line, environment, config file
	File                // it stands in a .torrent or a magnet link
	Told                // by a tracker, a peer, a node, a redirect; Ask.Via is who
)

// Ask is a question to the policy.
type Ask struct {
	Use  Use
	From Origin
	Via  netip.Addr // who told; not valid: unknown, and so the world
	To   netip.AddrPort
	UDP  bool
	Only string // "tcp4" or "tcp6": the family to connect over; "" for any
	Path string // of the URL, if it is one of HTTP
}

// zone is how near an address is.
type zone uint8

const (
	nowhere zone = iota // nobody has this address
	machine             // loopback
	link                // valid on one cable; clouds have their metadata services there
	site                // private
	world
)

func (z zone) String() string {
	return [...]string{"no address of anybody", "on this machine", "on the local link", "in the private network", "in the world"}[z]
}

// RefusedError tells what the policy does not allow.
type RefusedError struct{ Ask Ask }

func (e *RefusedError) Error() string {
	a, where := e.Ask, zoneOf(e.Ask.To.Addr())
	cure := ""
	switch a.Use {
	case Tracker:
		cure = "; if it is yours, name it with --tracker"
	case Peer:
		cure = "; if it is yours, name it with --peer"
	case Download:
		cure = "; give the last address itself, if it is yours"
	}
	switch {
	case where == nowhere || a.To.Port() == 0:
		return fmt.Sprintf("%s %v refused: nobody can be there", a.Use, a.To)
	case a.From == File:
		return fmt.Sprintf("%s %v refused: it is %s, and a .torrent or magnet link may not lead there%s", a.Use, a.To, where, cure)
	case !a.Via.IsValid():
		return fmt.Sprintf("%s %v refused: it is %s, and who named it is not%s", a.Use, a.To, where, cure)
	}
	return fmt.Sprintf("%s %v refused: it is %s, and %v, which named it, is not%s", a.Use, a.To, where, a.Via, cure)
}

// MayDial returns nil if an address may be dialled, a [*RefusedError] if not. It is the
// whole policy: see the package doc.
func MayDial(a Ask) error {
	to := zoneOf(a.To.Addr())
	ok := false
	switch {
	case a.To.Port() == 0 || to == nowhere:
	case a.From == Typed:
		ok = true
	case a.From == File:
		ok = to == world || to == site && a.Use == Tracker && (a.UDP || strings.HasSuffix(a.Path, "/announce") || strings.HasSuffix(a.Path, "/scrape"))
	default:
		ok = to >= zoneOfTeller(a.Via)
	}
	if !ok {
		return &RefusedError{a}
	}
	return nil
}

// Nearer reports whether a is nearer to us than b; what is not valid is far away.
func Nearer(a, b netip.Addr) bool { return zoneOfTeller(a) < zoneOfTeller(b) }

func zoneOfTeller(a netip.Addr) zone {
	if z := zoneOf(a); z != nowhere {
		return z
	}
	return world
}

// carriers are ranges of IPv6 that carry an IPv4 address, and at which byte.
var carriers = []struct {
	prefix netip.Prefix
	at     int
	xor    byte
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12, 0},    // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12, 0},  // local NAT64, as most are set up
	{netip.MustParsePrefix("2002::/16"), 2, 0},        // 6to4
	{netip.MustParsePrefix("2001::/32"), 12, 0xff},    // Teredo
	{netip.MustParsePrefix("::/96"), 12, 0},           // "IPv4-compatible"
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, 0}, // "IPv4-translated"
}

var (
	shared    = netip.MustParsePrefix("100.64.0.0/10") // carriers' NAT, overlay networks
	protocols = netip.MustParsePrefix("192.0.0.0/24")
	oldSite   = netip.MustParsePrefix("fec0::/10")
	reserved  = netip.MustParsePrefix("240.0.0.0/4") // with the broadcast address
	thisNet   = netip.MustParsePrefix("0.0.0.0/8")
	discard   = netip.MustParsePrefix("100::/64")
)

func zoneOf(a netip.Addr) zone {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || reserved.Contains(a) || thisNet.Contains(a) || discard.Contains(a):
		return nowhere
	case a.IsLoopback():
		return machine
	case a.IsLinkLocalUnicast():
		return link
	case a.IsPrivate() || shared.Contains(a) || protocols.Contains(a) || oldSite.Contains(a):
		return site
	}
	for _, c := range carriers {
		if c.prefix.Contains(a) {
			b := a.As16()
			var v4 [4]byte
			for i := range v4 {
				v4[i] = b[c.at+i] ^ c.xor
			}
			return zoneOf(netip.AddrFrom4(v4))
		}
	}
	return world
}
