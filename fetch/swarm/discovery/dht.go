package discovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/dht/v2/traversal"
	"github.com/anacrolix/dht/v2/types"
	alog "github.com/anacrolix/log"
	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// DefaultBootstrap lists well-known nodes for a first start.
var DefaultBootstrap = []string{
	"router.bittorrent.com:6881",
	"router.utorrent.com:6881",
	"dht.libtorrent.org:25401",
	"dht.transmissionbt.com:6881",
	"dht.aelitis.com:6881",
}

const (
	saveEvery        = 5 * time.Minute
	announceEvery    = 5 * time.Minute // with peers found; sooner without
	firstRetry       = 30 * time.Second
	traversalTimeout = time.Minute
	maxSeeds         = 100 // nodes told by AddNode that are kept for a new bootstrap
)

// DHTConfig describes our node.
type DHTConfig struct {
	// PacketConn is the node's own socket, which Run closes; nil opens one on
	// Listen (host:port, empty for a port of the system's choice).
	PacketConn net.PacketConn
	Listen     string
	Network    *network.Network // opens the socket, and says whom to speak to
	// Bootstrap lists nodes (host:port) to begin with; none means that only the
	// nodes file, AddNode and strangers' queries make us part of the DHT.
	Bootstrap []string
	NodesFile string       // keeps nodes across restarts; empty: nothing is kept
	Logger    *slog.Logger // nil: nothing is logged
	// OnAnnounce, if set, is told of each info-hash before the first packet about
	// it leaves, every time.
	OnAnnounce func(metainfo.InfoHash)
}

// DHT is a node of the distributed hash table (BEP 5), for IPv4 and IPv6 alike.
// Addresses of private networks are as good as others, so that it also works on
// a LAN or on loopback; BEP 42's ids are therefore not required of nodes. Ours is one, from
// the second start on: the id cannot change while the node runs, and the address that it
// depends on is what other nodes say that it is.
type DHT struct {
	c    DHTConfig
	log  *slog.Logger
	conn *guard

	saved savedNodes
	ready chan struct{} // closed when server is set
	wake  chan struct{} // capacity 1: something may have changed for maintain

	server *dht.Server // set before ready is closed

	mu     sync.Mutex
	joined chan struct{}    // closed when some node is known
	isIn   bool             // joined is closed
	seeds  []netip.AddrPort // told by AddNode
	fresh  []netip.AddrPort // those not asked yet
}

// NewDHT opens the socket and reads the nodes file. Run does the rest.
func NewDHT(c DHTConfig) (*DHT, error) {
	for _, s := range c.Bootstrap {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, fmt.Errorf("DHT bootstrap node %.100q: must be host:port", s)
		}
	}
	if c.Network == nil {
		c.Network = network.System()
	}
	if c.PacketConn == nil {
		if c.Listen == "" {
			c.Listen = ":0"
		}
		pc, err := c.Network.ListenPacket(context.Background(), "udp", c.Listen)
		if err != nil {
			return nil, fmt.Errorf("DHT: %w", err)
		}
		c.PacketConn = pc
	}
	d := &DHT{c: c, log: loggerOr(c.Logger), ready: make(chan struct{}), wake: make(chan struct{}, 1), joined: make(chan struct{})}
	if c.NodesFile != "" {
		var err error
		if d.saved, err = loadNodes(c.NodesFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("DHT nodes file", "err", err)
		}
	}
	id := d.saved.id
	if id.IsZero() {
		id = krpc.RandomNodeID()
	}
	d.conn = newGuard(c.PacketConn, c.Network, newAnswers(id, &peerStore{}), d.log)
	d.conn.knocked = func(a netip.AddrPort) { // the user named it
		d.conn.trust(a.Addr())
		d.AddNode(a)
	}
	for _, n := range d.saved.nodes {
		d.conn.know(n.Addr.ToNodeAddrPort().AddrPort)
	}
	return d, nil
}

// Addr is the address of our socket.
func (d *DHT) Addr() netip.AddrPort {
	if ua, ok := d.conn.LocalAddr().(*net.UDPAddr); ok {
		return netip.AddrPortFrom(ua.AddrPort().Addr().Unmap(), ua.AddrPort().Port())
	}
	return netip.AddrPort{}
}

