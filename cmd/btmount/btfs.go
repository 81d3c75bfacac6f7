package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fs/tree"
)

func btfsCommand() *cli.Command {
	return &cli.Command{
		Name:      "btfs",
		Usage:     "get objects of BTFS, verified block by block, without a mount; add, pin and rent",
		ArgsUsage: "COMMAND",
		Description: `CID[/path] is an object: Qm…/docs/a.txt, /btfs/Qm…/docs/a.txt or btfs://Qm…; or a name of
BTNS: btns://k51…/a.txt, or btns://example.org, whose DNSLink is looked up. Blocks come
from BTFS's peers, and from the gateways and the node that you name, and none of them is
believed: each is held against its CID, and who sends other bytes is not asked again.
Nothing is served to others.`,
		Subcommands: append([]*cli.Command{
			{
				Name: "ls", Usage: "list the names in a directory; nothing below it is fetched", ArgsUsage: "CID[/path]",
				Description: `A directory does not say what its names are. Sizes are about, of all blocks below a name.`,
				Flags:       btfsFlags(), Action: withObject(btfsLs),
			},
			{
				Name: "stat", Usage: "tell what an object is: type, size, mode, time, and how it is stored", ArgsUsage: "CID[/path]",
				Flags: btfsFlags(), Action: withObject(btfsStat),
			},
			{
				Name: "get", Usage: "write a file, or a directory with all that is in it", ArgsUsage: "CID[/path]",
				Description: `It is written beside its place first, and gets its name when it is whole. Symlinks in a
directory are made if they lead to a place inside of it; the others are told, and the exit
code is 1.`,
				Flags:  btfsFlags(stringFlag("to", "", "`PATH` to write to, which must not exist yet, or - for stdout; the object's own name, in the current folder, if not given")),
				Action: withObject(btfsGet),
			},
			{
				Name: "dag", Usage: "show the block of an object, and the blocks it leads to", ArgsUsage: "CID[/path]",
				Flags: btfsFlags(), Action: withObject(btfsDag),
			},
		}, nodeCommands()...),
	}
}

// btfsFlags are those of every btfs command.
func btfsFlags(more ...cli.Flag) []cli.Flag {
	return join(
		under("What", more...),
		under("Where blocks come from",
			append(sourceFlags(), swarmFlag("bind"), swarmFlag("proxy"), swarmFlag("proxy-password-file"))...,
		),
		under("How to answer",
			boolFlag("json", jsonUsage),
			configFlag(),
		),
	)
}

// sourceFlags say who is asked for blocks.
func sourceFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("btfs-gateway", "`URL` of a gateway to ask for blocks, such as http://127.0.0.1:8080"),
		stringFlag("btfs-node", "", nodeUsage),
		stringFlag("btfs-token-file", "", tokenUsage),
		listFlag("btfs-peer", "`MULTIADDR` of a BTFS node to stay connected to, such as /ip4/127.0.0.1/tcp/4001/p2p/16Uiu2…: yours, or one that has what you read"),
		listFlag("btfs-bootstrap", "`MULTIADDR` of a BTFS node to find others through, in place of those of the network"),
		stringFlag("btfs-network", "main", "`NETWORK` of BTFS to look for peers in: main, test, the file of a swarm key, or none to ask no peers"),
		stringFlag("btfs", "on", "`STATE`, on or off: off is to have nothing to do with BTFS"),
		stringFlag("btfs-lookup-timeout", "30s", "a block that nobody gives within this `TIME` is told to be missing"),
	}
}

// swarmFlag is a flag that other commands have as well.
func swarmFlag(name string) cli.Flag { return findFlag(swarmFlags(), name) }

// btfsAsk is one question about an object.
type btfsAsk struct {
	c      *cli.Context
	store  *btfs.Store
	path   btfs.Path
	object *unixfs.Object
	json   bool
	out    io.Writer
	err    io.Writer
}

