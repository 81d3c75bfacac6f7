package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/chaintest"
)

// go-ethereum's chain leaves these behind when it is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"), goleak.IgnoreTopFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"))
}

var (
	ctx   = context.Background()
	payee = *at("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
)

// world is an account with 1000 BTT on a chain, and the files of its wallet.
type world struct {
	t     *testing.T
	dir   string
	key   *wallet.Key
	chain *chaintest.Chain
	p     Profile
}

func newWorld(t *testing.T, lies ...[]chaintest.Lie) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	keys, err := wallet.OpenLightKeys(filepath.Join(w.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	acc, err := keys.New([]byte("a passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	if w.key, err = keys.Unlock(acc.Address, []byte("a passphrase")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.key.Close)
	w.chain = chaintest.New(t, 199, acc.Address)
	if lies == nil {
		lies = [][]chaintest.Lie{nil}
	}
	w.p = Profiles()[0]
	w.p.RPC, w.p.WBTT, w.p.Finality, w.p.MaxHeadAge = nil, &w.chain.WBTT, 4, Duration(24*time.Hour)
	w.p.BlockTime = Duration(5 * time.Millisecond)
	for _, l := range lies {
		w.p.RPC = append(w.p.RPC, w.chain.Node(l...))
	}
	return w
}

// sender opens the files, as a new process does.
func (w *world) sender() (s *Sender, end func()) {
	w.t.Helper()
	c, err := NewClient(w.p)
	if err != nil {
		w.t.Fatal(err)
	}
	j, err := OpenJournal(filepath.Join(w.dir, "journal"))
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := wallet.OpenLedger(filepath.Join(w.dir, "ledger"))
	if err != nil {
		w.t.Fatal(err)
	}
	return &Sender{Client: c, Journal: j, Ledger: l}, func() { j.Close(); l.Close(); c.Close() }
}

func (w *world) order(what string, unit wallet.Unit, amount string) Order {
	a, _, err := wallet.ParseAmount(amount, unit)
	if err != nil {
		w.t.Fatal(err)
	}
	return Order{What: what, From: w.key.Address(), To: payee, Unit: unit, Amount: a}
}

// do plans and sends.
func (w *world) do(s *Sender, o Order) (Tx, error) {
	p, err := s.Client.Plan(ctx, o)
	if err != nil {
		return Tx{}, err
	}
	return s.Send(ctx, p, w.key, false)
}

// finish mines until nothing is on its way.
func (w *world) finish(s *Sender) {
	w.t.Helper()
	for range 20 {
		all, err := s.Resume(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		open := false
		for _, p := range all {
			open = open || p.Tx.State == Signed
		}
		if !open {
			return
		}
		w.chain.Mine(1)
	}
	w.t.Fatal("it does not end")
}

func bttOf(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }

func TestProfiles(t *testing.T) {
	t.Parallel()
	for _, p := range Profiles() {
		if err := p.check(); err != nil {
			t.Error(p.Name, err)
		}
	}
	own := `{"name":"own","id":31337,"rpc":["http://127.0.0.1:8545"],"finality":1,"wbtt":"0x23181F21DEa5936e24163FFABa4Ea3B316B57f3C"}`
	p, err := ParseProfile([]byte(own))
	if err != nil || p.Finality != 1 || p.MaxGas != 3_000_000 {
		t.Error(p, err)
	}
	for _, bad := range []string{
		"", "{}", `{"name":"own","id":1}`, own + "{}", strings.Replace(own, "own", "Own", 1), strings.Replace(own, "31337", "0", 1), strings.Replace(own, "31337", "-1", 1), strings.Replace(own, "31337", "1e3", 1),
		strings.Replace(own, "127.0.0.1", "192.0.2.1", 1), strings.Replace(own, "http:", "file:", 1), strings.Replace(own, `"finality":1`, `"finality":0`, 1), strings.Replace(own, "finality", "finalty", 1),
	} {
		if p, err := ParseProfile([]byte(bad)); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %+v, %v", bad, p, err)
		}
	}
	if _, err := ParseProfile([]byte(strings.Replace(own, "127.0.0.1:8545", "example.org/SECRET", 1))); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Error("a key is in the error:", err)
	}
}

// All orders on a real chain, with a base fee and without; the ledger says what the chain says.
func TestOrders(t *testing.T) {
	t.Parallel()
	for name, lies := range map[string][]chaintest.Lie{"dynamic": nil, "legacy": {chaintest.Legacy}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lies)
			s, end := w.sender()
			defer end()
			for _, o := range []Order{w.order("send", wallet.BTT, "12.5"), w.order("wrap", wallet.BTT, "100"), w.order("send", wallet.WBTT, "30"), w.order("unwrap", wallet.WBTT, "50.000000000000000001")} {
				tx, err := w.do(s, o)
				if err != nil {
					t.Fatalf("%s: %v", o.What, err)
				}
				if legacy := tx.Raw[0] >= 0xc0; legacy != (name == "legacy") {
					t.Errorf("legacy: %v", legacy)
				}
				w.finish(s)
			}
			v, err := s.Client.Look(ctx)
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.Client.Funds(ctx, v, w.key.Address())
			if err != nil || f.WBTT.In(wallet.WBTT) != "19.999999999999999999 WBTT" || f.Nonce != 4 {
				t.Error(f, err)
			}
			if f, err := s.Client.Funds(ctx, v, payee); err != nil || f.WBTT.In(wallet.WBTT) != "30 WBTT" || f.BTT.In(wallet.BTT) != "12.5 BTT" {
				t.Error(f, err)
			}
			all, err := s.Ledger.Entries(time.Time{})
			if err != nil || len(all) != 4 {
				t.Fatal(all, err)
			}
			left := bttOf(1000) // minus all that the ledger says is what the chain says, to the wei
			for _, e := range all {
				if e.State != wallet.Paid || e.Fee.IsZero() || e.Fee.Cmp(e.MaxFee) > 0 {
					t.Errorf("%+v", e)
				}
				left.Sub(left, e.Fee.Big())
				switch {
				case e.What == "unwrap":
					left.Add(left, e.Paid.Big())
				case e.What == "wrap" || e.Unit == wallet.BTT:
					left.Sub(left, e.Paid.Big())
				}
			}
			if left.Cmp(w.chain.Balance(w.key.Address())) != 0 {
				t.Errorf("the ledger says %s, the chain %s", left, w.chain.Balance(w.key.Address()))
			}
		})
	}
}

