package objects

import (
	"context"
	"errors"
	iofs "io/fs"
	"sync"
	"time"

	"github.com/btmount/btmount/fs/tree"
)

// refused remembers for a moment which lookups ended, after a long wait, with an error.
//
// While one process waits for a name, the kernel has others that want the same one stand in
// line, in a wait that nothing interrupts (d_alloc_parallel), and lets them ask one after
// the other. Each would wait as long as the first, and the last of twenty could not be
// killed for twenty times that. So who comes next is told at once what the first was told.
type refused struct {
	mu sync.Mutex
	of map[asked]refusal
}

// asked is a name in a directory.
type asked struct {
	dir  tree.ID
	top  string // the directory itself, where dir is tree.Root
	name string
}

type refusal struct {
	err   error
	until time.Time
}

const (
	longWait   = 500 * time.Millisecond
	refusedFor = 5 * time.Second
	maxRefused = 1024
)

// lookup is f, but for what was refused a moment ago.
func (r *refused) lookup(ctx context.Context, what asked, f func() (tree.Entry, error)) (tree.Entry, error) {
	began := time.Now()
	r.mu.Lock()
	known, ok := r.of[what]
	r.mu.Unlock()
	if ok && began.Before(known.until) {
		return tree.Entry{}, known.err
	}
	e, err := f()
	now := time.Now()
	if err == nil || errors.Is(err, iofs.ErrNotExist) || errors.Is(context.Cause(ctx), context.Canceled) || now.Sub(began) < longWait {
		return e, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil || len(r.of) >= maxRefused {
		r.of = map[asked]refusal{}
	}
	r.of[what] = refusal{err, now.Add(refusedFor)}
	return e, err
}
