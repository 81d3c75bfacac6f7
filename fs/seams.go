package fs

import (
	"context"
	"iter"

	"github.com/btmount/btmount/fs/tree"
)

// Catalog is the set of trees that the kernel sees, below the directory tree.Root.
// Every method answers from memory and never waits for the network, but for Lookup and
// List of a directory whose Entry is Remote, and Open of what is in one: they may wait
// until ctx ends, which it does when whoever waits is killed. A name that
// does not exist is an error that matches io/fs.ErrNotExist, and an id that means
// nothing any more one that also matches syscall.ESTALE: the kernel then looks for
// its path anew.
type Catalog interface {
	// Stat returns what is known of a node now. Entry.Name may be empty for tree.Root.
	Stat(ctx context.Context, id tree.ID) (tree.Entry, error)
	// Lookup finds one name in a directory.
	Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error)
	// List yields the entries of dir from position from on, in an order that
	// stays the same until the catalog reports a change of dir. A directory whose
	// Entry is Settled never changes.
	List(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error]
	// Open opens a file. Pid(ctx) is the process that asked.
	Open(ctx context.Context, file tree.ID) (Content, error)
}

// Content is the bytes of one open file. ReadAt waits until all of p is verified,
// ctx ends, or the bytes cannot be had; it returns fewer bytes than asked only at
// the end of the file, with io.EOF or nil. It is safe for concurrent use.
type Content interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Close() error
}

// Backed is a Content that may lie, all of it and nothing else, in one file of a local
// filesystem.
type Backed interface {
	// Backing returns the descriptor of that file if every byte of it is verified. Until
	// Close none of them changes and nothing of it is freed: the kernel reads it by itself.
	Backing() (fd int, ok bool)
}

// Attributer is a Catalog that knows extended attributes (user.btmount.*).
type Attributer interface {
	// Attribute returns one value; an unknown name matches io/fs.ErrNotExist.
	Attribute(ctx context.Context, id tree.ID, name string) ([]byte, error)
	// Attributes returns the names that Attribute knows for id.
	Attributes(ctx context.Context, id tree.ID) ([]string, error)
}

// Sizer is a Catalog that knows how much it holds, for statfs(2).
type Sizer interface {
	// Space returns the bytes of all content, those of them still absent, and the number of files.
	Space() (total, absent int64, files int)
}

// Change tells the kernel side that names in a directory changed.
type Change struct {
	Dir  tree.ID
	Name string // the name that came, went, or now means another node
}

// Watcher is a Catalog that changes while it is mounted.
type Watcher interface {
	// Watch calls f after each change until stop is called. f may be called from
	// any goroutine, never with a lock held that the other methods take.
	Watch(f func(Change)) (stop func())
}