type crashed struct{ at string }

// Wherever the process dies, what the user sent arrives once.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"planned", "intended", "signed", "journaled", "sent", "final", "settled", "ended"} {
		for _, lost := range []bool{false, true} { // the node lost what was sent to it
			t.Run(fmt.Sprint(step, lost), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				died := 0
				life := func(crash bool) (done bool) {
					s, end := w.sender()
					defer end()
					defer func() {
						if r := recover(); r != nil {
							if c, ok := r.(crashed); !ok || c.at != step {
								panic(r)
							}
							died++
							done = false
						}
					}()
					if crash {
						s.crash = func(at string) {
							if at == step {
								panic(crashed{at})
							}
						}
					}
					all, err := s.Journal.Transactions()
					if err != nil {
						t.Fatal(err)
					}
					if len(all) == 0 { // the user sees that it was not sent, and tries again
						if _, err := w.do(s, w.order("send", wallet.BTT, "7")); err != nil {
							t.Fatal(err)
						}
					} else if _, err := w.do(s, w.order("send", wallet.BTT, "7")); all[0].State == Signed && !errors.Is(err, ErrOpen) {
						t.Errorf("the same is sent again: %v", err)
					} else if all[0].State != Signed {
						return true
					}
					w.finish(s)
					return true
				}
				if life(true) {
					t.Fatal("it did not die")
				}
				if lost {
					w.chain.Forget()
				}
				s, end := w.sender()
				all, err := s.Journal.Transactions()
				end()
				if err != nil {
					t.Fatal(err)
				}
				if len(all) == 0 || all[0].State == Signed {
					if !life(false) {
						t.Fatal("it died twice")
					}
				}
				if got := w.chain.Balance(payee); got.Cmp(bttOf(7)) != 0 || w.chain.Nonce(w.key.Address()) != 1 || died != 1 {
					t.Errorf("the payee has %s, nonce %d, %d deaths", got, w.chain.Nonce(w.key.Address()), died)
				}
				s, end = w.sender()
				defer end()
				if _, err := s.Resume(ctx); err != nil {
					t.Fatal(err)
				}
				entries, err := s.Ledger.Entries(time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				paid := 0
				for _, e := range entries {
					switch e.State {
					case wallet.Paid:
						paid++
					case wallet.Intent:
						t.Errorf("an intent is left: %+v", e)
					}
				}
				if paid != 1 {
					t.Errorf("%d paid: %+v", paid, entries)
				}
			})
		}
	}
}

