package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/holiman/uint256"

	"github.com/btmount/btmount/wallet"
)

const (
	maxAnswer = 1 << 20 // bytes of an answer
	maxSaid   = 200     // bytes of what a node says that are repeated
	timeout   = 10 * time.Second
)

// rpcError is what a node answers instead of a result.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return fmt.Sprintf("it says: %s (%d)", said(e.Message), e.Code) }

// said makes what a stranger says fit to be shown.
func said(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "…"
	}
	return s
}

var (
	errAnswer = errors.New("its answer is not understood")
	errNone   = errors.New("it has no such thing") // a result of null
)

// node is one endpoint. It holds no connection of its own: the transport's are shared.
type node struct {
	url, name string // the name has no path: there may be a key in it
	http      *http.Client
}

func newNode(address string, t http.RoundTripper) *node {
	u, _ := url.Parse(address) // checkURL has been there
	return &node{address, u.Host, &http.Client{Transport: t, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it redirects") // with what we asked, to wherever it likes
	}}}
}

// call asks one question. result is decoded from an answer of at most maxAnswer bytes.
func (n *node) call(ctx context.Context, result any, method string, params ...any) error {
	err := n.ask(ctx, result, method, params)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // its URL may hold a key
		}
		return fmt.Errorf("%s: %s: %w", n.name, method, err)
	}
	return nil
}

func (n *node) ask(ctx context.Context, result any, method string, params []any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return err
	case len(text) > maxAnswer:
		return fmt.Errorf("%w: it is over %d bytes", errAnswer, maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	return decode(text, result)
}

// decode reads an answer.
func decode(text []byte, result any) error {
	var a struct {
		ID     json.RawMessage `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *rpcError       `json:"error"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return errAnswer
	}
	switch {
	case a.Error != nil:
		return a.Error
	case string(a.ID) != "1" || len(a.Result) == 0:
		return errAnswer
	case string(a.Result) == "null":
		return errNone
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return errAnswer
	}
	return nil
}

// quantity is a number as JSON-RPC has it, 0x and hexadecimal digits, of 256 bits.
type quantity struct{ wallet.Amount }

var quantities = regexp.MustCompile(`^"0x(0|[1-9a-fA-F][0-9a-fA-F]*)"$`)

const maxQuantity = len(`"0x"`) + 64 // bytes

func (q *quantity) UnmarshalJSON(b []byte) (err error) {
	if len(b) > maxQuantity || !quantities.Match(b) {
		return errAnswer
	}
	n, err := uint256.FromHex(strings.ToLower(string(b[1 : len(b)-1])))
	if err == nil {
		q.Amount, err = wallet.FromBig(n.ToBig())
	}
	return err
}

// small is a number of 64 bits.
type small uint64

func (s *small) UnmarshalJSON(b []byte) error {
	if len(b) > maxQuantity || !quantities.Match(b) {
		return errAnswer
	}
	n, err := strconv.ParseUint(string(b[3:len(b)-1]), 16, 64)
	*s = small(n)
	return err
}

func hexOf(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }
