package bitswap

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// overWebSocket is libp2p's transport of that name, but for its sockets: its own opens
// them itself, and asks the environment for a proxy. It dials and does not listen.
type overWebSocket struct {
	n        *Node
	upgrader transport.Upgrader
	limits   network.ResourceManager
}

var _ transport.Transport = (*overWebSocket)(nil)

var errNoListen = errors.New("this node does not listen")

func (t *overWebSocket) CanDial(m ma.Multiaddr) bool {
	_, ok := addrPort(m)
	return ok && len(m) == 3
}
func (t *overWebSocket) Listen(ma.Multiaddr) (transport.Listener, error) { return nil, errNoListen }
func (t *overWebSocket) Protocols() []int                                { return []int{ma.P_WS} }
func (t *overWebSocket) Proxy() bool                                     { return false }

func (t *overWebSocket) Dial(ctx context.Context, m ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.limits.OpenConnection(network.DirOutbound, true, m)
	if err != nil {
		return nil, err
	}
	c, err := t.connect(ctx, m)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, c, network.DirOutbound, p, scope) // ends scope if it fails
}

func (t *overWebSocket) connect(ctx context.Context, m ma.Multiaddr) (manet.Conn, error) {
	to, ok := addrPort(m)
	if !ok {
		return nil, errNotDialled
	}
	d := websocket.Dialer{HandshakeTimeout: dialTimeout, NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return t.n.dial(ctx, m)
	}}
	w, resp, err := d.DialContext(ctx, "ws://"+to.String(), nil)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, err
	}
	return &wsConn{Conn: w, remote: m}, nil
}

// wsConn is a stream of bytes in messages, whose bounds mean nothing.
type wsConn struct {
	*websocket.Conn
	remote ma.Multiaddr
	rest   io.Reader // of the message that is read
}

func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.rest == nil {
			_, r, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			c.rest = r
		}
		n, err := c.rest.Read(p)
		if err == io.EOF {
			c.rest, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Write is called by one at a time, as yamux does.
func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *wsConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

func (c *wsConn) LocalMultiaddr() ma.Multiaddr {
	m, err := manet.FromNetAddr(c.LocalAddr())
	if err != nil {
		return ma.StringCast("/ip4/0.0.0.0/tcp/0")
	}
	return m
}