// A transaction that a reorganization takes out is sent again, the same one, and paid once.
func TestReorg(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.p.Finality = 8
			s, end := w.sender()
			defer end()
			w.chain.Mine(3)
			if _, err := w.do(s, w.order("send", wallet.BTT, "7")); err != nil {
				t.Fatal(err)
			}
			w.chain.Mine(5)
			all, err := s.Resume(ctx)
			if err != nil || len(all) != 1 || all[0].Depth != 5 || all[0].Tx.State != Signed {
				t.Fatal(all, err)
			}
			w.chain.Reorg(5, lost)
			if all, err = s.Resume(ctx); err != nil || len(all) != 1 || all[0].Tx.State != Signed || lost && all[0].Block != 0 {
				t.Fatal(all, err)
			}
			w.finish(s)
			if got := w.chain.Balance(payee); got.Cmp(bttOf(7)) != 0 {
				t.Error(got)
			}
		})
	}
}

// Liars keep us from sending, and that is all that they can do.
func TestLiars(t *testing.T) {
	t.Parallel()
	on := func(method, answer string) []chaintest.Lie {
		return []chaintest.Lie{func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
			if m == method {
				return json.RawMessage(answer), nil
			}
			return next()
		}}
	}
	fail := func(method string, err error) []chaintest.Lie {
		return []chaintest.Lie{func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
			if m == method {
				return nil, err
			}
			return next()
		}}
	}
	second := 0
	later := []chaintest.Lie{func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
		if m == "eth_chainId" {
			if second++; second > 2 { // after the plan, and after the look before the signature
				return json.RawMessage(`"0x1"`), nil
			}
		}
		return next()
	}}
	old := fmt.Sprintf(`{"number":"0x5","hash":"0x%064x","timestamp":"0x5"}`, 1)
	huge := `"0x` + strings.Repeat("f", 64) + `"`
	for _, c := range []struct {
		name  string
		nodes [][]chaintest.Lie
		want  error // nil: it is sent
	}{
		{"another chain", [][]chaintest.Lie{on("eth_chainId", `"0x1"`)}, ErrNoNode},
		{"another chain, and an honest one", [][]chaintest.Lie{on("eth_chainId", `"0x1"`), nil}, nil},
		{"the chain changes before the signature", [][]chaintest.Lie{later}, ErrChain},
		{"a chain id beyond", [][]chaintest.Lie{on("eth_chainId", huge)}, ErrNoNode},
		{"a stale head", [][]chaintest.Lie{on("eth_getBlockByNumber", old)}, ErrNoNode},
		{"a stale head, and an honest one", [][]chaintest.Lie{on("eth_getBlockByNumber", old), nil}, nil},
		{"a balance of 2^256-1", [][]chaintest.Lie{on("eth_getBalance", huge), nil}, ErrDisagree},
		{"a balance of 0", [][]chaintest.Lie{on("eth_getBalance", `"0x0"`)}, ErrFunds},
		{"a nonce of 2^63", [][]chaintest.Lie{on("eth_getTransactionCount", `"0x8000000000000000"`), nil}, ErrDisagree},
		{"a nonce beyond", [][]chaintest.Lie{on("eth_getTransactionCount", huge)}, errAnswer},
		{"a dear tip", [][]chaintest.Lie{on("eth_maxPriorityFeePerGas", huge)}, wallet.ErrOverflow},
		{"a tip above the cap", [][]chaintest.Lie{on("eth_maxPriorityFeePerGas", `"0xffffffffffffffff"`)}, ErrGasPrice},
		{"endless gas", [][]chaintest.Lie{on("eth_estimateGas", `"0xffffffffffffffff"`)}, errAny},
		{"no gas", [][]chaintest.Lie{on("eth_estimateGas", `"0x0"`)}, errAny},
		{"floats", [][]chaintest.Lie{on("eth_getBalance", `1e30`)}, errAnswer},
		{"leading zeros", [][]chaintest.Lie{on("eth_getBalance", `"0x00ff"`)}, errAnswer},
		{"half an answer", [][]chaintest.Lie{fail("eth_getBalance", chaintest.Raw(`{"jsonrpc":"2.0","id":1,"result":"0x`))}, errAnswer},
		{"an endless answer", [][]chaintest.Lie{fail("eth_getBalance", chaintest.Raw(strings.Repeat(" ", 2<<20)))}, errAnswer},
		{"a web page", [][]chaintest.Lie{fail("eth_chainId", chaintest.Raw("<!doctype html>"))}, ErrNoNode},
		{"a line that moves the cursor", [][]chaintest.Lie{fail("eth_getBalance", errors.New("\x1b[2J\nno"))}, errAny},
		{"it hangs up", [][]chaintest.Lie{fail("eth_getBalance", chaintest.ErrDrop)}, errAny},
		{"it hangs up, and an honest one", [][]chaintest.Lie{fail("eth_getBalance", chaintest.ErrDrop), nil}, nil},
		{"it takes it, and says nothing", [][]chaintest.Lie{{func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
			out, err := next()
			if m == "eth_sendRawTransaction" {
				return nil, chaintest.ErrDrop
			}
			return out, err
		}}}, ErrNotTaken},
		{"it says that it took another", [][]chaintest.Lie{on("eth_sendRawTransaction", fmt.Sprintf(`"0x%064x"`, 1))}, ErrNotTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.nodes...)
			s, end := w.sender()
			defer end()
			tx, err := w.do(s, w.order("send", wallet.BTT, "7"))
			if c.want == errAny && err != nil {
				err = nil
				if tx.Raw != nil {
					t.Error("it is signed")
				}
			} else if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b") {
				t.Errorf("%q", err)
			}
			all, jerr := s.Journal.Transactions()
			if jerr != nil {
				t.Fatal(jerr)
			}
			if signed := len(all) > 0; signed != (c.want == nil || c.want == ErrNotTaken) {
				t.Errorf("signed: %v", signed)
			}
			// With honest nodes everything comes right, and what was signed is paid once.
			w.p.RPC = []string{w.chain.Node()}
			honest, end2 := w.sender()
			defer end2()
			w.finish(honest)
			want := bttOf(7 * int64(len(all)))
			if got := w.chain.Balance(payee); got.Cmp(want) != 0 {
				t.Errorf("the payee has %s, want %s", got, want)
			}
			entries, _ := honest.Ledger.Entries(time.Time{})
			for _, e := range entries {
				if e.State == wallet.Intent {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

var errAny = errors.New("any error")

// A liar's receipt does not end a transaction while an honest node knows better.
func TestFalseReceipt(t *testing.T) {
	t.Parallel()
	var hash string
	lie := func(m string, p []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
		if m == "eth_getTransactionReceipt" {
			block, err := next()
			if err == nil && string(block) == "null" {
				return json.RawMessage(fmt.Sprintf(`{"transactionHash":%q,"blockNumber":"0x1","blockHash":%q,"status":"0x1","gasUsed":"0x5208"}`, p[0], hash)), nil
			}
			return block, err
		}
		return next()
	}
	w := newWorld(t, []chaintest.Lie{lie}, nil)
	raw, err := w.chain.Ask("eth_getBlockByNumber", []any{"0x1", false})
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Hash string }
	if err := json.Unmarshal(raw, &h); err != nil {
		t.Fatal(err)
	}
	hash = h.Hash
	w.chain.Mine(5)
	s, end := w.sender()
	defer end()
	if _, err := w.do(s, w.order("send", wallet.BTT, "7")); err != nil {
		t.Fatal(err)
	}
	all, err := s.Resume(ctx)
	if err != nil || len(all) != 1 || all[0].Tx.State != Signed || !strings.Contains(all[0].Said, ErrDisagree.Error()) {
		t.Errorf("%+v, %v", all, err)
	}
	w.finish(s)
}

// A receipt of a block that is not the chain's is none: the transaction is sent again.
func TestOrphanedReceipt(t *testing.T) {
	t.Parallel()
	lying, sent := true, 0
	w := newWorld(t, []chaintest.Lie{func(m string, p []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
		if m == "eth_sendRawTransaction" {
			sent++
		}
		if m == "eth_getTransactionReceipt" && lying {
			return json.RawMessage(fmt.Sprintf(`{"transactionHash":%q,"blockNumber":"0x1","blockHash":"0x%064x","status":"0x1","gasUsed":"0x5208"}`, p[0], 7)), nil
		}
		return next()
	}})
	w.chain.Mine(5)
	s, end := w.sender()
	defer end()
	if _, err := w.do(s, w.order("send", wallet.BTT, "7")); err != nil {
		t.Fatal(err)
	}
	all, err := s.Resume(ctx)
	if err != nil || len(all) != 1 || all[0].Tx.State != Signed || all[0].Block != 0 || sent != 2 {
		t.Errorf("%+v, %v, sent %d times", all, err, sent)
	}
	lying = false
	w.finish(s)
}

// Of a transaction and its replacement one is paid, and the ledger has it once.
func TestReplace(t *testing.T) {
	t.Parallel()
	for _, cancel := range []bool{false, true} {
		t.Run(fmt.Sprint(cancel), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s, end := w.sender()
			defer end()
			tx, err := w.do(s, w.order("send", wallet.BTT, "7"))
			if err != nil {
				t.Fatal(err)
			}
			p, old, err := s.Replacement(ctx, tx.Hash, cancel)
			if err != nil || old.Hash != tx.Hash {
				t.Fatal(err)
			}
			next, err := s.Replace(ctx, tx.Hash, p, w.key)
			if err != nil || next.Nonce != tx.Nonce {
				t.Fatal(next, err)
			}
			w.finish(s)
			want, why := bttOf(7), ""
			if cancel {
				want, why = new(big.Int), "cancelled"
			}
			all, err := s.Ledger.Entries(time.Time{})
			if err != nil || len(all) != 1 || all[0].State != wallet.Paid || all[0].Why != why || all[0].Tx != next.Hash.Hex() {
				t.Errorf("%+v, %v", all, err)
			}
			if got := w.chain.Balance(payee); got.Cmp(want) != 0 || w.chain.Nonce(w.key.Address()) != 1 {
				t.Error(got)
			}
			txs, err := s.Journal.Transactions()
			if err != nil || len(txs) != 2 || txs[0].State != Replaced || txs[1].State != Final {
				t.Errorf("%+v, %v", txs, err)
			}
			if _, _, err := s.Replacement(ctx, tx.Hash, cancel); !errors.Is(err, ErrNoTx) {
				t.Error(err)
			}
		})
	}
}

