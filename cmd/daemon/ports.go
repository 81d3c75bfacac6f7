package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/portmap"
	"github.com/btmount/btmount/fetch/swarm/utp"
)

// ports are what peers call: TCP, and UDP on the same number, which uTP and the DHT share.
type ports struct {
	tcp net.Listener
	utp *utp.Socket // nil: there is none
}

// openPorts opens what cfg asks for. A UDP port that only uTP would have used and that
// somebody else has is done without: TCP is there.
func openPorts(cfg Config, n *network.Network) (p ports, err error) {
	ctx := context.Background()
	if cfg.Listen == "" {
		if n.ProxiesUDP() && !cfg.NoUTP {
			r, err := n.Associate(ctx)
			if err != nil {
				return p, err
			}
			p.utp = utp.New(r, n, cfg.Logger)
		}
		return p, nil
	}
	if cfg.NoUTP {
		p.tcp, err = n.Listen(ctx, cfg.Listen)
		return p, err
	}
	tcp, udp, err := n.ListenBoth(ctx, cfg.Listen)
	if udp == nil && tcp != nil {
		if !cfg.NoDHT {
			tcp.Close()
			return p, fmt.Errorf("uTP and DHT: %w; choose another with --listen (port 0 takes any), or --no-utp and --no-dht", err)
		}
		cfg.Logger.Warn("no uTP: its port cannot be had; choose another with --listen (port 0 takes any)", "err", err)
		return ports{tcp: tcp}, nil
	}
	if err != nil {
		return p, err
	}
	return ports{tcp, utp.New(udp, n, cfg.Logger)}, nil
}

// mapper asks the router to let peers call; nil if cfg does not want that, or nobody
// listens.
func (p ports) mapper(cfg Config, n *network.Network) *portmap.Mapper {
	if cfg.NoPortMapping || p.tcp == nil {
		return nil
	}
	c := portmap.Config{Network: n, TCP: portOf(p.tcp.Addr()), Logger: cfg.Logger}
	if p.utp != nil {
		c.UDP = c.TCP // they listen at one port
	}
	return portmap.New(c)
}

// external is the port that a mapper tells of, if there is one.
func external(m *portmap.Mapper) func() uint16 {
	if m == nil {
		return nil
	}
	return m.External
}

func portOf(a net.Addr) uint16 {
	if t, ok := a.(*net.TCPAddr); ok {
		return uint16(t.Port)
	}
	return 0
}

// close frees what nobody has taken yet.
func (p ports) close() (err error) {
	if p.tcp != nil {
		err = p.tcp.Close()
	}
	if p.utp != nil {
		err = errors.Join(err, p.utp.Close())
	}
	return err
}

// conn is the DHT's use of the UDP port; nil if it has to open its own socket.
func (p ports) conn() net.PacketConn {
	if p.utp == nil || p.tcp == nil { // behind a proxy it has to send to names
		return nil
	}
	return p.utp.Others().Open()
}

// openDHT opens a node of the DHT.
func openDHT(cfg Config, n *network.Network, p ports) (*discovery.DHT, error) {
	nodes := cfg.DHTBootstrap
	if len(nodes) == 0 {
		nodes = discovery.DefaultBootstrap
	}
	d, err := discovery.NewDHT(discovery.DHTConfig{
		PacketConn: p.conn(), Listen: cfg.Listen, Network: n, Bootstrap: nodes, NodesFile: filepath.Join(cfg.StateDir, "dht.nodes"), Logger: cfg.Logger,
	})
	if err != nil && n.Proxied() {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with --listen (port 0 takes any), or --no-dht", err)
	}
	return d, nil
}
