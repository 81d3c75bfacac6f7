package chain

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/btmount/btmount/wallet"
)

// Errors of sending.
var (
	ErrOpen     = errors.New("the same is on its way already")
	ErrForeign  = errors.New("another program has a transaction of this account on its way; wait until it is through")
	ErrNotTaken = errors.New("no node has confirmed that it took it; it is written down, and sent again until it is through")
	ErrLie      = errors.New("a node's answer cannot be true")
	ErrNoTx     = errors.New("no such transaction that is on its way")
)

// Sender sends transactions of one chain.
type Sender struct {
	Client  *Client
	Journal *Journal
	Ledger  *wallet.Ledger

	crash func(at string) // tests end the process here
	now   func() time.Time
}

func (s *Sender) at(step string) {
	if s.crash != nil {
		s.crash(step)
	}
}

func (s *Sender) time() time.Time {
	if s.now != nil {
		return s.now()
	}
	return time.Now().UTC()
}

// Send does what was planned and agreed to. It looks at the chain anew, and signs nothing if
// it would cost more than the plan says (ErrFee), if the same order is on its way already
// (ErrOpen, unless again), or if the account is used by another program (ErrForeign).
//
// If it returns a transaction, that one is written down and is sent until it is through, also
// if the error is ErrNotTaken.
func (s *Sender) Send(ctx context.Context, p Plan, signer wallet.Signer, again bool) (t Tx, err error) {
	err = s.Journal.locked(func() error {
		if err := s.tidyLocked(); err != nil {
			return err
		}
		for _, o := range s.Journal.openLocked(p.ChainID, &p.From) {
			if !again && o.What == p.What && o.To == p.recipient() && o.Unit == p.Unit && o.Amount == p.Amount {
				return fmt.Errorf("%w: %s, signed %s: watch it with btmount wallet tx --wait; --again sends it once more", ErrOpen, o.Hash, o.Signed.Format(time.DateTime))
			}
		}
		v, err := s.Client.Look(ctx)
		if err != nil {
			return err
		}
		fresh, m, err := s.Client.plan(ctx, v, p.Order)
		if err != nil {
			return err
		}
		if err := p.stillHolds(fresh); err != nil {
			return err
		}
		nonce, err := s.nonceLocked(ctx, v, p, fresh.Funds)
		if err != nil {
			return err
		}
		s.at("planned")
		e, err := s.Ledger.Intend(wallet.Entry{What: p.What, Chain: p.ChainID, From: p.From, To: p.recipient(), Unit: p.Unit, Amount: p.Amount, MaxFee: p.Fee})
		if err != nil {
			return err
		}
		s.at("intended")
		t = Tx{Entry: e.ID, What: p.What, Chain: p.ChainID, From: p.From, Nonce: nonce, To: p.recipient(), Unit: p.Unit, Amount: p.Amount, Fee: p.Fee}
		if err = s.signLocked(ctx, v, &t, p.transaction(m, nonce), signer); err != nil && t.Hash == (common.Hash{}) {
			_ = s.Ledger.Refuse(e.ID, "it was not signed") // if not now, the next time
		}
		return err
	})
	if err != nil {
		return Tx{}, err
	}
	return t, s.broadcast(ctx, t)
}

// stillHolds reports whether what was agreed to would go through at what the chain takes now.
func (p Plan) stillHolds(now Plan) error {
	least := now.Price
	if now.Dynamic { // twice the base fee was planned for; once is what it takes
		base := new(big.Int).Sub(now.Price.Big(), now.Tip.Big())
		v, err := wallet.FromBig(base.Rsh(base, 1))
		if err == nil {
			least, err = v.Plus(p.Tip)
		}
		if err != nil {
			return err
		}
	}
	if now.Dynamic != p.Dynamic || now.Gas > p.Gas || least.Cmp(p.Price) > 0 {
		return fmt.Errorf("%w: it takes %s now, and %s was agreed to", ErrFee, now.Fee.In(wallet.BTT), p.Fee.In(wallet.BTT))
	}
	return nil
}

