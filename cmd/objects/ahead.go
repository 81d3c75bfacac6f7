package objects

import (
	"context"
	"sync"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fs/tree"
)

// ahead brings the roots of names before they are looked up, when somebody looks at one
// after the other: else ls -l of a directory costs a round trip for each name. And when
// somebody reads one file after the other to its end, as cp -r does, the next ones are read.
// Who only looks into files, as scanners do, has none read for him.
type ahead struct {
	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{}
	all   sync.WaitGroup

	mu    sync.Mutex
	looks map[way]*run
	reads map[way]*run
}

// way is a directory, and an order in which its names are gone through.
type way struct {
	dir   tree.ID
	order int
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

	maxFiles   = 16       // that are read
	maxContent = 16 << 20 // bytes of them; and an eighth of the room that the cache has
	readSoon   = 5 * time.Second
)

func (a *ahead) init() {
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.slots = make(chan struct{}, maxBrings)
	a.looks, a.reads = map[way]*run{}, map[way]*run{}
}

func (a *ahead) close() {
	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.all.Wait()
}

// begin runs f, which ends with ctx; false: it is too late.
func (a *ahead) begin(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return false
	}
	a.all.Go(f)
	return true
}

// looked is called when a name of a directory was looked up.
func (a *ahead) looked(f *Forest, d *node, name string) {
	l := f.listed(d)
	if l == nil {
		return
	}
	for _, next := range a.next(a.looks, d, l, name, maxAhead) {
		select {
		case a.slots <- struct{}{}:
		default:
			return // it is looked up when its turn comes
		}
		if !a.begin(func() {
			defer func() { <-a.slots }()
			_, _ = f.child(a.ctx, d, next) // whoever wants it hears of errors
		}) {
			<-a.slots
			return
		}
	}
}

// finished is called when a file was read to its end.
func (a *ahead) finished(f *Forest, n *node) {
	d := n.parent
	if d == nil {
		return
	}
	l := f.listed(d)
	if l == nil {
		return
	}
	names := a.next(a.reads, d, l, n.name, maxFiles)
	if len(names) == 0 {
		return
	}
	a.begin(func() {
		left := min(maxContent, f.cfg.Cache.Room()/8)
		for _, name := range names {
			next, err := f.child(a.ctx, d, name)
			if err != nil {
				return // whoever wants it hears of it
			}
			if next.kind != tree.File || next.small {
				continue
			}
			if left -= next.size; left < 0 || !a.read(f, next) {
				return
			}
		}
	})
}

// read has all of a file brought, as there are slots; false: it is too late.
func (a *ahead) read(f *Forest, n *node) bool {
	c, err := f.files.open(a.ctx, n)
	if err != nil {
		return false
	}
	r, ok := c.(*reading)
	if !ok {
		return c.Close() == nil
	}
	var units sync.WaitGroup
	due := time.Now().Add(readSoon)
	for u := int64(0); u < n.size && ok; u += r.file.object.Unit {
		select {
		case a.slots <- struct{}{}:
			units.Go(func() { // ends with ctx
				defer func() { <-a.slots }()
				_ = r.file.Fetch(a.ctx, extent.Extent{Off: u, Len: 1}, due)
			})
		case <-a.ctx.Done():
			ok = false
		}
	}
	end := func() {
		units.Wait()
		_ = r.Close()
	}
	if !a.begin(end) {
		end()
	}
	return ok
}

// next notes a look at, or a read of, a name, and returns those to bring, at most most.
func (a *ahead) next(runs map[way]*run, d *node, l *listing, name string, most int) (names []string) {
	for which, o := range l.orders {
		if i, ok := o.index[name]; ok {
			from, to := a.step(runs, way{d.id, which}, i, len(o.names), most)
			names = append(names, o.names[from:to]...)
		}
	}
	return names
}

// step notes a look at, or a read of, name i of n and returns the names to bring.
func (a *ahead) step(runs map[way]*run, dir way, i, n, most int) (from, to int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := runs[dir]
	if r == nil {
		for other := range runs {
			if len(runs) < maxRuns {
				break
			}
			delete(runs, other)
		}
		r = &run{}
		runs[dir] = r
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
	from, to = max(r.done, i+1), min(n, i+1+min(most, 4*r.steps))
	if from >= to {
		return 0, 0
	}
	r.done = to
	return from, to
}
