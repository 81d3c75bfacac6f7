package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/names"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/cmd/objects"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// BTFSConfig is what the btfs commands are given.
type BTFSConfig struct {
	Gateways      []string
	Node          string // "" for none
	Token         string
	LookupTimeout time.Duration
	NodeTimeout   time.Duration // for the node to answer anything at all

	Network   string   // main, test, the file of a swarm key, or none or "": no node in here
	Peers     []string // multiaddrs of BTFS nodes to keep a connection to
	Bootstrap []string // multiaddrs of BTFS nodes to begin with; nil: those of the network

	Bind          string // as in Config
	Proxy         string
	ProxyPassword string
	Logger        *slog.Logger
}

// NoNetwork is a BTFSConfig.Network without a BTFS node in here.
const NoNetwork = "none"

// OpenBTFS makes a store of BTFS objects for one command, without a daemon. What it
// connects to goes the way of all that btmount does, and under the same policy: what the
// user names is dialled, and leads, by redirects or as BTFS nodes do, no nearer to us than
// it is.
func OpenBTFS(cfg BTFSConfig) (s *BTFS, end func(), err error) {
	n, err := cfg.network()
	if err != nil {
		return nil, nil, err
	}
	client := n.Client(network.Download, network.Typed)
	if s, err = cfg.open(n, client); err != nil {
		client.Close()
		return nil, nil, err
	}
	return s, func() { s.Close(); client.Close() }, nil
}

// BTFS is a store of objects, and what finds out which of them a name stands for.
type BTFS struct {
	*btfs.Store
	Names *names.Resolver
}

// open makes them. The node in here, if there is one, is asked for records too.
func (cfg BTFSConfig) open(n *network.Network, client *network.Client) (*BTFS, error) {
	peers, err := cfg.peers(n)
	if err != nil {
		return nil, err
	}
	store, err := btfs.Open(btfs.Config{
		Gateways: cfg.Gateways, Node: cfg.Node, Token: cfg.Token, Peers: peers, Timeout: cfg.LookupTimeout, Client: client, Log: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	var records names.Records
	if store.HasPeers() {
		records = store
	}
	resolver, err := cfg.names(n, client, records)
	if err != nil {
		store.Close()
		return nil, err
	}
	return &BTFS{store, resolver}, nil
}

// peers is the BTFS node in here, nil for none.
func (cfg BTFSConfig) peers(n *network.Network) (*bitswap.Config, error) {
	if cfg.Network == "" || cfg.Network == NoNetwork {
		return nil, nil
	}
	net, err := bitswap.ParseNetwork(cfg.Network)
	if err != nil {
		return nil, fmt.Errorf("BTFS network %.200q: %w", cfg.Network, err)
	}
	return &bitswap.Config{Network: net, Peers: cfg.Peers, Bootstrap: cfg.Bootstrap, Dialer: btfsDialer{n}, Log: cfg.Logger}, nil
}

// btfsParts are what a mount has for objects of BTFS.
type btfsParts struct {
	store  *BTFS
	client *network.Client
	forest *objects.Forest
	names  *objects.Names
}

// openBTFS shows objects below btfs/, if there is somebody to ask for them. Nobody is asked
// before somebody looks.
func (d *Daemon) openBTFS() error {
	cfg := d.cfg.BTFS
	cfg.Logger = d.log
	client := d.network.Client(network.Download, network.Typed)
	store, err := cfg.open(d.network, client)
	if err != nil {
		client.Close()
		if errors.Is(err, source.ErrNoSource) {
			return nil
		}
		return err
	}
	forest := objects.New(objects.Config{Blocks: store, Cache: d.cache, Scheduler: d.scheduler, Log: d.log, Sources: store.sources})
	d.btfs = &btfsParts{store, client, forest, objects.NewNames(forest, store.Names)}
	return errors.Join(d.catalog.Graft("btfs", forest), d.catalog.Graft("btns", d.btfs.names))
}

func (p *btfsParts) close() {
	if p != nil {
		p.forest.Close()
		p.store.Close()
		p.client.Close()
	}
}

// addObject notes an object that is to be listed in btfs/.
func (d *Daemon) addObject(name string) error {
	if d.btfs == nil {
		return fmt.Errorf("%s: %w", shorten(name), source.ErrNoSource)
	}
	if btfs.IsName(name) {
		n, err := btfs.ParseName(name)
		if err == nil {
			err = names.Check(n.Key)
		}
		if err != nil {
			return err
		}
		d.btfs.names.Name(n.Key)
		return nil
	}
	p, err := btfs.ParsePath(name)
	if err != nil {
		return err
	}
	d.btfs.forest.Name(p.CID.String())
	return nil
}

// Objects returns how many objects of BTFS were named, and whether any can be read.
func (d *Daemon) Objects() (named int, can bool) {
	if d.btfs == nil {
		return 0, false
	}
	return d.btfs.forest.Named() + d.btfs.names.Named(), true
}

// IsObject reports whether a source names an object of BTFS.
func IsObject(s string) bool {
	for _, prefix := range []string{"btfs://", "/btfs/", "btns://", "/btns/"} {
		if strings.HasPrefix(strings.ToLower(s), prefix) {
			return true
		}
	}
	_, err := block.Parse(s)
	return err == nil
}

// btfsDialer opens the sockets of the BTFS node.
type btfsDialer struct{ n *network.Network }

var _ bitswap.Dialer = btfsDialer{}

// ask puts the question to the policy: who told an address may have been any of those
// that the user named, and so was the one that is farthest away.
func (btfsDialer) ask(a bitswap.Ask) network.Ask {
	if a.Typed {
		return network.Ask{Use: network.Node, From: network.Typed, To: a.To}
	}
	var via netip.Addr // not valid is the world
	if len(a.Via) > 0 {
		via = a.Via[0]
	}
	for _, v := range a.Via {
		if network.Nearer(via, v) {
			via = v
		}
	}
	return network.Ask{Use: network.Node, From: network.Told, Via: via, To: a.To}
}

func (d btfsDialer) Allow(a bitswap.Ask) error { return d.n.Allow(d.ask(a)) }

func (d btfsDialer) Dial(ctx context.Context, a bitswap.Ask) (net.Conn, error) {
	return d.n.Dial(ctx, d.ask(a))
}

func (d btfsDialer) Resolve(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	return d.n.Resolve(ctx, hostport)
}