// nonceLocked is the nonce of the next transaction: that behind all that the chain has, and
// all in the journal. What those on their way will take has to be there besides.
func (s *Sender) nonceLocked(ctx context.Context, v View, p Plan, f Funds) (uint64, error) {
	next := max(f.Nonce, s.Journal.nextLocked(p.ChainID, p.From))
	waiting, err := s.Client.pending(ctx, v, p.From)
	if err != nil {
		return 0, err
	}
	if waiting > next {
		return 0, fmt.Errorf("%w: %s, nonce %d", ErrForeign, p.From, waiting-1)
	}
	open := map[uint64]bool{}
	btt, wbtt := p.takes()
	for _, t := range s.Journal.openLocked(p.ChainID, &p.From) {
		if t.Nonce < f.Nonce {
			continue // in a block already
		}
		open[t.Nonce] = true
		b, w := Plan{Order: Order{What: t.What, Unit: t.Unit, Amount: t.Amount}, Fee: t.Fee}.takes()
		btt, wbtt = btt.Add(btt, b), wbtt.Add(wbtt, w)
	}
	if next > f.Nonce+uint64(len(open)) {
		return 0, fmt.Errorf("%w: the chain knows of %d transactions of %s, and %d were final; is it another chain of the same id?", ErrLie, f.Nonce, p.From, next)
	}
	if btt.Cmp(f.BTT.Big()) > 0 || wbtt.Cmp(f.WBTT.Big()) > 0 {
		return 0, fmt.Errorf("%w: %s has %s and %s, and some of it is on its way already", ErrFunds, p.From, f.BTT.In(wallet.BTT), f.WBTT.In(wallet.WBTT))
	}
	return next, nil
}

// takes is the most that leaves the account.
func (p Plan) takes() (btt, wbtt *big.Int) {
	btt, wbtt = p.Fee.Big(), new(big.Int)
	switch {
	case p.What == "wrap", p.What == "send" && p.Unit == wallet.BTT:
		btt.Add(btt, p.Amount.Big())
	case p.What == "unwrap", p.What == "send":
		wbtt = p.Amount.Big()
	}
	return btt, wbtt
}

// recipient is who gets it: of wrap and unwrap the account itself.
func (o Order) recipient() wallet.Address {
	if o.What == "send" {
		return o.To
	}
	return o.From
}

// signLocked signs a transaction and makes it durable. Just before, every node is asked once
// more of which chain it is.
func (s *Sender) signLocked(ctx context.Context, v View, t *Tx, tx *types.Transaction, signer wallet.Signer) error {
	if _, err := agree(ctx, v, "the chain", s.Client.chainID); err != nil {
		return err
	}
	if signer.Address() != t.From {
		return fmt.Errorf("the key is of %s, not of %s", signer.Address(), t.From)
	}
	signed, err := signer.SignTx(ctx, tx, t.Chain)
	if err != nil {
		return err
	}
	if signed.Nonce() != tx.Nonce() || signed.Value().Cmp(tx.Value()) != 0 || *signed.To() != *tx.To() || !slices.Equal(signed.Data(), tx.Data()) || signed.Gas() != tx.Gas() || signed.GasFeeCap().Cmp(tx.GasFeeCap()) != 0 {
		return errors.New("the signer signed something else; it was not sent")
	}
	s.at("signed")
	if t.Raw, err = signed.MarshalBinary(); err != nil {
		return err
	}
	t.Hash, t.Signed, t.State = signed.Hash(), s.time(), Signed
	if err := t.check(); err != nil {
		t.Hash = common.Hash{}
		return fmt.Errorf("the signature is not good: %w", err)
	}
	if err := s.Journal.writeLocked(journalRow{Signed: t}); err != nil {
		return err
	}
	s.at("journaled")
	return nil
}

// ours are the entries of the ledger that are written here.
var ours = map[string]bool{"send": true, "wrap": true, "unwrap": true}

