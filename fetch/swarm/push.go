package swarm

import (
	"time"

	"github.com/btmount/btmount/fetch/swarm/picker"
)

// A read of few blocks, with no read-ahead behind it, takes two round trips of a path
// where one would do: libtorrent writes the head of a piece message and its block apart
// and leaves Nagle's algorithm on, so the kernel holds the end of the last block back
// until all before it is acknowledged. More data behind it would push it out. So a
// little more is wanted behind what someone waits for: not urgently, of the same piece
// only, and only where a round trip is long enough to matter. It is not waste: it is
// verified and kept, and is what the reader reads next, as a rule.
const (
	pushAhead = 128 << 10 // 64 KiB help some of the time only
	pushRTT   = 5 * time.Millisecond
	pushFor   = 2 * time.Second // then what has not come is not wanted any more
	// A read is several wants that come one after the other: what is pushed must not
	// stand in the peers' queues before the last of them.
	pushAfter = 2 * time.Millisecond
)

// push notes an urgent want.
func (t *Torrent) push(w *want) {
	if t.distant() {
		t.pushes = append(t.pushes, pushing{w.last, t.clock.Add(pushAfter)})
	}
}

// pushing is a unit, and when to want what begins there.
type pushing struct {
	unit int
	at   time.Time
}

// pushDue wants what lies behind urgent wants of some time ago.
func (t *Torrent) pushDue() {
	for len(t.pushes) > 0 && !t.clock.Before(t.pushes[0].at) {
		t.pushBehind(t.pushes[0].unit)
		t.pushes = t.pushes[1:]
	}
}

func (t *Torrent) pushBehind(last int) {
	_, end := t.grid.of(t.grid.piece(last - 1))
	for u := last; u < min(end, last+int(pushAhead/t.grid.unit)); u++ {
		if t.grid.size(u) == 0 || len(t.wants[u]) > 0 || t.store.Known(u) {
			continue
		}
		more := &want{first: u, last: u + 1, missing: 1, class: picker.Ahead, due: t.clock.Add(pushFor), done: make(chan error, 1)}
		t.wants[u] = append(t.wants[u], more)
		t.pushed = append(t.pushed, more)
		t.pick(u)
		t.fresh = true
	}
}

// distant reports whether some peer is far enough away for push.
func (t *Torrent) distant() bool {
	for c := range t.conns {
		if c.view.Pipe.RTT() > pushRTT {
			return true
		}
	}
	return false
}

// unpush gives up what was pushed some time ago and has not come.
func (t *Torrent) unpush() {
	for len(t.pushed) > 0 && t.clock.After(t.pushed[0].due) {
		t.unwantPieces(t.pushed[0])
		t.pushed = t.pushed[1:]
	}
}
