package fetch

import (
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
)

// Who copies a folder, or searches it, reads one file after the other, in the order in which
// they lie in their torrent (the order of their names, mostly). To each file that is a new
// reading, and of a small one nothing is left to read ahead: every piece would be waited for,
// a round trip each. So the files that were read whole one after the other are a walk: from
// the third on it reads ahead across the ends of files like a stream across a file.
//
// A scanner that looks at heads reads no file whole, unless it is small, and then no more is
// ahead of it than twice what it has read.

const (
	walkAfter = 2               // files that were read whole
	walkGap   = 1 << 20         // bytes of padding, or of files left out, between two of them
	walkIdle  = 2 * time.Second // after which nothing is read ahead any more
)

// walk is the reading of files in order; an object has one.
type walk struct {
	stream
	file  extent.Extent // that is being read
	whole int           // files that were read whole, in a row
	done  bool          // so was this one
}

// walked notes that at, of a file, was read by somebody.
func (st *state) walked(o *object, id cache.ReaderID, file extent.Extent, d cache.Demand, now time.Time) {
	w := &o.walk
	at := d.At
	if file != w.file {
		gap := file.Off - w.file.End()
		follows := w.done && gap >= 0 && gap <= walkGap && at.Off == file.Off
		if !follows {
			st.rest(o, now)
			*w = walk{stream: stream{reader: id, pos: file.Off, last: now}}
		}
		w.file, w.done = file, false
		w.pos = max(w.pos, file.Off)
	}
	if at.Off > w.pos+slackGrown {
		// It looked somewhere else in it, so it is not read whole; unless it is complete: of
		// that only the end is told.
		if at.End() < file.End() || o.Object.PresentIn(file) < file.Len {
			return
		}
		w.pos = at.Off
	}
	w.touch(id, at, d.Hit, now, limits{unit: o.unit, most: st.most(o)})
	if at.End() >= file.End() && !w.done {
		w.done = true
		w.whole++
	}
	if w.whole >= walkAfter {
		st.walking[o] = struct{}{}
		st.claim(o, extent.Extent{Len: o.Object.Size}, &w.stream, now)
	}
}

// rest gives up what is read ahead of a walk.
func (st *state) rest(o *object, now time.Time) {
	st.release(o, &o.walk.stream, now)
	o.walk.whole = 0
	delete(st.walking, o)
}

// sweepWalks ends those that nobody goes on with; it returns when to come again, 0 = no need.
func (st *state) sweepWalks(now time.Time) (next time.Duration) {
	for o := range st.walking {
		left := o.walk.last.Add(walkIdle).Sub(now)
		if left <= 0 {
			st.rest(o, now)
			continue
		}
		if next == 0 || left < next {
			next = left
		}
	}
	return next
}