// AddNode tells of a node at the address of somebody we speak to, such as a peer that
// sent its DHT port. The policy of addresses is not asked.
func (d *DHT) AddNode(addr netip.AddrPort) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !usableNode(addr) {
		return
	}
	d.conn.know(addr)
	d.mu.Lock()
	if len(d.fresh) < maxSeeds {
		d.fresh = append(d.fresh, addr)
	}
	if d.seeds = append(d.seeds, addr); len(d.seeds) > maxSeeds {
		d.seeds = d.seeds[1:]
	}
	d.mu.Unlock()
	d.poke()
}

func (d *DHT) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Status tells how many nodes we know and how many of them answer.
func (d *DHT) Status() (nodes, good int) {
	select {
	case <-d.ready:
		st := d.server.Stats()
		return st.Nodes, st.GoodNodes
	default:
		return 0, 0
	}
}

// Run is our node until ctx ends; it may be called once. It closes the socket
// and waits for the queries that are still out, two seconds at most in practice.
func (d *DHT) Run(ctx context.Context) error {
	conf := dht.NewDefaultServerConfig()
	conf.NodeId = d.conn.answers.id
	conf.Conn = d.conn
	conf.StartingNodes = nil // the library's resolver leaves a goroutine behind
	conf.PeerStore = d.conn.answers.peers
	conf.SendLimiter = rate.NewLimiter(250, 50) // the default one is shared by all nodes of a process
	conf.Logger = alog.NewLogger("dht")
	conf.Logger.SetHandlers(alog.DiscardHandler)
	conf.OnQuery = func(m *krpc.Msg, _ net.Addr) bool { d.poke(); return m.Q != "put" } // answered already
	s, err := dht.NewServer(conf)
	if err != nil {
		d.conn.Close()
		return fmt.Errorf("DHT: %w", err)
	}
	d.server = s
	close(d.ready)
	for _, n := range d.saved.nodes {
		s.AddNode(n) // an error means that its bucket is full
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.maintain(ctx, &wg) })
	wg.Go(func() { d.bootstrap(ctx) })
	d.keepNodes(ctx)
	s.Close()
	wg.Wait()
	d.settle()
	return nil
}

// settle waits for the library's goroutines, whose queries take no context: each
// ends at its next attempt to send. There is no event for that, so it asks.
func (d *DHT) settle() {
	deadline := time.Now().Add(5 * time.Second)
	for d.server.Stats().OutstandingTransactions > 0 && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
}

// keepNodes writes the nodes file now and then, and when ctx ends.
func (d *DHT) keepNodes(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		nodes := d.server.Nodes()
		if d.c.NodesFile == "" || len(nodes) == 0 {
			continue // rather the nodes of last time than none
		}
		if err := (savedNodes{d.conn.outside.fitting(d.server.ID()), nodes}).save(d.c.NodesFile); err != nil {
			d.log.Warn("DHT nodes file", "err", err)
		}
	}
}

// maintain asks the nodes that AddNode brings and, once there are any, lets the
// library keep its table. Not before: without nodes, the library's bootstrap
// leaves a goroutine behind at each attempt.
func (d *DHT) maintain(ctx context.Context, wg *sync.WaitGroup) {
	for kept := false; ; {
		d.pingFresh(ctx, wg)
		if !kept && d.server.NumNodes() > 0 {
			kept = true
			wg.Go(d.server.TableMaintainer) // ends with Server.Close
			d.join()
		}
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
	}
}

