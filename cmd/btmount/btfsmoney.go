package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs/rpc"
)

// moneyCommands read what a node in full mode knows of storage and money.
func moneyCommands() []*cli.Command {
	role := stringFlag("role", "renter", "contracts in which the node has this `ROLE`: renter or host")
	return []*cli.Command{
		{
			Name: "hosts", Usage: "list the hosts that your node could rent from",
			Flags: nodeFlags(), Action: withNode(btfsHosts),
		},
		{
			Name: "contracts", Usage: "list the contracts of what your node rents, or stores",
			Flags: nodeFlags(role), Action: withNode(btfsContracts),
		},
		{
			Name: "stake", Usage: "tell what your node has staked to be a host",
			Flags: nodeFlags(), Action: withNode(btfsStake),
		},
		{
			Name: "cheques", Usage: "list the cheques that your node got, and those that it gave",
			Flags: nodeFlags(tokenFlag()), Action: withNode(btfsCheques),
		},
		{
			Name: "earnings", Usage: "sum up the cheques of all tokens, and tell what the vault holds",
			Flags: nodeFlags(), Action: withNode(btfsEarnings),
		},
	}
}

func btfsHosts(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	all, err := a.node.Hosts(ctx)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"hosts": list(all)}, func(w io.Writer) {
		fmt.Fprint(w, "HOST\tSCORE\tPRICE PER GiB AND DAY\tLEAST DAYS\n")
		for _, h := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", orDash(string(h.ID)), orDash(string(h.Score)), orDash(string(h.Price)), orDash(string(h.MinDays)))
		}
	})
}

// list is never null in JSON.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func btfsContracts(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	role := a.oneOf("role", "renter", "host")
	if a.reader.err != nil {
		return a.reader.err
	}
	all, err := a.node.Contracts(ctx, role)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"contracts": list(all)}, func(w io.Writer) {
		fmt.Fprint(w, "CONTRACT\tSTATUS\tFILE\tHOST\tBYTES\tUNTIL\n")
		for _, k := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", orDash(string(k.ID)), orDash(string(k.Status)), orDash(string(k.FileHash)), orDash(string(k.Host)), orDash(string(k.ShardSize)), orDash(string(k.End)))
		}
	})
}

func btfsStake(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	s, err := a.node.Stake(ctx)
	if err != nil {
		return err
	}
	return a.show(s, func(w io.Writer) {
		fmt.Fprintf(w, "stake\t%s smallest units of BTT\n", s.Amount)
		if !s.Until.IsZero() {
			fmt.Fprintf(w, "locked\tuntil %s\n", s.Until.Format("2006-01-02 15:04 MST"))
		}
	})
}

func btfsCheques(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	token, err := rpc.ParseToken(a.c.String("token"))
	if err != nil {
		a.wrong("token", a.c.String("token"), err.Error())
		return a.reader.err
	}
	got, err := a.node.Cheques(ctx, true, token)
	if err != nil {
		return err
	}
	gave, err := a.node.Cheques(ctx, false, token)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"token": token, "received": list(got), "sent": list(gave)}, func(w io.Writer) {
		fmt.Fprint(w, "WAY\tPEER\tALL SO FAR\tCASHED OF IT\n")
		for i, q := range append(got, gave...) {
			way := "received"
			if i >= len(got) {
				way = "sent"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", way, orDash(string(q.Peer)), q.Payout.In(token), q.Cashed.In(token))
		}
	})
}

func btfsEarnings(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	all, vault, err := a.node.Earnings(ctx)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"vault": vault, "tokens": list(all)}, func(w io.Writer) {
		fmt.Fprintf(w, "vault\t%s\n", vault.In("WBTT"))
		for _, e := range all {
			fmt.Fprintf(w, "received\t%s\t(%s of it not cashed)\n", e.Received.In(e.Token), e.Uncashed.In(e.Token))
			fmt.Fprintf(w, "sent\t%s\t(%s of it cashed)\n", e.Sent.In(e.Token), e.Cashed.In(e.Token))
		}
	})
}