// tidyLocked ends what a crash left between intent and signature: what is not in the journal
// was never sent, and nobody else is about to write it, as the journal is locked.
func (s *Sender) tidyLocked() error {
	entries, err := s.Ledger.Entries(time.Time{})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.State == wallet.Intent && !e.Auto && ours[e.What] && !slices.ContainsFunc(s.Journal.all, func(t Tx) bool { return t.Entry == e.ID }) {
			if err := s.Ledger.Refuse(e.ID, "it was not signed"); err != nil {
				return err
			}
		}
	}
	return nil
}

// broadcast sends the same bytes to all nodes. The error is ErrNotTaken unless one has it.
func (s *Sender) broadcast(ctx context.Context, t Tx) error {
	v, err := s.Client.Look(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotTaken, err)
	}
	answers, errs := everyone(ctx, v, func(ctx context.Context, n *node) (h common.Hash, err error) {
		err = n.call(ctx, &h, "eth_sendRawTransaction", hexutil.Bytes(t.Raw))
		if e := (*rpcError)(nil); errors.As(err, &e) && known(e.Message) {
			return t.Hash, nil
		}
		return h, err
	})
	s.at("sent")
	for _, a := range answers {
		if a.value == t.Hash {
			return nil
		}
	}
	return fmt.Errorf("%w: %w", ErrNotTaken, errors.Join(errs...))
}

// known reports whether a node refuses a transaction because it has it, in geth's and others'
// words.
func known(message string) bool {
	m := strings.ToLower(message)
	return strings.Contains(m, "already known") || strings.Contains(m, "known transaction") || strings.Contains(m, "already imported")
}

// receipt is what we read of one.
type receipt struct {
	Hash    common.Hash `json:"transactionHash"`
	Block   small       `json:"blockNumber"`
	InBlock common.Hash `json:"blockHash"`
	Status  small       `json:"status"`
	GasUsed small       `json:"gasUsed"`
	Price   *quantity   `json:"effectiveGasPrice"` // nodes before London have none
}

// mined is where a transaction is; the zero value is nowhere.
type mined struct {
	block  uint64
	hash   common.Hash
	ok     bool
	gas    uint64
	price  wallet.Amount
	priced bool
}

// Progress is how far a transaction is.
type Progress struct {
	Tx    Tx     `json:"tx"`
	Block uint64 `json:"block,omitempty"` // in which it is now
	Depth uint64 `json:"depth"`           // blocks from that one to the head, both included
	Of    uint64 `json:"of"`              // after which it is final
	Said  string `json:"said,omitempty"`  // why it does not go on
}

