package bitswap

import (
	"context"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	remembered = 8192 // blocks that were asked for last
	maxUnasked = 16   // blocks of one peer that were not, before it is not spoken to any more

	silentAfter = 4 * time.Second // with blocks that are wanted of a peer, and none that came
	leftFor     = 2 * time.Second // that a silent one is not spoken to; doubled each time
	forGood     = 1000 * time.Hour
)

// asked remembers what was asked for, so that other blocks are known as such. Peers make
// the CIDs of what they send by hashing it: wrong bytes come as a block that nobody wants.
type asked struct {
	set  map[string]bool // by multihash
	ring []string
	next int
}

func (a *asked) add(c cid.Cid) {
	hash := string(c.Hash())
	if a.set[hash] {
		return
	}
	if a.set == nil {
		a.set = map[string]bool{}
	}
	if len(a.ring) < remembered {
		a.ring = append(a.ring, hash)
	} else {
		delete(a.set, a.ring[a.next])
		a.ring[a.next] = hash
		a.next = (a.next + 1) % remembered
	}
	a.set[hash] = true
}

// conduct is what is known of a peer, since the node woke.
type conduct struct {
	unasked int              // blocks that nobody wanted
	owes    map[cid.Cid]bool // blocks that it was asked for
	since   time.Time        // when it was asked, or the last came
	silent  int              // times that it was
	until   time.Time        // then it is spoken to again
}

// conductLocked returns that of a peer.
func (n *Node) conductLocked(p peer.ID) *conduct {
	c := n.conduct[p]
	if c == nil {
		c = &conduct{owes: map[cid.Cid]bool{}}
		n.conduct[p] = c
	}
	return c
}

// leaveLocked hangs up, and does not speak to a peer for a while.
func (n *Node) leaveLocked(p peer.ID, c *conduct, d time.Duration, why string) {
	now := time.Now()
	if n.awake == nil || now.Before(c.until) {
		return
	}
	c.until = now.Add(d)
	clear(c.owes)
	a := n.awake
	n.log.Info("a peer is not spoken to for now", "peer", p, "why", why, "for", d)
	a.all.Go(func() { _ = a.host.Network().ClosePeer(p) }) // it is gone, or it is now
}

// mayDialPeer reports whether a peer is spoken to.
func (n *Node) mayDialPeer(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conduct[p]
	return c == nil || !time.Now().Before(c.until)
}

// tap sees what peers send.
type tap struct{ n *Node }

// MessageReceived leaves a peer that goes on to send what was not asked for, until the
// node sleeps: its name costs it nothing, so that to remember it for longer is of no use.
func (t tap) MessageReceived(p peer.ID, m message.BitSwapMessage) {
	blocks, lacks := m.Blocks(), m.DontHaves()
	if len(blocks)+len(lacks) == 0 {
		return
	}
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	c := t.n.conductLocked(p)
	for _, b := range blocks {
		if !t.n.asked.set[string(b.Cid().Hash())] {
			c.unasked++
			continue
		}
		delete(c.owes, b.Cid())
		c.since, c.silent = time.Now(), 0
	}
	for _, l := range lacks {
		delete(c.owes, l)
	}
	if c.unasked > maxUnasked {
		t.n.leaveLocked(p, c, forGood, "it sends blocks that were not asked for")
	}
}

func (tap) MessageSent(peer.ID, message.BitSwapMessage) {} // of servers only

// watch leaves peers that say to have blocks and do not send any. boxo asks others as well
// then, but may come back to a peer that says it again, and again. If the want was lost on
// the way, which it forgets too, the next connection begins anew.
func (a *awake) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-a.ctx.Done():
			return
		}
		now := time.Now()
		a.n.mu.Lock()
		for p, c := range a.n.conduct {
			if len(c.owes) > 0 && now.Sub(c.since) > silentAfter {
				c.silent++
				a.n.leaveLocked(p, c, leftFor<<min(c.silent-1, 10), "it sends nothing")
			}
		}
		a.n.mu.Unlock()
	}
}

// watched is a network that notes what peers are asked for.
type watched struct {
	network.BitSwapNetwork
	n *Node
}

func (w watched) NewMessageSender(ctx context.Context, p peer.ID, o *network.MessageSenderOpts) (network.MessageSender, error) {
	s, err := w.BitSwapNetwork.NewMessageSender(ctx, p, o)
	if err != nil {
		return nil, err
	}
	return &watchedSender{s, w.n, p}, nil
}

type watchedSender struct {
	network.MessageSender
	n *Node
	p peer.ID
}

func (s *watchedSender) SendMsg(ctx context.Context, m message.BitSwapMessage) error {
	s.n.mu.Lock()
	c := s.n.conductLocked(s.p)
	for _, e := range m.Wantlist() {
		switch {
		case e.Cancel:
			delete(c.owes, e.Cid)
		case e.WantType == pb.Message_Wantlist_Block:
			if len(c.owes) == 0 {
				c.since = time.Now()
			}
			c.owes[e.Cid] = true
		}
	}
	s.n.mu.Unlock()
	return s.MessageSender.SendMsg(ctx, m)
}
