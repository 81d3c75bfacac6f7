// Package pipeline estimates one peer: how fast it is, how far away, and when it
// will have delivered one more block. It is pure: time comes in as an argument.
//
// # The estimate
//
// A peer answers requests in order. So one more block arrives after everything
// asked before it, but not before a round trip:
//
//	finish = max(now + RTT, start + outstanding/rate) + block/rate + deviation
//
// where start is when what is outstanding began, or begins, to come.
// Rate is measured from busy times only: between two blocks of which the second
// had been asked for before the first came. Other times contain the round trip
// and would halve the estimate of a peer that is simply not asked enough. RTT is the
// smallest that the kernel measured (Line), or that the peer took to answer (Answer: its
// handshake, and blocks asked of it when it was idle) where that is longer: behind a proxy
// the kernel knows the way to the proxy only. The queue that we make ourselves is in
// outstanding, not in RTT.
// A peer that is late already is expected to stay late for about as long again
// (0.7 x overdue: waiting times in swarms have long tails).
//
// # How deep
//
// Limit blocks are kept on the way: rate x (RTT + 0.12 s). More buys no
// throughput on any measured path, and everything asked beyond the path's
// capacity stands between a seek and its first byte: cancelled blocks still come
// (97 % of them, from libtorrent with short queues), so queues must be short.
//
// One exception: Transmission answers what it finds in its queue twice a second,
// and goes on only as long as the queue does not run empty. Asked for two blocks
// at a time it brings two blocks per half second for ever, and looks as if it were
// that slow. So of a peer that spends most of its time in gaps between bursts, twice
// as much is asked as it brings from one gap to the next, up to maxBurst blocks:
// a peer that is as slow as it looks holds no more than it can bring in two gaps.
// For the same reason a pause as long as others before it is no silence.
//
// Another: on a line that loses packets nothing comes for some tenths of a second, and
// then all at once what was asked for. If a peer spends more than a twelfth of the time
// so, as much more is asked as fits into the longest such stall; and a stall like those
// before is no silence, for which blocks would be asked elsewhere and come twice (four
// links that stall a fifth of the time: 3.4 to 7.1 MB/s, 20 to 7 % of the bytes wasted).
//
// Of a peer that is not known yet, no more is asked than its share of what somebody
// waits for: all of a piece, if it is the only one (four blocks at a time, the first
// megabyte from Transmission took 9 s, now 1 s), but at least unknownLimit.
package pipeline

import (
	"math"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	// TargetQueue is the time by which requests run ahead of the path's capacity.
	TargetQueue = 120 * time.Millisecond

	unknownLimit = 6   // blocks on the way to a peer of unknown rate: a slow one must not hold many
	unknownMost  = 64  // the same while somebody waits for so many
	memory       = 0.4 // seconds over which the rate is averaged
	minSamples   = 3
	burstMemory  = 4  // seconds until a gap counts for a third
	stallMemory  = 30 // the same of a pause that is not taken for silence when it comes again
	lossMemory   = 10
	leastStall   = 0.1  // seconds
	lossy        = 0.08 // of the time is spent in stalls on a line that loses packets
	mostStall    = 0.7  // seconds that it may add
	burstShare   = 0.4  // of the time is spent in gaps by a peer that sends in bursts
	burstPrior   = 0.3  // seconds without a gap that every peer is credited with
	maxBurst     = 512
	mostTrip     = 3 * time.Second // a peer may take its time with the handshake
	maxPause     = 2               // seconds
	guessRate    = 64 << 10        // of a peer not yet measured, bytes/s: it must earn more
)

// Pipe is the estimate of one peer. The zero value knows nothing.
type Pipe struct {
	Reqq int // most requests the peer accepts; 0 means 250

	line, answer time.Duration // smallest round trips; 0 = unknown
	peak         float64       // bytes/s, the highest rate so far
	outstanding  int           // bytes asked and not yet answered
	last         time.Time     // last block
	since        time.Time     // when the first block was asked of the then idle peer
	bytes, secs  float64       // decayed busy bytes and seconds
	samples      int           // blocks that the rate is made of
	late         float64       // decayed lateness against the prediction, seconds
	gap          float64       // decayed longest pause, seconds
	stall        float64       // the same, decayed more slowly
	paused, all  float64       // decayed seconds in long pauses, and in all
	lost, spent  float64       // the same of stalls, decayed more slowly
}

