package swarm

import (
	"cmp"
	"container/heap"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// candidate is a peer that is known, connected or not. What decides about its turn is
// changed only while it is out of the queues: see pool.take and pool.put.
type candidate struct {
	addr   netip.AddrPort
	source string
	via    netip.Addr // who told of it
	fails  int
	served bool      // it sent us payload
	rate   float64   // bytes/s that it sent when it was last busy; 0: unknown
	seed   bool      // it has all, or wants nothing: it said so when it left, or PEX does
	idle   bool      // it gave its place to somebody else
	next   time.Time // not dialled before
	tried  time.Time
	busy   bool // being dialled, or connected

	ranked uint32 // BEP 40's priority
	in     *queue // where it waits; nil: it is busy
	index  int
}

// compare is the order in which candidates are called: those that failed least; of these
// the ones that the user named, then those that served us, the fastest first; then those
// on our network; then those that have all; of equals the one of the highest priority
// (BEP 40), so that who names many addresses gains little.
func (c *candidate) compare(d *candidate) int {
	return cmp.Or(
		cmp.Compare(c.fails, d.fails),
		cmp.Compare(d.class(), c.class()),
		cmp.Compare(d.speed(), c.speed()),
		cmp.Compare(d.whole(), c.whole()),
		cmp.Compare(d.ranked, c.ranked),
	)
}

func (c *candidate) class() int {
	switch {
	case c.source == "given":
		return 3
	case c.served:
		return 2
	case c.source == "lsd":
		return 1
	}
	return 0
}

// speed is the binary logarithm of the rate: what was measured another day says no more.
func (c *candidate) speed() int { return bits.Len64(uint64(max(0, c.rate))) }

// whole is 1 of who is known to have all.
func (c *candidate) whole() int {
	if c.seed {
		return 1
	}
	return 0
}

// queue is a heap of candidates, each of which knows its place.
type queue struct {
	list []*candidate
	less func(a, b *candidate) bool
}

func (q *queue) Len() int           { return len(q.list) }
func (q *queue) Less(i, j int) bool { return q.less(q.list[i], q.list[j]) }
func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].index, q.list[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	c := x.(*candidate)
	c.index, c.in = len(q.list), q
	q.list = append(q.list, c)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(q.list) - 1
	c := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	c.in = nil
	return c
}

// lines are where candidates wait. Nothing that happens to one of them costs more than
// the logarithm of their number.
type lines struct {
	ready   queue // may be called now, the best first
	resting queue // may not yet, the soonest first
	seeds   queue // may be called, but we have all as well
	looked  time.Time
	ours    [2]netip.AddrPort // our addresses of which the priorities are
}

func newLines() *lines {
	best := func(a, b *candidate) bool { return a.compare(b) < 0 }
	return &lines{
		ready: queue{less: best}, seeds: queue{less: best},
		resting: queue{less: func(a, b *candidate) bool { return a.next.Before(b.next) }},
	}
}

// put has a candidate wait for its turn, unless it was forgotten.
func (p *pool) put(c *candidate) {
	p.take(c)
	c.busy = false
	if p.known_[c.addr] != c {
		return
	}
	q := &p.lines.ready
	if p.t.clock.Before(c.next) {
		q = &p.lines.resting
	} else if c.seed && p.t.complete() {
		q = &p.lines.seeds
	}
	c.ranked = p.rank(c)
	heap.Push(q, c)
}

// take has a candidate wait no more.
func (p *pool) take(c *candidate) {
	if c.in != nil {
		heap.Remove(c.in, c.index)
	}
}

// change changes what decides about a candidate's turn.
func (p *pool) change(c *candidate, f func()) {
	waits := c.in != nil
	p.take(c)
	f()
	if waits {
		p.put(c)
	}
}

// add notes a peer that is not known; nil if there are too many.
func (p *pool) add(c *candidate) *candidate {
	if len(p.known_) >= maxKnown && !p.forgetOne() {
		return nil
	}
	p.known_[c.addr] = c
	p.put(c)
	return c
}

