package bitswap

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/btmount/btmount/btfs/bitswap/want"
	"github.com/btmount/btmount/btfs/btns"
)

const (
	dhtPrefix   = "/btfs"         // and no /lan for its LAN
	dialTimeout = 8 * time.Second // with all handshakes
	lowWater    = 24              // connections that are kept
	highWater   = 64
	memory      = 128 << 20 // that all streams may have to take what comes
	streams     = 128       // of one peer
	firstWindow = 256 << 10 // of a stream, which yamux says
	window      = 2 << 20   // that it may become: 40 MB/s over 50 ms
)

// parts of libp2p and boxo that run while the node is awake.
type parts struct {
	host   host.Host
	dht    *dht.IpfsDHT
	client *want.Client
	stop   func()
}

// assemble starts them. libp2p.New would do as much of it, and bring QUIC, WebRTC and a
// framework of injection into the program, none of which is used.
func (n *Node) assemble() (_ *parts, err error) {
	var opened []io.Closer // last first
	defer func() {
		if err != nil {
			for _, c := range opened {
				_ = c.Close() // nothing was sent yet
			}
		}
	}()
	open := func(c io.Closer, err error) error {
		if err == nil {
			opened = append([]io.Closer{c}, opened...)
		}
		return err
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	book, err := pstoremem.NewPeerstore()
	if err := open(book, err); err != nil {
		return nil, err
	}
	if err := errors.Join(book.AddPrivKey(self, key), book.AddPubKey(self, key.GetPublic())); err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(resources()), rcmgr.WithMetricsDisabled())
	if err := open(limits, err); err != nil {
		return nil, err
	}
	bus := eventbus.NewBus()
	net, err := swarm.NewSwarm(self, book, bus,
		swarm.WithConnectionGater(gate{n}), swarm.WithResourceManager(limits), swarm.WithMultiaddrResolver(noNames{}),
		swarm.WithDialTimeout(dialTimeout), swarm.WithDialTimeoutLocal(dialTimeout),
		swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err := open(net, err); err != nil {
		return nil, err
	}
	if err := n.addTransports(net, key, limits); err != nil {
		return nil, err
	}
	connections, err := connmgr.NewConnManager(lowWater, highWater, connmgr.WithGracePeriod(30*time.Second))
	if err := open(connections, err); err != nil {
		return nil, err
	}
	h, err := basichost.NewHost(net, &basichost.HostOpts{EventBus: bus, ConnManager: connections, UserAgent: "btmount", ProtocolVersion: "btfs/0.1.0"})
	if err := open(h, err); err != nil {
		return nil, err
	}
	h.Start()
	router, err := dht.New(h,
		dht.Mode(dht.ModeClient),
		dht.ProtocolPrefix(dhtPrefix),
		dht.DisableAutoRefresh(), // which would ask around when nobody wants anything
		dht.NamespacedValidator("btns", btns.Validator{}),
		dht.AddressFilter(n.mayDial),
		dht.RoutingTablePeerDiversityFilter(nil),
	)
	if err := open(router, err); err != nil {
		return nil, err
	}
	client, end := n.exchange(h)
	return &parts{h, router, client, func() {
		end()
		for _, c := range []io.Closer{router, h} {
			if err := c.Close(); err != nil {
				n.log.Debug("stopping the BTFS node", "err", err)
			}
		}
	}}, nil
}

// resources are what strangers may take of memory, and how many streams they may open. Servers
// open one for each message; one too many is reset, and with it the answer lost, or the whole
// connection. So there have to be more than package want asks of one peer.
func resources() rcmgr.ConcreteLimitConfig {
	l := rcmgr.DefaultLimits
	for _, all := range []*rcmgr.BaseLimit{&l.SystemBaseLimit, &l.TransientBaseLimit, &l.ProtocolBaseLimit, &l.ServiceBaseLimit} {
		all.StreamsInbound, all.Streams, all.Memory = 16*streams, 32*streams, memory
	}
	for _, one := range []*rcmgr.BaseLimit{&l.PeerBaseLimit, &l.ProtocolPeerBaseLimit, &l.ServicePeerBaseLimit, &l.ConnBaseLimit} {
		one.StreamsInbound, one.Streams, one.Memory = streams, 2*streams, streams*firstWindow
	}
	l.SystemBaseLimit.Conns, l.SystemBaseLimit.ConnsOutbound, l.SystemBaseLimit.FD = 4*highWater, 4*highWater, 4*highWater
	return l.Scale(0, 0)
}

// addTransports has it speak over TCP and WebSocket, with TLS or Noise, in the network
// whose key it has.
func (n *Node) addTransports(net *swarm.Swarm, key crypto.PrivKey, limits network.ResourceManager) error {
	mux := *yamux.DefaultTransport
	mux.MaxStreamWindowSize = window
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: &mux}}
	tls, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return err
	}
	noise, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls, noise}, muxers, n.cfg.Network.key, limits, gate{n})
	if err != nil {
		return err
	}
	overTCP, err := tcp.NewTCPTransport(up, limits, nil, n.overTCP(), tcp.WithConnectionTimeout(dialTimeout))
	if err != nil {
		return err
	}
	return errors.Join(net.AddTransport(overTCP), net.AddTransport(&overWebSocket{n, up, limits}))
}

// mayDial leaves the addresses that may be dialled.
func (n *Node) mayDial(all []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(all, func(m ma.Multiaddr) bool { return gate{n}.InterceptAddrDial("", m) })
}

// noNames looks no name up: those that the user typed are looked up before.
type noNames struct{}

var errName = errors.New("names in addresses of strangers are not looked up")

func (noNames) ResolveDNSAddr(context.Context, peer.ID, ma.Multiaddr, int, int) ([]ma.Multiaddr, error) {
	return nil, errName
}

func (noNames) ResolveDNSComponent(context.Context, ma.Multiaddr, int) ([]ma.Multiaddr, error) {
	return nil, errName
}
