// Package downlink shares what arrives at this machine between torrents. It is pure:
// no I/O, no goroutine, time comes in as an argument.
//
// # Why
//
// Inside of a torrent blocks are asked for in the order of their due times. Between
// torrents TCP would decide: a copy from twenty peers takes ten times as much of a
// full line as a film from two, and the film stalls while the copy has no hurry at all.
//
// # The rule
//
// A flow is one torrent. It is late if a read waits, or will within Horizon at the rate
// of now. The capacity is shared among the late flows, nobody getting more than it
// needs and what one does not need going to the others (max-min). Flows that are not
// late get what is left, and at least Least.
//
// Only if a late flow gets less than its part, and others get more than theirs, are
// those others held back: they may ask for no more than their part from then on. When
// nobody is short any more they are let go step by step.
//
// # What is not known
//
// The capacity: it is taken for the most that came in any half second of the last ten
// to twenty seconds. And whether flows hinder each other at all: peers are often the
// slower end. So holding back is an experiment. If a second of it does not give the
// late flow a quarter of what the others lost, it was in vain, and is not tried for
// this flow for ten seconds, then twenty, to at most two minutes. If it does, all are
// let go for a second after ten, twenty, to at most 120 seconds, and it is tried again:
// a flow that was just about to become faster proves nothing.
//
// Rejected: a limit for each peer (what matters is the sum), strict priority by due
// time (a copy in a hurry would stop another for ever), learning from delays (the
// queue is often not in the line, but at the peers).
package downlink

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Horizon is how far ahead a torrent looks for reads that will wait.
	Horizon = 3 * time.Second
	// Least is what a flow that is held back may ask for, bytes/s: its readers are
	// still moving, and its peers remain measured.
	Least = 64 << 10

	slot    = 100 * time.Millisecond
	slots   = 5                // of which a rate is made
	window  = 10 * time.Second // of the capacity
	near    = 0.95             // of its part is as good as all of it
	full    = 0.8              // of the capacity in use: flows may hinder each other
	loosen  = 1.3              // per slot
	verdict = time.Second      // of holding back until its gain is judged
	worth   = 0.25             // of what others lost must arrive at who was short
	pause   = 10 * time.Second // after it did not
	longest = 2 * time.Minute
	proof   = 10 * time.Second      // of success until it is tried again without help
	settle  = time.Second           // that this takes
	burst   = 50 * time.Millisecond // of its rate that a held flow may ask for at once
)

// Link is the line that all flows share. Its zero value is ready.
type Link struct {
	// Limit is the most that may arrive, bytes/s, if the user set one: it is the
	// capacity then. Set before the first flow joins.
	Limit float64

	mu    sync.Mutex
	flows []*Flow
	next  time.Time // end of the slot under way
	began time.Time // of it
	peak  [2]float64
	until time.Time // when the older peak is forgotten
}

// Flow is one torrent on a Link.
type Flow struct {
	link *Link
	held atomic.Uint64 // bits of the rate it may ask for, bytes/s; +Inf: not held

	// Owned by who asks.
	tokens float64
	at     time.Time

	// Guarded by link.mu.
	need    Need
	bytes   int64 // come so far
	slot    int64 // bytes at the begin of the slot under way
	past    [slots]float64
	trial   trial
	useless time.Time // not helped before this
	wait    time.Duration
	trust   time.Duration // how long the next success counts
}

// trial is an experiment: others are held back for this flow.
type trial struct {
	since     time.Time // zero: none
	own, rest float64   // rates when it began: of this flow, and of those held
	good      bool      // it helped
}

// Need is what a flow wants now.
type Need struct {
	Busy bool    // it has something to ask for
	Late bool    // a read waits, or will within Horizon
	Rate float64 // bytes/s with which no read would wait; +Inf: as much as there is
}

// Join adds a flow; Leave must be called when it ends.
func (l *Link) Join() *Flow {
	f := &Flow{link: l}
	f.free()
	l.mu.Lock()
	l.flows = append(l.flows, f)
	l.mu.Unlock()
	return f
}

// Leave removes a flow.
func (f *Flow) Leave() {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.flows, f); i >= 0 {
		l.flows = slices.Delete(l.flows, i, i+1)
	}
	f.free()
}

func (f *Flow) free()          { f.hold(math.Inf(1)) }
func (f *Flow) hold(r float64) { f.held.Store(math.Float64bits(r)) }

// Held returns the rate that the flow may ask for, bytes/s, +Inf if it is not held back.
func (f *Flow) Held() float64 { return math.Float64frombits(f.held.Load()) }

// Report tells what has come in all and what is needed now. It is cheap and should be
// called whenever something changes, and every 50 ms while the flow is busy.
func (f *Flow) Report(now time.Time, bytes int64, need Need) {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	sudden := need.Late && !f.need.Late
	f.bytes, f.need = bytes, need
	switch {
	case !now.Before(l.next):
		l.turn(now)
		l.decide(now, true)
	case sudden && len(l.flows) > 1:
		l.decide(now, false)
	}
}

