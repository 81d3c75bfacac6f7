// Package shaper shares a limited uplink among connections by weight.
//
// # The rule
//
// Start-time fair queueing: each flow has a virtual time, which a block of n bytes
// moves on by n/weight, and the flow that is furthest behind is next. So flows that
// always have a block to send get bytes in the ratio of their weights, whatever their
// number, the size of their blocks and the rate. Who had nothing to send does not save
// up: it comes back at most Lag behind the others.
//
// Without a rate nothing is held back, and TCP shares the line as it does.
//
// Rejected: a limiter for each flow (its rate would have to be guessed from what the
// others use), and x/time/rate in front of all (first come, first served: whoever has
// more connections gets more, and weights cannot be had).
package shaper

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

const (
	// Lag is how many bytes of weight 1 a flow may be behind when it has a block again:
	// what the others sent while it was busy writing the last one.
	Lag = 64 << 10
	// depth is how much may be sent at once after a pause, in time of the rate, and at
	// least a block.
	depth = 20 * time.Millisecond
	least = 32 << 10
)

// Link is an uplink. Its zero value has no limit.
type Link struct {
	mu     sync.Mutex
	rate   float64 // bytes/s; 0 = no limit
	tokens float64
	at     time.Time // of tokens
	now    float64   // virtual time: of the block sent last
	queue  queue
	timer  *time.Timer
}

// Flow is one connection on a Link. Its methods may be called from any goroutine.
type Flow struct {
	link   *Link
	ready  chan struct{}
	weight float64
	finish float64 // virtual time after its last block
	start  float64 // of the block that waits
	size   int     // of that block; 0: none waits
	index  int     // in the queue
}

// SetRate limits the link to so many bytes/s from now on; 0 lifts the limit.
func (l *Link) SetRate(bytes float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	l.rate = max(0, bytes)
	l.serve()
}

// Rate returns the limit, bytes/s, 0 if there is none.
func (l *Link) Rate() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate
}

// Join adds a flow of weight 1.
func (l *Link) Join() *Flow {
	return &Flow{link: l, weight: 1, ready: make(chan struct{}, 1), index: -1}
}

// Ready receives a value for each Ask, when the block may be sent.
func (f *Flow) Ready() <-chan struct{} { return f.ready }

// SetWeight sets the share of a flow relative to others, from its next block on. What
// is not a positive number counts as 1.
func (f *Flow) SetWeight(w float64) {
	if !(w > 0) || math.IsInf(w, 1) {
		w = 1
	}
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	f.weight = w
}

// Weight returns what SetWeight set.
func (f *Flow) Weight() float64 {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.weight
}

// Ask queues a block of n bytes; Ready tells when it may be sent. One block can wait
// at a time: a second Ask before that does nothing.
func (f *Flow) Ask(n int) {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.size > 0 || len(f.ready) > 0 {
		return
	}
	if l.rate == 0 {
		f.ready <- struct{}{}
		return
	}
	f.size = max(n, 1)
	f.start = max(l.now-Lag/f.weight, f.finish)
	f.finish = f.start + float64(f.size)/f.weight
	heap.Push(&l.queue, f)
	l.fill()
	l.serve()
}

// Leave gives up what waits. The flow may be used again.
func (f *Flow) Leave() {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.index >= 0 {
		heap.Remove(&l.queue, f.index)
		f.finish, f.size = f.start, 0
	}
	select {
	case <-f.ready:
	default:
	}
}

// Refund gives n bytes back that were granted and not sent.
func (f *Flow) Refund(n int) {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return
	}
	l.tokens += float64(n)
	f.finish -= float64(n) / f.weight
	l.serve()
}

// fill counts the tokens that time has brought.
func (l *Link) fill() {
	now := time.Now()
	if l.rate == 0 {
		l.tokens = least // when a limit is set
	} else {
		l.tokens = min(l.tokens+l.rate*now.Sub(l.at).Seconds(), max(least, l.rate*depth.Seconds()))
	}
	l.at = now
}

// serve grants what the tokens allow, and comes back when there are enough for more.
func (l *Link) serve() {
	for len(l.queue) > 0 && (l.rate == 0 || l.tokens >= float64(min(l.queue[0].size, least))) {
		f := heap.Pop(&l.queue).(*Flow)
		l.now = max(l.now, f.start)
		l.tokens -= float64(f.size)
		f.size = 0
		f.ready <- struct{}{}
	}
	if len(l.queue) == 0 {
		return
	}
	missing := float64(min(l.queue[0].size, least)) - l.tokens
	wait := time.Duration(math.Ceil(missing / l.rate * 1e9))
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.later)
	} else {
		l.timer.Reset(wait)
	}
}

func (l *Link) later() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	l.serve()
}

// queue is a heap of flows by the virtual start of the block that waits.
type queue []*Flow

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].start < q[j].start }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	f := x.(*Flow)
	f.index = len(*q)
	*q = append(*q, f)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	f := old[len(old)-1]
	*q = old[:len(old)-1]
	f.index = -1
	return f
}
