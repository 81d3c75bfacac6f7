package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/source"
)

const (
	maxAnswer = 8 << 20  // bytes of one JSON answer
	maxLine   = 64 << 10 // bytes of one line of a stream of them
)

// What a node may answer, and what the user can do about it.
var (
	ErrSimpleMode = errors.New("your node runs in simple mode, where it has no wallet: storage cannot be rented and there are no cheques; start a node that was made without btfs init --simple-mode")
	ErrNoChain    = errors.New("your node does not reach its chain (BTTC), so it can neither price nor pay; check its network, and the RPC addresses in its config")
	ErrFunds      = errors.New("your node's vault holds too little for this; put more into it with btfs vault deposit")
	ErrNoClient   = errors.New("your node is not set up to rent: turn it on with btfs config --json Experimental.StorageClientEnabled true, and restart it")
	ErrNoHosts    = errors.New("your node knows no hosts that could store it; see btmount btfs node hosts, and btfs storage hosts sync")
	ErrTooMuch    = errors.New("its answer is longer than any that is right")
)

// known are parts of messages that mean one of them. The order matters: the first counts.
var known = []struct {
	part string
	err  error
}{
	{"simple mode", ErrSimpleMode},
	{"storage client api not enabled", ErrNoClient},
	{"storage client/host api not enabled", ErrNoClient},
	{"insufficient", ErrFunds},
	{"not enough balance", ErrFunds},
	{"could not connect all rpc", ErrNoChain},
	{"connection refused", ErrNoChain},
	{"no such host", ErrNoChain},
	{"network is unreachable", ErrNoChain},
	{"failed to find more valid hosts", ErrNoHosts},
	{"there are not enough locked", ErrNoHosts},
}

// UnknownCommandError is the answer of a node that has no such command: one that is older
// than go-btfs 4, one that still starts, or no node at all.
type UnknownCommandError struct{ Command string }

func (e *UnknownCommandError) Error() string {
	return fmt.Sprintf("it has no command %s (404); is it go-btfs 4, fully started, and is this the address of its RPC (most often http://127.0.0.1:5001)?", e.Command)
}

// Client asks one node. It is safe for use by several goroutines.
type Client struct {
	node  *source.Node
	quiet time.Duration
}

// New makes a client of the node at an address (http://host:port, with or without
// /api/v1). token is what its login gave, or "". A call is given up when nothing comes
// for quiet, which has to be above 0.
func New(address, token string, do source.Doer, quiet time.Duration) (*Client, error) {
	n, err := source.NewNode(address, token, do)
	if err != nil {
		return nil, err
	}
	return &Client{n, quiet}, nil
}

// Block brings a block from the node, verified, or gives up after the client's time.
func (c *Client) Block(ctx context.Context, id cid.Cid) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.quiet, &source.QuietError{For: c.quiet})
	defer cancel()
	b, err := c.node.Block(ctx, id, nil)
	if err != nil {
		err = fmt.Errorf("%s: block %s: %w", c.Name(), id, err)
	}
	return b, err
}

// Name is how the node is called in messages.
func (c *Client) Name() string { return c.node.Name() }

// Refused reports whether an error is the node's own word that it did not do what it was
// asked. Any other leaves that open: what stands before a node may say 502 when the node is
// still at work, and a node whose time is over may have done it.
func Refused(err error) bool {
	if u := (*UnknownCommandError)(nil); errors.As(err, &u) {
		return true
	}
	e := (*source.RefusedError)(nil)
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		return true
	case http.StatusInternalServerError, http.StatusBadRequest:
		return e.Said != "" && !strings.Contains(e.Said, "deadline exceeded") && !strings.Contains(e.Said, "context canceled")
	}
	return false
}

// call asks, and decodes one answer of JSON into the fields of v.
func (c *Client) call(ctx context.Context, v any, k source.Call) error {
	if k.Quiet == 0 {
		k.Quiet = c.quiet
	}
	r, err := c.node.Call(ctx, k)
	if err != nil {
		return c.explain(k.Command, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	switch {
	case err != nil:
		return c.explain(k.Command, err)
	case len(text) > maxAnswer:
		err = ErrTooMuch
	case v != nil:
		err = decode(text, v)
	}
	return c.explain(k.Command, err)
}

// decode reads JSON whose numbers stay exact.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("its answer is not what was asked for: %w", bare(err))
	}
	return nil
}

// bare is an error of package json without the names of our types, and without what it
// repeats of the text.
func bare(err error) error {
	if te := (*json.UnmarshalTypeError)(nil); errors.As(err, &te) {
		return fmt.Errorf("%.40q is a %.20s", te.Field, te.Value)
	}
	if se := (*json.SyntaxError)(nil); errors.As(err, &se) {
		return fmt.Errorf("no JSON, at byte %d", se.Offset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends in the middle")
	}
	return err
}

// explain says of an error whose it is and what can be done.
func (c *Client) explain(command string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	refused := (*source.RefusedError)(nil)
	if errors.As(err, &refused) {
		if refused.Status == http.StatusNotFound {
			return fmt.Errorf("%s: %w", c.Name(), &UnknownCommandError{command})
		}
		for _, k := range known {
			if strings.Contains(strings.ToLower(refused.Said), k.part) {
				return fmt.Errorf("%s: %w (%s: %w)", c.Name(), k.err, command, err)
			}
		}
	}
	return fmt.Errorf("%s: %s: %w", c.Name(), command, err)
}

// lines asks, and calls each for every line of the answer until that returns an error.
func (c *Client) lines(ctx context.Context, k source.Call, each func(line []byte) error) error {
	if k.Quiet == 0 {
		k.Quiet = c.quiet
	}
	r, err := c.node.Call(ctx, k)
	if err != nil {
		return c.explain(k.Command, err)
	}
	defer r.Close()
	s := newScanner(r)
	for s.Scan() {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		if err := each(s.Bytes()); err != nil {
			return c.explain(k.Command, err)
		}
	}
	return c.explain(k.Command, scanned(s.Err()))
}

func options(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}
