package fs

import (
	"context"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// request is the context of one FUSE request that may wait. It ends when the
// kernel interrupts the request, at the deadline, when the server goes away, or
// when the request is answered.
//
// A read that is answered from a cache never waits, so nothing that waiting needs
// (a timer, a goroutine for the interrupt) is made before somebody calls Done.
type request struct {
	fuse     context.Context // go-fuse's: knows the caller and the interrupt
	server   context.Context
	deadline time.Time // zero: none

	mu       sync.Mutex
	inner    context.Context // nil until somebody waits
	stop     context.CancelCauseFunc
	release  context.CancelFunc
	answered bool
}

func newRequest(ctx, server context.Context, timeout time.Duration) *request {
	r := &request{fuse: ctx, server: server}
	if timeout > 0 {
		r.deadline = time.Now().Add(timeout)
	}
	return r
}

func (r *request) Deadline() (time.Time, bool) { return r.deadline, !r.deadline.IsZero() }

func (r *request) Done() <-chan struct{} { return r.wait().Done() }

func (r *request) Err() error {
	if inner := r.current(); inner != nil {
		return inner.Err()
	}
	switch {
	case r.server.Err() != nil:
		return r.server.Err()
	case r.fuse.Err() != nil:
		return r.fuse.Err()
	case !r.deadline.IsZero() && !time.Now().Before(r.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value looks in the inner context first: there the context package finds what
// lets its own derived contexts end without a goroutine each.
func (r *request) Value(key any) any {
	if inner := r.current(); inner != nil {
		if v := inner.Value(key); v != nil {
			return v
		}
	}
	return r.fuse.Value(key)
}

// cause is why the request ended, nil if it did not.
func (r *request) cause() error {
	if inner := r.current(); inner != nil {
		return context.Cause(inner)
	}
	if cause := context.Cause(r.server); cause != nil {
		return cause
	}
	return r.Err()
}

func (r *request) current() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inner
}

// wait returns the inner context and makes it if need be.
func (r *request) wait() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inner != nil {
		return r.inner
	}
	r.inner, r.stop = context.WithCancelCause(r.server)
	r.release = func() {}
	if !r.deadline.IsZero() {
		r.inner, r.release = context.WithDeadline(r.inner, r.deadline)
	}
	if r.answered {
		r.stop(nil)
		return r.inner
	}
	go relay(r.inner, r.fuse.Done(), r.stop)
	return r.inner
}

// relay carries one interrupt into ctx. It ends with ctx, at the latest when the
// request is answered.
func relay(ctx context.Context, interrupt <-chan struct{}, stop context.CancelCauseFunc) {
	select {
	case <-interrupt:
		stop(context.Canceled)
	case <-ctx.Done():
	}
}

// finish is called when the request is answered.
func (r *request) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = true
	if r.inner != nil {
		r.stop(nil)
		r.release()
	}
}

// Pid returns the process that asked, for a context that a [Catalog] or a
// [Content] got from this package; 0 if it is not known.
func Pid(ctx context.Context) int {
	if caller, ok := fuse.FromContext(ctx); ok {
		return int(caller.Pid)
	}
	return 0
}