// Resume looks after every transaction of this chain that is on its way: it is sent again if
// the nodes do not have it, and ends when it is final. It can be called at any time, and by
// several processes.
func (s *Sender) Resume(ctx context.Context) (all []Progress, err error) {
	var open []Tx
	err = s.Journal.locked(func() error {
		open = slices.Clone(s.Journal.openLocked(s.Client.profile.ID, nil))
		return s.tidyLocked()
	})
	if err != nil || len(open) == 0 {
		return nil, err
	}
	v, err := s.Client.Look(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range open {
		p, err := s.step(ctx, v, t)
		if err != nil {
			p.Said = err.Error()
		}
		all = append(all, p)
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
	}
	return all, nil
}

// step looks at one transaction.
func (s *Sender) step(ctx context.Context, v View, t Tx) (p Progress, err error) {
	p = Progress{Tx: t, Of: s.Client.profile.Finality}
	m, err := s.find(ctx, v, t)
	switch {
	case err != nil:
		return p, err
	case m.block == 0:
		if gone, err := s.replaced(ctx, v, t); err != nil || gone {
			if gone {
				p.Tx, err = s.end(t, Replaced, mined{})
			}
			return p, err
		}
		return p, s.broadcast(ctx, t)
	}
	p.Block = m.block
	if m.block <= v.Number {
		p.Depth = v.Number - m.block + 1
	}
	if p.Depth < p.Of {
		return p, nil
	}
	state := Final
	if !m.ok {
		state = Failed
	}
	s.at("final")
	p.Tx, err = s.end(t, state, m)
	return p, err
}

// find asks where a transaction is; the nodes have to agree, and its block has to be the one
// of the chain.
func (s *Sender) find(ctx context.Context, v View, t Tx) (mined, error) {
	return agree(ctx, v, "where "+t.Hash.Hex()+" is", func(ctx context.Context, n *node) (m mined, err error) {
		var r receipt
		if err = n.call(ctx, &r, "eth_getTransactionReceipt", t.Hash); errors.Is(err, errNone) {
			return mined{}, nil
		} else if err != nil {
			return m, err
		}
		var h header
		if err = n.call(ctx, &h, "eth_getBlockByNumber", hexOf(uint64(r.Block)), false); err != nil {
			return m, err
		}
		m = mined{block: uint64(r.Block), hash: r.InBlock, ok: r.Status == 1, gas: uint64(r.GasUsed)}
		if r.Price != nil {
			m.price, m.priced = r.Price.Amount, true
		}
		if h.Hash != r.InBlock {
			return mined{}, nil // of a block that a reorganization has left behind
		}
		if r.Hash != t.Hash || m.block == 0 {
			return m, fmt.Errorf("%s: %w: a receipt", n.name, ErrLie)
		}
		return m, nil
	})
}

// replaced reports whether a transaction of the same nonce is final, and this one is not.
func (s *Sender) replaced(ctx context.Context, v View, t Tx) (bool, error) {
	if v.Number < s.Client.profile.Finality {
		return false, nil
	}
	then := v
	then.Number -= s.Client.profile.Finality - 1
	n, err := agree(ctx, then, "the nonce of "+t.From.Hex(), func(ctx context.Context, n *node) (x small, err error) {
		return x, n.call(ctx, &x, "eth_getTransactionCount", t.From, hexOf(then.Number))
	})
	return err == nil && uint64(n) > t.Nonce, err
}

// end writes down what became of a transaction, in the ledger first: that can be said twice.
func (s *Sender) end(t Tx, state State, m mined) (Tx, error) {
	var tx types.Transaction
	if err := tx.UnmarshalBinary(t.Raw); err != nil {
		return t, err
	}
	fee := wallet.Amount{}
	if state != Replaced {
		price, err := wallet.FromBig(tx.GasFeeCap())
		if err != nil {
			return t, err
		}
		if m.priced {
			if m.price.Cmp(price) > 0 {
				return t, fmt.Errorf("%w: gas at %s of at most %s", ErrLie, m.price, price)
			}
			price = m.price
		}
		if fee, err = price.Times(m.gas); err != nil || m.gas > tx.Gas() {
			return t, fmt.Errorf("%w: %d gas used of %d", ErrLie, m.gas, tx.Gas())
		}
	}
	err := s.Journal.locked(func() error {
		i := s.Journal.findLocked(t.Hash)
		if i < 0 || s.Journal.all[i].State != Signed { // another process was here
			if i >= 0 {
				t = s.Journal.all[i]
			}
			return nil
		}
		if err := s.settleLocked(t, state, fee); err != nil {
			return err
		}
		s.at("settled")
		r := txEnd{t.Hash, state, fee, m.block, s.time()}
		if err := s.Journal.writeLocked(journalRow{End: &r}); err != nil {
			return err
		}
		t = s.Journal.all[i]
		s.at("ended")
		return nil
	})
	return t, err
}

// settleLocked ends the entry of the ledger, unless another transaction of the same order has
// or will.
func (s *Sender) settleLocked(t Tx, state State, fee wallet.Amount) error {
	switch state {
	case Failed:
		return s.Ledger.Settle(t.Entry, wallet.Amount{}, fee, t.Hash.Hex(), "the chain undid it")
	case Final:
		if t.What == "cancel" {
			return s.Ledger.Settle(t.Entry, wallet.Amount{}, fee, t.Hash.Hex(), "cancelled")
		}
		return s.Ledger.Settle(t.Entry, t.Amount, fee, t.Hash.Hex(), "")
	}
	for _, o := range s.Journal.all {
		if o.Entry == t.Entry && o.Hash != t.Hash && o.State != Replaced {
			return nil
		}
	}
	return s.Ledger.Refuse(t.Entry, "another transaction took its nonce")
}

// Wait resumes until the transactions have ended, those of one order or all, and reports how far they
// are. It looks once a block.
func (s *Sender) Wait(ctx context.Context, only *Tx, report func([]Progress)) error {
	tick := time.NewTicker(time.Duration(s.Client.profile.BlockTime))
	defer tick.Stop()
	for {
		all, err := s.Resume(ctx)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			return err
		}
		report(all)
		if !slices.ContainsFunc(all, func(p Progress) bool {
			return p.Tx.State == Signed && (only == nil || only.Entry == p.Tx.Entry)
		}) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Replacement prices a transaction that takes the place of one that is on its way: the same
// at a higher fee, or with cancel one that does nothing. Nodes want a tenth more at least.
func (s *Sender) Replacement(ctx context.Context, hash common.Hash, cancel bool) (p Plan, old Tx, err error) {
	err = s.Journal.locked(func() error {
		i := s.Journal.findLocked(hash)
		if i < 0 || s.Journal.all[i].State != Signed || s.Journal.all[i].Chain != s.Client.profile.ID {
			return fmt.Errorf("%s: %w", hash, ErrNoTx)
		}
		old = s.Journal.all[i]
		return nil
	})
	if err != nil {
		return p, old, err
	}
	v, err := s.Client.Look(ctx)
	if err != nil {
		return p, old, err
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(old.Raw); err != nil {
		return p, old, err
	}
	p = Plan{Order: Order{old.What, old.From, old.To, old.Unit, old.Amount}, Chain: s.Client.profile.Name, ChainID: old.Chain, Gas: tx.Gas(), Nodes: len(v.good)}
	if cancel {
		p.Order, p.Gas = Order{What: "cancel", From: old.From, To: old.From, Unit: wallet.BTT}, 21_000
	}
	if p.Funds, err = s.Client.Funds(ctx, v, old.From); err != nil {
		return p, old, err
	}
	if err = s.Client.price(ctx, v, &p); err != nil {
		return p, old, err
	}
	if p.Price, err = tenthMore(p.Price, tx.GasFeeCap()); err != nil {
		return p, old, err
	}
	if p.Dynamic {
		if p.Tip, err = tenthMore(p.Tip, tx.GasTipCap()); err != nil {
			return p, old, err
		}
	}
	if p.Price.Cmp(s.Client.profile.MaxGasPrice) > 0 {
		return p, old, ErrGasPrice
	}
	p.Fee, err = p.Price.Times(p.Gas)
	return p, old, err
}

// tenthMore is the greater of a price and a tenth more than an old one.
func tenthMore(now wallet.Amount, old *big.Int) (wallet.Amount, error) {
	more := new(big.Int).Mul(old, big.NewInt(11))
	more.Add(more.Div(more, big.NewInt(10)), big.NewInt(1))
	least, err := wallet.FromBig(more)
	if err == nil && least.Cmp(now) > 0 {
		now = least
	}
	return now, err
}

// Replace signs and sends what Replacement has priced. Of all transactions of one nonce the
// chain takes one.
func (s *Sender) Replace(ctx context.Context, hash common.Hash, p Plan, signer wallet.Signer) (t Tx, err error) {
	err = s.Journal.locked(func() error {
		i := s.Journal.findLocked(hash)
		if i < 0 || s.Journal.all[i].State != Signed {
			return fmt.Errorf("%s: %w", hash, ErrNoTx)
		}
		old := s.Journal.all[i]
		v, err := s.Client.Look(ctx)
		if err != nil {
			return err
		}
		m := message{to: old.From}
		if p.What != "cancel" {
			if m, err = s.Client.message(p.Order); err != nil {
				return err
			}
		}
		t = Tx{Entry: old.Entry, What: p.What, Chain: old.Chain, From: old.From, Nonce: old.Nonce, To: p.To, Unit: p.Unit, Amount: p.Amount, Fee: p.Fee, Replaces: &hash}
		return s.signLocked(ctx, v, &t, p.transaction(m, old.Nonce), signer)
	})
	if err != nil {
		return Tx{}, err
	}
	return t, s.broadcast(ctx, t)
}
