package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
)

// Source brings single blocks, verified. It is called by many at a time.
type Source interface {
	Name() string
	Block(ctx context.Context, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error)
}

// Rooted is a Source that is faster if it knows of which object a block is.
type Rooted interface {
	BlockOf(ctx context.Context, root, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error)
}

// Wide is a Source that takes more or fewer requests at a time than others do.
type Wide interface {
	Width() int
}

const (
	recentBudget = 16 << 20
	lookAhead    = 256 // blocks of the queue that are placed at a time
	waste        = 32  // of so many bytes one may come twice
	wasteAtFirst = 1 << 20
)

// ErrNoSource says that there is nobody to ask.
var ErrNoSource = errors.New("no source is named; give --btfs-gateway URL or --btfs-node URL, or a --btfs-network that is not none")

// Config of a Pool.
type Config struct {
	Sources []Source
	Timeout time.Duration // from when a block is asked for first; after it, it cannot be had
	Log     *slog.Logger  // nil: none
}

// Pool brings blocks from several sources.
type Pool struct {
	timeout time.Duration
	log     *slog.Logger
	all     sync.WaitGroup // requests

	mu      sync.Mutex
	members []*member
	flights map[string]*flight // by multihash
	queue   []*flight          // that want a source, earliest due first
	seq     uint64
	recent  *recent
	bytes   int64 // that came
	wasted  int64 // that came twice, or most likely did
}

// flight is one block on its way, and how many wait for it. All below key is guarded by
// Pool.mu, but that bytes and err may be read when done is closed.
type flight struct {
	cid, root cid.Cid
	key       string
	done      chan struct{}
	bytes     []byte
	err       error

	due     time.Time
	seq     uint64 // among those of equal due
	queued  bool
	over    bool
	left    bool // nobody waits any more
	waiting int
	parent  context.Context
	ctx     context.Context // of its requests; nil before the first
	cancel  context.CancelFunc
	tried   map[*member]bool
	running []*request
	failed  []try
	hedge   *time.Timer // until another source is asked too
}

// request is one source that is asked for one block.
type request struct {
	m      *member
	f      *flight
	begun  time.Time
	beside int  // requests of m that ran then, with this one
	full   bool // as many as may
}

// try is what one source answered.
type try struct {
	m   *member
	err error
}

// NewPool makes a pool. It asks nobody before somebody asks it.
func NewPool(cfg Config) *Pool {
	p := &Pool{timeout: cfg.Timeout, log: cfg.Log, flights: map[string]*flight{}, recent: newRecent(recentBudget)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range cfg.Sources {
		p.members = append(p.members, newMember(s))
	}
	return p
}

// Wait returns when nothing of what was asked for runs any more. Who asked has to be gone.
func (p *Pool) Wait() { p.all.Wait() }

type dueKey struct{}

// By returns a context by which blocks are wanted at a time: later than what others want
// now, and before what is wanted after it. Without, they are wanted now.
func By(ctx context.Context, due time.Time) context.Context {
	return context.WithValue(ctx, dueKey{}, due)
}

type rootKey struct{}

// Within returns a context of reads below the root of an object: who had other blocks of it
// is asked first, by sources that are [Rooted]. It is for who reads through something that
// knows single blocks only; [Pool.Of] does the same.
func Within(ctx context.Context, root cid.Cid) context.Context {
	return context.WithValue(ctx, rootKey{}, root)
}

// Root returns the root that [Within] says, cid.Undef without.
func Root(ctx context.Context) cid.Cid {
	root, _ := ctx.Value(rootKey{}).(cid.Cid)
	return root
}

// Due returns when [By] says that blocks are wanted; ok is false without. A Pool tells its
// sources so.
func Due(ctx context.Context) (due time.Time, ok bool) {
	due, ok = ctx.Value(dueKey{}).(time.Time)
	return due, ok
}

// Block brings a block, now or when [By] says, of the object that [Within] says. What several
// want at a time is brought once.
func (p *Pool) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	return p.Of(cid.Undef).Block(ctx, c)
}

// BlockBy is Block at a due time.
func (p *Pool) BlockBy(ctx context.Context, c cid.Cid, due time.Time) ([]byte, error) {
	return p.block(ctx, cid.Undef, c, due)
}

// Object brings the blocks of one object. It is a unixfs.Blocks.
type Object struct {
	pool *Pool
	root cid.Cid
}