// What the account has not got is not signed, and what is on its way counts.
func TestFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, end := w.sender()
	defer end()
	for _, o := range []Order{w.order("send", wallet.BTT, "1000"), w.order("send", wallet.BTT, "1001"), w.order("send", wallet.WBTT, "1"), w.order("unwrap", wallet.WBTT, "1"), w.order("send", wallet.BTT, wallet.MaxAmount.In(wallet.Wei))} {
		if _, err := w.do(s, o); !errors.Is(err, ErrFunds) {
			t.Errorf("%s %s: %v", o.What, o.Amount, err)
		}
	}
	if _, err := w.do(s, w.order("send", wallet.BTT, "600")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.do(s, w.order("send", wallet.BTT, "500")); !errors.Is(err, ErrFunds) {
		t.Error(err)
	}
	if _, err := w.do(s, w.order("send", wallet.BTT, "300")); err != nil { // the second on its way
		t.Error(err)
	}
	w.finish(s)
	if got := w.chain.Balance(payee); got.Cmp(bttOf(900)) != 0 || w.chain.Nonce(w.key.Address()) != 2 {
		t.Error(got)
	}
	w.p.WBTT = &payee // no contract
	s2, end2 := w.sender()
	defer end2()
	if _, err := w.do(s2, w.order("wrap", wallet.BTT, "1")); err == nil || !strings.Contains(err.Error(), "is no such contract") {
		t.Error(err)
	}
}

