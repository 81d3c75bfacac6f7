package webseed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	stallAfter = 20 * time.Second // without a byte
	maxRetry   = time.Hour
	maxSkip    = 1 << 20 // bytes read to get to those that are wanted
)

// RetryError says when the server wants to be asked again.
type RetryError struct {
	Status string
	After  time.Duration // 0 if it does not say
}

func (e *RetryError) Error() string { return "the server answers " + e.Status }

var (
	errRanges  = errors.New("the server has no ranges")
	errStalled = errors.New("the server stopped sending")
	errGone    = errors.New("the server does not have the file")
	errOther   = errors.New("the server has a file of another length")
	errIdle    = errors.New("nobody wants the rest")
	errRange   = errors.New("the server sends another range than it was asked for")
)

// body is an answer that streams; stop ends it.
type body struct {
	io.LimitedReader
	stop func()
}

const (
	maxDrain  = 256 << 10
	drainTime = 50 * time.Millisecond
)

// drain reads the little that nobody wants any more, if it comes at once: a connection
// whose answer was not read to its end can not be used again.
func (b *body) drain(cancel context.CancelCauseFunc) {
	if b.N > 0 && b.N <= maxDrain {
		defer time.AfterFunc(drainTime, func() { cancel(errIdle) }).Stop()
		_, _ = io.Copy(io.Discard, b)
	}
}

// watched notices that nothing comes.
type watched struct {
	r     io.Reader
	timer *time.Timer
	ctx   context.Context
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(stallAfter)
	n, err := w.r.Read(p)
	w.timer.Stop() // it may wait for who asks
	if err != nil && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

// get asks for n bytes of a file of size bytes.
func get(ctx context.Context, cfg *Config, url string, off, n, size int64) (*body, error) {
	return ask(ctx, cfg, url, n, func(req *http.Request) {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}, func(resp *http.Response) (int64, error) { return judge(resp, off, n, size) })
}

// ask sends a request; judge says how many bytes stand before the n that are wanted, or
// why there are none.
func ask(ctx context.Context, cfg *Config, url string, n int64, with func(*http.Request), judge func(*http.Response) (int64, error)) (*body, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallAfter, func() { cancel(errStalled) })
	fail := func(err error) (*body, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		timer.Stop()
		cancel(nil)
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fail(err)
	}
	with(req)
	req.Header.Set("Accept-Encoding", "identity") // package http would unpack it
	req.Header.Set("User-Agent", cfg.Agent)
	resp, err := cfg.Do(req)
	if err != nil {
		return fail(err)
	}
	skip, err := judge(resp)
	if err != nil {
		resp.Body.Close()
		return fail(err)
	}
	b := &body{LimitedReader: io.LimitedReader{R: &watched{resp.Body, timer, ctx}, N: skip + n}}
	b.stop = func() { b.drain(cancel); timer.Stop(); resp.Body.Close(); cancel(nil) }
	if _, err := io.CopyN(io.Discard, b, skip); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// judge returns how many bytes stand before the wanted ones, or why there are none.
func judge(resp *http.Response, off, n, size int64) (skip int64, err error) {
	switch c := resp.StatusCode; {
	case resp.Header.Get("Content-Encoding") != "" && c < 300:
		return 0, errRange
	case c == http.StatusPartialContent:
		first, last, total, ok := contentRange(resp.Header.Get("Content-Range"))
		switch {
		case !ok || first > off || off-first > maxSkip || last < off+n-1:
			return 0, errRange
		case total >= 0 && total != size:
			return 0, errOther
		}
		return off - first, nil
	case c == http.StatusOK:
		switch {
		case resp.ContentLength >= 0 && resp.ContentLength != size:
			return 0, errOther
		case off > maxSkip:
			return 0, errRanges
		}
		return off, nil
	case c == http.StatusForbidden || c == http.StatusNotFound || c == http.StatusGone:
		return 0, errGone
	case c == http.StatusRequestedRangeNotSatisfiable:
		return 0, errOther
	}
	return 0, retry(resp)
}

// contentRange reads "bytes 0-9/100"; total is -1 for "*".
func contentRange(s string) (first, last, total int64, ok bool) {
	unit, rest, _ := strings.Cut(s, " ")
	span, all, found := strings.Cut(strings.TrimSpace(rest), "/")
	a, b, dash := strings.Cut(span, "-")
	first, ok1 := number(a)
	last, ok2 := number(b)
	total, ok3 := int64(-1), all == "*"
	if !ok3 {
		total, ok3 = number(all)
	}
	ok = strings.EqualFold(unit, "bytes") && found && dash && ok1 && ok2 && ok3 && first <= last && (total < 0 || last < total)
	return first, last, total, ok
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil && s[0] != '+'
}

// retry is the error for an answer that has no content.
func retry(resp *http.Response) *RetryError {
	now, err := http.ParseTime(resp.Header.Get("Date")) // by the server's clock
	if err != nil {
		now = time.Now()
	}
	status := fmt.Sprint(resp.StatusCode, " ", http.StatusText(resp.StatusCode))
	return &RetryError{status, retryAfter(resp.Header.Get("Retry-After"), now)}
}

// retryAfter reads seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if at, err := http.ParseTime(s); err == nil {
		return max(0, min(at.Sub(now), maxRetry))
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetry)
}
