// Package crawl visits trees whose nodes come slowly, many at a time: blocks of a file that
// are read, shards of a directory that is listed, files that are fetched.
package crawl

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Limits of one crawl.
type Limits struct {
	Width   int // tasks that are visited at a time
	Pending int // tasks that wait
}

// TooManyError says that more tasks wait than may.
type TooManyError struct{ Limit int }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("more than %d parts are wanted at once; that is more than anybody needs", e.Limit)
}

// Run visits tasks, and those that visits push, last in first out, so that what waits
// stays small where a tree is deep. Up to Width are visited at a time, in goroutines that
// have ended when Run returns. The first error ends all.
func Run[T any](ctx context.Context, limits Limits, first []T, visit func(ctx context.Context, t T, push func(...T)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &crawler[T]{limits: limits, visit: visit, stack: slices.Clone(first), cancel: cancel}
	c.wake.L = &c.mu
	c.workers = 1 // a read of one leaf needs no other goroutine
	c.work(ctx)
	c.rest.Wait()
	return c.err
}

type crawler[T any] struct {
	limits Limits
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
	for ; c.err == nil && c.workers < c.limits.Width && c.workers-c.active < len(c.stack); c.workers++ {
		c.rest.Go(func() { c.work(ctx) })
	}
}

func (c *crawler[T]) push(t ...T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stack = append(c.stack, t...)
	if len(c.stack) > c.limits.Pending && c.err == nil {
		c.err = &TooManyError{c.limits.Pending}
		c.cancel()
	}
}
