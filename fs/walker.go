package fs

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// walkers learns which processes look at the attributes of what they list. To give them along
// with the names saves a stat(2) the way to us; but find, updatedb, fd and shells that expand
// "**" want the names alone, and then every name costs a node here and an inode in the kernel
// for nothing: 400 bytes here, 1 KiB there, and most of the time of a walk.
//
// The kernel decides that for each directory anew (READDIRPLUS_AUTO), and so asks for the
// attributes of every directory that is not much longer than its first batch. Here it is learned
// for each thread that lists: after its first directories a few names come without attributes,
// and what of these it then looks up tells. A process that wants attributes pays for that with
// some dozen requests.
//
// All methods are safe for concurrent use; mu is a leaf.
type walkers struct {
	mu    sync.Mutex
	known map[uint32]*walker // by thread
	clock int
}

type walker struct {
	used   int
	dirs   int // listed
	bare   int // files whose names it got without attributes
	looked int // of those it looked up
}

const (
	maxWalkers  = 256
	firstListed = 2   // directories with attributes, before anything is learned: most list no more
	enoughBare  = 16  // names, to learn from
	tryBare     = 32  // names of a directory, while it is not known
	tryAgain    = 256 // directories, until one that wants attributes is tried again
)

// lists is called when a thread begins to list a directory; it returns of how many files the
// names are enough.
func (w *walkers) lists(thread uint32) (names int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.known[thread]
	if k == nil {
		w.makeRoomLocked()
		k = &walker{}
		w.known[thread] = k
	}
	w.clock++
	k.used = w.clock
	k.dirs++
	switch {
	case k.dirs <= firstListed:
		return 0
	case k.bare < enoughBare:
		return tryBare
	case 4*k.looked < k.bare:
		if k.bare > 1<<20 {
			k.bare, k.looked = k.bare/2, k.looked/2
		}
		return math.MaxInt
	case k.dirs%tryAgain == 0:
		k.bare, k.looked = 0, 0
		return tryBare
	}
	return 0
}

// gave is called for each name of a file that a thread got without attributes.
func (w *walkers) gave(thread uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.known[thread]; k != nil {
		k.bare++
	}
}

// looks is called when a thread looks up a file.
func (w *walkers) looks(thread uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.known[thread]; k != nil && k.looked < k.bare {
		k.looked++
	}
}

// makeRoomLocked forgets who listed something longest ago.
func (w *walkers) makeRoomLocked() {
	if w.known == nil {
		w.known = map[uint32]*walker{}
	}
	if len(w.known) < maxWalkers {
		return
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(w.known)), func(a, b uint32) int {
		return cmp.Compare(w.known[a].used, w.known[b].used)
	})
	delete(w.known, oldest)
}

// caller is the thread that a request comes from; 0 if it is none.
func caller(ctx context.Context) uint32 {
	if c, ok := fuse.FromContext(ctx); ok {
		return c.Pid
	}
	return 0
}
