package unixfs

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

const (
	width      = 16      // blocks of one read or listing that are asked for at a time
	maxPending = 1 << 17 // tasks of one crawl that wait
)

var errTooMany = fmt.Errorf("more than %d blocks are wanted at once; nobody makes blocks that small", maxPending)

// crawl visits tasks, and those that visits push, last in first out, so that what waits
// stays small where a tree is deep. Up to width are visited at a time, in goroutines that
// have ended when crawl returns. The first error ends all.
func crawl[T any](ctx context.Context, first []T, visit func(ctx context.Context, t T, push func(...T)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &crawler[T]{visit: visit, stack: slices.Clone(first), cancel: cancel}
	c.wake.L = &c.mu
	c.workers = 1 // a read of one leaf needs no other goroutine
	c.work(ctx)
	c.rest.Wait()
	return c.err
}

type crawler[T any] struct {
	visit  func(context.Context, T, func(...T)) error
	cancel context.CancelFunc
	rest   sync.WaitGroup

	mu      sync.Mutex
	wake    sync.Cond
	stack   []T
	active  int // visits that run
	workers int
	err     error
}

// work visits until there is nothing left and nobody could push more.
func (c *crawler[T]) work(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for c.err == nil && len(c.stack) == 0 && c.active > 0 {
			c.wake.Wait()
		}
		if c.err != nil || len(c.stack) == 0 {
			return
		}
		last := len(c.stack) - 1
		t := c.stack[last]
		c.stack = c.stack[:last]
		c.active++
		c.hireLocked(ctx)
		c.mu.Unlock()
		err := c.visit(ctx, t, c.push)
		c.mu.Lock()
		c.active--
		if err != nil && c.err == nil {
			c.err = err
			c.cancel()
		}
		c.hireLocked(ctx)
		c.wake.Broadcast()
	}
}

// hireLocked starts workers for what waits; they end with the crawl.
func (c *crawler[T]) hireLocked(ctx context.Context) {
	for ; c.err == nil && c.workers < width && c.workers-c.active < len(c.stack); c.workers++ {
		c.rest.Go(func() { c.work(ctx) })
	}
}

func (c *crawler[T]) push(t ...T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stack = append(c.stack, t...)
	if len(c.stack) > maxPending && c.err == nil {
		c.err = errTooMany
		c.cancel()
	}
}
