// Package network decides how sockets are opened and who may be spoken to. The rest
// of the engine opens no socket and looks up no name by itself: it asks [Network].
//
// # Who may be spoken to
//
// Trackers, peers, nodes of the DHT, .torrent files and servers that redirect all name
// addresses, and all may lie: to have us send a request to a router's web page, to a
// database that listens on loopback, or to a cloud's metadata service. [MayDial] is the
// one rule against it, a pure function:
//
//	Nobody may name an address that is nearer to us than they are.
//
// Near is: this machine, then this link, then this site (private addresses), then the
// world. So a tracker of the world names peers of the world, and a tracker, a peer or
// a server of the LAN may name others there. The user is on this machine: what the user
// typed is dialled, whatever it is. What stands in a .torrent or a magnet link is the
// word of a stranger. One thing of it is let in: trackers of private addresses, since
// companies have them; over UDP, whose first packet says nothing, or at a path of HTTP
// that ends in /announce or /scrape, which no router obeys.
//
// Names are checked when they are resolved and the socket is about to connect, at each
// redirect again, so that a name that changes its address between two lookups gains
// nothing. Addresses that carry an IPv4 address (NAT64, 6to4, Teredo) are as near as it.
//
// Rejected: a list of forbidden ranges for everything that was not typed. It would cut
// off swarms of a LAN or an overlay network, which work by trackers and peer exchange
// of their own. Not covered: a service of this machine at a public address of it, which
// the world reaches without us.
//
// # Blocklists
//
// [Network.Block] reads lists of addresses that shall be no peers, nodes or web seeds,
// whoever names them, the user included; they are not accepted when they call either.
//
// # Bound to an interface
//
// With Config.Bind every socket uses one address, or one interface (SO_BINDTODEVICE),
// or is not opened: peers both ways, trackers, DHT, downloads, questions to name
// servers. An address chooses the sender only, and leaves the way to the routing table;
// for a VPN name the interface. If it goes away nothing is sent past it: the kernel
// refuses packets of an address or to an interface that is no more. If it comes back,
// what is opened then works; the sockets that listen stay with the old one.
// A name server of this machine is asked over loopback.
//
// # Through a proxy
//
// With Config.Proxy everything goes through a SOCKS5 proxy, names included, which the
// proxy looks up. What it cannot carry is off: listening, and UDP (uTP, DHT, UDP trackers)
// unless Config.ProxyUDP says that it relays that: few proxies do, and to find out by
// trying would show who cannot. A [Relay] carries it then, and never goes past the proxy,
// also when that is gone for a while. The policy still sees addresses and "localhost",
// but not what a proxy makes of other names: a proxy that stands in the LAN has to guard
// the LAN itself.
//
// # UDP for peers
//
// [UDP] reads many packets with one call, as one call for each costs more than the
// packet, and tells when the kernel got each: uTP measures delays with that.
//
// # Known gaps
//
// Behind a forwarder in user space (an ssh tunnel, some containers) every
// caller seems to come from near, and its peer exchange is believed accordingly.
package network
