package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// streamError is the trailer in which go-btfs tells what went wrong after its answer had
// begun with 200 (StreamErrHeader of go-btfs-cmds).
const streamError = "X-Stream-Error"

// Call is one request to a node's RPC.
type Call struct {
	Command string // below /api/v1/, such as pin/add
	Args    []string
	Options url.Values
	Body    io.Reader     // nil for none; it is read once, and never after the reply was closed
	Type    string        // of the body, such as multipart/form-data
	Quiet   time.Duration // the node is given up when nothing goes to it and nothing comes for so long; 0: never
}

// QuietError says that a node answered nothing for as long as it was given.
type QuietError struct{ For time.Duration }

func (e *QuietError) Error() string {
	return fmt.Sprintf("nothing came from it for %v; it may hang, or need longer: see --btfs-node-timeout", e.For)
}

// RefusedError is an answer of a node that is no success.
type RefusedError struct {
	Status int    // of HTTP; 200 if it came at the end of a stream
	Said   string // the node's message, fit for one line; "" if it gave none
	text   string
}

func (e *RefusedError) Error() string { return e.text }

// Reply is the body of an answer with status 200. Its end is io.EOF only if the node says
// that all went well. Whoever gets one closes it.
type Reply struct {
	node  *Node
	resp  *http.Response
	timer *time.Timer
	quiet time.Duration
	ctx   context.Context
	stop  context.CancelCauseFunc
	sent  *touching
}

// Call sends a request. The body is written while the reply comes.
func (n *Node) Call(ctx context.Context, c Call) (*Reply, error) {
	ctx, stop := context.WithCancelCause(ctx)
	r := &Reply{node: n, quiet: c.Quiet, ctx: ctx, stop: stop}
	if c.Quiet > 0 {
		r.timer = time.AfterFunc(c.Quiet, func() { stop(&QuietError{c.Quiet}) })
	}
	var body io.Reader
	if c.Body != nil {
		r.sent = &touching{r: c.Body, touch: r.touch}
		body = r.sent
	}
	q := url.Values{}
	for k, v := range c.Options {
		q[k] = v
	}
	if len(c.Args) > 0 {
		q["arg"] = c.Args
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.address(c.Command, q), body)
	if err != nil {
		r.Close()
		return nil, errors.New("no request can be made of its address")
	}
	req.Header.Set("Accept-Encoding", "identity")
	if c.Type != "" {
		req.Header.Set("Content-Type", c.Type)
	}
	if r.resp, err = n.do.Do(req); err != nil {
		err = cause(ctx, err)
		r.Close()
		return nil, err
	}
	r.touch()
	if err := r.accept(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// accept returns an error unless the answer is the node's own, and a success.
func (r *Reply) accept() error {
	a := &answer{Response: r.resp, body: r}
	switch {
	case r.node.elsewhere(a) != nil:
		return r.node.elsewhere(a)
	case r.resp.Header.Get("Content-Encoding") != "":
		return errCoded
	case r.resp.StatusCode != http.StatusOK:
		return r.node.refused(a)
	}
	return nil
}

func (r *Reply) touch() {
	if r.timer != nil && r.ctx.Err() == nil {
		r.timer.Reset(r.quiet)
	}
}

// Read reads the body.
func (r *Reply) Read(p []byte) (int, error) {
	n, err := r.resp.Body.Read(p)
	if n > 0 {
		r.touch()
	}
	switch {
	case err == nil:
	case err != io.EOF:
		err = cause(r.ctx, err)
	case r.resp.Trailer.Get(streamError) != "":
		said := r.node.clean(r.resp.Trailer.Get(streamError))
		err = &RefusedError{Status: http.StatusOK, Said: said, text: "it answers: " + said}
	}
	return n, err
}

// Close lets go of the answer, and of the body that is sent.
func (r *Reply) Close() error {
	r.stop(nil)
	if r.timer != nil {
		r.timer.Stop()
	}
	if r.resp != nil {
		r.resp.Body.Close()
	}
	if r.sent != nil {
		r.sent.end()
	}
	return nil
}

// refused makes an error of an answer. Of its body only the message of an error is read.
func (n *Node) refused(a *answer) *RefusedError {
	e := &RefusedError{Status: a.StatusCode, text: "it answers " + status(a)}
	switch a.StatusCode {
	case http.StatusUnauthorized:
		e.text = "it wants a token (401); give its address as Addresses.API in its config has it, or the token of its login with --btfs-token-file"
		if n.token != "" {
			e.text = "it does not take the token (401); log in again and renew the file of --btfs-token-file"
		}
	case http.StatusInternalServerError, http.StatusBadRequest:
		var said struct{ Message, Type string }
		text, err := io.ReadAll(io.LimitReader(a.body, 4<<10))
		if err == nil && json.Unmarshal(text, &said) == nil && said.Type == "error" {
			e.Said = n.clean(said.Message)
			e.text = "it answers: " + e.Said
		}
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden:
		e.text += "; give the address of a node's RPC, most often http://127.0.0.1:5001"
	}
	return e
}
