// Package swarm is the BitTorrent peer engine: it brings pieces by due time, verifies
// them, and serves others.
//
// # Why our own
//
// A filesystem has readers that wait. Engines made for downloading know priorities
// but no times, ask one peer for a whole piece, refill a queue only when it is empty,
// and do not take back what a seek made useless; a seek on a path of 50 ms then costs
// 0.6 to 4 s where the path itself takes 0.1 to 0.2. Deciding what to ask of whom by
// when is what btmount exists for, so that part is here. Message kinds, encryption,
// bencode and the DHT come from anacrolix's packages.
//
// # Terms
//
// A piece is what peers say they have, and what has a hash in v1. A unit is what is
// asked for, verified and committed as a whole: a piece where v1 hashes rule, as small
// as a block where the v2 tree does. A block is 16 KiB, the unit of a request. A want is
// one Fetch call. A conn is one connection to a peer. Outstanding is what was asked of a
// peer and has not come. A read is late when its last byte comes after its due time.
//
// # The model
//
// Every wanted unit has a due time, and one of three classes (package picker):
//
//	Urgent      a read waits for it: due when it was asked for
//	Ahead       a reader will be there at its due time: see package fetch
//	Background  nobody reads it: it is pinned (pins.go), rarest pieces first
//
// A higher class goes first; within one the earliest due time does. There is no other
// priority, and no mode: a seek, a film, a copy and a pinned season differ in their due
// times and classes only.
//
// Every peer has an estimate (package pipeline) of when it would have brought one more
// block, from measured things alone: its rate while it was busy, the smallest round trip,
// what was asked of it before, and how late it usually is.
//
//	finish = max(now + RTT, start + outstanding/rate) + block/rate + lateness
//
// A peer with room takes the first block, in the order above, that it will bring in time:
// before its due time, or before the swarm as a whole would have got to it, or sooner than
// anybody else. So what is urgent is spread over all who are near and fast enough, block by
// block; a slow peer is given blocks of later, where it harms nobody, instead of the last
// block of what somebody waits for. Room is what fills the path and 0.12 s more:
//
//	limit = rate x (RTT + 0.12 s)
//
// because nothing that was asked can be taken back in time, and a seek waits behind all of
// it. Four numbers follow from these rules, and are what a reader sees on a path of 50 ms
// with four peers of 2 MB/s: the first byte of a seek takes one round trip and the piece
// (1.1 to 1.2 times what the path itself needs), behind full queues 0.12 s more; reading in
// order takes 0.97 of the line; a peer that falls silent costs 0.55 s.
//
// A block is late when its peer is, not when a timer says so: each has a predicted time. If
// the last block of a unit that a read waits for is predicted for after its due time, and
// another peer would clearly be sooner, that one is asked as well (picker.Hedge), within 4 %
// of all that came. A peer that owes blocks and brings none for longer than it ever did,
// round trip and usual lateness counted, is silent: its blocks go to others at once, and it
// is tried with one block until it speaks again.
//
// Peers of one torrent share one order. Torrents share the downlink (package downlink): the
// late ones get what they need of it, at most an equal part each, and the others the rest.
// Connections share the uplink by weight (package shaper).
//
// Who is connected changes by the same question, what is of use for what is wanted now
// (places.go): a peer that has none of it gives its place to somebody else, never one that
// serves.
//
// # What others do
//
// libtorrent's deadline mode orders pieces by deadline and estimates when a peer would
// bring them, as we do, but goes over them once in a second, asks a second peer no sooner
// than that, and otherwise keeps queues of 3 s (docs/streaming.rst, torrent.cpp): a seek takes
// 5.1 times the path's time where we take 1.2, and a silent peer costs 11 s
// (docs/benchmarks.md). anacrolix's Client knows priorities and no times, and refills a queue
// when it is empty, which leaves half of a path of 50 ms unused. Sequential mode, of most
// others, is no deadline at all: the slowest peer decides when the next piece is whole.
//
// # Parts
//
//	metainfo    what a .torrent, a magnet or a peer's metadata may say (firewall)
//	discovery   trackers, DHT and LSD: where peers are
//	network     how sockets are opened, and who may be spoken to
//	utp         connections over UDP (BEP 29)
//	wire        messages on a connection
//	pipeline    what one peer will do: rate, round trip, how much to ask   (pure)
//	picker      which block to ask of whom, and which of two               (pure)
//	choker      whom to serve                                              (pure)
//	downlink    how torrents share what arrives                            (pure)
//	shaper      how connections share what is sent, by weight
//	merkle      the hash trees of BEP 52                                   (pure)
//	fault       keeps a panic where it happened
//	units.go    units, and what peers call them
//	assembly.go one piece on its way: stored and hashed as blocks come; unit.go: one
//	            unit of a v2 torrent
//	hashes.go   asking for the hashes of units; hashserver.go: answering others
//	torrent.go  one swarm, and the goroutine that owns it; wants.go: what is wanted of it
//	survey.go   what the store has, looked through beside it
//	pins.go     what is fetched though nobody reads it
//	fill.go     asking; handle.go: messages; judge.go: who lied
//	webseed     a web server as the other end of a connection; web.go opens those
//	pool.go     peers known and dialled; candidate.go, priority.go: in which order; places.go: who gives its
//	            place to whom; connect.go: over TCP, or uTP (and why so); conn.go, upload.go: one connection
//	extension.go, metadata.go, pex.go, extras.go: BEP 10 and what is spoken over it;
//	            holepunch.go: peers that meet through a third; plugged.go: the seam for
//	            the extensions of others
//	share.go    until when others are served
//
// # One block, end to end
//
// Fetch leaves a want in the torrent's mailbox. Run adds its pieces to the picker
// under their due time and asks every peer that has room, first block first: see
// package picker for the rule. The goroutine that reads a peer's connection takes the
// blocks that lie in its buffer and hashes them while they are warm. They are written in
// aligned groups of 16 (assembly.go): straight from the buffer if all of a group is there,
// as at high rates; else those that came wait in memory for those beside them, as do
// blocks that overtake others for their turn to be hashed, all within one bound. The disk
// is not read again. When the last block is hashed, written and right, that same goroutine
// commits the piece, and the read that waits for it wakes without another hop. Then Run
// hears of it, keeps the books and asks for more.
//
// Writing a block at a time was measured beside that: 2.7 CPU s/GB in place of 2.0, and a
// file in the page cache that is read at half the rate, because its folios are small.
// Gathering whole pieces: every block is copied, and cold when it is written.
//
// # BitTorrent v2
//
// Where the v2 tree rules (metainfo.Meta.ByTree) every block has a hash, so that a seek
// pays for the blocks that it reads, and a wrong block names who sent it. The hashes
// are not in the metadata: they are asked of peers beside the blocks (hashes.go). The
// store keeps the node of each unit as its tag, to verify the unit after a crash
// without any peer.
//
// Rejected: units of a piece with the blocks served early from inside of them, which
// would leave the cache, the journal and eviction with two sizes of what is verified;
// here only the words on the wire are translated (units.go). Units larger than a block,
// for fewer flights: a read of 64 KiB at any page would bring up to twice as much.
// Asking for hashes of all the file ahead of its blocks: no read was sooner.
//
// A hybrid's two halves can hash different bytes. One half rules, always the same (see
// metainfo), so what a reader sees never depends on which peers it met. If what came
// of a piece matches v1 and not v2, that is told, and nobody is banned for it.
//
// # What was rejected
//
//   - One peer per piece, as the classic picker has it: three times the seek time, and one
//     slow peer owns what is waited for. It was there to know who lied: each block's
//     fingerprint tells that too (judge.go).
//   - Comparing predictions with due times alone: in a swarm of equal slow peers nobody is
//     in time, and nobody asks.
//   - Deep queues (libtorrent's 3 s): no more throughput on any measured path, and a seek
//     behind them waits for all of it. Refilling at half: the path runs dry once in a
//     round trip.
//   - Everything late asked of everybody at once: on a full line a duplicate makes everyone
//     later. At most three are asked, and only if that is clearly sooner.
//   - Fixed times of patience for peers: 2 s accuse nobody wrongly and are 2 s of silence;
//     0.2 s accuse every sender whose congestion control pauses.
//   - CANCEL as the way to change one's mind: 97 % of what is cancelled comes.
//   - Rarest first for readers, also of a whole file: a read at the front waits for it.
//     Sequential for what is pinned: everybody would ask everybody for the same pieces.
//   - Engines that know one reader of one torrent: the second film stalls the first.
//
// # What is lost where
//
//   - A cancelled request mostly still comes (97 % from libtorrent with short
//     queues): so queues are short, 0.12 s beyond what the path holds, and CANCEL is
//     sent only because it is free.
//   - A duplicate block is waste: bounded to 4 % of what came plus 3 MiB for the
//     beginning, when rates are not known.
//   - A peer that falls silent costs the time after which it is called so: a round
//     trip, 0.2 s (more, up to 0.7 s, if it has paused before), three blocks and four
//     times its usual lateness. Its blocks go to others; it is tried again with one
//     block at once, after 0.25 s, then after twice as long.
//   - The round trip is the kernel's, or behind a proxy, which ends TCP, what the peer
//     took for its handshake, until blocks say that it is less. With the kernel's alone
//     queues did not fill a path of 200 ms behind a proxy: 0.8 of libtorrent's rate,
//     now 0.98. A peer that called us through something like that is not seen as far.
//   - After an idle second a sender's window has shrunk: the first read then pays one
//     or two round trips more. Keeping connections warm with useless requests was
//     rejected: it costs 1.3 MB/s.
//   - A piece that does not match its hash is fetched again from one peer alone, which
//     settles who lied (judge.go). No one is banned on suspicion. With the hashes of
//     blocks it costs one block.
//   - Where nobody has hashes of blocks to give, a v2 seek brings its piece, as in v1.
//
// # Goroutines and locks
//
// Each torrent is owned by its Run; two goroutines serve each connection and end with
// it; each dial has one. Others reach a torrent through its mailbox, which is bounded:
// a peer that sends faster than Run handles is slowed by TCP. conn.mu guards what the
// connection's goroutines share and is a leaf. assembly.mu is held across Commit, so
// that it is certain whether a piece was committed when an assembly is stopped;
// Commit takes the cache's object lock, which is a leaf. Run waits for no peer.
//
// No event of Run may take 10 ms: all peers and readers of the torrent wait for it. So
// nothing in it walks over all pieces or units (BenchmarkLongestEvent watches that, with
// 100,000 pieces and a million units); what has to is done by who calls Attach, or by a
// goroutine that posts what it found. Two rare things are longer with large pieces: a v2
// piece that is fetched whole, parts of which are in the store already, is read back and
// hashed, and a hybrid's piece that is wrong is hashed again to say which half differs.
//
// # Faults of ours
//
// A panic ends what it happened in, and nothing more (package fault). In the goroutines of
// a connection, a dial or an announce that is one connection, one dial or one announce; a
// unit whose block panicked fails and is fetched anew. In Run, or in what Run can not do
// without, it is the torrent: every Fetch returns a FaultError, which is permanent, so that
// readers get EIO and do not wait; Run returns it too once every goroutine has ended. The
// torrent has to be made anew: what a panic left half done is not gone on with.
package swarm
