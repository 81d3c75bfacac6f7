package daemon

import (
	"fmt"

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
