package swarm

import "time"

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
)

// push wants what lies behind an urgent want.
func (t *Torrent) push(w *want) {
	if !t.distant() {
		return
	}
	_, end := t.grid.of(t.grid.piece(w.last - 1))
	for u := w.last; u < min(end, w.last+int(pushAhead/t.grid.unit)); u++ {
		if t.grid.size(u) == 0 || len(t.wants[u]) > 0 || t.store.Known(u) {
			continue
		}
		more := &want{first: u, last: u + 1, missing: 1, due: t.clock.Add(pushFor), done: make(chan error, 1)}
		t.wants[u] = append(t.wants[u], more)
		t.pushed = append(t.pushed, more)
		t.pick(u)
	}
}

// distant reports whether some peer is far enough away for push.
func (t *Torrent) distant() bool {
	for c := range t.conns {
		if c.view.Pipe.RTT > pushRTT {
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
