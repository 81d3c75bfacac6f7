// Package portmap asks the router to let others call us: over PCP (RFC 6887), or NAT-PMP
// (RFC 6886), which are asked at a time, and if it speaks neither, over UPnP
// (InternetGatewayDevice 1 and 2).
//
// The listening port is mapped for TCP and UDP, with a lease of an hour that is renewed at
// half of it and given back in the end. If the router gives another port, that one is told
// to trackers, the DHT and peers.
//
// # What a stranger in the LAN can do here
//
// Only the router of the default route is asked and believed; the search of UPnP is sent
// to the multicast group too, but answers of others are passed over. Its description and
// control URLs must be at its own address. There are no redirects; an answer may have 256
// KiB and take five seconds; package xml has no entities but the five, and bounds depth.
// Who speaks in the router's name can keep us from being called, or have us tell a wrong
// port, and that is all.
//
// Every socket is opened by package network, and so bound as others are. IPv6 needs no
// mapping, and pinholes in firewalls are not asked for.
package portmap
