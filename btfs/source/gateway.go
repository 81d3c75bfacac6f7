package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/car"
	"github.com/btmount/btmount/btfs/unixfs"
)

const (
	typeRaw   = "application/vnd.ipld.raw"
	typeCAR   = "application/vnd.ipld.car"
	maxBefore = 16 // blocks of a CAR that come before the one that was asked for
)

// form is how a gateway sends blocks.
type form uint8

const (
	unknown form = iota
	formRaw
	formCAR
)

// Gateway is an HTTP gateway of BTFS.
type Gateway struct {
	base  *url.URL
	do    Doer
	stall time.Duration

	mu      sync.Mutex
	form    form
	probing chan struct{} // closed when the probe ends; nil if there is none
}

// NewGateway reads the address of a gateway, with or without /btfs at its end.
func NewGateway(address string, do Doer) (*Gateway, error) {
	u, err := base(address)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/btfs")
	return &Gateway{base: u, do: do, stall: stallAfter}, nil
}

// Name is how the gateway is called in messages.
func (g *Gateway) Name() string { return "gateway " + g.base.String() }

// Block brings a block, verified. Others that come with it, verified too, go to also.
func (g *Gateway) Block(ctx context.Context, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error) {
	f, settle, err := g.enter(ctx)
	switch {
	case err != nil:
		return nil, err
	case f == formRaw:
		return g.raw(ctx, c, false)
	case f == formCAR:
		return g.car(ctx, c, also)
	}
	b, err := g.raw(ctx, c, true)
	if err == nil {
		settle(formRaw)
		return b, nil
	}
	if no := (*noRawError)(nil); !errors.As(err, &no) {
		settle(unknown)
		return nil, err
	}
	b, carErr := g.car(ctx, c, also)
	if carErr != nil {
		settle(unknown)
		return nil, fmt.Errorf("%w; asked for a CAR, %w", err, carErr)
	}
	settle(formCAR)
	return b, nil
}

// enter tells how to ask. If nobody knows yet the caller finds out and settles it, and
// others wait for that.
func (g *Gateway) enter(ctx context.Context) (f form, settle func(form), err error) {
	for {
		g.mu.Lock()
		if g.form != unknown {
			defer g.mu.Unlock()
			return g.form, nil, nil
		}
		wait := g.probing
		if wait == nil {
			probing := make(chan struct{})
			g.probing = probing
			g.mu.Unlock()
			return unknown, func(f form) {
				g.mu.Lock()
				g.form, g.probing = f, nil
				g.mu.Unlock()
				close(probing)
			}, nil
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return unknown, nil, context.Cause(ctx)
		}
	}
}

// noRawError is an answer of those that cannot send single blocks.
type noRawError struct{ answer string }

func (e *noRawError) Error() string { return "it answers " + e.answer }

func (g *Gateway) get(ctx context.Context, c cid.Cid, query, accept string) (*answer, error) {
	a, err := ask(ctx, g.do, http.MethodGet, g.base.String()+"/btfs/"+c.String()+"?"+query, http.Header{"Accept": {accept}}, g.stall)
	if err != nil {
		return nil, err
	}
	switch a.StatusCode {
	case http.StatusOK:
		return a, nil
	case http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed, http.StatusGatewayTimeout:
		err = &AbsentError{status(a)}
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnsupportedMediaType, http.StatusInternalServerError, http.StatusNotImplemented:
		err = &noRawError{status(a)}
	default:
		err = errors.New("it answers " + status(a))
	}
	a.stop()
	return nil, err
}

// raw asks for a single block. A probe takes other bytes than the block's, which are not
// said to be it, for the answer of who does not know what it was asked for.
func (g *Gateway) raw(ctx context.Context, c cid.Cid, probe bool) ([]byte, error) {
	a, err := g.get(ctx, c, "format=raw", typeRaw)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	said := mediaType(a)
	if probe && said != typeRaw && a.ContentLength > block.MaxSize {
		return nil, &noRawError{said}
	}
	b, err := readBlock(a)
	switch {
	case errors.Is(err, block.ErrTooLarge) && probe && said != typeRaw:
		return nil, &noRawError{said}
	case err != nil:
		return nil, err
	}
	switch err := block.Verify(c, b); {
	case err == nil:
		return b, nil
	case said == typeRaw:
		return nil, &LyingError{fmt.Errorf("block %s: %w", c, err)}
	case probe:
		return nil, &noRawError{said}
	default:
		return nil, fmt.Errorf("it answers %s and no block", said)
	}
}

// mediaType is what an answer says to be.
func mediaType(a *answer) string {
	t, _, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || len(t) > 60 {
		return "something without a type"
	}
	return t
}

// car asks for a tree of blocks, and takes the first.
func (g *Gateway) car(ctx context.Context, c cid.Cid, also func(cid.Cid, []byte)) ([]byte, error) {
	a, err := g.get(ctx, c, "format=car&dag-scope=block", typeCAR+"; version=1")
	if err != nil {
		return nil, err
	}
	defer a.stop()
	if said := mediaType(a); said != typeCAR {
		return nil, fmt.Errorf("it answers %s: nothing that can be verified", said)
	}
	r, err := car.NewReader(a.body)
	if err != nil {
		return nil, err
	}
	for range maxBefore {
		id, b, err := r.Next()
		switch {
		case errors.Is(err, block.ErrWrongBytes):
			return nil, &LyingError{err}
		case err == io.EOF:
			return nil, errors.New("its CAR does not hold the block")
		case err != nil:
			return nil, err
		case block.Same(id, c):
			rest(r, c, b, also)
			return b, nil
		}
		also(id, b)
	}
	return nil, fmt.Errorf("its CAR does not begin with the block: %d others came", maxBefore)
}

// rest reads what comes below a block, if it is said to be little, and not more of it.
func rest(r *car.Reader, c cid.Cid, b []byte, also func(cid.Cid, []byte)) {
	n, err := unixfs.Decode(c, b)
	if err != nil {
		return
	}
	left := uint64(maxDrain)
	for _, l := range n.Links {
		if l.Size > left {
			return
		}
		left -= l.Size
	}
	for read := 0; read <= maxDrain; {
		id, b, err := r.Next()
		if err != nil {
			return // the end, or something that will be told when it is asked for
		}
		also(id, b)
		read += len(b)
	}
}
