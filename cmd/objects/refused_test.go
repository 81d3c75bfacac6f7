package objects

import (
	"context"
	"errors"
	iofs "io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btmount/btmount/fs/tree"
)

// Who asks after somebody waited in vain is told the same at once, for a moment; what was
// quick, was given up, or does not exist is asked again.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refused
		calls := 0
		look := func(ctx context.Context, name string, takes time.Duration, err error) (time.Duration, error) {
			began := time.Now()
			_, got := r.lookup(ctx, asked{7, "btfs", name}, func() (tree.Entry, error) {
				calls++
				time.Sleep(takes)
				return tree.Entry{}, err
			})
			return time.Since(began), got
		}
		late := errors.New("late")
		gaveUp, stop := context.WithCancel(t.Context())
		stop()
		for _, c := range []struct {
			name  string
			ctx   context.Context
			takes time.Duration
			err   error
			again bool
		}{
			{"late", t.Context(), 30 * time.Second, late, false},
			{"quick", t.Context(), time.Millisecond, late, true},
			{"absent", t.Context(), 30 * time.Second, iofs.ErrNotExist, true},
			{"given up", gaveUp, 30 * time.Second, context.Canceled, true},
			{"found", t.Context(), 30 * time.Second, nil, true},
		} {
			calls = 0
			_, _ = look(c.ctx, c.name, c.takes, c.err)
			took, err := look(c.ctx, c.name, c.takes, c.err)
			if (calls == 2) != c.again || !c.again && took != 0 || !errors.Is(err, c.err) {
				t.Errorf("%s: %d calls, %v, %v", c.name, calls, took, err)
			}
			time.Sleep(refusedFor)
			if _, _ = look(c.ctx, c.name, c.takes, c.err); c.again && calls != 3 || !c.again && calls != 2 {
				t.Errorf("%s: %d calls after a while", c.name, calls)
			}
		}
	})
}
