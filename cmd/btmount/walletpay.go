package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/chain"
)

func payCommands() []*cli.Command {
	wait := boolFlag("no-wait", "return when it is sent, and do not wait until it is final")
	again := boolFlag("again", "also if the same is on its way already: it is sent once more")
	return []*cli.Command{
		{
			Name: "balance", Usage: "tell what the account has, if all nodes say the same",
			Flags:  walletFlags(fromFlag(), boolFlag("all", "of all accounts")),
			Action: withWallet(0, walletBalance),
		},
		{
			Name: "send", Usage: "send BTT or WBTT", ArgsUsage: "ADDRESS AMOUNT",
			Description: `AMOUNT is exact, such as 12.5, 12.5BTT, 3WBTT or 1000wei. What is sent, to whom, and the
most that it costs is shown before it is signed.

It is written down before it is sent. Whatever happens then, the same bytes are sent again
until they are final: here, or with btmount wallet tx.`,
			Flags:  walletFlags(append(payFlags(), stringFlag("token", "", "`TOKEN` that is sent, BTT or WBTT; BTT if neither this nor the amount says it"), wait, again)...),
			Action: withWallet(2, walletSend),
		},
		{
			Name: "wrap", Usage: "make WBTT of BTT", ArgsUsage: "AMOUNT",
			Flags: walletFlags(append(payFlags(), wait, again)...), Action: withWallet(1, walletWrap("wrap")),
		},
		{
			Name: "unwrap", Usage: "make BTT of WBTT", ArgsUsage: "AMOUNT",
			Flags: walletFlags(append(payFlags(), wait, again)...), Action: withWallet(1, walletWrap("unwrap")),
		},
		{
			Name: "tx", Usage: "look after the transactions that are on their way",
			Description: `Those that the nodes do not have are sent again, the same bytes. --replace and --cancel
sign another one with the same nonce, of which the chain takes only one.`,
			Flags: walletFlags(append(payFlags(),
				boolFlag("wait", "return when all are final"),
				boolFlag("all", "list those that ended as well"),
				stringFlag("replace", "", "send the transaction of this `HASH` with a higher fee"),
				stringFlag("cancel", "", "put one that does nothing in place of that of this `HASH`, at a higher fee"),
			)...),
			Action: withWallet(0, walletTx),
		},
	}
}

type balance struct {
	Address wallet.Address `json:"address"`
	chain.Funds
}

func walletBalance(ctx context.Context, a *walletAsk) error {
	var all []wallet.Account
	k, err := a.keys()
	if err != nil {
		return err
	}
	if a.c.Bool("all") {
		all, err = k.List()
	} else {
		var one wallet.Account
		one, _, err = a.account()
		all = []wallet.Account{one}
	}
	if err != nil {
		return err
	}
	return a.onChain(func(s *chain.Sender) error {
		v, err := s.Client.Look(ctx)
		if err != nil {
			return err
		}
		var out []balance
		for _, acc := range all {
			f, err := s.Client.Funds(ctx, v, acc.Address)
			if err != nil {
				return err
			}
			out = append(out, balance{acc.Address, f})
		}
		p := s.Client.Profile()
		return a.tell(map[string]any{"chain": p.Name, "chain_id": p.ID, "block": v.Number, "nodes": v.Usable(), "accounts": list(out)}, func(w io.Writer) {
			for _, b := range out {
				fmt.Fprintf(w, "%s\t%s\t%s\n", b.Address, b.BTT.In(wallet.BTT), b.WBTT.In(wallet.WBTT))
			}
			fmt.Fprintf(w, "on %s (%d), block %d, asked of %s\n", p.Name, p.ID, v.Number, count(v.Usable(), "node"))
		})
	})
}

func walletSend(ctx context.Context, a *walletAsk) error {
	to, checked, err := wallet.ParseAddress(a.c.Args().Get(0))
	if err != nil {
		return usage(fmt.Errorf("address %q: %s", a.c.Args().Get(0), oneLine(err)))
	}
	token := wallet.Unit(a.c.String("token"))
	if token != "" && token != wallet.BTT && token != wallet.WBTT {
		a.wrong("token", string(token), "give BTT or WBTT")
		return a.reader.err
	}
	unit := token
	if unit == "" {
		unit = wallet.BTT
	}
	n, u, err := a.amount(a.c.Args().Get(1), unit)
	if err != nil {
		return err
	}
	if u == wallet.Wei {
		u = unit
	}
	if token != "" && u != token {
		return usage(fmt.Errorf("--token %s: the amount is in %s", token, u))
	}
	note := ""
	if !checked {
		note = " (it has no checksum: compare every character)"
	}
	return a.pay(ctx, chain.Order{What: "send", To: to, Unit: u, Amount: n}, note)
}

