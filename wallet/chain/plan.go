package chain

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/btmount/btmount/wallet"
)

// Errors of orders, of which nothing was signed.
var (
	ErrFunds    = errors.New("not enough")
	ErrGasPrice = errors.New("gas is dearer than the chain's profile allows")
	ErrFee      = errors.New("the fee rose above what was agreed to; nothing was signed")
)

// Order is what is to be done.
type Order struct {
	What   string         `json:"what"` // send, wrap or unwrap
	From   wallet.Address `json:"from"`
	To     wallet.Address `json:"to"`   // of send
	Unit   wallet.Unit    `json:"unit"` // of send, BTT or WBTT
	Amount wallet.Amount  `json:"amount"`
}

// Plan is an order with its price.
type Plan struct {
	Order
	Chain   string        `json:"chain"`
	ChainID uint64        `json:"chain_id"`
	Gas     uint64        `json:"gas"`
	Price   wallet.Amount `json:"gas_price"` // most, wei
	Tip     wallet.Amount `json:"tip"`       // most, wei; of a chain with a base fee
	Dynamic bool          `json:"dynamic_fee"`
	Fee     wallet.Amount `json:"max_fee"` // most that it costs besides, wei
	Funds   Funds         `json:"funds"`   // before it
	Nodes   int           `json:"nodes"`   // that agree
}

// message is what a transaction does.
type message struct {
	to    wallet.Address
	value wallet.Amount
	input []byte
}

// message translates an order.
func (c *Client) message(o Order) (m message, err error) {
	if c.profile.WBTT == nil && (o.What != "send" || o.Unit != wallet.BTT) {
		return m, fmt.Errorf("the profile of %s names no WBTT contract", c.profile.Name)
	}
	switch {
	case o.What == "send" && o.Unit == wallet.BTT:
		return message{to: o.To, value: o.Amount}, nil
	case o.What == "send" && o.Unit == wallet.WBTT:
		return message{*c.profile.WBTT, wallet.Amount{}, call(transfer, word(o.To.Bytes()), o.Amount.Bytes32())}, nil
	case o.What == "wrap":
		return message{*c.profile.WBTT, o.Amount, call(deposit)}, nil
	case o.What == "unwrap":
		return message{*c.profile.WBTT, wallet.Amount{}, call(withdraw, o.Amount.Bytes32())}, nil
	}
	return m, fmt.Errorf("no such order: %s of %s", o.What, o.Unit)
}

// Plan prices an order, and checks that the account can pay for it. It signs nothing.
func (c *Client) Plan(ctx context.Context, o Order) (Plan, error) {
	v, err := c.Look(ctx)
	if err != nil {
		return Plan{}, err
	}
	p, _, err := c.plan(ctx, v, o)
	return p, err
}

func (c *Client) plan(ctx context.Context, v View, o Order) (p Plan, m message, err error) {
	p = Plan{Order: o, Chain: c.profile.Name, ChainID: c.profile.ID, Nodes: len(v.good)}
	if m, err = c.message(o); err != nil {
		return p, m, err
	}
	if m.input != nil {
		if err = c.checkWBTT(ctx, v); err != nil {
			return p, m, err
		}
	}
	if p.Funds, err = c.Funds(ctx, v, o.From); err != nil {
		return p, m, err
	}
	if o.What == "unwrap" || o.Unit == wallet.WBTT && o.What == "send" {
		if p.Funds.WBTT.Cmp(o.Amount) < 0 {
			return p, m, fmt.Errorf("%w: %s has %s, and it takes %s", ErrFunds, o.From, p.Funds.WBTT.In(wallet.WBTT), o.Amount.In(wallet.WBTT))
		}
	}
	if p.Funds.BTT.Cmp(m.value) < 0 { // before the gas is asked for: a node says it less clearly
		return p, m, fmt.Errorf("%w: %s has %s, and it takes %s", ErrFunds, o.From, p.Funds.BTT.In(wallet.BTT), m.value.In(wallet.BTT))
	}
	if err = c.price(ctx, v, &p); err != nil {
		return p, m, err
	}
	if p.Gas, err = c.gas(ctx, v, o.From, m); err != nil {
		return p, m, err
	}
	if p.Fee, err = p.Price.Times(p.Gas); err != nil {
		return p, m, err
	}
	need, err := m.value.Plus(p.Fee)
	if err != nil || p.Funds.BTT.Cmp(need) < 0 {
		return p, m, fmt.Errorf("%w: %s has %s, and it takes %s with a fee of up to %s", ErrFunds, o.From, p.Funds.BTT.In(wallet.BTT), m.value.In(wallet.BTT), p.Fee.In(wallet.BTT))
	}
	return p, m, nil
}