// forget drops a candidate.
func (p *pool) forget(c *candidate) {
	p.take(c)
	delete(p.known_, c.addr)
}

// forgetOne makes room for a peer that is not known, if one of a few is of no use: it
// could not be reached, or gave its place to others.
func (p *pool) forgetOne() bool {
	looked := 0
	for _, c := range p.known_ { // Go begins anywhere
		if !c.busy && (c.fails > 0 || c.idle) && c.source != "given" {
			p.forget(c)
			return true
		}
		if looked++; looked == 16 {
			break
		}
	}
	return false
}

// rank is the priority of a candidate (BEP 40).
func (p *pool) rank(c *candidate) uint32 {
	if c.addr.Addr().Is4() {
		return priority(p.lines.ours[0], c.addr)
	}
	return priority(p.lines.ours[1], c.addr)
}

// rerank orders the candidates anew if our addresses are others than before.
func (p *pool) rerank() {
	port := p.client.public()
	ours := [2]netip.AddrPort{
		netip.AddrPortFrom(p.client.outer.like(netip.IPv4Unspecified()), port),
		netip.AddrPortFrom(p.client.outer.like(netip.IPv6Unspecified()), port),
	}
	if ours == p.lines.ours {
		return
	}
	p.lines.ours = ours
	for _, q := range []*queue{&p.lines.ready, &p.lines.seeds} {
		for _, c := range q.list {
			c.ranked = p.rank(c)
		}
		heap.Init(q)
	}
}

// best returns who is to be called next, nil if nobody is: of those whose time has come;
// if there is none, of others for which early says so. Those are looked for four times a
// second at most, since it means to look through all who rest.
func (p *pool) best(early func(*candidate) bool) *candidate {
	l, now := p.lines, p.t.clock
	p.rerank()
	for len(l.resting.list) > 0 && !now.Before(l.resting.list[0].next) {
		p.put(heap.Pop(&l.resting).(*candidate))
	}
	if len(l.seeds.list) > 0 && !p.t.complete() {
		for len(l.seeds.list) > 0 {
			p.put(heap.Pop(&l.seeds).(*candidate))
		}
	}
	for len(l.ready.list) > 0 {
		c := l.ready.list[0]
		if !c.seed || !p.t.complete() {
			return c
		}
		p.take(c)
		p.put(c)
	}
	if now.Sub(l.looked) < lookGap {
		return nil
	}
	l.looked = now
	var some []*candidate
	for _, c := range l.resting.list {
		if early(c) && !(c.seed && p.t.complete()) {
			some = append(some, c)
		}
	}
	slices.SortFunc(some, func(a, b *candidate) int { return a.compare(b) })
	for _, c := range some[:min(len(some), maxDialing)] {
		p.change(c, func() { c.next = now })
	}
	if len(some) == 0 {
		return nil
	}
	return some[0]
}

// call dials a candidate.
func (p *pool) call(c *candidate, by dialer) {
	p.take(c)
	c.busy, c.tried = true, p.t.clock
	p.dialing++
	p.calls = append(p.calls, c)
	source := c.source
	p.group.Go(func() { p.connect(c, source, by) }) // ends with the connection
}

// known returns how many peers are known and not connected.
func (p *pool) known() int {
	l := p.lines
	return len(l.ready.list) + len(l.resting.list) + len(l.seeds.list) + p.dialing
}

// more reports whether some peer is known that was not yet tried.
func (p *pool) more() bool {
	if _, web := p.t.webMore(); web || p.dialing > 0 {
		return true
	}
	untried := func(c *candidate) bool { return c.fails == 0 }
	l := p.lines
	return slices.ContainsFunc(l.ready.list, untried) || slices.ContainsFunc(l.resting.list, untried) || slices.ContainsFunc(l.seeds.list, untried)
}