// Of returns what brings the blocks of the object with a root.
func (p *Pool) Of(root cid.Cid) Object { return Object{p, root} }

// Block is that of [Pool], for who had other blocks of the object.
func (o Object) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	due, ok := Due(ctx)
	if !ok {
		due = time.Now()
	}
	root := o.root
	if !root.Defined() {
		root = Root(ctx)
	}
	return o.pool.block(ctx, root, c, due)
}

func (p *Pool) block(ctx context.Context, root, c cid.Cid, due time.Time) ([]byte, error) {
	if err := block.Check(c); err != nil {
		return nil, fmt.Errorf("block %s: %w", c, err)
	}
	if b, ok := block.Inline(c); ok {
		return b, nil
	}
	key := string(c.Hash())
	p.mu.Lock()
	if b, ok := p.recent.get(key); ok {
		p.mu.Unlock()
		return b, nil
	}
	f := p.flights[key]
	switch {
	case f == nil:
		parent, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cid: c, root: root, key: key, done: make(chan struct{}), due: due, parent: parent, cancel: cancel, tried: map[*member]bool{}}
		p.flights[key] = f
		p.enqueueLocked(f)
	case due.Before(f.due):
		queued := f.queued
		p.dequeueLocked(f)
		if f.due = due; queued {
			p.enqueueLocked(f)
		}
	}
	f.waiting++
	p.placeLocked()
	p.mu.Unlock()
	select {
	case <-f.done:
		return f.bytes, f.err
	case <-ctx.Done():
		p.leave(f)
		return nil, context.Cause(ctx)
	}
}

// leave takes one who waited away; the last one takes the flight with it.
func (p *Pool) leave(f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.waiting--; f.waiting == 0 && !f.over {
		f.left = true
		p.finishLocked(f, nil, context.Canceled)
		p.placeLocked()
	}
}

// finishLocked ends a flight, and the requests that still run for it.
func (p *Pool) finishLocked(f *flight, b []byte, err error) {
	f.over, f.bytes, f.err = true, b, err
	if err == nil {
		p.recent.put(f.key, b)
		for _, r := range f.running {
			if r.m.heard.After(r.begun) { // it sends, and sends this most likely
				r.m.wasted += int64(len(b))
				p.wasted += int64(len(b))
			}
		}
	}
	p.dequeueLocked(f)
	if f.hedge != nil {
		f.hedge.Stop()
	}
	f.cancel()
	if p.flights[f.key] == f {
		delete(p.flights, f.key)
	}
	close(f.done)
}

// keep takes a block that came with another.
func (p *Pool) keep(c cid.Cid, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent.put(string(c.Hash()), b)
}

func earlier(a, b *flight) int {
	if n := a.due.Compare(b.due); n != 0 {
		return n
	}
	return int(int64(a.seq - b.seq))
}

func (p *Pool) enqueueLocked(f *flight) {
	if f.queued {
		return
	}
	if f.seq == 0 {
		p.seq++
		f.seq = p.seq
	}
	f.queued = true
	i, _ := slices.BinarySearchFunc(p.queue, f, earlier)
	p.queue = slices.Insert(p.queue, i, f)
}