// A chain that knows less than what was final is another one, or a liar's.
func TestForgetfulChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, end := w.sender()
	defer end()
	if _, err := w.do(s, w.order("send", wallet.BTT, "7")); err != nil {
		t.Fatal(err)
	}
	w.finish(s)
	w.chain = chaintest.New(t, 199, w.key.Address())
	w.p.RPC, w.p.WBTT = []string{w.chain.Node()}, &w.chain.WBTT
	s2, end2 := w.sender()
	defer end2()
	if _, err := w.do(s2, w.order("send", wallet.BTT, "8")); !errors.Is(err, ErrLie) {
		t.Error(err)
	}
	// Nor is anything signed while another program's transaction waits.
	if _, err := w.chain.Ask("eth_sendRawTransaction", []any{mustRaw(t, w, 0)}); err != nil {
		t.Fatal(err)
	}
	w.dir = t.TempDir()
	s3, end3 := w.sender()
	defer end3()
	if _, err := w.do(s3, w.order("send", wallet.BTT, "8")); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
}

// mustRaw signs what another program would.
func mustRaw(t *testing.T, w *world, nonce uint64) hexutil.Bytes {
	t.Helper()
	tx, err := w.key.SignTx(ctx, types.NewTx(&types.LegacyTx{Nonce: nonce, To: &payee, Gas: 21_000, GasPrice: big.NewInt(20e9), Value: big.NewInt(1)}), 199)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzAnswer: no answer of a node makes us panic, or be read as another number than it says.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":"0x10"}`))
	f.Add([]byte(`{"id":1,"result":{"number":"0x1","hash":"0x01","timestamp":"0x0","baseFeePerGas":"0x7"}}`))
	f.Add([]byte(`{"id":1,"error":{"code":-32000,"message":"no\n"}}`))
	f.Add([]byte(`{"id":1,"result":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var q quantity
		if err := decode(text, &q); err == nil {
			var a struct{ Result string }
			n, ok := new(big.Int), false
			if json.Unmarshal(text, &a) == nil {
				n, ok = n.SetString(strings.TrimPrefix(a.Result, "0x"), 16)
			}
			if !ok || n.Cmp(q.Big()) != 0 {
				t.Errorf("%s is read as %s", text, q)
			}
		}
		var s small
		var h header
		var r receipt
		for _, v := range []any{&s, &h, &r} {
			if err := decode(text, v); err != nil && strings.ContainsAny(err.Error(), "\n\x1b\u009b") {
				t.Errorf("%q", err)
			}
		}
	})
}

// FuzzJournal: no row makes us panic, or send what is not what it says.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"signed":{"raw":"0x","state":"signed","hash":"0x0000000000000000000000000000000000000000000000000000000000000000"}}`))
	f.Add([]byte(`{"end":{"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","state":"final"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		j := &Journal{}
		if err := j.takeRow(body); err == nil && len(j.all) == 1 && j.all[0].check() != nil {
			t.Error("it is not what it says")
		}
	})
}
