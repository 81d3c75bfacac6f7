// Package tree holds the value types of immutable directory trees: what a name
// is, how large it is, and how an untrusted name becomes a safe one.
//
// It is a leaf: it imports none of our packages and does no I/O. Catalogs build
// a [Tree] from a list of [Spec]s and answer the kernel from it.
package tree

import "time"

// ID names one node. Only the catalog that made it can read it; 0 is never a node.
type ID uint64

// Root is the id of the root directory of every catalog.
const Root ID = 1

// Kind is what a node is. There are no devices, fifos or sockets.
type Kind uint8

// The kinds of node.
const (
	File Kind = iota
	Dir
	Symlink
	Unknown // of a name in a listing whose directory does not say: Lookup tells
)

// Entry is one name in a directory, with everything stat(2) tells about it.
type Entry struct {
	ID      ID
	Ino     uint64 // stable over restarts, never 0, 1 or 2^64-1, unique in the catalog
	Name    string // obeys the name rules of [CleanName]
	Kind    Kind
	Exec    bool      // x-bit of a file (BEP 47 attr "x")
	Perm    uint16    // permissions, if its format keeps more of them; 0: it does not
	Size    int64     // bytes; of a symlink the length of Target
	Present int64     // bytes of a file that are on disk and verified, 0..Size
	Settled bool      // nothing of this entry changes any more: attributes may be cached for long
	Live    bool      // content is made anew at each open and has no size (status files)
	ModTime time.Time // constant for the life of the content
	Target  string    // of a symlink, relative, never leaving its own root

	Remote bool          // of a directory: its names have to be fetched, see fs.Catalog
	TTL    time.Duration // how long the name means this node, if it is not for long; 0: until told
}
