package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/names"
	"github.com/btmount/btmount/cmd/daemon"
)

func nameCommand() *cli.Command {
	return &cli.Command{
		Name: "name", Usage: "publish and look up names of BTNS", ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name: "publish", Usage: "let a name of your node's mean an object", ArgsUsage: "CID[/path]",
				Description: `The node signs it with its own key, or with that of --key, and tells it to its network.
That may take a minute. It holds for --lifetime, for as long as the node runs to repeat it.`,
				Flags: nodeFlags(
					stringFlag("key", "", "`NAME` of the node's key that signs it, as btfs key list shows them; the node's own if not given"),
					stringFlag("lifetime", "24h", "the record is good for this `TIME`"),
				),
				Action: withNode(btfsPublish),
			},
			{
				Name: "resolve", Usage: "tell which object a name stands for now", ArgsUsage: "NAME[/path]",
				Description: `NAME is a peer id (16Uiu2…, k51…, Qm…) or a domain. Of a domain the TXT record dnslink=… is
looked up, at _dnslink.NAME and at NAME, without any node. Of a peer id the DHT of BTFS is
asked for the record that its owner signed; and your node, if you name it, whose word is
believed as it is yours: what it verified cannot be seen here. Behind --proxy domains are not
looked up, but by your node.`,
				Flags: join(under("Who is asked for records", recordFlags()...), nodeFlags()), Action: nodeFree(btfsResolve),
			},
		},
	}
}

// recordFlags say whose DHT is asked.
func recordFlags() (out []cli.Flag) {
	for _, name := range []string{"btfs-peer", "btfs-bootstrap", "btfs-network"} {
		out = append(out, findFlag(sourceFlags(), name))
	}
	return out
}

type btfsNamed struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Source string `json:"source,omitempty"`
	TTL    int64  `json:"ttl,omitempty"` // seconds
}

func btfsPublish(ctx context.Context, a *nodeAsk) error {
	if a.c.NArg() != 1 {
		return usage(errors.New("one object is needed: btmount btfs name publish CID[/path]"))
	}
	p, err := btfs.ParsePath(a.c.Args().First())
	if err != nil {
		return usage(err)
	}
	lifetime := a.time("lifetime")
	if a.reader.err != nil {
		return a.reader.err
	}
	name, value, err := a.node.Publish(ctx, "/btfs/"+p.String(), a.c.String("key"), lifetime)
	if err != nil {
		return err
	}
	return a.answer(btfsNamed{Name: name, Path: value}, fmt.Sprintf("/btns/%s  %s", name, value))
}

// btfsResolve needs no node, but for peer ids.
func btfsResolve(ctx context.Context, a *nodeAsk) error {
	if a.c.NArg() != 1 {
		return usage(errors.New("one name is needed: btmount btfs name resolve NAME"))
	}
	name := a.c.Args().First()
	if _, err := btfs.ParseName(name); err != nil {
		return usage(err)
	}
	a.cfg.Network, a.cfg.Peers, a.cfg.Bootstrap = a.reader.btfsNetwork()
	if a.reader.err != nil {
		return a.reader.err
	}
	resolver, end, err := daemon.OpenNames(a.cfg)
	if err != nil {
		return err
	}
	defer end()
	got, err := resolver.Resolve(ctx, name)
	if err != nil {
		return err
	}
	path := "/btfs/" + got.Path.String()
	return a.answer(btfsNamed{name, path, got.Source, int64(got.TTL.Round(time.Second) / time.Second)}, fmt.Sprintf("%s  (%s)", path, said[got.Source]))
}

var said = map[string]string{
	"record":  "signed by its owner, verified",
	"dnslink": "DNSLink",
	"node":    "says your node",
}

// checkObject returns an error unless text can name an object.
func checkObject(text string) error {
	var err error
	if btfs.IsName(text) {
		_, err = btfs.ParseName(text)
	} else {
		_, err = btfs.ParsePath(text)
	}
	if err != nil {
		return usage(err)
	}
	return nil
}

// objectPath reads an object that is named by a CID, or looks up which one is.
func objectPath(ctx context.Context, text string, resolver *names.Resolver, timeout time.Duration) (p btfs.Path, err error) {
	if !btfs.IsName(text) {
		return btfs.ParsePath(text)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout.Round(time.Millisecond)))
	defer cancel()
	got, err := resolver.Resolve(ctx, text)
	return got.Path, err
}
