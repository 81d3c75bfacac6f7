package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/chain"
	"github.com/btmount/btmount/wallet/durable"
)

func accountCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "limit", Usage: "limits on what may be spent without asking", ArgsUsage: "COMMAND",
			Description: `Without a limit per hour or per day nothing is ever spent by itself. Fees count. There is
nothing yet in btmount that spends by itself.`,
			Subcommands: []*cli.Command{
				{
					Name: "set", Usage: "set or change limits; those that are not given stay",
					Flags: walletFlags(
						stringFlag("per-hour", "", "most `AMOUNT` in any 60 minutes, such as 10BTT"),
						stringFlag("per-day", "", "most `AMOUNT` in any 24 hours"),
						stringFlag("per-torrent", "", "most `AMOUNT` for one torrent, ever"),
						stringFlag("max-price", "", "most `AMOUNT` for a GiB, such as 2BTT/GiB"),
					),
					Action: withWallet(0, walletLimitSet),
				},
				{Name: "show", Usage: "show the limits, and what of them is used up", Flags: walletFlags(), Action: withWallet(0, walletLimitShow)},
				{Name: "off", Usage: "take all limits away, so that nothing is spent by itself", Flags: walletFlags(), Action: withWallet(0, walletLimitOff)},
			},
		},
		{
			Name: "ledger", Usage: "list all that was spent, or may be: what, to whom, fee, and how it ended",
			Flags: walletFlags(
				stringFlag("since", "", "only what began within this `TIME`, such as 36h, 2d or 1w, or since a day, such as 2026-01-31"),
				boolFlag("csv", "as a table of comma-separated values, amounts in wei"),
			),
			Action: withWallet(0, walletLedger),
		},
		{
			Name: "chain", Usage: "choose the chain, and look at its nodes", ArgsUsage: "COMMAND",
			Subcommands: []*cli.Command{
				{Name: "list", Usage: "list the chains that are known", Flags: walletFlags(), Action: withWallet(0, walletChains)},
				{
					Name: "use", Usage: "choose a chain", ArgsUsage: "NAME|FILE",
					Description: `FILE describes a chain of your own in JSON: name, id and rpc, a list of addresses; and if
they are other than BTTC's: explorer, finality (blocks), block_time, max_head_age,
max_gas_price (wei), max_gas, wbtt and contracts (addresses).`,
					Flags: walletFlags(), Action: withWallet(1, walletUse),
				},
				{Name: "check", Usage: "ask every node of the chain how it is", Flags: walletFlags(), Action: withWallet(0, walletCheck)},
			},
		},
	}
}

func (a *walletAsk) withLedger(f func(l *wallet.Ledger) error) error {
	l, err := a.ledger()
	if err != nil {
		return err
	}
	defer l.Close()
	return f(l)
}

func walletLimitSet(_ context.Context, a *walletAsk) error {
	read := func(flag string) *wallet.Amount {
		v := a.c.String(flag)
		if v == "" {
			return nil
		}
		text := v
		if flag == "max-price" {
			text = strings.TrimSuffix(v, "/GiB")
		}
		n, unit, err := wallet.ParseAmount(text, wallet.BTT)
		if err != nil {
			a.wrong(flag, v, err.Error())
		} else if unit == wallet.WBTT {
			a.wrong(flag, v, "give it in BTT; WBTT counts as the same")
		}
		return &n
	}
	set := wallet.Limits{PerHour: read("per-hour"), PerDay: read("per-day"), PerTorrent: read("per-torrent"), MaxPrice: read("max-price")}
	if a.reader.err != nil {
		return a.reader.err
	}
	if set == (wallet.Limits{}) {
		return usage(errors.New("give a limit: --per-hour, --per-day, --per-torrent or --max-price"))
	}
	return a.withLedger(func(l *wallet.Ledger) error {
		now, err := l.SetLimits(func(old wallet.Limits) wallet.Limits {
			for _, x := range []struct {
				to   **wallet.Amount
				from *wallet.Amount
			}{{&old.PerHour, set.PerHour}, {&old.PerDay, set.PerDay}, {&old.PerTorrent, set.PerTorrent}, {&old.MaxPrice, set.MaxPrice}} {
				if x.from != nil {
					*x.to = x.from
				}
			}
			return old
		})
		if err == nil && !now.On() {
			fmt.Fprintln(a.err, "btmount: nothing is spent by itself without --per-hour or --per-day as well")
		}
		if err != nil {
			return err
		}
		return a.showLimits(l)
	})
}

func walletLimitShow(_ context.Context, a *walletAsk) error { return a.withLedger(a.showLimits) }

func walletLimitOff(_ context.Context, a *walletAsk) error {
	return a.withLedger(func(l *wallet.Ledger) error {
		if _, err := l.SetLimits(func(wallet.Limits) wallet.Limits { return wallet.Limits{} }); err != nil {
			return err
		}
		return a.showLimits(l)
	})
}

