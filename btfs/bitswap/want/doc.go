// Package want asks peers for blocks over bitswap (https://specs.ipfs.tech/bitswap-protocol):
// whom for which, by when, and whom next if nothing comes. It is the asking side alone, and
// knows nothing of hosts and connections: a [Client] is told who is there, opens a stream of
// its own to each with [Config].Open, and is handed the streams that they open with
// [Client.Receive].
//
// # Whom it asks
//
// Blocks are wanted in groups, which are the objects that they are of. Who gave blocks of a
// group, or said to have one, is asked for the next ones straight away; of several the one
// that would have it first, by what its blocks took and how many it has to send. Of a group
// that nobody is known to have all peers are asked whether they have the block, and the first
// that says so is asked for it. One who is alone, or gave blocks of other groups, is asked for
// it at once.
//
// Who is asked says within a round trip that it lacks the block, or sends it, or is busy
// sending others. A question is late when nothing at all came of its peer for a few times
// what its answers take, or when others came and this block did not for much longer; then the
// next peer is asked too, then two, four and eight at a time. The late one is asked last for a
// while, twice as long each time, but its question stands: whatever comes first counts, and all
// others are told that it came. When nobody is left to ask, all begins again after a while, over new streams: a question can
// get lost in a peer that is not this one.
//
// One peer is asked for at most 64 answers or 16 MiB at a time, more if its blocks are so small
// that servers pack them: each answer is a stream, and libp2p limits those. What is due later
// waits here. Priorities on the wire are due times, the earlier the higher, which servers sort
// by.
//
// # What strangers may not do
//
// Messages are read as far as they are needed: blocks and what is said of blocks. What they
// want is skipped, as nothing is served here. Memory is taken as bytes come, not as they are
// announced. Blocks are found by their SHA-256, computed here, whatever hash the peer claims;
// one that was never asked for is dropped, and a peer that goes on to send such is left. What
// is said of blocks that it was not asked for is not kept.
//
// # Rejected
//
// The client of boxo (v0.43.0). Beside peers that say to have every block and send none, a read
// from an honest one stood for 2 to 19 s in a few of 100 rounds (BenchmarkSilentPeers). When a
// question is late its message queue makes up a DONT_HAVE; but package blockpresencemanager lets
// none of them follow a HAVE, so that the session may choose the silent peer again; package
// peermanager then holds back the want, as that peer was sent it before; and nothing is on its
// way, with no timer, until the session begins anew. Here the want has the timer, not the
// message, and no peer is asked twice before all others were.
//
// Asking all who have a block for it at once: it would come as often.
//
// Locks: Client.mu guards everything; nothing is called with it held.
package want
