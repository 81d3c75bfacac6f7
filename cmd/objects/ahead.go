package objects

import (
	"context"
	"sync"

	"github.com/btmount/btmount/fs/tree"
)

// ahead brings the roots of names before they are looked up, when somebody looks at one
// after the other: else ls -l of a directory costs a round trip for each name.
type ahead struct {
	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{}
	all   sync.WaitGroup

	mu   sync.Mutex
	runs map[tree.ID]*run // by directory
}

// run is where somebody looks in a directory.
type run struct {
	next  int // the index that continues it
	steps int // that it has
	done  int // up to which names were brought
}

const (
	maxAhead  = 64 // names
	maxBrings = 32 // at a time
	maxRuns   = 64 // directories
	enough    = 2  // steps that tell
)

func (a *ahead) init() {
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.slots = make(chan struct{}, maxBrings)
	a.runs = map[tree.ID]*run{}
}

func (a *ahead) close() {
	a.stop()
	a.all.Wait()
}

// looked is called when a name of a directory was looked up.
func (a *ahead) looked(f *Forest, d *node, name string) {
	f.mu.Lock()
	w := f.hot.get(d)
	f.mu.Unlock()
	if w == nil || w.listing == nil {
		return
	}
	l := w.listing
	i, ok := l.index[name]
	if !ok {
		return
	}
	from, to := a.step(d.id, i, len(l.names))
	for _, next := range l.names[from:to] {
		select {
		case a.slots <- struct{}{}:
		default:
			return // it is looked up when its turn comes
		}
		a.all.Go(func() { // ends with ctx
			defer func() { <-a.slots }()
			_, _ = f.child(a.ctx, d, next) // whoever wants it hears of errors
		})
	}
}

// step notes a look at name i of n and returns the names to bring.
func (a *ahead) step(dir tree.ID, i, n int) (from, to int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.runs[dir]
	if r == nil {
		for other := range a.runs {
			if len(a.runs) < maxRuns {
				break
			}
			delete(a.runs, other)
		}
		r = &run{}
		a.runs[dir] = r
	}
	if i >= r.next && i < r.next+4 { // some are skipped: the kernel knows them
		r.steps++
	} else {
		r.steps, r.done = 0, i+1
	}
	r.next = i + 1
	if r.steps < enough || a.ctx.Err() != nil {
		return 0, 0
	}
	from, to = max(r.done, i+1), min(n, i+1+min(maxAhead, 4*r.steps))
	if from >= to {
		return 0, 0
	}
	r.done = to
	return from, to
}
