// Package bitswap is a small node of BTFS: it finds peers that have a block and asks them
// for it. The protocols are libp2p's and IPFS's (https://specs.ipfs.tech/bitswap-protocol,
// https://github.com/libp2p/specs: kad-dht, pnet, noise, tls, yamux); of BTFS are the key of
// its network, the prefix of its DHT, and the list of nodes to begin with.
//
// # What it is, and what not
//
// It takes and gives nothing: no block is kept or served, nothing is announced, nobody can
// connect to it, for it has no socket that listens. (Who has an older record of a name than
// it found is sent the newer one, as every member of a DHT does.) Peers answer on the connections that
// it opened. Its key, and so its name, is made new each time it starts. It needs no wallet.
//
// A [Node] starts when it is asked for the first block, and sleeps when it was not asked
// for a while: then it has no socket, no goroutine and no peer.
//
// # Whom it asks
//
// Peers that the user named are dialled at the start, and again when they are lost; a node
// of the user's own is simply the nearest of them. Some nodes of the list are dialled
// too. All who are connected are asked whether they have a block; if none gives it within
// a moment the DHT is asked who has it, or the root of its object, and those are dialled.
// Package want decides which of those who are connected is asked for which block, and whom
// next if nothing comes.
//
// # What strangers may not do
//
// Addresses from the DHT and from peers are the word of strangers. Each is put before
// [Dialer.Allow] before it is dialled, and the [Dialer] sees it again when it connects: all
// sockets are its, WebSocket included, so that whatever it is bound to, or goes through,
// holds here too. Names in addresses are looked up only if the user gave them.
//
// A block is found by its SHA-256, so that it is verified or not wanted. Bytes that were not
// asked for are dropped: a peer that sends such is as one that sends nothing, others are asked
// in its place, and after a few of them it is not spoken to any more. Connections, streams and
// memory are limited by libp2p's resource manager, the window of a stream to 2 MiB.
//
// A peer of another network cannot be told from one that hangs: with another swarm key
// nothing that comes makes sense. Who was reached and said nothing that could be
// understood is told with the question whether the swarm key is right.
//
// # Rejected
//
// Running go-btfs: 300 MB that need a wallet. QUIC, which no private network can have.
// The DHT as a server, or serving blocks: a filesystem that was mounted to read should not
// become a host of what strangers ask for. The client of boxo: see package want; and its
// search for providers gives up for a minute when the DHT is not yet connected, and asks for
// the block where peers announce the root.
package bitswap
