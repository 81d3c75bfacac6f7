package fetch

import (
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
)

const (
	// maxStreams bounds the streams kept for one file; the longest untouched goes.
	maxStreams = 8
	// slackBack and the slacks ahead say how far from its expected offset a read
	// still continues a stream: the kernel reads ahead in windows, several threads
	// overtake each other, and hits are reported every 256 KiB only.
	slackBack  = 512 << 10
	slackFresh = 160 << 10
	slackGrown = 1 << 20
	// rateMemory is the time over which the speed of a reader is averaged.
	rateMemory = 2 * time.Second
)

// stream is one sequential reading of a file.
type stream struct {
	reader cache.ReaderID // who touched it last
	pos    int64          // next offset expected, in the object's byte space
	run    int64          // bytes read in a row
	ahead  int64          // read-ahead window beyond pos, bytes
	last   time.Time      // last touch
	asleep bool           // its reader went elsewhere: nothing is fetched ahead
	missed bool           // its last read had to wait
	shared bool           // it woke again after that: readers alternate, let both be
	speed  meter

	lo, hi int // units claimed
}

// meter averages a rate over rateMemory, weighting recent time more.
type meter struct {
	bytes, secs float64
}

func (m *meter) add(n int64, dt time.Duration) {
	keep := float64(rateMemory) / float64(rateMemory+dt)
	m.bytes = m.bytes*keep + float64(n)
	m.secs = m.secs*keep + dt.Seconds()
}

// rate returns bytes per second, 0 if unknown.
func (m *meter) rate() float64 {
	if m.secs <= 0 {
		return 0
	}
	return m.bytes / m.secs
}

// streams are the sequential readings of one file.
type streams []*stream

// match returns the stream that a read of at continues, nil if it begins a new one.
func (s streams) match(at extent.Extent) *stream {
	var best *stream
	bestGap := int64(0)
	for _, st := range s {
		gap := at.Off - st.pos
		ahead := int64(slackFresh)
		if st.ahead > 0 {
			ahead = slackGrown
		}
		if gap > ahead || -gap > slackBack {
			continue
		}
		if gap < 0 {
			gap = -gap
		}
		if best == nil || gap < bestGap {
			best, bestGap = st, gap
		}
	}
	return best
}

// limits bound read-ahead.
type limits struct {
	unit int64 // unit length
	most int64 // the largest window now
}

// touch advances st by a read of at, which was a hit or had to wait.
func (st *stream) touch(id cache.ReaderID, at extent.Extent, hit bool, now time.Time, l limits) {
	st.reader = id
	if st.asleep {
		st.asleep, st.shared = false, true
	}
	n := at.End() - st.pos
	if n <= 0 {
		st.last = now
		return // a read again of what it has had
	}
	if !st.missed {
		// Time that it waited for us says how fast we are, not how fast it reads.
		st.speed.add(n, now.Sub(st.last))
	}
	st.missed = !hit
	st.pos, st.last = at.End(), now
	st.run += n
	st.ahead = min(l.most, max(2*l.unit, 2*st.run))
}

// begin adds a stream that starts with a read of at, and puts the others of the same
// reader to sleep: it went elsewhere. It returns the stream that made room, if any.
func (s *streams) begin(id cache.ReaderID, at extent.Extent, now time.Time) (dropped *stream) {
	for _, other := range *s {
		if other.reader == id && !other.shared {
			other.asleep = true
		}
	}
	st := &stream{reader: id, pos: at.End(), run: at.Len, last: now, missed: true}
	if len(*s) == maxStreams {
		oldest := 0
		for i, other := range *s {
			if other.last.Before((*s)[oldest].last) {
				oldest = i
			}
		}
		dropped = (*s)[oldest]
		(*s)[oldest] = st
		return dropped
	}
	*s = append(*s, st)
	return nil
}

// window returns the units that st wants ahead, clipped to the file.
func (st *stream) window(file extent.Extent, unit int64) (lo, hi int) {
	if st.asleep || st.ahead == 0 {
		return 0, 0
	}
	f, l := extent.Extent{Off: st.pos, Len: st.ahead}.Clip(file).Units(unit)
	return int(f), int(l)
}

// due returns when st will read offset off, given the rate of the swarm in case
// that its own is not known yet.
func (st *stream) due(off int64, now time.Time, swarm float64) time.Time {
	rate := st.speed.rate()
	if rate < 64<<10 {
		rate = max(swarm, 1<<20)
	}
	d := float64(max(0, off-st.pos)) / rate
	return now.Add(time.Duration(min(d, 3600) * float64(time.Second)))
}
