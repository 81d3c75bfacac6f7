package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// Client asks the daemon that has a state folder. Its methods return when ctx ends, and what was
// asked for ends then too.
type Client struct {
	dir  string
	http *http.Client
}

// maxLine bounds a line of an answer: the status of a hundred thousand torrents fits.
const maxLine = 256 << 20

// NewClient returns a client for the daemon of a state folder; it calls nobody yet.
func NewClient(dir string) *Client {
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
	}}}
}

// CacheStatus tells how full the cache is, and of what.
func (c *Client) CacheStatus(ctx context.Context) (CacheStatus, error) {
	return ask[CacheStatus](ctx, c, http.MethodGet, "/v1/cache", nil, nil)
}

// Pin pins what matches patterns.
func (c *Client) Pin(ctx context.Context, r PinRequest, report func(Progress)) (PinResult, error) {
	return ask[PinResult](ctx, c, http.MethodPost, "/v1/cache/pin", r, report)
}

// Unpin takes patterns back.
func (c *Client) Unpin(ctx context.Context, r UnpinRequest) (PinResult, error) {
	return ask[PinResult](ctx, c, http.MethodPost, "/v1/cache/unpin", r, nil)
}

// Evict frees what is not in use.
func (c *Client) Evict(ctx context.Context, r EvictRequest) (EvictResult, error) {
	return ask[EvictResult](ctx, c, http.MethodPost, "/v1/cache/evict", r, nil)
}

// Verify hashes what is on disk.
func (c *Client) Verify(ctx context.Context, r VerifyRequest, report func(Progress)) (VerifyResult, error) {
	return ask[VerifyResult](ctx, c, http.MethodPost, "/v1/cache/verify", r, report)
}

// Limit changes limits, or tells them.
func (c *Client) Limit(ctx context.Context, r LimitRequest) (LimitResult, error) {
	return ask[LimitResult](ctx, c, http.MethodPost, "/v1/cache/limit", r, nil)
}

// ask sends one request and reads the lines of its answer.
func ask[T any](ctx context.Context, c *Client, method, path string, body any, report func(Progress)) (result T, err error) {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return result, err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+Host+path, sent)
	if err != nil {
		return result, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return result, c.absent(ctx, err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(io.LimitReader(resp.Body, maxLine))
	for {
		var l line[T]
		err := lines.Decode(&l)
		switch {
		case ctx.Err() != nil:
			return result, context.Cause(ctx)
		case err != nil && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed):
			return result, errors.New("the btmount that runs is of another version, which can not do this; start it again")
		case err != nil:
			return result, fmt.Errorf("the btmount with state folder %s ended before it had answered (%w); see whether it still runs", c.dir, err)
		case l.Error != "":
			return result, errors.New(l.Error)
		case l.Result != nil:
			return *l.Result, nil
		case l.Progress != nil && report != nil:
			report(*l.Progress)
		}
	}
}

// absent says why nobody answers.
func (c *Client) absent(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("no btmount runs with state folder %s; start one with btmount mount, or name its folder with --state-dir", c.dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the btmount with state folder %s is of another user; ask as that user or as root", c.dir)
	}
	return fmt.Errorf("the btmount with state folder %s does not answer: %w; see whether it still runs", c.dir, bare(err))
}