func (p *Pool) dequeueLocked(f *flight) {
	if !f.queued {
		return
	}
	f.queued = false
	if i, ok := slices.BinarySearchFunc(p.queue, f, earlier); ok {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
}

// placeLocked gives what is due first to the source that would have it first, with what
// that has to do already. Who is busy keeps what it would still have first in the queue, so
// that a slow source is given what the fast ones would come to later than it.
func (p *Pool) placeLocked() {
	now := time.Now()
	for _, m := range p.members {
		m.promised = 0
	}
	for i := 0; i < min(len(p.queue), lookAhead); {
		f := p.queue[i]
		m := p.chooseLocked(f, now)
		switch {
		case m == nil: // all were asked
			p.dequeueLocked(f)
			if len(f.running) == 0 {
				p.finishLocked(f, nil, p.failureLocked(f))
			}
		case m.active+m.promised < m.windowLocked():
			p.dequeueLocked(f)
			p.startLocked(f, m, now)
		default:
			m.promised++
			if !p.idleLocked() {
				return
			}
			i++
		}
	}
}

// idleLocked reports whether some source could be asked for more.
func (p *Pool) idleLocked() bool {
	return slices.ContainsFunc(p.members, func(m *member) bool { return m.banned == nil && m.active < m.windowLocked() })
}

func (p *Pool) chooseLocked(f *flight, now time.Time) (best *member) {
	if f.ctx != nil && f.ctx.Err() != nil {
		return nil // it is too late to ask another
	}
	var least time.Duration
	for _, m := range p.members {
		if m.banned != nil || f.tried[m] {
			continue
		}
		if cost := m.costLocked(now); best == nil || cost < least {
			best, least = m, cost
		}
	}
	return best
}

// startLocked asks a source, and another when it takes long.
func (p *Pool) startLocked(f *flight, m *member, now time.Time) {
	if f.ctx == nil {
		f.ctx, f.cancel = timeout(f.parent, p.timeout, f.cancel)
	}
	m.active++
	m.asked = now
	r := &request{m, f, now, m.active, m.active >= m.windowLocked()}
	f.tried[m], f.running = true, append(f.running, r)
	ctx := By(f.ctx, f.due)
	p.all.Go(func() { // ends with ctx
		var b []byte
		var err error
		if rooted, ok := m.Source.(Rooted); ok && f.root.Defined() {
			b, err = rooted.BlockOf(ctx, f.root, f.cid, p.keep)
		} else {
			b, err = m.Block(ctx, f.cid, p.keep)
		}
		p.answered(r, b, err)
	})
	if len(p.members) == 1 {
		return
	}
	if f.hedge == nil {
		f.hedge = time.AfterFunc(p.patienceLocked(m), func() { p.hedge(f) })
	} else {
		f.hedge.Reset(p.patienceLocked(m))
	}
}

func timeout(ctx context.Context, d time.Duration, before context.CancelFunc) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, d, lateError{d})
	return ctx, func() { cancel(); before() }
}

// hedge asks another source for a block that takes long: at once if who was asked is
// silent, and else if little came twice until now.
func (p *Pool) hedge(f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.over || f.queued || len(f.running) == 0 {
		return
	}
	sends := slices.ContainsFunc(f.running, func(r *request) bool { return r.m.heard.After(r.begun) })
	if sends && p.wasted > p.bytes/waste+wasteAtFirst {
		f.hedge.Reset(p.patienceLocked(f.running[len(f.running)-1].m))
		return
	}
	p.enqueueLocked(f)
	p.placeLocked()
}

// answered takes what a source answered.
func (p *Pool) answered(r *request, b []byte, err error) {
	m, f := r.m, r.f
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.placeLocked()
	m.active--
	f.running = slices.DeleteFunc(f.running, func(x *request) bool { return x == r })
	if err == nil {
		m.broughtLocked(r, len(b), now)
		p.bytes += int64(len(b))
		if !f.over {
			p.finishLocked(f, b, nil)
		}
		return
	}
	if m.refusedLocked(r, err, now) {
		p.log.Warn("a source is not asked any more", "source", m.Name(), "error", err)
	}
	if f.over {
		return
	}
	f.failed = append(f.failed, try{m, err})
	p.enqueueLocked(f)
}

// lateError is what a source answered that did not. It is a context.DeadlineExceeded, as
// which readers know it.
type lateError struct{ after time.Duration }

func (e lateError) Error() string        { return fmt.Sprintf("no answer within %v", e.after) }
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// Error says that nobody gave a block, and what each answered.
type Error struct {
	CID   cid.Cid
	Tries []error
}

func (e *Error) Error() string {
	var all []string
	for _, err := range e.Tries {
		all = append(all, err.Error())
	}
	return fmt.Sprintf("block %s: %s", e.CID, strings.Join(all, "; "))
}

func (e *Error) Unwrap() []error { return e.Tries }

// failureLocked tells what each source answered, now or when it was banned.
func (p *Pool) failureLocked(f *flight) error {
	e, said := &Error{CID: f.cid}, map[*member]bool{}
	for _, t := range f.failed {
		said[t.m] = true
		e.Tries = append(e.Tries, fmt.Errorf("%s: %w", t.m.Name(), t.err))
	}
	for _, m := range p.members {
		if m.banned != nil && !said[m] {
			e.Tries = append(e.Tries, fmt.Errorf("%s: not asked any more: %w", m.Name(), m.banned))
		}
	}
	if len(e.Tries) == 0 {
		return fmt.Errorf("block %s: %w", f.cid, ErrNoSource)
	}
	return e
}