// price is that of gas: where the head has a base fee, twice that and a tip; else what the
// network takes now.
func (c *Client) price(ctx context.Context, v View, p *Plan) (err error) {
	type base struct {
		dynamic bool
		fee     wallet.Amount
	}
	b, err := agree(ctx, v, "the base fee", func(ctx context.Context, n *node) (b base, err error) {
		var h header
		if err = n.call(ctx, &h, "eth_getBlockByNumber", hexOf(v.Number), false); err == nil && h.BaseFee != nil {
			b = base{true, h.BaseFee.Amount}
		}
		return b, err
	})
	if err != nil {
		return err
	}
	if p.Dynamic = b.dynamic; p.Dynamic {
		if p.Tip, err = median(ctx, v, "eth_maxPriorityFeePerGas"); err != nil {
			return err
		}
		if p.Price, err = b.fee.Times(2); err == nil {
			p.Price, err = p.Price.Plus(p.Tip)
		}
	} else {
		p.Price, err = median(ctx, v, "eth_gasPrice")
	}
	if err == nil && p.Price.Cmp(c.profile.MaxGasPrice) > 0 {
		err = fmt.Errorf("%w: %s, and at most %s", ErrGasPrice, p.Price, c.profile.MaxGasPrice.In(wallet.Wei))
	}
	return err
}

// gas is what the nodes say that it takes, the most that any says, and a fifth more for a
// contract, whose state may change before it is its turn.
func (c *Client) gas(ctx context.Context, v View, from wallet.Address, m message) (uint64, error) {
	ask := map[string]any{"from": from, "to": m.to, "value": hexutil.EncodeBig(m.value.Big())}
	if m.input != nil {
		ask["data"] = hexutil.Bytes(m.input)
	}
	answers, errs := everyone(ctx, v, func(ctx context.Context, n *node) (s small, err error) {
		return s, n.call(ctx, &s, "eth_estimateGas", ask)
	})
	if len(answers) == 0 {
		return 0, errors.Join(errs...)
	}
	var most uint64
	for _, a := range answers {
		most = max(most, uint64(a.value))
	}
	if most > 21_000 && most <= c.profile.MaxGas {
		most += most / 5
	}
	if most < 21_000 || most > c.profile.MaxGas {
		return 0, fmt.Errorf("it would take %d gas, and the profile of %s allows from 21000 to %d", most, c.profile.Name, c.profile.MaxGas)
	}
	return most, nil
}

// transaction makes what is signed.
func (p Plan) transaction(m message, nonce uint64) *types.Transaction {
	if p.Dynamic {
		return types.NewTx(&types.DynamicFeeTx{
			ChainID: new(big.Int).SetUint64(p.ChainID), Nonce: nonce, To: &m.to, Value: m.value.Big(), Data: m.input, Gas: p.Gas, GasFeeCap: p.Price.Big(), GasTipCap: p.Tip.Big(),
		})
	}
	return types.NewTx(&types.LegacyTx{Nonce: nonce, To: &m.to, Value: m.value.Big(), Data: m.input, Gas: p.Gas, GasPrice: p.Price.Big()})
}
