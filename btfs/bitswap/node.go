package bitswap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	idleAfter   = 5 * time.Minute
	width       = 256
	searchAfter = 300 * time.Millisecond // with no block from those who are connected
)

// ErrClosed is the answer of a node that was closed.
var ErrClosed = errors.New("the BTFS node was closed")

// Config of a Node.
type Config struct {
	Network   Network
	Bootstrap []string // multiaddrs of nodes to begin with; nil: those of the network
	Peers     []string // multiaddrs of peers that are dialled at the start and kept
	Dialer    Dialer
	Idle      time.Duration // after which it sleeps; 0: 5 minutes
	Log       *slog.Logger  // nil: none
}

// Node is a node of BTFS that takes blocks from others. It is a source.Source.
type Node struct {
	cfg   Config
	log   *slog.Logger
	peers []typed
	first []typed // nodes to begin with
	all   sync.WaitGroup

	mu      sync.Mutex
	typedAt map[netip.AddrPort]bool // where the user's peers and the first nodes are
	via     []netip.Addr            // of all of these
	state   state
	awake   *awake
	waking  chan struct{} // closed when it is awake, or could not be
	users   int
	idle    *time.Timer
	took    int64                 // blocks
	left    map[peer.ID]time.Time // until when who lied is not spoken to; since it woke
	reached map[netip.AddrPort]time.Time
}

type state uint8

const (
	asleep state = iota
	waking
	running
	closed
)

// New checks the addresses. It opens nothing before somebody asks for a block.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Log, typedAt: map[netip.AddrPort]bool{}, left: map[peer.ID]time.Time{}, reached: map[netip.AddrPort]time.Time{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.cfg.Idle == 0 {
		n.cfg.Idle = idleAfter
	}
	if n.cfg.Bootstrap == nil {
		n.cfg.Bootstrap = cfg.Network.Bootstrap
	}
	for _, list := range []struct {
		from []string
		to   *[]typed
	}{{cfg.Peers, &n.peers}, {n.cfg.Bootstrap, &n.first}} {
		for _, text := range list.from {
			t, err := parsePeer(text)
			if err != nil {
				return nil, fmt.Errorf("peer %.200q: %w", text, err)
			}
			*list.to = append(*list.to, t)
		}
	}
	if len(n.peers)+len(n.first) == 0 {
		return nil, errors.New("a network of your own begins nowhere; name a node of it with --btfs-bootstrap or --btfs-peer")
	}
	return n, nil
}

// Name is how the node is called in messages.
func (n *Node) Name() string { return "BTFS peers" }

// Width is how many blocks are worth asking for at a time: a message holds many wants.
func (n *Node) Width() int { return width }

// Block brings a block of which nothing more is known.
func (n *Node) Block(ctx context.Context, c cid.Cid, _ func(cid.Cid, []byte)) ([]byte, error) {
	return n.BlockOf(ctx, cid.Undef, c, nil)
}

// BlockOf brings a block of the object with a root, verified. Who had others of the same
// root is asked first, and who says to have the root is looked for.
func (n *Node) BlockOf(ctx context.Context, root, c cid.Cid, _ func(cid.Cid, []byte)) ([]byte, error) {
	a, err := n.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer n.leave()
	if err := a.reach(ctx); err != nil {
		return nil, err
	}
	s, data, err := a.ask(ctx, root, c)
	if err != nil {
		return nil, a.explain(ctx, s, err)
	}
	n.mu.Lock()
	n.took++
	n.mu.Unlock()
	return data, nil
}

// enter wakes the node, and keeps it awake until leave.
func (n *Node) enter(ctx context.Context) (*awake, error) {
	n.mu.Lock()
	for {
		switch n.state {
		case closed:
			n.mu.Unlock()
			return nil, ErrClosed
		case running:
			n.users++
			if n.idle != nil {
				n.idle.Stop()
			}
			a := n.awake
			n.mu.Unlock()
			return a, nil
		case asleep:
			done := make(chan struct{})
			n.state, n.waking = waking, done
			n.all.Go(func() { n.wake(done) }) // ends when it is awake
		}
		done := n.waking
		n.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		n.mu.Lock()
		if n.state == asleep {
			n.mu.Unlock()
			return nil, errors.New("the BTFS node cannot start; the log says why")
		}
	}
}

// wake starts everything.
func (n *Node) wake(done chan struct{}) {
	a, err := n.start()
	n.mu.Lock()
	defer n.mu.Unlock()
	defer close(done)
	if err != nil {
		n.log.Error("the BTFS node cannot start", "err", err)
		if n.state == waking {
			n.state = asleep
		}
		return
	}
	if n.state == closed {
		n.all.Go(a.stop)
		return
	}
	n.state, n.awake = running, a
	clear(n.left)
	n.restLocked()
}

func (n *Node) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.users--
	n.restLocked()
}

// restLocked has it sleep when nobody asks for long enough.
func (n *Node) restLocked() {
	if n.users > 0 || n.state != running {
		return
	}
	if n.idle == nil {
		n.idle = time.AfterFunc(n.cfg.Idle, n.sleep)
		return
	}
	n.idle.Reset(n.cfg.Idle)
}

func (n *Node) sleep() {
	n.mu.Lock()
	if n.users > 0 || n.state != running {
		n.mu.Unlock()
		return
	}
	a := n.awake
	n.state, n.awake = asleep, nil
	clear(n.reached)
	n.all.Add(1)
	n.mu.Unlock()
	defer n.all.Done()
	n.log.Debug("the BTFS node sleeps")
	a.stop()
}

// Close ends everything, and returns when it has. Whoever asks has to be gone.
func (n *Node) Close() {
	n.mu.Lock()
	a := n.awake
	n.state, n.awake = closed, nil
	if n.idle != nil {
		n.idle.Stop()
	}
	n.mu.Unlock()
	if a != nil {
		a.stop()
	}
	n.all.Wait()
}

// Status is what a node does just now.
type Status struct {
	Network string
	Awake   bool
	Peers   int   // that are connected
	Left    int   // that are not spoken to any more: they sent what nobody asked for
	Blocks  int64 // that came
	Wasted  int64 // bytes of blocks that came twice, since it woke
}

// Status tells what the node does.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{Network: n.cfg.Network.Name, Awake: n.state == running, Blocks: n.took}
	now := time.Now()
	for _, until := range n.left {
		if now.Before(until) {
			s.Left++
		}
	}
	if s.Awake {
		s.Peers = len(n.awake.host.Network().Peers())
		s.Wasted = n.awake.client.Wasted()
	}
	return s
}
