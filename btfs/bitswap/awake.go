package bitswap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/btmount/btmount/btfs/source"
)

const (
	enough      = 4 // first nodes that are connected
	dialsAtOnce = 8
	redialAfter = time.Second // doubled each time
	redialMost  = 5 * time.Minute
	maxSessions = 64
	findAgain   = 10 * time.Second
	findFor     = 30 * time.Second
	maxFound    = 10 // providers of one search
)

// awake is a node while it runs.
type awake struct {
	*parts
	n      *Node
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
	lost   map[peer.ID]chan struct{} // of the user's peers: a connection ended

	mu       sync.Mutex
	dialling chan struct{} // closed when the round of dials that runs has reached one, or all failed
	dialled  time.Time     // when it began
	answers  map[string]error
	sessions map[cid.Cid]*session
}

// session is the search for the blocks of one object.
type session struct {
	root cid.Cid      // not defined for all blocks of which none is known
	next chan cid.Cid // to search for, while a search waits for its next time

	// All below is guarded by awake.mu.
	users  int
	used   time.Time
	came   time.Time // the last block
	begun  time.Time // the last search
	looked cid.Cid   // what for
	search bool      // one runs
	asked  bool      // the DHT, to the end
	found  int       // peers
	failed error     // of one that could not be reached
}

// start looks names up, and starts everything.
func (n *Node) start() (*awake, error) {
	p, err := n.assemble()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &awake{parts: p, n: n, ctx: ctx, cancel: cancel, lost: map[peer.ID]chan struct{}{}, answers: map[string]error{}, sessions: map[cid.Cid]*session{}}
	for _, t := range n.peers {
		a.lost[t.id] = make(chan struct{}, 1)
		a.host.ConnManager().Protect(t.id, "typed")
	}
	a.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if lost := a.lost[c.RemotePeer()]; lost != nil {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}})
	a.dialAll()
	for _, t := range n.peers {
		a.all.Go(func() { a.keep(t) })
	}
	return a, nil
}

func (a *awake) stop() {
	a.cancel()
	a.parts.stop()
	a.all.Wait()
}

// reach returns when somebody is connected, or tells why nobody is. If nobody is any more
// all are dialled again, now and then.
func (a *awake) reach(ctx context.Context) error {
	if len(a.host.Network().Peers()) > 0 {
		return nil
	}
	a.mu.Lock()
	if a.dialling == nil && time.Since(a.dialled) > findAgain {
		a.mu.Unlock()
		a.dialAll()
		a.mu.Lock()
	}
	wait := a.dialling
	a.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("%w; %s", context.Cause(ctx), a.said())
		}
	}
	if len(a.host.Network().Peers()) > 0 {
		return nil
	}
	return &UnreachableError{a.said()}
}

// UnreachableError says that no node could be reached, and what each answered.
type UnreachableError struct{ answers string }

func (e *UnreachableError) Error() string { return "no node could be reached: " + e.answers }

// dialAll dials the user's peers, and first nodes until enough are connected.
func (a *awake) dialAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dialling != nil {
		return
	}
	reached := make(chan struct{})
	a.dialling, a.dialled = reached, time.Now()
	over := sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.dialling = nil
		close(reached)
	})
	var round sync.WaitGroup
	for _, t := range a.n.peers {
		round.Go(func() {
			if a.dial(t) == nil {
				over()
			}
		})
	}
	first := append([]typed(nil), a.n.first...)
	rand.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	next := make(chan typed, len(first))
	for _, t := range first {
		next <- t
	}
	close(next)
	var mu sync.Mutex
	connected := 0
	for range min(dialsAtOnce, len(first)) {
		round.Go(func() {
			for t := range next {
				mu.Lock()
				done := connected >= enough
				mu.Unlock()
				if done || a.ctx.Err() != nil {
					return
				}
				if a.dial(t) == nil {
					over()
					mu.Lock()
					connected++
					mu.Unlock()
				}
			}
		})
	}
	a.all.Go(func() { round.Wait(); over() }) // ends with the dials, which have a timeout
}

