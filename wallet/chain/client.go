package chain

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/btmount/btmount/wallet"
)

// Errors of nodes.
var (
	ErrChain    = errors.New("it is of another chain")
	ErrStale    = errors.New("its head is old")
	ErrNoNode   = errors.New("no node can be used")
	ErrDisagree = errors.New("nodes disagree, so one of them lies or is behind; nothing was signed")
)

// Client asks the nodes of one chain. It starts no goroutine that outlives a call, and keeps
// nothing of what nodes said.
type Client struct {
	profile Profile
	nodes   []*node
	conns   *http.Transport
	now     func() time.Time
}

// NewClient makes a client; it asks nobody yet.
func NewClient(p Profile) (*Client, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	c := &Client{profile: p, now: time.Now, conns: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10}}
	for _, r := range p.RPC {
		c.nodes = append(c.nodes, newNode(r, c.conns))
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.conns.CloseIdleConnections() }

// Profile returns the chain's.
func (c *Client) Profile() Profile { return c.profile }

// NodeStatus is how one node is.
type NodeStatus struct {
	Node    string    `json:"node"`
	Chain   uint64    `json:"chain,omitempty"`
	Block   uint64    `json:"block,omitempty"`
	Time    time.Time `json:"time,omitzero"` // of its head
	Dynamic bool      `json:"dynamic_fee"`   // it has a base fee (EIP-1559)
	Err     string    `json:"error,omitempty"`
	err     error
}

// header is what we read of a block.
type header struct {
	Number  small       `json:"number"`
	Hash    common.Hash `json:"hash"`
	Time    small       `json:"timestamp"`
	BaseFee *quantity   `json:"baseFeePerGas"`
}

// View is what nodes could be used at one moment, and the block that all of them have.
type View struct {
	good   []*node
	Number uint64
	Nodes  []NodeStatus
}

// Usable is how many nodes could be used.
func (v View) Usable() int { return len(v.good) }

// Look asks every node for its chain and head. It fails with ErrNoNode if none can be used;
// the view then has the reasons.
func (c *Client) Look(ctx context.Context) (View, error) {
	v := View{Nodes: make([]NodeStatus, len(c.nodes))}
	var all sync.WaitGroup // each call ends with ctx or its timeout
	for i, n := range c.nodes {
		all.Go(func() { v.Nodes[i] = c.status(ctx, n) })
	}
	all.Wait()
	var errs []string
	for i, s := range v.Nodes {
		if s.err != nil {
			errs = append(errs, s.err.Error())
			continue
		}
		if len(v.good) == 0 || s.Block < v.Number {
			v.Number = s.Block
		}
		v.good = append(v.good, c.nodes[i])
	}
	if ctx.Err() != nil {
		return v, context.Cause(ctx)
	}
	if len(v.good) == 0 {
		return v, fmt.Errorf("%w: %s", ErrNoNode, strings.Join(errs, "; "))
	}
	return v, nil
}

func (c *Client) status(ctx context.Context, n *node) (s NodeStatus) {
	s.Node = n.name
	defer func() {
		if s.err != nil {
			s.Err = s.err.Error()
		}
	}()
	if s.Chain, s.err = c.chainID(ctx, n); s.err != nil {
		return s
	}
	var h header
	if s.err = n.call(ctx, &h, "eth_getBlockByNumber", "latest", false); s.err != nil {
		return s
	}
	if h.Time > 1<<40 {
		s.err = fmt.Errorf("%s: %w", n.name, errAnswer)
		return s
	}
	s.Block, s.Time, s.Dynamic = uint64(h.Number), time.Unix(int64(h.Time), 0).UTC(), h.BaseFee != nil
	most := time.Duration(c.profile.MaxHeadAge)
	if age := c.now().Sub(s.Time); age > most || age < -most {
		s.err = fmt.Errorf("%s: %w: of %s, or this machine's clock is wrong", n.name, ErrStale, s.Time.Format(time.DateTime))
	}
	return s
}

// chainID fails with ErrChain if the node is of another chain.
func (c *Client) chainID(ctx context.Context, n *node) (uint64, error) {
	var id small
	if err := n.call(ctx, &id, "eth_chainId"); err != nil {
		return 0, err
	}
	if uint64(id) != c.profile.ID {
		return uint64(id), fmt.Errorf("%s: %w: %d, and %s is %d", n.name, ErrChain, id, c.profile.Name, c.profile.ID)
	}
	return uint64(id), nil
}

// agree asks all nodes of a view the same. Who does not answer has no say; the others have to
// say the same.
func agree[T comparable](ctx context.Context, v View, what string, ask func(context.Context, *node) (T, error)) (T, error) {
	answers, errs := everyone(ctx, v, ask)
	var zero T
	if len(answers) == 0 {
		return zero, errors.Join(errs...)
	}
	first := answers[0]
	for _, a := range answers[1:] {
		if a.value != first.value {
			return zero, fmt.Errorf("%w: %s is %v by %s and %v by %s", ErrDisagree, what, first.value, first.node, a.value, a.node)
		}
	}
	return first.value, nil
}

type answer[T any] struct {
	node  string
	value T
}