func (a *walletAsk) showLimits(l *wallet.Ledger) error {
	limits, spent, err := l.Limits()
	if err != nil {
		return err
	}
	return a.tell(map[string]any{"on": limits.On(), "limits": limits, "spent": map[string]wallet.Amount{"hour": spent.Hour, "day": spent.Day}}, func(w io.Writer) {
		if !limits.On() {
			fmt.Fprint(w, "off: nothing is spent by itself\n")
		}
		for _, x := range []struct {
			name  string
			limit *wallet.Amount
			more  string
		}{
			{"per hour", limits.PerHour, ", " + spent.Hour.In(wallet.BTT) + " spent"},
			{"per day", limits.PerDay, ", " + spent.Day.In(wallet.BTT) + " spent"},
			{"per torrent", limits.PerTorrent, ""},
			{"price", limits.MaxPrice, " for a GiB"},
		} {
			if x.limit != nil {
				fmt.Fprintf(w, "%s\tat most %s%s\n", x.name, x.limit.In(wallet.BTT), x.more)
			}
		}
	})
}

func walletLedger(_ context.Context, a *walletAsk) error {
	since := a.since("since", time.Now())
	if a.reader.err != nil {
		return a.reader.err
	}
	if a.json && a.c.Bool("csv") {
		return usage(errors.New("give --json or --csv, not both"))
	}
	return a.withLedger(func(l *wallet.Ledger) error {
		all, err := l.Entries(since)
		if err != nil {
			return err
		}
		if a.c.Bool("csv") {
			return ledgerCSV(a.out, all)
		}
		return a.tell(map[string]any{"entries": list(all)}, func(w io.Writer) {
			for _, e := range all {
				amount, fee := e.Paid, e.Fee
				if e.State == wallet.Intent {
					amount, fee = e.Amount, e.MaxFee
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\tfee %s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), e.What, e.State, amount.In(e.Unit), e.To, fee.In(wallet.BTT), orDash(e.Tx), e.Why)
			}
		})
	})
}

func ledgerCSV(out io.Writer, all []wallet.Entry) error {
	w := csv.NewWriter(out)
	if err := w.Write([]string{"id", "time", "what", "by_itself", "chain", "from", "to", "unit", "amount", "max_fee", "state", "paid", "fee", "tx", "why", "settled", "torrent", "bytes"}); err != nil {
		return err
	}
	for _, e := range all {
		settled := ""
		if !e.Settled.IsZero() {
			settled = e.Settled.Format(time.RFC3339)
		}
		if err := w.Write([]string{
			e.ID, e.Time.Format(time.RFC3339), e.What, strconv.FormatBool(e.Auto), strconv.FormatUint(e.Chain, 10), e.From.Hex(), e.To.Hex(), string(e.Unit), e.Amount.String(), e.MaxFee.String(),
			string(e.State), e.Paid.String(), e.Fee.String(), e.Tx, e.Why, settled, e.Torrent, strconv.FormatUint(e.Bytes, 10),
		}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func walletChains(_ context.Context, a *walletAsk) error {
	now, err := a.profile()
	if err != nil {
		return err
	}
	all := chain.Profiles()
	if !slices.ContainsFunc(all, func(p chain.Profile) bool { return p.Name == now.Name && p.ID == now.ID }) {
		all = append(all, now)
	}
	return a.tell(map[string]any{"use": now.Name, "chains": all}, func(w io.Writer) {
		for _, p := range all {
			mark := ""
			if p.Name == now.Name && p.ID == now.ID {
				mark = "in use"
			}
			var hosts []string
			for _, s := range p.Hosts() {
				hosts = append(hosts, oneLine(errors.New(s)))
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", p.Name, p.ID, strings.Join(hosts, " "), mark)
		}
	})
}

const maxProfile = 64 << 10 // bytes

func walletUse(_ context.Context, a *walletAsk) error {
	name := a.c.Args().First()
	all := chain.Profiles()
	i := slices.IndexFunc(all, func(p chain.Profile) bool { return p.Name == name })
	var p chain.Profile
	if i >= 0 {
		p = all[i]
	} else {
		f, err := os.Open(name)
		if err != nil {
			return usage(fmt.Errorf("%s is no chain that is known (see btmount wallet chain list), and no file: %w", strconv.Quote(name), bare(err)))
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxProfile))
		if err != nil {
			return err
		}
		if p, err = chain.ParseProfile(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if slices.ContainsFunc(all, func(q chain.Profile) bool { return q.Name == p.Name }) {
			return fmt.Errorf("%s: a chain of the name %s is built in; give it another", name, p.Name)
		}
	}
	path := filepath.Join(a.dir, "chain.json")
	if i >= 0 && i == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else {
		text, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(path, append(text, '\n'), true); err != nil {
			return err
		}
	}
	return a.tell(map[string]any{"use": p.Name, "chain_id": p.ID}, func(w io.Writer) { fmt.Fprintf(w, "%s (%d) is used from now on\n", p.Name, p.ID) })
}

func walletCheck(ctx context.Context, a *walletAsk) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	c, err := chain.NewClient(p)
	if err != nil {
		return err
	}
	defer c.Close()
	v, bad := c.Look(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = a.tell(map[string]any{"chain": p.Name, "chain_id": p.ID, "nodes": v.Nodes}, func(w io.Writer) {
		for _, n := range v.Nodes {
			if n.Err != "" {
				fmt.Fprintf(w, "%s\tnot used\t%s\n", n.Node, oneLine(errors.New(n.Err)))
				continue
			}
			fee := "no base fee"
			if n.Dynamic {
				fee = "base fee"
			}
			fmt.Fprintf(w, "%s\tgood\tblock %d of %s, %s\n", n.Node, n.Block, n.Time.Local().Format(time.DateTime), fee)
		}
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("%s: %w", p.Name, chain.ErrNoNode)
	}
	return err
}