// keep dials a peer again when it is lost.
func (a *awake) keep(t typed) {
	wait := redialAfter
	for {
		if a.host.Network().Connectedness(t.id) == network.Connected {
			wait = redialAfter
			select {
			case <-a.lost[t.id]:
				continue
			case <-a.ctx.Done():
				return
			}
		}
		select {
		case <-time.After(wait):
		case <-a.lost[t.id]:
			continue
		case <-a.ctx.Done():
			return
		}
		if err := a.dial(t); err != nil {
			wait = min(2*wait, redialMost)
		}
	}
}

// dial connects to a peer that was named, and keeps what it answered.
func (a *awake) dial(t typed) error {
	ctx, cancel := context.WithTimeout(a.ctx, dialTimeout)
	defer cancel()
	start := time.Now()
	again := false // it failed a moment ago, and what that was says more
	addrs, err := a.addresses(ctx, t)
	if err == nil {
		err = a.host.Connect(ctx, peer.AddrInfo{ID: t.id, Addrs: addrs})
		again = errors.Is(err, swarm.ErrDialBackoff)
		if err != nil {
			err = plainly(err, a.n.reachedSince(start, addrs))
		}
	}
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !again || a.answers[t.text] == nil {
		a.answers[t.text] = err
	}
	if err != nil {
		a.n.log.Debug("a BTFS node is not reached", "node", t.text, "err", err)
	}
	return err
}

// addresses are those of a peer that was named, which may be dialled from now on.
func (a *awake) addresses(ctx context.Context, t typed) (all []ma.Multiaddr, err error) {
	if hostport, ok := t.host(); ok {
		found, err := a.n.cfg.Dialer.Resolve(ctx, hostport)
		if err != nil {
			return nil, fmt.Errorf("its name cannot be looked up: %w", err)
		}
		for _, to := range found {
			if m, err := t.at(to); err == nil {
				all = append(all, m)
			}
		}
	} else {
		all = []ma.Multiaddr{t.addr}
	}
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	for _, m := range all {
		if to, ok := addrPort(m); ok && !a.n.typedAt[to] {
			a.n.typedAt[to] = true
			a.n.via = append(a.n.via, to.Addr())
		}
	}
	return all, nil
}

// said is what those answered that were dialled, in one line: all of the user's peers, and
// one of the others.
func (a *awake) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	add := func(t typed, others string) {
		switch err, ok := a.answers[t.text]; {
		case !ok:
			all = append(all, t.text+": no answer yet"+others)
		case err != nil:
			all = append(all, t.text+": "+err.Error()+others)
		}
	}
	for _, t := range a.n.peers {
		add(t, "")
	}
	failed := 0
	var one typed
	for _, t := range a.n.first {
		if err := a.answers[t.text]; err != nil {
			failed, one = failed+1, t
		}
	}
	switch {
	case failed == 1:
		add(one, "")
	case failed > 1:
		add(one, fmt.Sprintf(" (and %d more of %d nodes to begin with)", failed-1, len(a.n.first)))
	}
	if len(all) == 0 {
		return "nobody has answered yet"
	}
	return strings.Join(all, "; ")
}

// sessionOf returns the session of a root, for one use.
func (a *awake) sessionOf(root cid.Cid) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[root]
	if s == nil {
		if len(a.sessions) >= maxSessions {
			a.forgetLocked()
		}
		s = &session{root: root, next: make(chan cid.Cid, 1)}
		a.sessions[root] = s
	}
	s.users++
	s.used = time.Now()
	return s
}

// ask asks for a block until it comes, and looks for others to ask if it does not soon.
func (a *awake) ask(ctx context.Context, root, c cid.Cid) (s *session, b []byte, err error) {
	s = a.sessionOf(root)
	search := time.AfterFunc(searchAfter, func() { a.find(s, c) })
	due, ok := source.Due(ctx)
	if !ok {
		due = time.Now()
	}
	b, err = a.client.Get(ctx, root, c, due)
	search.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.users--
	if err == nil {
		s.came = time.Now()
	}
	return s, b, err
}

