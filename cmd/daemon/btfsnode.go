package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/names"
	"github.com/btmount/btmount/btfs/rpc"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// network is how everything about BTFS goes out.
func (cfg BTFSConfig) network() (*network.Network, error) {
	return network.Open(network.Config{Bind: cfg.Bind, Proxy: cfg.Proxy, ProxyPassword: cfg.ProxyPassword})
}

// OpenNode makes a client of the user's node, for one command. What it connects to goes
// the way of [OpenBTFS].
func OpenNode(cfg BTFSConfig) (c *rpc.Client, end func(), err error) {
	n, err := cfg.network()
	if err != nil {
		return nil, nil, err
	}
	client := n.Client(network.Download, network.Typed)
	c, err = rpc.New(cfg.Node, cfg.Token, client, cfg.NodeTimeout)
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("the address of the node: %w", err)
	}
	return c, client.Close, nil
}

// OpenNames makes what looks up names of BTNS, for one command.
func OpenNames(cfg BTFSConfig) (r *names.Resolver, end func(), err error) {
	n, err := cfg.network()
	if err != nil {
		return nil, nil, err
	}
	peers, err := cfg.peers(n)
	if err != nil {
		return nil, nil, err
	}
	client := n.Client(network.Download, network.Typed)
	end = client.Close
	var records names.Records
	if peers != nil {
		node, err := bitswap.New(*peers)
		if err != nil {
			client.Close()
			return nil, nil, err
		}
		records, end = node, func() { node.Close(); client.Close() }
	}
	if r, err = cfg.names(n, client, records); err != nil {
		end()
		return nil, nil, err
	}
	return r, end, nil
}

// names makes what looks up names. Domains are looked up as the system looks up all, but
// behind a proxy, where that would tell the world of them: there the node is asked, if
// there is one. records are asked for what a peer id stands for; nil: nobody is, but the
// node.
func (cfg BTFSConfig) names(n *network.Network, client *network.Client, records names.Records) (*names.Resolver, error) {
	to := names.Config{NoDNS: errProxiedName, Records: records}
	if !n.Proxied() {
		to.DNS = dns{n}
	}
	if cfg.Node != "" {
		node, err := rpc.New(cfg.Node, cfg.Token, client, cfg.NodeTimeout)
		if err != nil {
			return nil, fmt.Errorf("the address of the node: %w", err)
		}
		to.Node = node
	}
	return names.New(to), nil
}

var errProxiedName = errors.New("a domain is not looked up behind a proxy, which cannot relay questions for TXT records; have your node do it, with --btfs-node, or give the peer id or the CID")

// dns looks up TXT records. package net does not tell how long they may be kept.
type dns struct{ n *network.Network }

func (d dns) TXT(ctx context.Context, name string) ([]string, time.Duration, error) {
	texts, err := d.n.LookupTXT(ctx, name)
	return texts, 0, err
}
