package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
)

const (
	lookFor    = 30 * time.Second // if nobody says for how long
	maxMessage = 200
)

// Node is a BTFS node that is asked by RPC.
type Node struct {
	base  *url.URL
	token string
	do    Doer
	stall time.Duration
}

// NewNode reads the address of a node's RPC, with or without /api/v1 at its end. token is
// what its login gave, or "".
func NewNode(address, token string, do Doer) (*Node, error) {
	u, err := base(address)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/api/v1")
	return &Node{base: u, token: token, do: do, stall: stallAfter}, nil
}

// Name is how the node is called in messages.
func (n *Node) Name() string { return "node " + n.base.String() }

// Block brings a block, verified.
func (n *Node) Block(ctx context.Context, c cid.Cid, _ func(cid.Cid, []byte)) ([]byte, error) {
	look := lookFor
	if t, ok := ctx.Deadline(); ok {
		left := time.Until(t)
		look = max(left-min(left/10, time.Second), time.Second/2) // so that its answer comes in time
	}
	q := url.Values{"arg": {c.String()}, "timeout": {look.Truncate(time.Millisecond).String()}}
	if n.token != "" {
		q.Set("token", n.token)
	}
	a, err := ask(ctx, n.do, http.MethodPost, n.base.String()+"/api/v1/block/get?"+q.Encode(), nil, n.stall)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	if a.Request != nil && a.Request.URL.Host != n.base.Host {
		return nil, fmt.Errorf("it sends to %s; give that address", a.Request.URL.Host)
	}
	if a.StatusCode != http.StatusOK {
		return nil, n.refusal(a)
	}
	b, err := readBlock(a)
	if err != nil {
		return nil, err
	}
	if err := block.Verify(c, b); err != nil {
		return nil, &LyingError{fmt.Errorf("block %s: %w", c, err)}
	}
	return b, nil
}

// refusal makes an error of an answer. Of its body only the message of an error is read.
func (n *Node) refusal(a *answer) error {
	switch a.StatusCode {
	case http.StatusUnauthorized:
		if n.token != "" {
			return errors.New("it does not take the token (401); log in again and renew the file of --btfs-token-file")
		}
		return errors.New("it wants a token (401); give its address as Addresses.API in its config has it, or the token of its login with --btfs-token-file")
	case http.StatusInternalServerError:
		var e struct{ Message, Type string }
		text, err := io.ReadAll(io.LimitReader(a.body, 4<<10))
		if err != nil || json.Unmarshal(text, &e) != nil || e.Type != "error" {
			return errors.New("it answers " + status(a))
		}
		said := n.clean(e.Message)
		if strings.Contains(said, "not found") || strings.Contains(said, "deadline exceeded") {
			return &AbsentError{said}
		}
		return errors.New("it answers: " + said)
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden:
		return fmt.Errorf("it answers %s; give the address of a node's RPC, most often http://127.0.0.1:5001", status(a))
	}
	return errors.New("it answers " + status(a))
}

// clean makes a message fit for one line, and takes the token out of it.
func (n *Node) clean(s string) string {
	if n.token != "" {
		s = strings.ReplaceAll(s, n.token, "TOKEN")
		s = strings.ReplaceAll(s, url.QueryEscape(n.token), "TOKEN")
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}