// Known reports whether the rate has been measured.
func (p *Pipe) Known() bool { return p.samples >= minSamples && p.secs > 0.002 }

// Rate returns bytes per second; a low guess until it is known.
func (p *Pipe) Rate() float64 {
	if !p.Known() {
		return guessRate
	}
	return p.bytes / p.secs
}

// Outstanding returns the bytes asked and not yet answered.
func (p *Pipe) Outstanding() int { return p.outstanding }

// Sent notes a request of n bytes.
func (p *Pipe) Sent(now time.Time, n int) {
	if p.outstanding == 0 {
		p.since = now
	}
	p.outstanding += n
}

// Arrived notes a block of n bytes that was asked at sent and predicted for due.
func (p *Pipe) Arrived(now, sent, due time.Time, n int) {
	p.Gone(n)
	if dt := now.Sub(p.last).Seconds(); !p.last.IsZero() && sent.Before(p.last) && dt >= 0 {
		p.pause(dt)
		keep := math.Exp(-dt / memory)
		p.bytes = p.bytes*keep + float64(n)
		p.secs = p.secs*keep + dt
		p.samples++
	} else if rtt := now.Sub(sent) - secs(float64(n)/p.Rate()); p.Known() && rtt > 0 {
		p.pause((rtt - p.RTT()).Seconds())
		if p.answer > 0 || p.line == 0 { // else it called us, and no proxy is between
			// The rate of a peer of which little was asked is too low, and more than the
			// block took would be taken off.
			p.Answer(now.Sub(sent) - secs(float64(n)/max(p.peak, p.Rate())))
		}
	}
	if p.Known() {
		p.peak = max(p.peak, p.Rate())
	}
	p.late += (math.Max(0, now.Sub(due).Seconds()) - p.late) / 16
	p.last = now
}

// Paused notes that a peer that was given up as silent speaks again, after a pause of d.
func (p *Pipe) Paused(d time.Duration) { p.pause((d - p.RTT()).Seconds()) }

// pause notes a time during which nothing came, although it had been asked for and
// the round trip was over.
func (p *Pipe) pause(dt float64) {
	dt = math.Max(0, math.Min(dt, maxPause))
	keep := math.Exp(-dt / burstMemory)
	p.gap = math.Max(dt, p.gap*keep)
	p.stall = math.Max(dt, p.stall*math.Exp(-dt/stallMemory))
	p.paused *= keep
	p.all = p.all*keep + dt
	if dt > 1.5*p.block().Seconds() {
		p.paused += dt
	}
	keep = math.Exp(-dt / lossMemory)
	p.lost *= keep
	p.spent = p.spent*keep + dt
	if dt > leastStall {
		p.lost += dt
	}
}

// inBursts reports whether the peer spends most of the time in gaps between bursts.
func (p *Pipe) inBursts() bool { return p.paused > burstShare*(p.all+burstPrior) }

// Line notes a round trip that the kernel measured.
func (p *Pipe) Line(rtt time.Duration) { shortest(&p.line, rtt) }

// Answer notes how long an idle peer took to answer.
func (p *Pipe) Answer(rtt time.Duration) { shortest(&p.answer, min(rtt, mostTrip)) }

func shortest(d *time.Duration, rtt time.Duration) {
	if rtt > 0 && (*d == 0 || rtt < *d) {
		*d = rtt
	}
}

// RTT returns the smallest round trip there can be; 0 = unknown.
func (p *Pipe) RTT() time.Duration { return max(p.line, p.answer) }

// Gone notes that n bytes will not come, or came.
func (p *Pipe) Gone(n int) { p.outstanding = max(0, p.outstanding-n) }

