package fs

import (
	"context"
	"sync"
	"time"
)

// repeatAfter is when a change is told a second time. A LOOKUP that was answered
// from before the change may reach the kernel after the first notification, and
// would be believed for an hour. By then it has long arrived. A change is repeated
// after one to two times this long.
const repeatAfter = time.Second

// notifier carries changes of the catalog to the kernel. The catalog's side only
// appends to a queue: telling the kernel waits for requests in the same directory,
// and those may wait for the catalog.
type notifier struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	queue []Change
}

func newNotifier() *notifier { return &notifier{wake: make(chan struct{}, 1)} }

// add takes a change from the catalog.
func (q *notifier) add(c Change) {
	q.mu.Lock()
	q.queue = append(q.queue, c)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *notifier) take() []Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	queue := q.queue
	q.queue = nil
	return queue
}

// run tells changes until ctx ends.
func (q *notifier) run(ctx context.Context, tell func(Change)) {
	var recent, older []Change // told once: since the timer last rang, and before
	timer := time.NewTimer(repeatAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
			if len(recent)+len(older) == 0 {
				timer.Reset(repeatAfter)
			}
			for _, c := range q.take() {
				tell(c)
				recent = append(recent, c)
			}
		case <-timer.C:
			for _, c := range older {
				tell(c)
			}
			if older, recent = recent, nil; len(older) > 0 {
				timer.Reset(repeatAfter)
			}
		}
	}
}

// watched remembers a directory whose names the kernel may know from now on. It is
// called by the operations of a node and not when one is made, because go-fuse
// throws nodes away when two requests make the same one.
func (s *Server) watched(d *dirNode) {
	if d.changing {
		s.changing.LoadOrStore(d.id, d)
	}
}

// tell makes the kernel forget one name and the attributes of its directory. A
// directory that is not known to the kernel has nothing to forget. The error, if
// there is one, says that the kernel did not know the name.
func (s *Server) tell(c Change) {
	d, ok := s.changing.Load(c.Dir)
	if !ok {
		return
	}
	d.(*dirNode).NotifyEntry(c.Name)
	d.(*dirNode).NotifyContent(-1, 0) // a negative offset: attributes only
}
