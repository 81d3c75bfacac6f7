package cache

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/btmount/btmount/cache/extent"
)

// Demand tells what one open file wants.
type Demand struct {
	Key  Key
	Span extent.Extent // the file, in the object's byte space
	At   extent.Extent // what was read just now, in the object's byte space; empty if only Needs changed
	Hit  bool          // At was in the cache
	// Needs are the reads of this open file that wait now.
	Needs []extent.Extent
}

// Source brings bytes that readers demand. Neither method blocks or fails.
type Source interface {
	// Demand replaces what reader id wants.
	Demand(id ReaderID, d Demand)
	// Withdraw forgets reader id: its file was closed.
	Withdraw(id ReaderID)
}

// notch is how far hits may run before the Source hears of them: far enough to
// cost nothing, near enough that read-ahead starts with the second read.
const notch = 256 << 10

// Reader is one open file. It is safe for concurrent use.
type Reader struct {
	id   ReaderID
	obj  *Object
	span extent.Extent
	src  Source

	mu    sync.Mutex
	needs []extent.Extent // reads that wait
	told  int64           // end of the last read that the Source heard of; -1 = none
	gone  bool

	backing *body // whose descriptor somebody has
}

// NewReader opens span of the object; misses go to src.
func (o *Object) NewReader(span extent.Extent, src Source) *Reader {
	r := &Reader{id: ReaderID(o.store.readers.Add(1)), obj: o, span: span, src: src, told: -1}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers[r] = struct{}{}
	return r
}

// ReadAt reads verified bytes of the file from off on. It waits until all of p is
// there, ctx ends, or the bytes can not be had; it returns less than len(p) only
// at the end of the file, with io.EOF.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: negative offset", r.obj.Key, off)
	}
	if off >= r.span.Len {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > r.span.Len-off {
		p, eof = p[:r.span.Len-off], io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	need := extent.Extent{Off: r.span.Off + off, Len: int64(len(p))}
	for first := true; ; first = false {
		ok, err := r.obj.readHit(p, need.Off)
		if err != nil {
			return 0, fmt.Errorf("read %s at %d: %w", r.obj.Key, off, err)
		}
		if ok {
			if first {
				r.hit(need)
			}
			return len(p), eof
		}
		if err := r.wait(ctx, need); err != nil {
			return 0, fmt.Errorf("read %s at %d: %w", r.obj.Key, off, err)
		}
	}
}

// hit tells the Source of a hit that moved far enough.
func (r *Reader) hit(at extent.Extent) {
	r.mu.Lock()
	if d := at.End() - r.told; r.told >= 0 && d >= 0 && d < notch && at.End() < r.span.End() {
		r.mu.Unlock()
		return
	}
	r.told = at.End()
	d := Demand{Key: r.obj.Key, Span: r.span, At: at, Hit: true, Needs: slices.Clone(r.needs)}
	gone := r.gone
	r.mu.Unlock()
	// A complete file has nothing to bring: of it the Source only hears that it was read.
	if !gone && (at.End() == r.span.End() || r.obj.PresentIn(r.span) < r.span.Len) {
		r.src.Demand(r.id, d)
	}
}

// lentWhole tells the Source of a file that is read without us that it is read: all of it, for
// all we know.
func (r *Reader) lentWhole() {
	r.src.Demand(r.id, Demand{Key: r.obj.Key, Span: r.span, At: r.span, Hit: true})
}

// wait parks the read until its units are present.
func (r *Reader) wait(ctx context.Context, need extent.Extent) error {
	w := r.obj.park(need)
	if w == nil {
		return nil
	}
	r.tell(need, true)
	select {
	case err := <-w.done:
		r.tell(need, false)
		return err
	case <-ctx.Done():
		r.obj.unpark(w)
		r.tell(need, false)
		return context.Cause(ctx)
	}
}

// tell adds or removes a waiting read and publishes the change.
func (r *Reader) tell(need extent.Extent, waits bool) {
	r.mu.Lock()
	d := Demand{Key: r.obj.Key, Span: r.span}
	if waits {
		r.needs = append(r.needs, need)
		d.At, r.told = need, need.End()
	} else if i := slices.Index(r.needs, need); i >= 0 {
		r.needs = slices.Delete(r.needs, i, i+1)
	}
	d.Needs = slices.Clone(r.needs)
	publish := !r.gone
	r.mu.Unlock()
	if publish {
		r.src.Demand(r.id, d)
	}
}

// park registers a waiter unless everything is present by now. Registration and
// the last look happen under one lock hold, so no Commit falls between them.
func (o *Object) park(need extent.Extent) *waiter {
	f, l := need.Units(o.Unit)
	w := &waiter{first: int(f), last: int(l), done: make(chan error, 1)}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.present.all(w.first, w.last) || o.suspect.any(w.first, w.last) {
		return nil
	}
	if o.closed {
		w.done <- context.Canceled
		return w
	}
	o.waiters[w] = struct{}{}
	return w
}

func (o *Object) unpark(w *waiter) {
	o.mu.Lock()
	delete(o.waiters, w)
	o.mu.Unlock()
}

// Close withdraws what the reader wants. Reads that wait end by their ctx.
func (r *Reader) Close() error {
	r.mu.Lock()
	gone, backing := r.gone, r.backing
	r.gone, r.backing = true, nil
	r.mu.Unlock()
	if backing != nil {
		backing.unlend()
		backing.release()
		r.obj.letGo(backing)
	}
	if !gone {
		r.obj.mu.Lock()
		delete(r.obj.readers, r)
		r.obj.mu.Unlock()
		r.src.Withdraw(r.id)
	}
	return nil
}
