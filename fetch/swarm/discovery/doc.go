// Package discovery finds peers for one torrent at a time: it asks its trackers
// ([Trackers]) and the distributed hash table ([DHT]), and hands addresses to a
// callback. It knows nothing of pieces or connections.
//
// Start with [NewTrackers] and its Run, which announces until its context ends;
// one [DHT] serves all torrents of a process, each with a call of Announce.
// Constructors start nothing, Run and Announce return when their context ends
// and leave no goroutine behind. Callbacks run on goroutines of this package
// and must not block.
//
// # Where the rules come from
//
//   - BEP 3, 7, 23: HTTP trackers, IPv6 and compact replies
//   - BEP 12: tiers
//   - BEP 15, 41: UDP trackers and their options
//   - BEP 5, 32: DHT
//   - BEP 48: scrape ([Scraper])
//   - BEP 42, 44, 51: ids of nodes, items and samples in the DHT
//   - BEP 14: local service discovery ([LSD])
//   - BEP 27: a private torrent must not reach the DHT or LSD. That is the caller's
//     duty, because only it knows; [DHTConfig].OnAnnounce counts for tests.
//
// # Own tracker clients
//
// The tracker clients of anacrolix/torrent were read and set aside, because what
// they lack cannot be added from outside: certificates are not checked, the
// number of redirects cannot be set, one malformed field of a reply loses the
// good peers beside it, min interval is not read, and three equal UDP replies in
// a row lock its dispatcher for ever, past every deadline. Ours speak the same
// three short protocols in 300 lines. Of the DHT, an order of magnitude larger,
// anacrolix/dht is used behind a filter of packets that would crash it; what it
// answers wrongly, or not at all, is answered there too.
//
// # What strangers can do here
//
// A tracker or node can send false addresses, and that is all. Replies are
// bounded in bytes (2 MiB, after decompression), redirects (5), time (15 s) and
// peers (200); its intervals are clamped; addresses that nobody can be connected
// to are dropped. Which addresses may be spoken to at all is the policy of package
// network, which opens every socket; each peer is passed on with the address of who
// named it, so that the policy can be asked about it too.
package discovery
