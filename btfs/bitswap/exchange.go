package bitswap

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/btmount/btmount/btfs/bitswap/want"
)

const (
	readTimeout = time.Minute      // of a stream on which nothing comes
	forGood     = 1000 * time.Hour // that a liar is not spoken to
)

// spoken are the protocols of bitswap that peers may answer over, best first. Wants are
// written in the first two.
var spoken = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}

// exchange has a want.Client ask the peers of a host.
func (n *Node) exchange(h host.Host) (*want.Client, func()) {
	c := want.New(want.Config{
		Open: func(ctx context.Context, p peer.ID) (want.Stream, bool, error) {
			s, err := h.NewStream(network.WithNoDial(ctx, "who is asked is connected"), p, spoken[:2]...)
			if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
				return nil, false, want.ErrNoBitswap
			} else if err != nil {
				return nil, false, err
			}
			return s, s.Protocol() != bsnet.ProtocolBitswap, nil
		},
		Leave: func(p peer.ID, why error) {
			switch {
			case errors.Is(why, want.ErrNoBitswap): // it may know others
			case errors.Is(why, want.ErrUnasked):
				n.leaveFor(p, forGood, why)
			default:
				n.leaveFor(p, 0, why)
			}
		},
	})
	for _, id := range spoken {
		h.SetStreamHandler(id, func(s network.Stream) {
			if err := c.Receive(s.Conn().RemotePeer(), timed{s}); err != nil {
				n.log.Debug("a stream of a BTFS peer", "peer", s.Conn().RemotePeer(), "err", err)
			}
			_ = s.Reset() // nothing is answered on it
		})
	}
	notify := &network.NotifyBundle{
		ConnectedF: func(_ network.Network, conn network.Conn) { c.Connected(conn.RemotePeer()) },
		DisconnectedF: func(net network.Network, conn network.Conn) {
			p := conn.RemotePeer()
			if net.Connectedness(p) == network.Connected {
				return
			}
			if c.Disconnected(p); net.Connectedness(p) == network.Connected { // meanwhile
				c.Connected(p)
			}
		},
	}
	h.Network().Notify(notify)
	return c, func() {
		h.Network().StopNotify(notify)
		c.Close()
	}
}

// timed is a stream that ends when nothing comes for long.
type timed struct{ network.Stream }

func (t timed) Read(p []byte) (int, error) {
	if err := t.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		return 0, err
	}
	return t.Stream.Read(p)
}

// leaveFor hangs up, and does not speak to a peer for a while: its name costs it nothing, so
// that to remember it for longer than the node is awake is of no use.
func (n *Node) leaveFor(p peer.ID, d time.Duration, why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.awake
	if a == nil {
		return
	}
	if d > 0 {
		n.left[p] = time.Now().Add(d)
	}
	n.log.Info("a BTFS peer is hung up on", "peer", p, "why", why)
	a.all.Go(func() { _ = a.host.Network().ClosePeer(p) }) // it is gone, or it is now
}

// mayDialPeer reports whether a peer is spoken to.
func (n *Node) mayDialPeer(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !time.Now().Before(n.left[p])
}