// withObject reads the flags that all btfs commands have, and opens the object.
func withObject(f func(ctx context.Context, a *btfsAsk) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := applyConfig(c); err != nil {
			return err
		}
		if c.NArg() != 1 {
			return usage(fmt.Errorf("one object is needed: btmount btfs %s CID[/path]", c.Command.Name))
		}
		a := &btfsAsk{c: c, json: c.Bool("json"), out: c.App.Writer, err: c.App.ErrWriter}
		r := &reader{c: c}
		cfg := r.btfsConfig()
		if r.err == nil && c.String("btfs") == "off" {
			return usage(errors.New("BTFS is off; leave out --btfs off"))
		}
		if r.err != nil {
			return r.err
		}
		if err := checkObject(c.Args().First()); err != nil {
			return err
		}
		store, end, err := daemon.OpenBTFS(cfg)
		if errors.Is(err, source.ErrNoSource) {
			return usage(err)
		}
		if err != nil {
			return err
		}
		defer end()
		a.store = store.Store
		if a.path, err = objectPath(c.Context, c.Args().First(), store.Names, cfg.LookupTimeout); err != nil {
			return err
		}
		if a.object, err = store.Walk(c.Context, a.path); err == nil {
			err = f(c.Context, a)
		}
		if errors.Is(err, context.Canceled) && c.Context.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
}

// sources checks addresses. One with a password in it is not repeated.
func (r *reader) sources(flag string, all ...string) []string {
	for _, v := range all {
		if err := source.CheckAddress(v); err != nil {
			if strings.ContainsAny(v, "@?#") {
				v, _, _ = strings.Cut(v, ":")
				v += ":…"
			}
			r.wrong(flag, v, err.Error())
		}
	}
	return all
}

// btfsPeers checks multiaddrs.
func (r *reader) btfsPeers(flag string) []string {
	all := r.list(flag)
	for _, v := range all {
		if err := bitswap.CheckPeer(v); err != nil {
			r.wrong(flag, v, err.Error())
		}
	}
	return all
}

