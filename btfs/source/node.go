package source

import (
	"context"
	"fmt"
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
	a, err := ask(ctx, n.do, http.MethodPost, n.address("block/get", q), nil, n.stall)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	if err := n.elsewhere(a); err != nil {
		return nil, err
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

// address is where a command is asked for. Nothing else has the token in it.
func (n *Node) address(command string, q url.Values) string {
	if n.token != "" {
		q.Set("token", n.token)
	}
	return n.base.String() + "/api/v1/" + command + "?" + q.Encode()
}

// elsewhere returns an error if another server answered.
func (n *Node) elsewhere(a *answer) error {
	if a.Request != nil && a.Request.URL.Host != n.base.Host {
		return fmt.Errorf("it sends to %s; give that address", n.clean(a.Request.URL.Host))
	}
	return nil
}

// refusal makes an error of an answer to a question for a block.
func (n *Node) refusal(a *answer) error {
	e := n.refused(a)
	if e.Status == http.StatusInternalServerError && (strings.Contains(e.Said, "not found") || strings.Contains(e.Said, "deadline exceeded")) {
		return &AbsentError{e.Said}
	}
	return e
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
