// Package chaintest runs a chain in the test process: go-ethereum's own, with WBTT on it,
// behind nodes that may lie.
//
// It is at every fork that go-ethereum knows, so it has a base fee; a node with [Legacy] hides
// it, as BTTC has none. What gas costs there says nothing of BTTC.
package chaintest

import (
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

//go:embed WBTT.hex
var wbtt string

// deployer puts WBTT on the chain, and is nobody's account.
const deployer = "1111111111111111111111111111111111111111111111111111111111111111"

// Chain is a chain. A block is made only by Mine.
type Chain struct {
	t    testing.TB
	ID   uint64
	WBTT common.Address

	mu      sync.Mutex // the simulated backend is not made for several at a time
	backend *simulated.Backend
	client  *rpc.Client
}

// New starts a chain on which some accounts have 1000 BTT each.
func New(t testing.TB, id uint64, rich ...common.Address) *Chain {
	t.Helper()
	key, err := crypto.HexToECDSA(deployer)
	if err != nil {
		t.Fatal(err)
	}
	from := crypto.PubkeyToAddress(key.PublicKey)
	thousand := new(big.Int).Mul(big.NewInt(1000), big.NewInt(1e18))
	alloc := types.GenesisAlloc{from: {Balance: thousand}}
	for _, a := range rich {
		alloc[a] = types.Account{Balance: thousand}
	}
	c := &Chain{t: t, ID: id, WBTT: crypto.CreateAddress(from, 0)}
	dir, err := os.MkdirTemp("", "chain") // a socket's path may not be as long as t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "ipc")
	c.backend = simulated.NewBackend(alloc, func(n *node.Config, e *ethconfig.Config) {
		n.IPCPath = socket
		own := *e.Genesis.Config
		own.ChainID = new(big.Int).SetUint64(id)
		e.Genesis.Config = &own
	})
	t.Cleanup(func() { c.backend.Close() })
	if c.client, err = rpc.Dial(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	code, err := hex.DecodeString(strings.TrimSpace(wbtt))
	if err != nil {
		t.Fatal(err)
	}
	tx := types.MustSignNewTx(key, types.LatestSignerForChainID(new(big.Int).SetUint64(id)), &types.LegacyTx{Gas: 3_000_000, GasPrice: big.NewInt(10e9), Data: code})
	if err := c.backend.Client().SendTransaction(context.Background(), tx); err != nil {
		t.Fatal(err)
	}
	c.Mine(1)
	if code, err := c.backend.Client().CodeAt(context.Background(), c.WBTT, nil); err != nil || len(code) == 0 {
		t.Fatal("WBTT is not there", err)
	}
	return c
}

// Mine makes blocks of what waits.
func (c *Chain) Mine(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.backend.Commit()
	}
}

// Reorg leaves the last blocks behind, and makes one more than they were. What was in them
// waits again, and is in the first of the new ones; unless lost.
func (c *Chain) Reorg(depth uint64, lost bool) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := context.Background()
	head, err := c.backend.Client().BlockNumber(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	parent, err := c.backend.Client().HeaderByNumber(ctx, new(big.Int).SetUint64(head-depth))
	if err == nil {
		err = c.backend.Fork(parent.Hash())
	}
	if err != nil {
		c.t.Fatal(err)
	}
	if lost {
		c.backend.Rollback()
	}
	for range depth + 1 {
		c.backend.Commit()
	}
}

// Forget drops what waits to be in a block.
func (c *Chain) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backend.Rollback()
}

// Balance is what an account has now, in wei.
func (c *Chain) Balance(a common.Address) *big.Int {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.backend.Client().BalanceAt(context.Background(), a, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// Nonce is how many transactions of an account are in blocks.
func (c *Chain) Nonce(a common.Address) uint64 {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.backend.Client().NonceAt(context.Background(), a, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// Ask asks the true chain.
func (c *Chain) Ask(method string, params []any) (result json.RawMessage, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.client.CallContext(context.Background(), &result, method, params...)
	return result, err
}

// Lie answers a question in place of a node; next is what the chain says.
type Lie func(method string, params []any, next func() (json.RawMessage, error)) (json.RawMessage, error)

// ErrHang has a node say nothing until who asks goes away, ErrDrop has it close the
// connection.
var (
	ErrHang = errors.New("hang")
	ErrDrop = errors.New("drop")
)

// Raw is an answer that is sent as it is, in place of JSON-RPC.
type Raw string

func (r Raw) Error() string { return string(r) }

// Legacy hides the base fee, as on a chain before London.
func Legacy(method string, params []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
	out, err := next()
	switch method {
	case "eth_getBlockByNumber":
		var block map[string]json.RawMessage
		if err == nil && json.Unmarshal(out, &block) == nil && block != nil {
			delete(block, "baseFeePerGas")
			out, err = json.Marshal(block)
		}
	case "eth_maxPriorityFeePerGas":
		return nil, errors.New("the method does not exist")
	}
	return out, err
}

// Node serves the chain on loopback, through lies if there are any, the first outermost.
func (c *Chain) Node(lies ...Lie) (url string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params []any           `json:"params"`
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		next := func() (json.RawMessage, error) { return c.Ask(q.Method, q.Params) }
		for i := len(lies) - 1; i >= 0; i-- {
			inner, lie := next, lies[i]
			next = func() (json.RawMessage, error) { return lie(q.Method, q.Params, inner) }
		}
		result, err := next()
		answer := map[string]any{"jsonrpc": "2.0", "id": q.ID, "result": result}
		var raw Raw
		switch {
		case errors.Is(err, ErrHang):
			<-r.Context().Done()
			return
		case errors.Is(err, ErrDrop):
			panic(http.ErrAbortHandler)
		case errors.As(err, &raw):
			_, _ = io.WriteString(w, string(raw))
			return
		case err != nil:
			answer = map[string]any{"jsonrpc": "2.0", "id": q.ID, "error": map[string]any{"code": -32000, "message": err.Error()}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	c.t.Cleanup(s.Close)
	return s.URL
}
