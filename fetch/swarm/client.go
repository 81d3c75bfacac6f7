package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/downlink"
	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/shaper"
	"github.com/btmount/btmount/fetch/swarm/utp"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Config of a Client.
type Config struct {
	Listen      string       // host:port for TCP; port 0 takes any; "" does not listen
	Listener    net.Listener // instead of Listen, the Client's from then on; may be nil
	UTP         *utp.Socket  // on the same port, the Client's too; nil: no uTP
	Version     string       // told to peers, "btmount 0.1"
	PeerPrefix  string       // first characters of the peer id (BEP 20), "-BM0100-"
	MaxPeers    int          // connections of one torrent; 0 means 60
	MaxConns    int          // connections of all torrents together; 0 means 500
	MaxHalfOpen int          // of all torrents, those being made at a time; 0 means 60
	UploadSlots int          // peers served at a time by one torrent; 0 means 8
	NoUpload    bool         // no payload byte is ever sent
	Encryption  Encryption
	UpLimit     int64 // bytes/s of all torrents together; 0 = none
	DownLimit   int64
	EachUp      int64 // bytes/s of each torrent; 0 = none
	EachDown    int64
	Share       Share                               // until when a torrent is seeded
	Extensions  []func(metainfo.InfoHash) Extension // spoken by every torrent
	DHT         *discovery.DHT
	LSD         *discovery.LSD
	Network     *network.Network // opens the sockets; nil: as the system does
	External    func() uint16    // the port that a router maps to ours, 0: none; may be nil
	Dormant     Dormant          // knows torrents that are not added now; may be nil
	Logger      *slog.Logger
}

// Dormant knows the torrents that nobody needs now: they are not added, and peers may
// call them all the same. Its methods are called from any goroutine.
type Dormant interface {
	// Wake adds the torrent of an info-hash, and has its Run called. It returns nil if
	// there is none, or if it may not be woken by strangers.
	Wake(h metainfo.InfoHash) *Torrent
	// Hashes yields the info-hashes of all that may be woken, until yield says no.
	Hashes(yield func(metainfo.InfoHash) bool)
}

// Client is our side of every swarm: one peer id, one listening port.
type Client struct {
	cfg       Config
	log       *slog.Logger
	id        [20]byte
	discovery discovery.Config
	downlink  downlink.Link // what arrives, shared by all torrents
	downLimit *rate.Limiter
	uplink    shaper.Link // what is sent
	listener  net.Listener
	incoming  chan struct{} // bounds handshakes of strangers

	buffers  *wire.Budget
	held     atomic.Int64 // bytes of blocks that wait in memory for those before them
	conns    atomic.Int64 // past their handshake
	halfOpen atomic.Int64 // being dialled

	mu       sync.Mutex
	torrents map[metainfo.InfoHash]*Torrent
	outer    outer
	banned   map[netip.AddrPort]bool
	bannedID map[[20]byte]bool
}

const (
	handshakeTimeout = 8 * time.Second
	maxHandshakes    = 64 // of incoming connections at a time, or half of MaxConns
	// maxBuffers is what the buffers of fast peers may hold, all together: 64 of them at
	// full size. The others have 32 KiB each.
	maxBuffers = 64 << 20
)

var errBanned = errors.New("banned: it sent bytes that do not match their hash")

// NewClient opens the listening socket; it accepts nobody until Run.
func NewClient(cfg Config) (*Client, error) {
	if cfg.MaxPeers == 0 {
		cfg.MaxPeers = 60
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 500
	}
	if cfg.MaxHalfOpen == 0 {
		cfg.MaxHalfOpen = 60
	}
	if cfg.UploadSlots == 0 {
		cfg.UploadSlots = 8
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Network == nil {
		cfg.Network = network.System()
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger, incoming: make(chan struct{}, max(1, min(maxHandshakes, cfg.MaxConns/2))), buffers: wire.NewBudget(maxBuffers),
		torrents: map[metainfo.InfoHash]*Torrent{}, banned: map[netip.AddrPort]bool{}, bannedID: map[[20]byte]bool{},
	}
	c.downlink.Limit = float64(cfg.DownLimit)
	c.downLimit = limiter(cfg.DownLimit)
	c.uplink.SetRate(float64(cfg.UpLimit))
	n := copy(c.id[:], cfg.PeerPrefix)
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-."
	var random [20]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	for i := n; i < len(c.id); i++ {
		c.id[i] = letters[int(random[i])%len(letters)]
	}
	if c.listener = cfg.Listener; c.listener == nil && cfg.Listen != "" {
		l, err := cfg.Network.Listen(context.Background(), cfg.Listen)
		if err != nil {
			return nil, err
		}
		c.listener = l
	}
	c.discovery = discovery.Config{PeerID: c.id, UserAgent: cfg.Version, Network: cfg.Network, Logger: cfg.Logger}
	return c, nil
}

// limiter makes a limiter of bytes/s whose burst holds a block; nil for 0.
func limiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(max(bytes/10, 32<<10)))
}

// Port returns the listening port, 0 if there is none.
func (c *Client) Port() uint16 {
	if c.listener == nil {
		return 0
	}
	return network.AddrPort(c.listener.Addr()).Port()
}

