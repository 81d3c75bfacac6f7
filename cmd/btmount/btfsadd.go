package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs/rpc"
)

func addCommand() *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "put files and directories into BTFS through your node", ArgsUsage: "PATH...",
		Description: `Each PATH gets a CID, one line each. Symlinks are added as symlinks. The node keeps what
is added until it is unpinned. What is encrypted can be read by the node's key alone, or by
that of --public-key or --peer-id: btmount gets it as it is stored.`,
		Flags: nodeFlags(
			boolFlag("no-pin", "do not have the node keep it: it is gone with the next collection of garbage"),
			boolFlag("hidden", "below a directory, also names that begin with a dot"),
			boolFlag("reed-solomon", "as 10 data and 20 parity shards, which is what can be rented best"),
			boolFlag("encrypt", "have the node encrypt it, for its own key"),
			stringFlag("public-key", "", "with --encrypt, for the owner of this `KEY` instead (secp256k1, hexadecimal)"),
			stringFlag("peer-id", "", "with --encrypt, for the node of this `ID` instead"),
		),
		Action: withNode(btfsAdd),
	}
}

type btfsAdded struct {
	Path  string `json:"path"`
	CID   string `json:"cid"`
	Names int    `json:"names"`
	Bytes int64  `json:"bytes"`
}

func btfsAdd(ctx context.Context, a *nodeAsk) error {
	paths, err := a.some("PATH...")
	if err != nil {
		return err
	}
	o := rpc.AddOptions{
		Pin: !a.c.Bool("no-pin"), Hidden: a.c.Bool("hidden"), ReedSolomon: a.c.Bool("reed-solomon"),
		Encrypt: a.c.Bool("encrypt"), PublicKey: a.c.String("public-key"), PeerID: a.c.String("peer-id"),
	}
	if !o.Encrypt && o.PublicKey+o.PeerID != "" || o.PublicKey != "" && o.PeerID != "" {
		return usage(errors.New("give one of --public-key and --peer-id, and with --encrypt"))
	}
	sizes := make([]int64, len(paths))
	for i, p := range paths {
		if sizes[i], err = rpc.Measure(ctx, p, o.Hidden); err != nil {
			return notAdded(err)
		}
	}
	// A wrong address or token is told before gigabytes were sent there.
	if _, err := a.node.Version(ctx); err != nil {
		return err
	}
	for i, p := range paths {
		var sent atomic.Int64
		end := a.sending(&sent, sizes[i])
		got, err := a.node.Add(ctx, p, o, func(n int) { sent.Add(int64(n)) })
		end()
		if err == nil {
			err = a.answer(btfsAdded{p, got.CID.String(), got.Names, got.Bytes}, fmt.Sprintf("%s  %s", got.CID, p))
		}
		if err != nil {
			return fmt.Errorf("%s: %w; %s", p, notAdded(err), soFar(ctx, i, len(paths), got))
		}
	}
	return nil
}

// notAdded says of an error of our disk what it is about.
func notAdded(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return fmt.Errorf("%w; it is not added", err)
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("not added")
	}
	return err
}

// soFar tells what became of the rest, for whoever was interrupted.
func soFar(ctx context.Context, done, of int, part rpc.Added) string {
	text := fmt.Sprintf("%d of %s added", done, count(of, "path"))
	if part.Names > 0 {
		text += fmt.Sprintf(", and %d names of this one, which are not pinned", part.Names)
	}
	if ctx.Err() != nil {
		return "interrupted; " + text
	}
	return text
}

// sending shows how much was sent.
func (a *nodeAsk) sending(sent *atomic.Int64, total int64) (end func()) {
	switch {
	case a.json:
		lines := json.NewEncoder(a.out)
		return repeat(time.Second, func() {
			_ = lines.Encode(map[string]any{"progress": map[string]int64{"done": sent.Load(), "total": max(total, sent.Load())}})
		})
	case terminal(a.err):
		set, remove := bar(a.err, "sent ")
		still := repeat(time.Second/10, func() { set(sent.Load(), max(total, sent.Load())) })
		return func() { still(); remove() }
	}
	return func() {}
}
