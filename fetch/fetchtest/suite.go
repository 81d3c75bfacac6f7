package fetchtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
)

// Rig is a Download under test, with the object that it fills and the bytes that
// should come. At least one source is honest.
type Rig struct {
	Download fetch.Download
	Object   *cache.Object
	Truth    []byte
}

// Run holds a Download to the contract of fetch.Download. make is called for each
// part and returns a fresh rig with nothing present.
func Run(t *testing.T, make func(t *testing.T) Rig) {
	t.Helper()
	t.Run("NilMeansPresent", func(t *testing.T) { nilMeansPresent(t, make(t)) })
	t.Run("Concurrent", func(t *testing.T) { concurrent(t, make(t)) })
	t.Run("CancelReturnsTheCause", func(t *testing.T) { cancelReturns(t, make(t)) })
	t.Run("OneWithdrawalOfTwo", func(t *testing.T) { oneOfTwo(t, make(t)) })
	t.Run("PresentIsImmediate", func(t *testing.T) { presentIsImmediate(t, make(t)) })
}

func (r Rig) fetch(t *testing.T, e extent.Extent, due time.Time) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return r.Download.Fetch(ctx, e, due)
}

// check compares bytes that must be present.
func (r Rig) check(t *testing.T, e extent.Extent) {
	t.Helper()
	p := make([]byte, e.Len)
	if err := r.Object.ReadPresent(p, e.Off); err != nil {
		t.Fatalf("%v after Fetch returned nil: %v", e, err)
	}
	if !bytes.Equal(p, r.Truth[e.Off:e.End()]) {
		t.Fatalf("%v: wrong bytes", e)
	}
}

func nilMeansPresent(t *testing.T, r Rig) {
	for _, e := range []extent.Extent{
		{Off: 0, Len: 1},
		{Off: r.Object.Size - 1, Len: 1},
		{Off: r.Object.Unit - 1, Len: 2}, // over a border
		{Off: 0, Len: r.Object.Size},
	} {
		if err := r.fetch(t, e, time.Now()); err != nil {
			t.Fatalf("%v: %v", e, err)
		}
		r.check(t, e)
	}
}

func concurrent(t *testing.T, r Rig) {
	var wg sync.WaitGroup
	for u := range r.Object.Units() {
		for range 2 { // the same unit twice
			wg.Go(func() {
				e := r.Object.UnitExtent(u)
				if err := r.fetch(t, e, time.Now().Add(time.Duration(u)*time.Millisecond)); err != nil {
					t.Errorf("unit %d: %v", u, err)
				}
			})
		}
	}
	wg.Wait()
	if !t.Failed() {
		r.check(t, extent.Extent{Len: r.Object.Size})
	}
}

func cancelReturns(t *testing.T, r Rig) {
	why := errors.New("seek")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := r.Download.Fetch(ctx, extent.Extent{Len: r.Object.Size}, time.Now()); err != nil && !errors.Is(err, why) {
		t.Fatalf("err = %v, want nil or the cause", err)
	}
	if err := r.fetch(t, extent.Extent{Len: 1}, time.Now()); err != nil {
		t.Fatalf("fetch after a withdrawn one: %v", err)
	}
}

func oneOfTwo(t *testing.T, r Rig) {
	e := r.Object.UnitExtent(r.Object.Units() - 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Download.Fetch(ctx, e, time.Now().Add(time.Hour)) }()
	other := make(chan error, 1)
	go func() { other <- r.fetch(t, e, time.Now()) }()
	cancel()
	<-done
	if err := <-other; err != nil {
		t.Fatalf("the call that stayed: %v", err)
	}
	r.check(t, e)
}

func presentIsImmediate(t *testing.T, r Rig) {
	e := extent.Extent{Len: 1}
	if err := r.fetch(t, e, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := r.fetch(t, e, time.Now()); err != nil {
		t.Fatal(err)
	}
}
