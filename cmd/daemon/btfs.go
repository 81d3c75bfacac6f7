package daemon

import (
	"log/slog"
	"time"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// BTFSConfig is what the btfs commands are given.
type BTFSConfig struct {
	Gateways      []string
	Node          string // "" for none
	Token         string
	LookupTimeout time.Duration

	Bind          string // as in Config
	Proxy         string
	ProxyPassword string
	Logger        *slog.Logger
}

// OpenBTFS makes a store of BTFS objects for one command, without a daemon. What it
// connects to goes the way of all that btmount does, and under the same policy: what the
// user names is dialled, and leads by redirects no nearer to us than it is.
func OpenBTFS(cfg BTFSConfig) (s *btfs.Store, end func(), err error) {
	n, err := network.Open(network.Config{Bind: cfg.Bind, Proxy: cfg.Proxy, ProxyPassword: cfg.ProxyPassword})
	if err != nil {
		return nil, nil, err
	}
	client := n.Client(network.Download, network.Typed)
	s, err = btfs.Open(btfs.Config{
		Gateways: cfg.Gateways, Node: cfg.Node, Token: cfg.Token, Timeout: cfg.LookupTimeout, Client: client, Log: cfg.Logger,
	})
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return s, func() { s.Close(); client.Close() }, nil
}
