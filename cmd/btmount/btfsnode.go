package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/rpc"
	"github.com/btmount/btmount/cmd/daemon"
)

// nodeCommands are those that ask the user's own node to do something.
func nodeCommands() []*cli.Command {
	return append([]*cli.Command{
		addCommand(),
		{
			Name: "pin", Usage: "have your node fetch an object and keep it", ArgsUsage: "CID...",
			Description: `These are pins at your node, which keeps the object and serves it to others. What the
cache of a mount keeps is another thing: btmount cache pin.`,
			Flags: nodeFlags(), Action: withNode(btfsPin),
		},
		{
			Name: "unpin", Usage: "let your node drop an object that it kept", ArgsUsage: "CID...",
			Description: `It stays at the node until the node collects its garbage.`,
			Flags:       nodeFlags(), Action: withNode(btfsUnpin),
		},
		{
			Name: "pins", Usage: "list what your node keeps because somebody pinned it",
			Flags: nodeFlags(), Action: withNode(btfsPins),
		},
		nameCommand(),
		{
			Name: "node", Usage: "look at your own BTFS node, its storage and its money", ArgsUsage: "COMMAND",
			Subcommands: append([]*cli.Command{
				{
					Name: "status", Usage: "who and how your node is: id, version, mode, peers, disk",
					Flags: nodeFlags(), Action: withNode(btfsNodeStatus),
				},
			}, moneyCommands()...),
		},
	}, rentCommands()...)
}

// nodeFlags are those of every command that asks the user's node.
func nodeFlags(more ...cli.Flag) []cli.Flag {
	return join(
		under("What", more...),
		under("Which node",
			stringFlag("btfs-node", "", nodeUsage),
			stringFlag("btfs-token-file", "", tokenUsage),
			stringFlag("btfs-node-timeout", "1m", "your node is given up when nothing came from it for this `TIME`"),
			swarmFlag("bind"), swarmFlag("proxy"), swarmFlag("proxy-password-file"),
		),
		under("How to answer",
			boolFlag("json", jsonUsage),
			configFlag(),
		),
	)
}

const (
	nodeUsage  = "`URL` of your BTFS node's RPC, to ask for blocks and for all that only a node can do, such as http://127.0.0.1:5001"
	tokenUsage = "`FILE` whose first line is the token that the node's login gave, if it wants one"
)

// nodeAsk is one question to the user's node.
type nodeAsk struct {
	*reader
	node *rpc.Client // nil if none is named
	cfg  daemon.BTFSConfig
	json bool
	out  io.Writer
	err  io.Writer
}

// nodeConfig reads which node it is, if one is named.
func (r *reader) nodeConfig() daemon.BTFSConfig {
	cfg := daemon.BTFSConfig{
		Node: r.c.String("btfs-node"), Token: r.password("btfs-token-file"), NodeTimeout: r.time("btfs-node-timeout"),
		Bind: r.c.String("bind"), Proxy: r.c.String("proxy"), ProxyPassword: r.password("proxy-password-file"),
	}
	if cfg.Node != "" {
		r.sources("btfs-node", cfg.Node)
	}
	return cfg
}

// nodeFree reads the flags that all of these commands have, without asking for a node.
func nodeFree(f func(ctx context.Context, a *nodeAsk) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := applyConfig(c); err != nil {
			return err
		}
		r := &reader{c: c}
		a := &nodeAsk{reader: r, cfg: r.nodeConfig(), json: c.Bool("json"), out: c.App.Writer, err: c.App.ErrWriter}
		if r.err != nil {
			return r.err
		}
		if a.cfg.Node != "" {
			node, end, err := daemon.OpenNode(a.cfg)
			if err != nil {
				return err
			}
			defer end()
			a.node = node
		}
		err := f(c.Context, a)
		if errors.Is(err, context.Canceled) && c.Context.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
}

// withNode is nodeFree for commands that cannot do without a node.
func withNode(f func(ctx context.Context, a *nodeAsk) error) cli.ActionFunc {
	return nodeFree(func(ctx context.Context, a *nodeAsk) error {
		if a.node == nil {
			return usage(errors.New("your BTFS node is needed: name its RPC with --btfs-node, most often http://127.0.0.1:5001"))
		}
		return f(ctx, a)
	})
}

// some reads arguments of which there is at least one.
func (a *nodeAsk) some(what string) ([]string, error) {
	if a.c.NArg() == 0 {
		return nil, usage(fmt.Errorf("something is needed: %s %s", a.c.Command.HelpName, what))
	}
	return a.c.Args().Slice(), nil
}

