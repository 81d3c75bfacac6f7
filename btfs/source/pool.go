package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
)

// Source brings single blocks, verified.
type Source interface {
	Name() string
	Block(ctx context.Context, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error)
}

const (
	maxFlights   = 16 // blocks that are asked for at a time
	recentBudget = 16 << 20
	guess        = 300 * time.Millisecond // what a source takes that nobody has asked
	minPatience  = 250 * time.Millisecond
	newPatience  = time.Second
	maxPatience  = 4 * time.Second
	forgetAfter  = 30 * time.Second // half of a bad name
)

// ErrNoSource says that there is nobody to ask.
var ErrNoSource = errors.New("no source is named; give --btfs-gateway URL or --btfs-node URL")

// Config of a Pool.
type Config struct {
	Sources []Source
	Timeout time.Duration // after which a block cannot be had
	Log     *slog.Logger  // nil: none
}

// Pool brings blocks from several sources.
type Pool struct {
	timeout time.Duration
	log     *slog.Logger
	gate    chan struct{} // one of maxFlights
	all     sync.WaitGroup

	mu      sync.Mutex
	members []*member
	flights map[string]*flight // by multihash
	recent  *recent
}

// member is a source and what is known of it.
type member struct {
	Source
	latency time.Duration // of a block, smoothed; 0 is unknown
	asked   time.Time     // last
	active  int           // requests that run
	fails   int           // in a row
	rests   time.Time     // until when it is asked last
	banned  error
}

// flight is one block on its way, and how many wait for it.
type flight struct {
	done    chan struct{}
	bytes   []byte
	err     error
	waiting int
	cancel  context.CancelFunc
}

// NewPool makes a pool. It asks nobody before somebody asks it.
func NewPool(cfg Config) *Pool {
	p := &Pool{
		timeout: cfg.Timeout, log: cfg.Log, gate: make(chan struct{}, maxFlights),
		flights: map[string]*flight{}, recent: newRecent(recentBudget),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range cfg.Sources {
		p.members = append(p.members, &member{Source: s})
	}
	return p
}

// Wait returns when nothing of what was asked for runs any more. Who asked has to be gone.
func (p *Pool) Wait() { p.all.Wait() }

// Block brings a block. What several want at a time is brought once.
func (p *Pool) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
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
	if f == nil {
		f = p.startLocked(ctx, c, key)
	}
	f.waiting++
	p.mu.Unlock()
	select {
	case <-f.done:
		return f.bytes, f.err
	case <-ctx.Done():
		p.leave(key, f)
		return nil, context.Cause(ctx)
	}
}

// startLocked starts to bring a block. That ends when it is there, when all sources
// failed, or when nobody waits any more.
func (p *Pool) startLocked(ctx context.Context, c cid.Cid, key string) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), cancel: cancel}
	p.flights[key] = f
	p.all.Go(func() {
		defer cancel()
		b, err := p.bring(ctx, c)
		p.mu.Lock()
		defer p.mu.Unlock()
		f.bytes, f.err = b, err
		if err == nil {
			p.recent.put(key, b)
		}
		if p.flights[key] == f {
			delete(p.flights, key)
		}
		close(f.done)
	})
	return f
}

// leave takes one who waited away; the last one takes the flight with it.
func (p *Pool) leave(key string, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	f.cancel()
	if p.flights[key] == f {
		delete(p.flights, key)
	}
}

// keep takes a block that came with another.
func (p *Pool) keep(c cid.Cid, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent.put(string(c.Hash()), b)
}

// try is what one source answered.
type try struct {
	m     *member
	bytes []byte
	err   error
}

// bring asks one source, and the next when it fails or takes long.
func (p *Pool) bring(ctx context.Context, c cid.Cid) ([]byte, error) {
	select {
	case p.gate <- struct{}{}:
		defer func() { <-p.gate }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, lateError{p.timeout})
	answers := make(chan try, len(p.members))
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	hedge := time.NewTimer(p.timeout)
	defer hedge.Stop()
	tried, running := map[*member]bool{}, 0
	start := func() {
		if m, patience := p.next(tried); m != nil {
			hedge.Reset(patience)
			asked.Go(func() { answers <- p.ask(ctx, m, c) }) // ends with ctx
			tried[m], running = true, running+1
		}
	}
	var failed []try
	for start(); running > 0; start() {
		select {
		case <-hedge.C:
		case t := <-answers:
			if t.err == nil {
				return t.bytes, nil
			}
			failed, running = append(failed, t), running-1
		}
	}
	return nil, p.failure(c, failed)
}

// next chooses whom to ask now, of those that were not asked for this block, and how long
// to wait before another is asked too.
func (p *Pool) next(tried map[*member]bool) (best *member, patience time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, least := time.Now(), time.Duration(0)
	for _, m := range p.members {
		if m.banned != nil || tried[m] {
			continue
		}
		if cost := m.costLocked(now); best == nil || cost < least {
			best, least = m, cost
		}
	}
	if best == nil {
		return nil, 0
	}
	best.active++
	best.asked = now
	if best.latency == 0 {
		return best, newPatience
	}
	return best, min(max(3*best.latency, minPatience), maxPatience)
}

// costLocked is what one more block of a source is likely to take. What is long ago is
// half forgotten: a source that nobody asks could never be better again.
func (m *member) costLocked(now time.Time) time.Duration {
	one := m.latency
	if one == 0 {
		one = guess
	} else if idle := now.Sub(m.asked); one > guess && idle > 0 {
		one = max(guess, time.Duration(float64(one)/(1+float64(idle)/float64(forgetAfter))))
	}
	cost := one * time.Duration(1+m.active)
	if now.Before(m.rests) {
		cost += time.Hour
	}
	return cost
}

func (p *Pool) ask(ctx context.Context, m *member, c cid.Cid) try {
	start := time.Now()
	b, err := m.Block(ctx, c, p.keep)
	took, now := time.Since(start), time.Now()
	lost := errors.Is(ctx.Err(), context.Canceled)
	var lie *LyingError
	var absent *AbsentError
	p.mu.Lock()
	defer p.mu.Unlock()
	m.active--
	switch {
	case err == nil:
		m.fails, m.rests = 0, time.Time{}
		if m.latency == 0 {
			m.latency = took
		}
		m.latency += (took - m.latency) / 8
	case errors.As(err, &lie):
		m.banned = lie
		p.log.Warn("a source is not asked any more", "source", m.Name(), "error", lie)
	case errors.As(err, &absent):
	case lost && m.latency == 0 && took < guess:
		// Another was faster, before anything could be known of this one.
	default:
		m.latency = max(m.latency, took)
		if !lost { // it failed, or nothing came in time
			m.fails++
			m.rests = now.Add(minPatience << min(m.fails, 7))
		}
	}
	return try{m, b, err}
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

// failure tells what each source answered, now or when it was banned.
func (p *Pool) failure(c cid.Cid, failed []try) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, said := &Error{CID: c}, map[*member]bool{}
	for _, t := range failed {
		said[t.m] = true
		e.Tries = append(e.Tries, fmt.Errorf("%s: %w", t.m.Name(), t.err))
	}
	for _, m := range p.members {
		if m.banned != nil && !said[m] {
			e.Tries = append(e.Tries, fmt.Errorf("%s: not asked any more: %w", m.Name(), m.banned))
		}
	}
	if len(e.Tries) == 0 {
		return fmt.Errorf("block %s: %w", c, ErrNoSource)
	}
	return e
}
