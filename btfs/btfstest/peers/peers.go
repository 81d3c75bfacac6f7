// Package peers is a network of BTFS on loopback: nodes with its key, a server of its DHT,
// and bitswap, of the parts that real nodes are made of. Faults make liars of them, or
// peers that never answer. It is for tests only.
package peers

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	boxo "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	inet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btns"
)

// MainKey is the swarm key of BTFS, as a file has it.
const MainKey = "/key/swarm/psk/1.0.0/\n/base16/\n64ef95289a6b998c776927ed6e33ca8c9202ee47df90141d09f5ffeeb64b8a66\n"

// Fault is what is wrong with a peer.
type Fault uint8

// The faults.
const (
	None   Fault = iota
	Silent       // it says to have everything, and sends nothing
	Liar         // it says to have everything, and sends other bytes
)

// Config of a Peer. The zero value is an honest one that has nothing.
type Config struct {
	Store     *btfstest.Store
	Key       string // of another network than BTFS's, as a file has it
	WebSocket bool
	Fault     Fault
	Bootstrap *Peer // whose DHT it joins
}

// Peer is one node of the network.
type Peer struct {
	Host host.Host
	DHT  *dht.IpfsDHT

	mu      sync.Mutex
	callers []string
}

// Callers returns the multiaddrs of all who connected to it until now.
func (p *Peer) Callers() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.callers...)
}

// New starts a peer, which ends with the test.
func New(t testing.TB, cfg Config) *Peer {
	t.Helper()
	if cfg.Key == "" {
		cfg.Key = MainKey
	}
	if cfg.Store == nil {
		cfg.Store = btfstest.NewStore()
	}
	key, err := pnet.DecodeV1PSK(strings.NewReader(cfg.Key))
	if err != nil {
		t.Fatal(err)
	}
	listen := "/ip4/127.0.0.1/tcp/0"
	if cfg.WebSocket {
		listen += "/ws"
	}
	h, err := libp2p.New(libp2p.PrivateNetwork(key), libp2p.ListenAddrStrings(listen), libp2p.DisableMetrics(), libp2p.DisableRelay(),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(websocket.New), libp2p.ResourceManager(nil), libp2p.UserAgent("go-btfs/4.1.0/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	// As in go-btfs 4.1.0, whose DHT of the LAN has the name of that of the world.
	d, err := dht.New(h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix("/btfs"), dht.DisableAutoRefresh(),
		dht.NamespacedValidator("btns", btns.Validator{}), dht.AddressFilter(nil), dht.RoutingTablePeerDiversityFilter(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	p := &Peer{Host: h, DHT: d}
	h.Network().Notify(&inet.NotifyBundle{ConnectedF: func(_ inet.Network, c inet.Conn) {
		if c.Stat().Direction == inet.DirInbound {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.callers = append(p.callers, c.RemoteMultiaddr().String())
		}
	}})
	net := bsnet.NewFromIpfsHost(h)
	var r network.Receiver = &faulty{net, cfg.Fault}
	if cfg.Fault == None {
		s := server.New(context.Background(), net, stored{store: cfg.Store}, server.WithPeerBlockRequestFilter(nil))
		t.Cleanup(s.Close)
		r = s
	}
	net.Start(r)
	t.Cleanup(net.Stop)
	if cfg.Bootstrap != nil {
		p.Join(t, cfg.Bootstrap)
	}
	return p
}

// Addr is the multiaddr of the peer.
func (p *Peer) Addr() string {
	return p.Host.Addrs()[0].String() + "/p2p/" + p.Host.ID().String()
}

// Join connects to another, and returns when each is in the DHT of the other.
func (p *Peer) Join(t testing.TB, other *Peer) {
	t.Helper()
	if err := p.Host.Connect(t.Context(), peer.AddrInfo{ID: other.Host.ID(), Addrs: other.Host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ of, to *Peer }{{p, other}, {other, p}} {
		for x.of.DHT.RoutingTable().Find(x.to.Host.ID()) == "" {
			// Each asks the other first whether it answers, once: the other may not be ready.
			_, _ = x.of.DHT.RoutingTable().TryAddPeer(x.to.Host.ID(), true, false)
			select {
			case <-time.After(5 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("no DHT")
			}
		}
	}
}

// Provide announces blocks in the DHT.
func (p *Peer) Provide(t testing.TB, all ...cid.Cid) {
	t.Helper()
	for _, c := range all {
		if err := p.DHT.Provide(t.Context(), c, true); err != nil {
			t.Fatal(err)
		}
	}
}

// Publish stores a record of BTNS in the DHT: that the name of a key means value. It needs
// another peer in the DHT.
func (p *Peer) Publish(t testing.TB, key crypto.PrivKey, value string, until time.Time, sequence uint64) (name string) {
	t.Helper()
	id, record, err := btns.Sign(key, value, until, sequence, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.DHT.PutValue(t.Context(), btns.RecordKey(id), record); err != nil {
		t.Fatal(err)
	}
	return btns.FormatKey(id)
}

// Key makes the key of a name.
func Key(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// stored is what boxo needs of a store. It is only read.
type stored struct {
	store *btfstest.Store
	blockstore.Blockstore
}

func (s stored) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.store.Block(ctx, c)
	return err == nil, nil
}

func (s stored) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := s.store.Block(ctx, c)
	if err != nil {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	return blocks.NewBlockWithCid(b, c)
}

func (s stored) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	b, err := s.store.Block(ctx, c)
	if err != nil {
		return -1, ipld.ErrNotFound{Cid: c}
	}
	return len(b), nil
}

// faulty answers wants wrongly.
type faulty struct {
	net   network.BitSwapNetwork
	fault Fault
}

func (f *faulty) ReceiveMessage(ctx context.Context, from peer.ID, in boxo.BitSwapMessage) {
	out := boxo.New(false)
	for _, e := range in.Wantlist() {
		switch {
		case e.Cancel:
		case e.WantType == pb.Message_Wantlist_Have:
			out.AddHave(e.Cid)
		case f.fault == Liar:
			// The receiver makes the CID of the bytes, so that they can be no other's.
			out.AddBlock(blocks.NewBlock([]byte("lies about " + e.Cid.String())))
		}
	}
	if !out.Empty() {
		go func() { _ = f.net.SendMessage(ctx, from, out) }() // ends with the connection
	}
}

func (*faulty) ReceiveError(error)       {}
func (*faulty) PeerConnected(peer.ID)    {}
func (*faulty) PeerDisconnected(peer.ID) {}