func walletWrap(what string) func(ctx context.Context, a *walletAsk) error {
	return func(ctx context.Context, a *walletAsk) error {
		unit := map[string]wallet.Unit{"wrap": wallet.BTT, "unwrap": wallet.WBTT}[what]
		n, u, err := a.amount(a.c.Args().First(), unit)
		if err != nil {
			return err
		}
		if u != unit && u != wallet.Wei {
			return usage(fmt.Errorf("it takes %s, and the amount is in %s", unit, u))
		}
		return a.pay(ctx, chain.Order{What: what, Unit: unit, Amount: n}, "")
	}
}

// pay prices an order, shows it, and has it signed and sent if the user agrees.
func (a *walletAsk) pay(ctx context.Context, o chain.Order, note string) error {
	acc, k, err := a.account()
	if err != nil {
		return err
	}
	o.From = acc.Address
	return a.onChain(func(s *chain.Sender) error {
		p, err := s.Client.Plan(ctx, o)
		if err != nil {
			return err
		}
		if err := a.showPlan(s, p, note); err != nil || a.c.Bool("dry-run") {
			return err
		}
		if err := a.agreed("Sign it?"); err != nil {
			return err
		}
		key, err := a.unlock(ctx, k, acc)
		if err != nil {
			return err
		}
		defer key.Close()
		t, err := s.Send(ctx, p, key, a.c.Bool("again"))
		key.Close() // it is not needed any more, and waiting may take long
		return a.sent(ctx, s, t, err)
	})
}

func (a *walletAsk) unlock(ctx context.Context, k *wallet.Keys, acc wallet.Account) (*wallet.Key, error) {
	pass, err := a.passphrase(ctx, acc.Address.Hex(), false)
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	return k.Unlock(acc.Address, pass)
}

// showPlan shows what, to whom, fee and limits.
func (a *walletAsk) showPlan(s *chain.Sender, p chain.Plan, note string) error {
	limits, _, err := s.Ledger.Limits()
	if err != nil {
		return err
	}
	return a.tell(map[string]any{"plan": p, "dry_run": a.c.Bool("dry-run")}, func(w io.Writer) {
		fmt.Fprintf(w, "what\t%s %s\n", p.What, p.Amount.In(p.Unit))
		if p.What == "send" {
			fmt.Fprintf(w, "to\t%s%s\n", p.To, note)
		}
		fmt.Fprintf(w, "from\t%s, which has %s and %s\n", p.From, p.Funds.BTT.In(wallet.BTT), p.Funds.WBTT.In(wallet.WBTT))
		fmt.Fprintf(w, "fee\tat most %s (%d gas at %s)\n", p.Fee.In(wallet.BTT), p.Gas, p.Price.In(wallet.Wei))
		fmt.Fprintf(w, "chain\t%s (%d), asked of %s\n", p.Chain, p.ChainID, count(p.Nodes, "node"))
		if limits.On() {
			fmt.Fprint(w, "limits\tthose of btmount wallet limit are for what is spent by itself; this is not\n")
		}
	})
}

// sent tells of a transaction, and waits for its end.
func (a *walletAsk) sent(ctx context.Context, s *chain.Sender, t chain.Tx, err error) error {
	if len(t.Raw) == 0 {
		return err
	}
	if terr := a.tell(map[string]any{"signed": t}, func(w io.Writer) {
		fmt.Fprintf(w, "signed\t%s, nonce %d\n", t.Hash, t.Nonce)
	}); terr != nil {
		return terr
	}
	if a.c.Bool("no-wait") {
		return err
	}
	if err != nil {
		fmt.Fprintln(a.err, "btmount:", oneLine(err))
	}
	return a.watch(ctx, s, &t)
}