// bootstrap looks for nodes whenever none that we know answers: at the start,
// and after the network was gone for long.
func (d *DHT) bootstrap(ctx context.Context) {
	for retry := time.Second; ; retry = min(2*retry, time.Minute) {
		if _, good := d.Status(); good == 0 {
			d.find(ctx)
			d.poke()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

func (d *DHT) join() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isIn {
		d.isIn = true
		close(d.joined)
		d.log.Info("DHT joined", "nodes", d.server.NumNodes())
	}
}

// pingFresh asks the new nodes of AddNode; those that answer enter the table.
func (d *DHT) pingFresh(ctx context.Context, wg *sync.WaitGroup) {
	d.mu.Lock()
	fresh := d.fresh
	d.fresh = nil
	d.mu.Unlock()
	for _, addr := range fresh {
		wg.Go(func() { // ends after three attempts or with ctx
			d.server.Query(ctx, dht.NewAddr(net.UDPAddrFromAddrPort(addr)), "ping", dht.QueryInput{})
			d.poke()
		})
	}
}

// find walks towards our own id (BEP 5), which fills the table.
func (d *DHT) find(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, traversalTimeout)
	defer cancel()
	start := d.startingNodes(ctx)
	if len(start) == 0 {
		return
	}
	id := krpc.ID(d.server.ID())
	op := traversal.Start(traversal.OperationInput{
		Target: id, K: 16, NodeFilter: d.server.TraversalNodeFilter,
		DoQuery: func(qctx context.Context, addr krpc.NodeAddr) traversal.QueryResult {
			in := dht.QueryInput{MsgArgs: krpc.MsgArgs{Target: id, Want: []krpc.Want{krpc.WantNodes, krpc.WantNodes6}}}
			return d.server.Query(qctx, dht.NewAddr(addr.UDP()), "find_node", in).TraversalQueryResult(addr)
		},
	})
	op.AddNodes(start)
	select {
	case <-ctx.Done():
	case <-op.Stalled():
	}
	op.Stop()
	<-op.Stopped()
}

// startingNodes is everybody who might answer: the table, what AddNode told, and
// the bootstrap nodes.
func (d *DHT) startingNodes(ctx context.Context) (nodes []types.AddrMaybeId) {
	add := func(a netip.AddrPort) {
		var n krpc.NodeAddr
		n.FromAddrPort(a)
		nodes = append(nodes, types.AddrMaybeId{Addr: n.ToNodeAddrPort()})
	}
	for _, n := range d.server.Nodes() {
		nodes = append(nodes, types.AddrMaybeId{Addr: n.Addr.ToNodeAddrPort()})
	}
	d.mu.Lock()
	for _, a := range d.seeds {
		add(a)
	}
	d.mu.Unlock()
	for _, s := range d.c.Bootstrap {
		targets, err := d.c.Network.Targets(ctx, s)
		for _, to := range targets {
			if ua, ok := to.(*net.UDPAddr); ok {
				d.conn.trust(network.AddrPort(ua).Addr())
				add(network.AddrPort(ua))
			} else {
				err = d.conn.knock(to)
			}
		}
		if err != nil {
			d.log.Debug("DHT bootstrap node", "node", s, "err", err)
		}
	}
	return nodes
}

// Announce asks the DHT for peers of hash, tells it that we accept some on the
// port that port returns (0: we do not), and repeats both until ctx ends. It
// waits by itself until Run has found nodes, and returns nil.
func (d *DHT) Announce(ctx context.Context, hash metainfo.InfoHash, port func() uint16, found func([]Peer)) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.joined:
	}
	for wait := firstRetry; ; wait = min(2*wait, announceEvery) {
		if d.c.OnAnnounce != nil {
			d.c.OnAnnounce(hash)
		}
		at := port()
		n, err := d.announceOnce(ctx, hash, at, found)
		if err != nil {
			d.log.Debug("DHT announce", "torrent", hash, "err", err)
		}
		if n > 0 {
			wait = announceEvery
		}
		if !another(ctx, wait, at, port) {
			return nil
		}
	}
}

// another waits until the next announce is due, which is sooner if we are called at
// another port now; false: ctx ended.
func another(ctx context.Context, wait time.Duration, at uint16, port func() uint16) bool {
	due := time.NewTimer(wait)
	defer due.Stop()
	check := time.NewTicker(leftCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due.C:
			return true
		case <-check.C:
			if port() != at {
				return true
			}
		}
	}
}

// announceOnce walks towards hash, passes on the peers that nodes know, and
// then announces us to the closest. It returns the number of peers.
func (d *DHT) announceOnce(ctx context.Context, hash metainfo.InfoHash, port uint16, found func([]Peer)) (n int, err error) {
	var opts []dht.AnnounceOpt
	if port != 0 {
		opts = append(opts, dht.AnnouncePeer(dht.AnnouncePeerOpts{Port: int(port)}))
	}
	a, err := d.server.AnnounceTraversal(hash, opts...)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	defer context.AfterFunc(ctx, a.Close)()
	defer time.AfterFunc(traversalTimeout, a.StopTraversing).Stop()
	for v := range a.Peers { // closed after the last announce, or soon after Close
		set := peerSet{source: "dht"}
		for _, p := range v.Peers {
			if addr, ok := netip.AddrFromSlice(p.IP); ok && p.Port > 0 && p.Port <= 65535 {
				set.add(addr, uint16(p.Port))
			}
		}
		via, _ := netip.AddrFromSlice(v.NodeInfo.Addr.IP)
		for i := range set.peers {
			set.peers[i].Via = via.Unmap()
		}
		if n += len(set.peers); len(set.peers) > 0 {
			found(set.peers)
		}
	}
	return n, nil
}
