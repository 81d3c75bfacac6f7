package swarm

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/picker"
)

// Fetch implements fetch.Download: it returns nil when every unit that e touches
// is verified and committed.
func (t *Torrent) Fetch(ctx context.Context, e extent.Extent, due time.Time) error {
	c := t.served.Load()
	if c == nil {
		return errors.New("metadata not yet known")
	}
	first, last := e.Clip(extent.Extent{Len: c.info.Length}).Units(c.grid.unit)
	w := &want{first: int(first), last: int(last), due: due, done: make(chan error, 1)}
	if !t.post(func() { t.want(w) }) {
		return t.stopped()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		t.post(func() { t.unwant(w) })
		return context.Cause(ctx)
	case <-t.gone:
		return t.stopped()
	}
}

// stopped returns why Run ended, if it is more than that someone wished it.
func (t *Torrent) stopped() error {
	if f := (*FaultError)(nil); errors.As(t.ended, &f) {
		return f
	}
	return errStopped
}

var errStopped = errors.New("torrent stopped")

// want registers a Fetch call and asks for what it misses at once.
func (t *Torrent) want(w *want) {
	if t.store == nil {
		w.finish(errors.New("metadata not yet known"))
		return
	}
	w.class = picker.Ahead
	if !w.due.After(t.clock) {
		w.class = picker.Urgent
	}
	t.pins.read = t.clock
	fresh := false
	for p := w.first; p < w.last; p++ {
		if t.grid.size(p) == 0 || t.store.Known(p) {
			continue
		}
		piece := t.grid.piece(p)
		if f := t.failures[piece]; f != nil && t.hopeless(piece, f) {
			t.unwantPieces(w)
			w.finish(&CorruptError{Hash: t.hash, Piece: piece})
			return
		}
		w.missing++
		t.wants[p] = append(t.wants[p], w)
		fresh = t.pick(p) || fresh
	}
	if w.missing == 0 {
		w.finish(nil)
		return
	}
	if w.class == picker.Urgent && t.hashes != nil {
		t.push(w)
	}
	if t.complete() {
		t.recount() // pieces were evicted since
	}
	t.fresh = t.fresh || fresh
	for p := w.first; p < w.last && t.hashes != nil; p++ {
		t.hashes.hurry(p)
	}
}

// pick brings the picker in line with who wants unit p; true if that makes it more urgent.
func (t *Torrent) pick(p int) bool {
	due, class := time.Time{}, picker.Background
	for _, w := range t.wants[p] {
		class = max(class, w.class)
		if due.IsZero() || w.due.Before(due) {
			due = w.due
		}
	}
	if old := t.picks.Find(p); old != nil {
		if old.Due.Equal(due) && old.Class == class {
			return false
		}
		sooner := due.Before(old.Due) || class > old.Class
		t.picks.Want(p, old.Size, due, class, nil)
		return sooner
	}
	if i := slices.Index(t.parked, p); i >= 0 {
		t.parked = slices.Delete(t.parked, i, i+1)
	}
	here := func(b int) bool { return t.grid.padded(p, b) }
	if a := t.flying.find(p); a != nil {
		here = a.here
	}
	t.picks.Want(p, t.grid.size(p), due, class, here)
	if t.hashes != nil {
		t.hashes.need(p)
	}
	return true
}

// unwant withdraws a Fetch call; units that nobody else wants are cancelled.
func (t *Torrent) unwant(w *want) {
	t.unwantPieces(w)
	t.fresh = true // the room goes to what is wanted
}

func (t *Torrent) unwantPieces(w *want) {
	for p := w.first; p < w.last; p++ {
		i := slices.Index(t.wants[p], w)
		if i < 0 {
			continue
		}
		if t.wants[p] = slices.Delete(t.wants[p], i, i+1); len(t.wants[p]) > 0 {
			t.pick(p)
		} else {
			delete(t.wants, p)
			t.unpick(p)
		}
		if t.hashes != nil {
			t.hashes.unwanted(p)
		}
	}
}

// unpick stops asking for a unit. What has come of it is kept for a while: seeks
// come back.
func (t *Torrent) unpick(p int) {
	for c, blocks := range t.owners(t.picks.Unwant(p)) {
		c.cancel(p, func(b int) int { return t.grid.blockSize(p, b) }, blocks...)
	}
	if t.flying.find(p) == nil {
		return
	}
	t.parked = append(t.parked, p)
	for len(t.parked) > max(maxPark, int((16<<20)/t.grid.unit)) {
		t.abandon(t.parked[0])
		t.parked = t.parked[1:]
	}
}

// abandon gives up a unit on its way. One that was committed just now stays: the
// message about it is in the mailbox.
func (t *Torrent) abandon(p int) {
	if a := t.flying.find(p); a != nil && !a.stop() {
		t.flying.drop(p)
		t.store.Abandon(p)
	}
}

// owners maps the picker's peers back to connections.
func (t *Torrent) owners(m map[*picker.Peer][]int) map[*conn][]int {
	out := make(map[*conn][]int, len(m))
	for c := range t.conns {
		if b := m[&c.view]; b != nil {
			out[c] = b
		}
	}
	return out
}
