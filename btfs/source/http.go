package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/btmount/btmount/btfs/block"
)

// Doer sends requests and follows redirects. It decides whom to connect to: what a server
// redirects to must not be nearer to us than that server is. Its errors do not repeat the
// URL, which may hold a token.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
}

const (
	stallAfter = 5 * time.Second // in which stallBytes have to come, or the rest
	stallBytes = 16 << 10
	maxDrain   = 256 << 10 // that are read to keep a connection
)

var (
	errStalled = errors.New("it stopped sending")
	errCoded   = errors.New("it sends compressed bytes, which were not asked for")
)

// AbsentError is the answer of a source that does not have a block.
type AbsentError struct{ Answer string }

func (e *AbsentError) Error() string { return "it does not have the block (" + e.Answer + ")" }

// LyingError is the answer of a source that sent other bytes than it said.
type LyingError struct{ Err error }

func (e *LyingError) Error() string { return "it lies: " + e.Err.Error() }
func (e *LyingError) Unwrap() error { return e.Err }

// CheckAddress tells what is wrong with the address of a source. It does not repeat it.
func CheckAddress(text string) error {
	_, err := base(text)
	return err
}

// base reads the address of a source.
func base(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("give an address that begins with http:// or https://")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("give it without user, password and query, which others could see")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// answer is a response whose body ends with an error when it stalls.
type answer struct {
	*http.Response
	body io.Reader
	stop func()
}

// ask sends a request. Whoever gets an answer stops it.
func ask(ctx context.Context, do Doer, method, address string, header http.Header, stall time.Duration) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		cancel(nil)
		return nil, errors.New("no request can be made of its address")
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity") // package http would unpack it, however large
	resp, err := do.Do(req)
	if err != nil {
		err = cause(ctx, err)
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	a := &answer{Response: resp, body: &watched{ctx: ctx, r: resp.Body, timer: timer, stall: stall}}
	a.stop = func() { timer.Stop(); cancel(nil); resp.Body.Close() }
	if resp.Header.Get("Content-Encoding") != "" {
		a.stop()
		return nil, errCoded
	}
	return a, nil
}

// cause is why a request failed, without what package http repeats.
func cause(ctx context.Context, err error) error {
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	if c := context.Cause(ctx); c != nil {
		return c
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("cannot connect: %w; check the address", op.Err)
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it hung up")
	}
	return err
}

// watched notices that too little comes.
type watched struct {
	ctx   context.Context
	r     io.Reader
	timer *time.Timer
	stall time.Duration
	n     int
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.n += n; w.n >= stallBytes {
		w.n = 0
		w.timer.Reset(w.stall)
	}
	if err != nil && err != io.EOF {
		err = cause(w.ctx, err)
	}
	return n, err
}

// readBlock reads a body that is one block, and not more of it than a block has.
func readBlock(a *answer) ([]byte, error) {
	if a.ContentLength > block.MaxSize {
		return nil, block.ErrTooLarge
	}
	b, err := io.ReadAll(io.LimitReader(a.body, block.MaxSize+1))
	if err == nil && len(b) > block.MaxSize {
		err = block.ErrTooLarge
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it hung up in the middle")
	}
	return b, err
}

// status is the answer without content, in words.
func status(a *answer) string {
	return strings.TrimSpace(fmt.Sprint(a.StatusCode, " ", http.StatusText(a.StatusCode)))
}
