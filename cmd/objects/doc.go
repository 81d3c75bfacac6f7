// Package objects is what the kernel sees below btfs/: every CID is a name there, whether
// or not anybody mounted it, and leads to its file, directory or symlink.
//
//	btfs/<CID>            looked up when somebody asks for it
//	btfs/<CID>/a/b.txt    read block by block, kept in the cache
//	btns/<name>           the same for names, which may stand for another object later
//
// A [Forest] is a catalog (package fs/catalog grafts it). A [node] is what it remembers of
// a name that was looked up; what lies behind it, blocks that were decoded, is dropped and
// brought again as memory asks (hot.go). A [file] is a cache object and its download.
//
// # What waits
//
// A listing needs the blocks of its directory and nothing else: what its names are, only
// their own blocks tell. So it gives names, without types; stat of a name brings the root
// of what it leads to. Whoever looks at one after the other, as ls -l does, has the next
// ones brought meanwhile (ahead.go). A name does not exist if its directory says so; what
// cannot be brought is another error, and asked for again the next time.
//
// # What is shown
//
// Names obey the rules of tree.CleanName; one that has to be changed gets what torrents
// would give it. Times that were not kept are those of the epoch: the same for all, for
// ever. A symlink is shown if it leads, by ".." first and names after, to a place below its
// own root; others would lead to what a stranger chose, and are empty files, as in a torrent.
// The target "a/../b" is "b", also where a is a symlink.
//
// # Ids
//
// The kernel asks by ids for as long as it likes. Of the 256 Ki nodes used last they are
// known; of others they are stale (ESTALE), on which the kernel walks the path anew.
// Whoever uses a node uses those above it.
//
// Locks: Forest.mu is a leaf, file.mu is taken before those of package cache, and
// Forest.opening before file.mu. None is held while blocks are brought.
package objects