// Limit returns how many blocks to keep on the way. share is how many blocks that
// someone waits for there are for each peer.
func (p *Pipe) Limit(share int) int {
	if !p.Known() {
		return min(max(unknownLimit, min(share, unknownMost)), p.Most())
	}
	n := p.Rate() * (p.RTT() + TargetQueue).Seconds() / wire.BlockSize
	if p.lost > lossy*(p.spent+1) {
		n += p.Rate() * math.Min(p.stall, mostStall) / wire.BlockSize
	}
	if p.inBursts() {
		n = math.Max(n, math.Min(2*p.Rate()*p.gap/wire.BlockSize, maxBurst))
	}
	return min(max(2, int(n)), p.Most())
}

// Spare returns how many blocks may be on the way of what nobody reads, while others are
// read: what the path holds, and hardly a queue, since the next seek waits behind all of it.
func (p *Pipe) Spare() int {
	if !p.Known() {
		return min(unknownLimit, p.Most())
	}
	return min(max(1, int(p.Rate()*(p.RTT()+TargetQueue/6).Seconds()/wire.BlockSize)), p.Most())
}

// Most returns how many blocks may ever be on the way: an eighth less than the peer's
// queue holds, because what comes too many is dropped, by Transmission without a word.
func (p *Pipe) Most() int {
	reqq := p.Reqq
	if reqq <= 0 {
		reqq = 250
	}
	return reqq - reqq/8
}

func (p *Pipe) block() time.Duration { return secs(wire.BlockSize / p.Rate()) }
func (p *Pipe) dev() time.Duration   { return secs(p.late) }

func secs(s float64) time.Duration { return time.Duration(math.Min(s, 3600) * 1e9) }

// spoke returns when the peer last delivered, or when it was first asked since it was idle.
func (p *Pipe) spoke() time.Time {
	if p.last.After(p.since) {
		return p.last
	}
	return p.since
}

// start returns when what is outstanding began or will begin to come.
func (p *Pipe) start(now time.Time) time.Time {
	s := p.since.Add(p.RTT())
	if p.last.After(s) {
		s = p.last
	}
	if late := now.Sub(s.Add(p.block())); late > 0 {
		s = s.Add(late + late*7/10)
	}
	return s
}

// Arrival predicts when the first n of the outstanding bytes will have come.
func (p *Pipe) Arrival(now time.Time, n int) time.Time {
	return p.start(now).Add(secs(float64(n)/p.Rate()) + p.dev())
}

// Finish predicts when n more bytes, asked now, will have come.
func (p *Pipe) Finish(now time.Time, n int) time.Time {
	at := now.Add(p.RTT())
	if p.outstanding > 0 {
		if busy := p.start(now).Add(secs(float64(p.outstanding) / p.Rate())); busy.After(at) {
			at = busy
		}
	}
	return at.Add(secs(float64(n)/p.Rate()) + p.dev())
}

// Quiet returns for how long a peer that owes blocks has sent none.
func (p *Pipe) Quiet(now time.Time) time.Duration {
	if p.outstanding == 0 {
		return 0
	}
	return now.Sub(p.spoke())
}

// Silent reports whether the peer has been quiet for so long that its blocks are
// better asked elsewhere. The 0.2 s are what BBR senders pause every 10 s: less
// would accuse healthy peers.
// A peer that has paused for longer before is given one and a half times as long, up to
// mostStall: on a line that loses packets most pauses end, and all that was asked
// elsewhere meanwhile would come twice.
func (p *Pipe) Silent(now time.Time) bool {
	return p.quietFor(now, max(200*time.Millisecond, secs(math.Min(1.5*p.stall, mostStall))))
}

// Pausing reports whether the peer is quiet for longer than it usually is.
func (p *Pipe) Pausing(now time.Time) bool { return p.Known() && p.quietFor(now, 50*time.Millisecond) }

func (p *Pipe) quietFor(now time.Time, slack time.Duration) bool {
	if p.outstanding == 0 {
		return false
	}
	allow := p.RTT() + max(slack, secs(1.5*p.gap)) + 3*p.block() + 4*p.dev()
	if !p.Known() {
		allow = p.RTT() + time.Second
	}
	return now.Sub(p.spoke()) > allow
}