// public is the port at which others reach us: ours, or the one that a router maps to it.
func (c *Client) public() uint16 {
	if c.cfg.External != nil && c.listener != nil {
		if p := c.cfg.External(); p != 0 {
			return p
		}
	}
	return c.Port()
}

// Addr returns the listening address.
func (c *Client) Addr() netip.AddrPort {
	if c.listener == nil {
		return netip.AddrPort{}
	}
	return network.AddrPort(c.listener.Addr())
}

// Add returns a torrent for cfg; its Run joins the swarm. A second Add of the same
// info-hash is refused.
func (c *Client) Add(cfg TorrentConfig) (*Torrent, error) {
	c.mu.Lock()
	if c.torrents[cfg.Hash] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("torrent %s: already added", cfg.Hash)
	}
	t := newTorrent(c, cfg)
	c.torrents[cfg.Hash] = t
	c.mu.Unlock()
	t.findByV2()
	return t, nil
}

// alias lets peers find a torrent under its v2 hash too, unless another has it.
func (c *Client) alias(t *Torrent, h metainfo.InfoHash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.torrents[h] == nil {
		c.torrents[h] = t
	}
}

// Remove makes the client forget a torrent whose Run has ended, or is about to.
func (c *Client) Remove(t *Torrent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, other := range c.torrents {
		if other == t {
			delete(c.torrents, h)
		}
	}
}

func (c *Client) find(h metainfo.InfoHash) *Torrent {
	c.mu.Lock()
	t := c.torrents[h]
	c.mu.Unlock()
	if t == nil && c.cfg.Dormant != nil {
		t = c.cfg.Dormant.Wake(h)
	}
	return t
}

// keys calls f with every info-hash, the shared secrets of encrypted handshakes. With
// 10,000 torrents that takes 0.8 ms of a handshake of 0.3 ms, which is why there is no
// handshake of our own that would look them up: the library has each tried.
func (c *Client) keys(f func([]byte) bool) {
	c.mu.Lock()
	all := make([]metainfo.InfoHash, 0, len(c.torrents))
	for h := range c.torrents {
		all = append(all, h)
	}
	c.mu.Unlock()
	for i := range all {
		if !f(all[i][:]) {
			return
		}
	}
	if c.cfg.Dormant != nil {
		c.cfg.Dormant.Hashes(func(h metainfo.InfoHash) bool { return f(h[:]) })
	}
}

// Run accepts peers until ctx ends and every connection it accepted has ended.
func (c *Client) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	if u := c.cfg.UTP; u != nil {
		group.Go(func() {
			if err := u.Run(ctx); err != nil {
				c.log.Error("uTP ended", "err", err)
			}
		})
		group.Go(func() { c.listen(ctx, &group, u) })
	}
	if c.listener != nil {
		stop := context.AfterFunc(ctx, func() { c.listener.Close() })
		defer stop()
		c.listen(ctx, &group, c.listener)
	}
	<-ctx.Done()
	return nil
}

// accepter is a listener, of TCP or uTP.
type accepter interface{ Accept() (net.Conn, error) }

// listen accepts peers until ctx ends.
func (c *Client) listen(ctx context.Context, group *sync.WaitGroup, l accepter) {
	for {
		n, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Out of descriptors, say: wait instead of spinning.
			c.log.Warn("accept", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		if c.full() && c.roomiest() == nil {
			n.Close()
			continue
		}
		select {
		case c.incoming <- struct{}{}:
			group.Go(func() { c.accept(ctx, n) })
		default:
			n.Close() // a flood of handshakes: those under way go first
		}
	}
}

// Close frees the listening sockets of a client that never ran.
func (c *Client) Close() (err error) {
	if c.listener != nil {
		err = c.listener.Close()
	}
	if c.cfg.UTP != nil {
		err = errors.Join(err, c.cfg.UTP.Close())
	}
	return err
}

// accept does the handshake of an incoming connection and serves it.
func (c *Client) accept(ctx context.Context, n net.Conn) {
	stop := context.AfterFunc(ctx, func() { n.Close() })
	defer stop()
	var conn *conn
	var t *Torrent
	err := fault.Catch(c.log, "the handshake of a peer", func() (err error) {
		conn, t, err = c.receive(ctx, n)
		return err
	})
	<-c.incoming
	if err != nil {
		c.log.Debug("incoming connection refused", "peer", n.RemoteAddr(), "err", err)
		n.Close()
		return
	}
	t.serve(ctx, conn)
}

// ban remembers a peer that lied: by its listening address, since many peers may
// share one IP, and by its id.
func (c *Client) ban(p *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.banned) > 10000 {
		clear(c.banned)
		clear(c.bannedID)
	}
	if p.addr.IsValid() { // a web seed has none
		c.banned[p.addr] = true
	}
	if p.listen.IsValid() {
		c.banned[p.listen] = true
	}
	c.bannedID[p.id] = true
}

func (c *Client) isBanned(a netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.banned[a]
}

func (c *Client) isBannedID(id [20]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bannedID[id]
}

// addNode tells the DHT of a node that a peer named (BEP 5 PORT).
func (c *Client) addNode(peer netip.AddrPort, port []byte) {
	if c.cfg.DHT != nil && len(port) == 2 && peer.IsValid() {
		c.cfg.DHT.AddNode(netip.AddrPortFrom(peer.Addr(), uint16(port[0])<<8|uint16(port[1])))
	}
}