// btfsConfig reads where blocks come from.
func (r *reader) btfsConfig() daemon.BTFSConfig {
	if node := r.c.String("btfs-node"); node != "" {
		r.sources("btfs-node", node)
	}
	if r.oneOf("btfs", "on", "off") == "off" {
		return daemon.BTFSConfig{}
	}
	network, peers, bootstrap := r.btfsNetwork()
	return daemon.BTFSConfig{
		Network: network, Peers: peers, Bootstrap: bootstrap,
		Gateways: r.sources("btfs-gateway", r.list("btfs-gateway")...), Node: r.c.String("btfs-node"), Token: r.password("btfs-token-file"),
		LookupTimeout: r.time("btfs-lookup-timeout"), NodeTimeout: r.time("btfs-lookup-timeout"),
		Bind: r.c.String("bind"), Proxy: r.c.String("proxy"), ProxyPassword: r.password("proxy-password-file"),
		Logger: slog.New(slog.NewTextHandler(r.c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// btfsNetwork reads which network the BTFS node in here belongs to, and where it begins.
func (r *reader) btfsNetwork() (network string, peers, bootstrap []string) {
	network = r.c.String("btfs-network")
	if network != daemon.NoNetwork {
		net, err := bitswap.ParseNetwork(network)
		switch {
		case err != nil:
			r.wrong("btfs-network", network, err.Error())
		case len(net.Bootstrap)+len(r.list("btfs-peer"))+len(r.list("btfs-bootstrap")) == 0:
			r.wrong("btfs-network", network, "where it begins is not known; name a node of it with --btfs-bootstrap or --btfs-peer")
		}
	}
	return network, r.btfsPeers("btfs-peer"), r.btfsPeers("btfs-bootstrap")
}

// encode prints an answer as JSON, on many lines for people who look at it too.
func (a *btfsAsk) encode(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// shown makes a stranger's name fit for a terminal.
func shown(name string) string { return tree.CleanName(name) }

// cidText is a CID, or "" of what has none.
func cidText(c interface {
	Defined() bool
	String() string
},
) string {
	if !c.Defined() {
		return ""
	}
	return c.String()
}

type btfsEntry struct {
	Name string `json:"name"`
	CID  string `json:"cid,omitempty"`
	Type string `json:"type,omitempty"`
	Size int64  `json:"size"`
}

func btfsLs(ctx context.Context, a *btfsAsk) error {
	list := []btfsEntry{{a.path.Name(), cidText(a.object.CID), a.object.Kind.String(), a.object.Size}}
	if a.object.Kind == unixfs.Dir {
		entries, err := a.object.List(ctx)
		if err != nil {
			return err
		}
		list = list[:0]
		for _, e := range entries {
			list = append(list, btfsEntry{e.Name, cidText(e.CID), e.Kind.String(), e.Size})
		}
	}
	if a.json {
		return a.encode(map[string]any{"path": a.path.String(), "entries": list})
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, e := range list {
		name := shown(e.Name)
		if e.Type == unixfs.Dir.String() && a.object.Kind == unixfs.Dir {
			name += "/"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", orDash(e.CID), e.Size, name)
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type btfsInfo struct {
	Path    string          `json:"path"`
	CID     string          `json:"cid,omitempty"`
	Type    string          `json:"type"`
	Format  string          `json:"format"`
	Size    int64           `json:"size"`
	Mode    string          `json:"mode,omitempty"` // octal
	ModTime *time.Time      `json:"mtime,omitempty"`
	Target  string          `json:"target,omitempty"`
	Meta    json.RawMessage `json:"metadata,omitempty"`
}

func btfsStat(_ context.Context, a *btfsAsk) error {
	o := a.object
	info := btfsInfo{Path: a.path.String(), CID: cidText(o.CID), Type: o.Kind.String(), Format: o.Format, Size: o.Size, Target: o.Target, Meta: json.RawMessage(o.Meta)}
	if o.Mode != 0 {
		info.Mode = fmt.Sprintf("%04o", o.Mode)
	}
	if !o.ModTime.IsZero() {
		info.ModTime = &o.ModTime
	}
	if a.json {
		return a.encode(info)
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%-9s %s\n", name, oneLine(errors.New(value)))
		}
	}
	line("path", info.Path)
	line("cid", info.CID)
	line("type", info.Type+", "+info.Format)
	if o.Kind != unixfs.Dir {
		line("size", fmt.Sprintf("%d bytes (%s)", o.Size, size(o.Size)))
	}
	line("mode", info.Mode)
	if info.ModTime != nil {
		line("mtime", o.ModTime.Format(time.RFC3339Nano))
	}
	line("target", o.Target)
	line("metadata", o.Meta)
	return nil
}

type btfsBlock struct {
	CID   string     `json:"cid"`
	Bytes int        `json:"bytes"`
	Type  string     `json:"type"`
	Data  int        `json:"data"` // bytes of content in it
	Size  *int64     `json:"size,omitempty"`
	Links []btfsLink `json:"links"`
}

type btfsLink struct {
	CID   string `json:"cid"`
	Name  string `json:"name,omitempty"`
	Tsize uint64 `json:"tsize"`
	Size  *int64 `json:"size,omitempty"` // of the content, in a file
}

func btfsDag(ctx context.Context, a *btfsAsk) error {
	n, bytes, err := a.store.Node(ctx, a.object.CID)
	if err != nil {
		return fmt.Errorf("%s: %w", a.path, err)
	}
	b := btfsBlock{CID: a.object.CID.String(), Bytes: bytes, Type: n.Type.String(), Data: len(n.Data), Links: []btfsLink{}}
	if n.Raw {
		b.Type = "raw block"
	}
	if n.Size >= 0 {
		b.Size = &n.Size
	}
	for i := range n.Links {
		l := btfsLink{CID: cidText(n.Links[i].CID()), Name: n.Links[i].Name, Tsize: n.Links[i].Size}
		if i < len(n.Sizes) {
			l.Size = &n.Sizes[i]
		}
		b.Links = append(b.Links, l)
	}
	if a.json {
		return a.encode(b)
	}
	fmt.Fprintf(a.out, "%s: %s, a block of %d bytes, %d of them content, %s\n", b.CID, b.Type, b.Bytes, b.Data, count(len(b.Links), "link"))
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	off := int64(b.Data)
	for _, l := range b.Links {
		at := ""
		if l.Size != nil {
			at = fmt.Sprintf("at %d", off)
			off += *l.Size
		}
		fmt.Fprintf(t, "%s\n", strings.TrimRight(fmt.Sprintf("  %s\t%d\t%s\t%s", orDash(l.CID), l.Tsize, at, shownLink(l.Name)), "\t"))
	}
	return t.Flush()
}

// shownLink is the name of a link, which most have not.
func shownLink(name string) string {
	if name == "" {
		return ""
	}
	return shown(name)
}