func (a *nodeAsk) none() error {
	if a.c.NArg() > 0 {
		return usage(fmt.Errorf("%q: %s takes no argument", a.c.Args().First(), a.c.Command.HelpName))
	}
	return nil
}

// objects reads arguments that are CIDs, without paths below them.
func (a *nodeAsk) objects() (all []btfs.Path, err error) {
	args, err := a.some("CID...")
	if err != nil {
		return nil, err
	}
	for _, v := range args {
		p, err := btfs.ParsePath(v)
		if err == nil && len(p.Names) > 0 {
			err = fmt.Errorf("%q: a CID is needed, without a path below it; btmount btfs stat tells it", v)
		}
		if err != nil {
			return nil, usage(err)
		}
		all = append(all, p)
	}
	return all, nil
}

// answer prints a result: as one line of JSON, or as a line for people.
func (a *nodeAsk) answer(result any, line string) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(result)
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}

// show prints a result that has many lines.
func (a *nodeAsk) show(result any, lines func(w io.Writer)) error {
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(result)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	lines(t)
	return t.Flush()
}

// each does something about every CID, and tells of all that failed.
func (a *nodeAsk) each(ctx context.Context, f func(o btfs.Path) error) error {
	all, err := a.objects()
	if err != nil {
		return err
	}
	var failed severalErrors
	for _, o := range all {
		if err := f(o); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed = append(failed, fmt.Errorf("%s: %w", o, err))
		}
	}
	if failed != nil {
		return failed
	}
	return nil
}

type btfsPinned struct {
	CID  string `json:"cid"`
	Type string `json:"type,omitempty"`
}

func btfsPin(ctx context.Context, a *nodeAsk) error {
	return a.each(ctx, func(o btfs.Path) error {
		report, end := a.blocks("pinning " + o.String())
		err := a.node.Pin(ctx, o.CID, report)
		end()
		if err != nil {
			return err
		}
		return a.answer(btfsPinned{o.String(), "recursive"}, "pinned "+o.String())
	})
}

// blocks shows how many blocks came, as there is no telling of how many.
func (a *nodeAsk) blocks(what string) (report func(n int64), end func()) {
	switch {
	case a.json:
		lines := json.NewEncoder(a.out)
		return func(n int64) { _ = lines.Encode(map[string]any{"progress": map[string]int64{"blocks": n}}) }, func() {}
	case terminal(a.err):
		return func(n int64) { fmt.Fprintf(a.err, "\r\x1b[K%s: %d blocks", what, n) }, func() { fmt.Fprint(a.err, "\r\x1b[K") }
	}
	return nil, func() {}
}

func btfsUnpin(ctx context.Context, a *nodeAsk) error {
	return a.each(ctx, func(o btfs.Path) error {
		if err := a.node.Unpin(ctx, o.CID); err != nil {
			return err
		}
		return a.answer(btfsPinned{CID: o.String()}, "unpinned "+o.String())
	})
}

func btfsPins(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	pins, err := a.node.Pins(ctx)
	if err != nil {
		return err
	}
	all := []btfsPinned{}
	for _, p := range pins {
		all = append(all, btfsPinned{p.CID.String(), p.Type})
	}
	return a.show(map[string]any{"pins": all}, func(w io.Writer) {
		for _, p := range all {
			fmt.Fprintf(w, "%s\t%s\n", p.CID, p.Type)
		}
	})
}

func btfsNodeStatus(ctx context.Context, a *nodeAsk) error {
	if err := a.none(); err != nil {
		return err
	}
	s, err := a.node.Status(ctx)
	if err != nil {
		return err
	}
	return a.show(s, func(w io.Writer) {
		fmt.Fprintf(w, "node\t%s\nid\t%s\nversion\t%s\nmode\t%s\n", a.cfg.Node, s.ID, s.Version, modes[s.Mode])
		if s.Vault != "" {
			fmt.Fprintf(w, "vault\t%s\n", s.Vault)
		}
		fmt.Fprintf(w, "peers\t%d\n", s.Peers)
		if s.Repo != nil {
			fmt.Fprintf(w, "disk\t%s bytes of %s\n", s.Repo.Size, s.Repo.Max)
		}
		for _, n := range s.Notes {
			fmt.Fprintf(w, "note\t%s\n", n)
		}
	})
}

var modes = map[string]string{
	"simple":  "simple: it adds, pins and publishes, and cannot rent",
	"full":    "full: it has a wallet on BTTC",
	"unknown": "unknown",
}
