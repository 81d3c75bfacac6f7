package crawl

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// grow is a tree: a task n has two below it, of n-1.
func grow(visits, most *atomic.Int64) func(context.Context, int, func(...int)) error {
	var active atomic.Int64
	return func(ctx context.Context, n int, push func(...int)) error {
		visits.Add(1)
		most.Store(max(most.Load(), active.Add(1)))
		defer active.Add(-1)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		if n > 0 {
			push(n-1, n-1)
		}
		return nil
	}
}

func TestRun(t *testing.T) {
	for _, width := range []int{1, 3, 16, 1000} {
		synctest.Test(t, func(t *testing.T) {
			var visits, most atomic.Int64
			start := time.Now()
			if err := Run(t.Context(), Limits{width, 1000}, []int{7}, grow(&visits, &most)); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if visits.Load() != 255 || most.Load() > int64(width) {
				t.Errorf("width %d: %d visits, %d at a time", width, visits.Load(), most.Load())
			}
			if floor := time.Duration(255/width) * time.Second; took < max(floor, 8*time.Second) || took > floor+9*time.Second {
				t.Errorf("width %d: it took %v", width, took)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		var visits, most atomic.Int64
		visit := grow(&visits, &most)
		err := Run(t.Context(), Limits{4, 1000}, []int{20}, func(ctx context.Context, n int, push func(...int)) error {
			if n == 10 {
				return broken
			}
			return visit(ctx, n, push)
		})
		if !errors.Is(err, broken) || visits.Load() > 200 {
			t.Error(err, visits.Load())
		}
		err = Run(t.Context(), Limits{4, 50}, []int{100}, visit)
		if !errors.As(err, new(*TooManyError)) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		if err := Run(ctx, Limits{4, 1000}, []int{20}, visit); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := Run(t.Context(), Limits{4, 1}, nil, visit); err != nil {
			t.Error(err)
		}
	})
}
