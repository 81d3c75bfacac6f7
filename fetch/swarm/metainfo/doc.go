// Package metainfo is the firewall in front of everything that strangers say
// about a torrent: .torrent files, magnet links, and info dicts that come from
// peers. Only what passes here reaches the engine, the cache or a library.
//
// Start with [Parse] (a .torrent), [ParseInfo] (an info dict from a peer) and
// [ParseMagnet]; [Make] goes the other way, from files to a .torrent, and hands
// its own result through the same checks.
//
// # Where the rules come from
//
//   - BEP 3: bencode, the info dict, pieces
//   - BEP 9, 53: magnet links, metadata from peers, select-only
//   - BEP 12, 19, 5: announce-list, url-list, nodes
//   - BEP 27: private
//   - BEP 47: pad files, symlinks, attributes
//   - BEP 52: v2 and hybrid torrents
//
// # What is refused, and what is only stripped
//
// Whatever decides which bytes belong to which file is checked strictly and
// refused as a whole when it is wrong: lengths, piece count, the v2 file tree,
// a hybrid whose two halves differ, piece layers that do not hash to their root.
// Two readers that understand such a torrent differently would serve different
// bytes. Whatever only helps to find peers (trackers, nodes, web seeds, dates)
// is stripped item by item instead: a typo in a tracker URL is no reason to
// refuse good content.
//
// Names are NOT cleaned. [Info.Name], [File.Path] and [File.Symlink] hold the
// bytes that the torrent holds, ".." and NUL included; the file tree cleans
// them where it also knows about collisions.
//
// # Bounds
//
// The bencode scanner enforces its limits (size, depth, number of values)
// before anything is allocated for what it reads, does not recurse, and keeps
// 12 bytes per value. Parsing takes time linear in the input (times a logarithm
// for dicts whose keys are not sorted) and memory of a small multiple of it.
// A general decoder into maps was rejected: 1 MB of nested lists costs it a
// gigabyte, and it loses the raw bytes that are hashed.
//
// Every error is one line that names the thing and the reason, and quotes
// strangers' text escaped and shortened.
package metainfo