// forgetLocked drops the session that nobody used for longest. If all are in use there is
// one more, of as many as blocks are asked for at a time.
func (a *awake) forgetLocked() {
	var oldest *session
	for _, s := range a.sessions {
		if s.users == 0 && (oldest == nil || s.used.Before(oldest.used)) {
			oldest = s
		}
	}
	if oldest != nil {
		delete(a.sessions, oldest.root)
	}
}

// find asks the DHT who has the root or the block, and connects to those, again and again
// while somebody waits and nothing comes. One search of a session runs at a time.
func (a *awake) find(s *session, c cid.Cid) {
	a.mu.Lock()
	defer a.mu.Unlock()
	other := !s.root.Defined() && !c.Equals(s.looked) // of another object, most likely
	if s.search && other {
		select {
		case s.next <- c:
		default:
		}
	}
	if s.search || a.ctx.Err() != nil || !other && time.Since(s.begun) < findAgain {
		return
	}
	s.search = true
	a.all.Go(func() { // ends when a block comes, nobody waits, or with the node
		for again := false; ; again = true {
			a.mu.Lock()
			if s.users == 0 || again && s.came.After(s.begun) && c.Equals(s.looked) {
				s.search = false
				a.mu.Unlock()
				return
			}
			s.begun, s.looked = time.Now(), c
			a.mu.Unlock()
			a.searchBoth(s, c)
			select {
			case c = <-s.next:
			case <-time.After(findAgain):
			case <-a.ctx.Done():
				return
			}
		}
	})
}

// searchBoth looks for the root, which is what most peers announce, and for the block.
func (a *awake) searchBoth(s *session, c cid.Cid) {
	ctx, cancel := context.WithTimeout(a.ctx, findFor)
	defer cancel()
	whole := true
	if s.root.Defined() && !c.Equals(s.root) {
		whole = a.search(ctx, s, s.root)
	}
	whole = a.search(ctx, s, c) && whole
	a.mu.Lock()
	defer a.mu.Unlock()
	s.asked = s.asked || whole
}

// search looks for one CID. It reports whether somebody was there to ask.
func (a *awake) search(ctx context.Context, s *session, c cid.Cid) bool {
	if !a.routed(ctx) {
		return false
	}
	var dials sync.WaitGroup
	defer dials.Wait()
	for p := range a.dht.FindProvidersAsync(ctx, c, maxFound) {
		if p.ID == a.host.ID() {
			continue
		}
		a.mu.Lock()
		s.found++
		a.mu.Unlock()
		dials.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			start := time.Now()
			if err := a.host.Connect(ctx, p); err != nil {
				reached := a.n.reachedSince(start, p.Addrs)
				a.mu.Lock()
				defer a.mu.Unlock()
				s.failed = plainly(err, reached)
			}
		})
	}
	return ctx.Err() == nil
}

// routed waits until the DHT knows a node. It asks each that says to be one whether it
// answers, and does not ask again: who is connected and says so is taken without.
func (a *awake) routed(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; a.dht.RoutingTable().Size() == 0; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
		if n < 10 {
			continue
		}
		for _, p := range a.host.Network().Peers() {
			if all, err := a.host.Peerstore().SupportsProtocols(p, dhtPrefix+"/kad/1.0.0"); err == nil && len(all) > 0 {
				_, _ = a.dht.RoutingTable().TryAddPeer(p, true, false) // it is full of others
			}
		}
	}
	return true
}

// explain says of a block that did not come who was asked.
func (a *awake) explain(ctx context.Context, s *session, err error) error {
	if c := context.Cause(ctx); c != nil {
		err = c
	} else if a.ctx.Err() != nil {
		return ErrClosed
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return err
	}
	a.mu.Lock()
	dht := "the DHT was not reached"
	switch {
	case s.found > 0:
		dht = fmt.Sprintf("%d found in the DHT", s.found)
		if s.failed != nil {
			dht += ", one of them: " + s.failed.Error()
		}
	case s.asked:
		dht = "the DHT names nobody who has it"
	case !s.begun.IsZero():
		dht = "the DHT has not answered yet"
	}
	a.mu.Unlock()
	return fmt.Errorf("%w; %d peers connected, %s", err, len(a.host.Network().Peers()), dht)
}