// watch waits until one transaction has ended, or all; it tells when they are in a block, and
// how they end.
func (a *walletAsk) watch(ctx context.Context, s *chain.Sender, only *chain.Tx) error {
	var failed []string
	told := map[string]string{}
	report := func(all []chain.Progress) {
		for _, p := range all {
			if only != nil && p.Tx.Entry != only.Entry {
				continue
			}
			line := fmt.Sprintf("%s: waits", p.Tx.Hash)
			switch {
			case p.Tx.State == chain.Failed:
				failed = append(failed, p.Tx.Hash.Hex())
				fallthrough
			case p.Tx.State != chain.Signed:
				line = fmt.Sprintf("%s: %s, fee %s", p.Tx.Hash, p.Tx.State, p.Tx.Fee.In(wallet.BTT))
			case p.Said != "":
				line = fmt.Sprintf("%s: %s", p.Tx.Hash, oneLine(errors.New(p.Said)))
			case p.Block > 0:
				line = fmt.Sprintf("%s: in block %d, final after %d", p.Tx.Hash, p.Block, p.Of)
			}
			if told[p.Tx.Hash.Hex()] == line {
				continue
			}
			told[p.Tx.Hash.Hex()] = line
			if a.json {
				_ = json.NewEncoder(a.out).Encode(map[string]any{"progress": p})
			} else {
				fmt.Fprintln(a.out, line)
			}
		}
	}
	err := s.Wait(ctx, only, report)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; what is signed goes on: btmount wallet tx --wait")
	case err != nil:
		return fmt.Errorf("%w; what is signed goes on: btmount wallet tx --wait", err)
	case len(failed) > 0:
		return fmt.Errorf("%s: the chain undid it; only its fee is spent", strings.Join(failed, ", "))
	}
	return nil
}

func walletTx(ctx context.Context, a *walletAsk) error {
	replace, cancel := a.c.String("replace"), a.c.String("cancel")
	if replace != "" && cancel != "" {
		return usage(errors.New("give --replace or --cancel, not both"))
	}
	return a.onChain(func(s *chain.Sender) error {
		if replace+cancel != "" {
			return a.replace(ctx, s, replace+cancel, cancel != "")
		}
		if a.c.Bool("wait") {
			return a.watch(ctx, s, nil)
		}
		seen, failed := s.Resume(ctx)
		all, err := s.Journal.Transactions()
		if err != nil {
			return err
		}
		at := map[string]chain.Progress{}
		for _, p := range seen {
			at[p.Tx.Hash.Hex()] = p
		}
		var out []chain.Progress
		for _, t := range all {
			p, ok := at[t.Hash.Hex()]
			if !ok {
				p = chain.Progress{Tx: t, Block: t.Block}
			}
			if p.Tx = t; ok || t.State == chain.Signed || a.c.Bool("all") {
				out = append(out, p)
			}
		}
		err = a.tell(map[string]any{"transactions": list(out)}, func(w io.Writer) {
			for _, p := range out {
				state := string(p.Tx.State)
				if p.Tx.State == chain.Signed && p.Block > 0 {
					state = fmt.Sprintf("in block %d, %d of %d", p.Block, p.Depth, p.Of)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\t%s\t%s\n", p.Tx.Signed.Local().Format(time.DateTime), p.Tx.Hash, state, p.Tx.What, p.Tx.Amount.In(p.Tx.Unit), p.Tx.To, oneLine(errors.New(p.Said)))
			}
		})
		if failed != nil {
			return failed
		}
		return err
	})
}

func (a *walletAsk) replace(ctx context.Context, s *chain.Sender, text string, cancel bool) error {
	b, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(b) != 32 {
		return usage(fmt.Errorf("%q is no hash of a transaction: give 0x and 64 hexadecimal digits", text))
	}
	p, old, err := s.Replacement(ctx, chain.Hash(b), cancel)
	if err != nil {
		return err
	}
	if err := a.showPlan(s, p, fmt.Sprintf(", in place of %s, whose fee is at most %s", old.Hash, old.Fee.In(wallet.BTT))); err != nil || a.c.Bool("dry-run") {
		return err
	}
	if err := a.agreed("Sign it?"); err != nil {
		return err
	}
	k, err := a.keys()
	if err != nil {
		return err
	}
	key, err := a.unlock(ctx, k, wallet.Account{Address: old.From})
	if err != nil {
		return err
	}
	defer key.Close()
	t, err := s.Replace(ctx, old.Hash, p, key)
	return a.sent(ctx, s, t, err)
}
