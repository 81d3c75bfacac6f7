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
// A piece is the unit with a hash. A block is 16 KiB of it, the unit of a request. A
// want is one Fetch call. A conn is one connection to a peer. Outstanding is what was
// asked of a peer and has not come.
//
// # Parts
//
//	metainfo    what a .torrent, a magnet or a peer's metadata may say (firewall)
//	discovery   trackers, DHT and LSD: where peers are
//	network     how sockets are opened, and who may be spoken to
//	wire        messages on a connection
//	pipeline    what one peer will do: rate, round trip, how much to ask   (pure)
//	picker      which block to ask of whom, and which of two               (pure)
//	choker      whom to serve                                              (pure)
//	assembly.go one piece on its way: stored and hashed as blocks come
//	torrent.go  one swarm: wants, and the goroutine that owns them
//	fill.go     asking; handle.go: messages; judge.go: who lied
//	pool.go     peers known and dialled; conn.go, upload.go: one connection
//	extension.go, metadata.go, pex.go: BEP 10 and what is spoken over it
//
// # One block, end to end
//
// Fetch leaves a want in the torrent's mailbox. Run adds its pieces to the picker
// under their due time and asks every peer that has room, first block first: see
// package picker for the rule. The goroutine that reads a peer's connection takes a
// block that comes, writes it to the store and hashes it while it is warm; blocks that
// overtake others wait in memory for their turn, the disk is not read again. When the
// last block is hashed and right, that same goroutine commits the piece, and the read
// that waits for it wakes without another hop. Then Run hears of it, keeps the books
// and asks for more.
//
// # What is lost where
//
//   - A cancelled request mostly still comes (97 % from libtorrent with short
//     queues): so queues are short, 0.12 s beyond what the path holds, and CANCEL is
//     sent only because it is free.
//   - A duplicate block is waste: bounded to 4 % of what came plus 3 MiB for the
//     beginning, when rates are not known.
//   - A peer that falls silent costs the time after which it is called so: a round
//     trip, 0.2 s, three blocks and four times its usual lateness. Its blocks go to
//     others; it is tried again after 2 s, then twice as long.
//   - After an idle second a sender's window has shrunk: the first read then pays one
//     or two round trips more. Keeping connections warm with useless requests was
//     rejected: it costs 1.3 MB/s.
//   - A piece that does not match its hash is fetched again from one peer alone, which
//     settles who lied (judge.go). No one is banned on suspicion.
//
// # Goroutines and locks
//
// Each torrent is owned by its Run; two goroutines serve each connection and end with
// it; each dial has one. Others reach a torrent through its mailbox, which is bounded:
// a peer that sends faster than Run handles is slowed by TCP. conn.mu guards what the
// connection's goroutines share and is a leaf. assembly.mu is held across Commit, so
// that it is certain whether a piece was committed when an assembly is stopped;
// Commit takes the cache's object lock, which is a leaf. Run waits for no peer.
package swarm