// everyone asks all nodes of a view, at a time.
func everyone[T any](ctx context.Context, v View, ask func(context.Context, *node) (T, error)) (answers []answer[T], errs []error) {
	values, failed := make([]T, len(v.good)), make([]error, len(v.good))
	var all sync.WaitGroup // each call ends with ctx or its timeout
	for i, n := range v.good {
		all.Go(func() { values[i], failed[i] = ask(ctx, n) })
	}
	all.Wait()
	for i, n := range v.good {
		if failed[i] != nil {
			errs = append(errs, failed[i])
		} else {
			answers = append(answers, answer[T]{n.name, values[i]})
		}
	}
	return answers, errs
}

// Funds are what an account has at the block of a view.
type Funds struct {
	BTT   wallet.Amount `json:"btt"`
	WBTT  wallet.Amount `json:"wbtt"`
	Nonce uint64        `json:"nonce"` // transactions that it has sent
}

// String is for the error when nodes disagree.
func (f Funds) String() string {
	return fmt.Sprintf("%s, %s, nonce %d", f.BTT.In(wallet.BTT), f.WBTT.In(wallet.WBTT), f.Nonce)
}

// Funds asks what an account has; all nodes of the view have to agree.
func (c *Client) Funds(ctx context.Context, v View, a wallet.Address) (Funds, error) {
	return agree(ctx, v, "what "+a.Hex()+" has", func(ctx context.Context, n *node) (f Funds, err error) {
		var balance quantity
		var nonce small
		if err = n.call(ctx, &balance, "eth_getBalance", a, hexOf(v.Number)); err != nil {
			return f, err
		}
		if err = n.call(ctx, &nonce, "eth_getTransactionCount", a, hexOf(v.Number)); err != nil {
			return f, err
		}
		f.BTT, f.Nonce = balance.Amount, uint64(nonce)
		if c.profile.WBTT != nil {
			f.WBTT, err = c.uint(ctx, n, v, *c.profile.WBTT, call(balanceOf, word(a.Bytes())))
		}
		return f, err
	})
}

// uint calls a view function of a contract that returns a uint256.
func (c *Client) uint(ctx context.Context, n *node, v View, to wallet.Address, input []byte) (wallet.Amount, error) {
	var out hexutil.Bytes
	if err := n.call(ctx, &out, "eth_call", map[string]any{"to": to, "data": hexutil.Bytes(input)}, hexOf(v.Number)); err != nil {
		return wallet.Amount{}, err
	}
	if len(out) != 32 {
		return wallet.Amount{}, fmt.Errorf("%s: at %s is no such contract", n.name, to)
	}
	return wallet.FromBig(new(big.Int).SetBytes(out))
}

// pending is the most transactions of an account that any node knows of, those that wait
// included.
func (c *Client) pending(ctx context.Context, v View, a wallet.Address) (most uint64, err error) {
	answers, errs := everyone(ctx, v, func(ctx context.Context, n *node) (s small, err error) {
		return s, n.call(ctx, &s, "eth_getTransactionCount", a, "pending")
	})
	if len(answers) == 0 {
		return 0, errors.Join(errs...)
	}
	for _, a := range answers {
		most = max(most, uint64(a.value))
	}
	return most, nil
}

// median asks all nodes for an amount and takes the lower middle one, so one liar of three
// does not set it.
func median(ctx context.Context, v View, method string) (wallet.Amount, error) {
	answers, errs := everyone(ctx, v, func(ctx context.Context, n *node) (q quantity, err error) {
		return q, n.call(ctx, &q, method)
	})
	if len(answers) == 0 {
		return wallet.Amount{}, errors.Join(errs...)
	}
	slices.SortFunc(answers, func(a, b answer[quantity]) int { return a.value.Cmp(b.value.Amount) })
	return answers[(len(answers)-1)/2].value.Amount, nil
}

// WBTT checks that the profile's contract is an ERC-20 token of 18 decimals.
func (c *Client) checkWBTT(ctx context.Context, v View) error {
	if c.profile.WBTT == nil {
		return fmt.Errorf("the profile of %s names no WBTT contract", c.profile.Name)
	}
	d, err := agree(ctx, v, "decimals of WBTT", func(ctx context.Context, n *node) (wallet.Amount, error) {
		return c.uint(ctx, n, v, *c.profile.WBTT, call(decimals))
	})
	if err == nil && d != wallet.FromWei(18) {
		err = fmt.Errorf("%s is not WBTT: it has %s decimals", c.profile.WBTT, d)
	}
	return err
}

// The functions of ERC-20 and WETH9 that are called, by the first four bytes of the hash of
// their signature (Solidity ABI).
const (
	balanceOf = "70a08231" // balanceOf(address)
	transfer  = "a9059cbb" // transfer(address,uint256)
	deposit   = "d0e30db0" // deposit()
	withdraw  = "2e1a7d4d" // withdraw(uint256)
	decimals  = "313ce567" // decimals()
)

func call(function string, words ...[32]byte) []byte {
	out, _ := hex.DecodeString(function)
	for _, w := range words {
		out = append(out, w[:]...)
	}
	return out
}

func word(b []byte) (w [32]byte) {
	copy(w[32-len(b):], b)
	return w
}
