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
// next peer is asked too. The late one is asked last for a while, twice as long each time, but
// its question stands: whatever comes first counts, and all others are told that it came.
// When nobody is left to ask, all begins again after a while, over new streams: a question can
// get lost in a peer that is not this one.
//
// Priorities on the wire are due times, the earlier the higher, which servers sort by.
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
// The client of boxo. Beside peers that say to have every block and send none, a read from an
// honest one stood for seconds now and then, and sometimes for good: its sessions send a want
// for a block to one peer at a time and take it up again only with an answer or a DONT_HAVE
// that its message queue makes up after a timeout, which is dropped when the want was
// cancelled and repeated in between, or the peer was lost. Here the want, not the message, has
// the timer. Asking all who have a block for it at once: it would come as often.
//
// Locks: Client.mu guards everything; nothing is called with it held.
package want