// Take returns how many of n blocks of size bytes the flow may ask for now, and counts
// them as asked.
func (f *Flow) Take(now time.Time, n, size int) int {
	rate := f.Held()
	if math.IsInf(rate, 1) {
		return n
	}
	most := max(rate*burst.Seconds(), float64(size))
	f.tokens = min(most, f.tokens+rate*min(now.Sub(f.at).Seconds(), 1))
	f.at = now
	n = max(0, min(n, int(f.tokens/float64(size))))
	f.tokens -= float64(n * size)
	return n
}

// Return gives back what was taken and not asked for.
func (f *Flow) Return(n, size int) { f.tokens += float64(n * size) }

// turn ends a slot.
func (l *Link) turn(now time.Time) {
	dt := now.Sub(l.began)
	l.began, l.next = now, now.Add(slot)
	total := 0.0
	for _, f := range l.flows {
		r := float64(f.bytes-f.slot) / max(dt, slot).Seconds()
		f.slot = f.bytes
		copy(f.past[1:], f.past[:])
		f.past[0] = r
		total += f.rate()
	}
	if now.After(l.until) {
		l.until = now.Add(window)
		l.peak[1], l.peak[0] = l.peak[0], 0
	}
	l.peak[0] = max(l.peak[0], total)
}

// rate returns what came in the last slots, bytes/s.
func (f *Flow) rate() (sum float64) {
	for _, r := range f.past {
		sum += r
	}
	return sum / slots
}

// Capacity returns what the line is believed to carry, bytes/s; 0 = not yet known.
func (l *Link) Capacity() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.capacity()
}

func (l *Link) capacity() float64 {
	if c := max(l.peak[0], l.peak[1]); l.Limit == 0 || c == 0 {
		return c
	}
	return l.Limit
}

// decide holds flows back, or lets them go; step: a slot has passed.
func (l *Link) decide(now time.Time, step bool) {
	capacity, total, busy := l.capacity(), 0.0, 0
	for _, f := range l.flows {
		total += f.rate()
		if f.need.Busy {
			busy++
		}
	}
	if busy < 2 || capacity == 0 {
		for _, f := range l.flows {
			f.free()
			f.trial = trial{}
		}
		return
	}
	part := l.share(now, capacity)
	short, late := false, false
	for i, f := range l.flows {
		late = late || f.need.Late
		if !f.need.Late || f.rate() >= near*part[i] || now.Before(f.useless) {
			f.trial = trial{}
			continue
		}
		if f.trial.since.IsZero() && total < full*capacity {
			continue // there is room: nobody is in its way
		}
		short = l.judge(f, part, now) || short
	}
	for i, f := range l.flows {
		switch held := f.Held(); {
		case short && (f.rate() > part[i] || held < math.Inf(1) || !f.need.Late):
			f.hold(max(part[i], Least))
		case !late || !short && held*loosen > 1.5*capacity:
			f.free()
		case !short && step:
			f.hold(max(held*loosen, part[i]))
		}
	}
}

// judge begins the experiment of helping f, or ends it if it is in vain; true: go on.
func (l *Link) judge(f *Flow, part []float64, now time.Time) bool {
	rest := 0.0
	for i, o := range l.flows {
		if o != f && (!o.need.Late || o.rate() > part[i] || !math.IsInf(o.Held(), 1)) {
			rest += o.rate()
		}
	}
	switch t := &f.trial; {
	case t.since.IsZero():
		*t = trial{since: now, own: f.rate(), rest: rest}
	case !t.good && now.Sub(t.since) > verdict+slots*slot:
		lost := t.rest - rest
		if lost <= 0.1*l.capacity() {
			break
		}
		if f.rate()-t.own < worth*lost {
			f.wait = min(max(pause, 2*f.wait), longest)
			f.trust = 0
			f.stop(now, f.wait)
			return false
		}
		t.good, f.wait = true, 0
	case now.Sub(t.since) > max(f.trust, proof):
		f.trust = min(2*max(f.trust, proof), longest)
		f.stop(now, settle)
		return false
	}
	return true
}

// stop ends an experiment; there is no other for so long.
func (f *Flow) stop(now time.Time, wait time.Duration) {
	f.useless, f.trial = now.Add(wait), trial{}
}

// share returns the part of each flow, bytes/s: max-min among the late ones, what is
// left in equal parts among the others.
func (l *Link) share(now time.Time, capacity float64) []float64 {
	part := make([]float64, len(l.flows))
	late, others := []int{}, 0
	for i, f := range l.flows {
		switch {
		case f.need.Late:
			late = append(late, i)
		case f.need.Busy:
			others++
		}
	}
	// What a late flow cannot take, because its peers are slow, is free for others.
	wants := func(i int) float64 {
		f := l.flows[i]
		if now.Before(f.useless) {
			return min(f.need.Rate, 1.2*f.rate())
		}
		return f.need.Rate
	}
	slices.SortFunc(late, func(a, b int) int {
		switch wa, wb := wants(a), wants(b); {
		case wa < wb:
			return -1
		case wa > wb:
			return 1
		}
		return a - b
	})
	left := capacity
	for n, i := range late {
		part[i] = min(wants(i), left/float64(len(late)-n))
		left -= part[i]
	}
	for i, f := range l.flows {
		if f.need.Busy && !f.need.Late {
			part[i] = left / float64(others)
		}
	}
	return part
}
