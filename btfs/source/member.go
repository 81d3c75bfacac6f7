package source

import (
	"errors"
	"time"
)

const (
	guess        = 300 * time.Millisecond // what a source takes that nobody has asked
	minPatience  = 250 * time.Millisecond
	newPatience  = time.Second            // with one that nobody has asked
	noPatience   = 100 * time.Millisecond // with any, before the first block of all
	maxPatience  = 4 * time.Second
	forgetAfter  = 30 * time.Second // half of a bad name
	probes       = 4                // blocks that one is asked for at a time who has given none
	firstWindow  = 16               // and then
	maxWindow    = 64
	windowBudget = 16 << 20 // bytes of blocks that one is asked for at a time
)

// member is a source and what is known of it.
type member struct {
	Source
	near    time.Duration // of a block when little else is asked for, about; 0 is unknown
	latency time.Duration // smoothed
	service time.Duration // of one more block beside others, smoothed
	size    float64       // of a block, smoothed
	window  int           // requests at a time
	most    int           // that the window may be
	asked   time.Time     // last
	heard   time.Time     // last, a block or that it has none
	active  int           // requests that run
	fails   int           // in a row
	rests   time.Time     // until when it is asked last
	banned  error

	promised int // blocks of the queue that it would have first

	blocks, bytes, wasted int64
	lies, failures        int
}

func newMember(s Source) *member {
	m := &member{Source: s, window: firstWindow, most: maxWindow}
	if w, ok := s.(Wide); ok {
		m.most = w.Width()
		m.window = max(m.window, m.most/4) // who is wide has a window of his own
	}
	return m
}

// windowLocked is how many requests may run.
func (m *member) windowLocked() int {
	if m.blocks == 0 {
		return probes
	}
	return m.window
}

// costLocked is in what time one more block would be here: as soon as any, or when those
// before it are. What is long ago is half forgotten: a source that nobody asks could never
// be better again.
func (m *member) costLocked(now time.Time) time.Duration {
	near, service := m.near, m.service
	if near == 0 {
		near, service = guess, guess/probes
	} else if idle := now.Sub(m.asked); near > guess && idle > 0 {
		f := 1 + float64(idle)/float64(forgetAfter)
		near, service = max(guess, time.Duration(float64(near)/f)), time.Duration(float64(service)/f)
	}
	cost := max(near, service*time.Duration(1+m.active+m.promised))
	if now.Before(m.rests) {
		cost += time.Hour
	}
	return cost
}

// patienceLocked is how long to wait for a block before another source is asked too. Who
// has given none yet has to be about as fast as those that did.
func (p *Pool) patienceLocked(m *member) time.Duration {
	latency := m.latency
	if m.blocks == 0 {
		for _, other := range p.members {
			if other.blocks > 0 && (latency == 0 || other.latency < latency) {
				latency = other.latency
			}
		}
		if latency == 0 {
			return noPatience
		}
		return min(max(3*latency, minPatience), newPatience)
	}
	return min(max(3*latency, minPatience), maxPatience)
}

// broughtLocked takes a block into account. The window grows while all of it is used and
// blocks do not come later for it, and shrinks when they wait for each other.
func (m *member) broughtLocked(r *request, size int, now time.Time) {
	took := max(now.Sub(r.begun), time.Microsecond)
	m.fails, m.rests, m.heard = 0, time.Time{}, now
	m.blocks++
	m.bytes += int64(size)
	each := took / time.Duration(r.beside)
	if m.blocks == 1 {
		m.near, m.latency, m.service, m.size = took, took, each, float64(size)
	}
	m.latency += (took - m.latency) / 8
	m.service += (each - m.service) / 8
	m.size += (float64(size) - m.size) / 8
	if took < m.near {
		m.near = took
	} else {
		m.near += (took - m.near) / 64
	}
	most := min(m.most, max(probes, int(windowBudget/max(m.size, 1))))
	switch {
	case r.full && took < 4*m.near: // so it doubles in a round trip
		m.window++
	case took > 16*m.near && took > guess && m.window > firstWindow:
		m.window--
	}
	m.window = min(m.window, most)
}

// refusedLocked takes an answer without a block into account. It reports whether the
// source lied, and so is not asked any more.
func (m *member) refusedLocked(r *request, err error, now time.Time) (lied bool) {
	took := now.Sub(r.begun)
	var lie *LyingError
	var absent *AbsentError
	switch {
	case errors.As(err, &lie):
		m.lies++
		lied = m.banned == nil
		m.banned = lie
	case errors.As(err, &absent):
		m.heard = now
	case r.f.left:
	case r.f.over && m.near == 0 && took < guess:
		// Another was faster, before anything could be known of this one.
	default:
		m.near, m.latency = max(m.near, took), max(m.latency, took)
		m.service = max(m.service, m.near/firstWindow)
		if !r.f.over {
			m.failures++
		}
		if !r.f.over || m.heard.Before(r.begun) { // it failed, or is silent
			m.fails++
			m.rests = now.Add(minPatience << min(m.fails, 7))
		}
	}
	return lied
}

// Status tells how a Pool does.
type Status struct {
	Sources []SourceStatus
	Waiting int   // blocks that no source is asked for yet
	Asked   int   // requests that run
	Bytes   int64 // that came
	Wasted  int64 // of these; and of what another brought first, about
}

// SourceStatus tells how a source does.
type SourceStatus struct {
	Name     string
	Blocks   int64 // that it brought
	Bytes    int64
	Wasted   int64         // bytes that others brought first, about
	Lies     int           // answers with other bytes
	Failures int           // answers that were none, and what came too late
	Latency  time.Duration // of a block, smoothed; 0: none came
	Asked    int           // requests that run
	Window   int           // that may
	Banned   error         // why it is not asked any more; nil: it is
}

// Status tells how the sources do.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Waiting: len(p.queue), Bytes: p.bytes, Wasted: p.wasted}
	for _, m := range p.members {
		s.Asked += m.active
		s.Sources = append(s.Sources, SourceStatus{
			Name: m.Name(), Blocks: m.blocks, Bytes: m.bytes, Wasted: m.wasted, Lies: m.lies, Failures: m.failures,
			Latency: m.latency, Asked: m.active, Window: m.windowLocked(), Banned: m.banned,
		})
	}
	return s
}
