package swarm

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/anacrolix/torrent/mse"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/shaper"
)

// handshakeSize is the length of a handshake (BEP 3): protocol name, 8 reserved
// bytes, info-hash, peer id.
const handshakeSize = len(pp.Protocol) + 8 + 20 + 20

type handshake struct {
	bits pp.PeerExtensionBits
	hash metainfo.InfoHash
	id   [20]byte
}

// ours is our handshake for a torrent under one of its hashes. BEP 52 has a bit for who
// connects to a hybrid by its v1 hash and would speak v2: the other side may answer
// with the v2 hash then, and hash messages are spoken from there on.
func (c *Client) ours(t *Torrent, hash metainfo.InfoHash) []byte {
	bits := pp.NewPeerExtensionBytes(pp.ExtensionBitFast, pp.ExtensionBitLtep)
	if c.cfg.DHT != nil {
		bits.SetBit(pp.ExtensionBitDht, true)
	}
	if short := t.short.Load(); short != nil && *short != hash {
		bits.SetBit(pp.ExtensionBitV2Upgrade, true)
	}
	b := append([]byte(pp.Protocol), bits[:]...)
	b = append(b, hash[:]...)
	return append(b, c.id[:]...)
}

func readHandshake(r io.Reader) (h handshake, err error) {
	b := make([]byte, handshakeSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, fmt.Errorf("handshake: %w", err)
	}
	if string(b[:len(pp.Protocol)]) != pp.Protocol {
		return h, errors.New("handshake: not BitTorrent")
	}
	b = b[len(pp.Protocol):]
	copy(h.bits[:], b)
	copy(h.hash[:], b[8:])
	copy(h.id[:], b[28:])
	return h, nil
}

// dial connects to a peer with the handshakes that Config.Encryption asks for: with the
// second one if the peer hangs up on the first. Who hangs up on all of them over TCP is
// called over uTP: who is told to take no TCP may take the call, and end it.
func (c *Client) dial(ctx context.Context, t *Torrent, addr netip.AddrPort) (*conn, error) {
	if c.isBanned(addr) {
		return nil, errBanned
	}
	out, hungUp, err := c.tries(ctx, t, addr, c.connect)
	if hungUp && c.cfg.UTP != nil {
		if out, _, again := c.tries(ctx, t, addr, c.cfg.UTP.Dial); again == nil {
			return out, nil
		}
	}
	return out, err
}

// dialer makes a connection of a torrent to an address.
type dialer func(context.Context, *Torrent, netip.AddrPort) (*conn, error)

// punched is dial for peers that TCP does not reach (BEP 55).
func (c *Client) punched(ctx context.Context, t *Torrent, addr netip.AddrPort) (*conn, error) {
	if c.isBanned(addr) {
		return nil, errBanned
	}
	out, _, err := c.tries(ctx, t, addr, c.cfg.UTP.Dial)
	return out, err
}

// connecter connects in some way.
type connecter func(context.Context, network.Ask) (net.Conn, error)

// tries does one handshake after the other until one succeeds. The error is that of the
// first.
func (c *Client) tries(ctx context.Context, t *Torrent, addr netip.AddrPort, connect connecter) (out *conn, hungUp bool, first error) {
	for _, crypt := range c.cfg.Encryption.tries() {
		// Whether it may be dialled at all was asked when it was found.
		n, err := connect(ctx, network.Ask{Use: network.Peer, From: network.Typed, To: addr})
		if err != nil {
			return nil, false, cmp.Or(first, err)
		}
		out, err := c.try(ctx, t, n, addr, crypt)
		if err == nil {
			return out, false, nil
		}
		first = cmp.Or(first, err)
		_, tcp := n.(*net.TCPConn)
		hungUp = tcp && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
		if ctx.Err() != nil || errors.Is(err, errSelf) || errors.Is(err, errBanned) {
			return nil, false, first
		}
	}
	return nil, hungUp, first
}

// try does the handshake with somebody who was called.
func (c *Client) try(ctx context.Context, t *Torrent, n net.Conn, addr netip.AddrPort, crypt bool) (out *conn, err error) {
	stop := context.AfterFunc(ctx, func() { n.Close() })
	defer stop()
	defer func() {
		if out == nil { // failed, or panics
			n.Close()
		}
	}()
	_ = n.SetDeadline(time.Now().Add(handshakeTimeout))
	rw := io.ReadWriter(n)
	began, trips := time.Now(), 1
	if crypt {
		trips = 2
		var method mse.CryptoMethod
		if rw, method, err = mse.InitiateHandshakeContext(ctx, n, t.hash[:], c.ours(t, t.hash), c.cfg.Encryption.provide()); err != nil {
			return nil, err
		}
		crypt = method == mse.CryptoMethodRC4
	} else if _, err = n.Write(c.ours(t, t.hash)); err != nil {
		return nil, err
	}
	h, err := readHandshake(rw)
	greeted := time.Since(began) / time.Duration(trips)
	if err != nil {
		return nil, err
	}
	if short := t.short.Load(); h.hash != t.hash && (short == nil || h.hash != *short) {
		return nil, errors.New("handshake: answers for another torrent")
	}
	out, err = c.newConn(t, n, rw, h)
	if err != nil {
		return nil, err
	}
	out.listen, out.crypt, out.greeted = addr, crypt, greeted
	return out, nil
}

// receive does the handshake of an incoming connection, plain or obfuscated.
func (c *Client) receive(ctx context.Context, n net.Conn) (*conn, *Torrent, error) {
	_ = n.SetDeadline(time.Now().Add(handshakeTimeout))
	br := bufio.NewReaderSize(n, 1024)
	rw := struct {
		io.Reader
		io.Writer
	}{br, n}
	first, err := br.Peek(len(pp.Protocol))
	if err != nil {
		return nil, nil, err
	}
	var stream io.ReadWriter = rw
	crypt := string(first) != pp.Protocol
	switch {
	case !crypt && c.cfg.Encryption == EncryptionRequire:
		return nil, nil, errClear
	case crypt && c.cfg.Encryption == EncryptionForbid:
		return nil, nil, errEncrypt
	case crypt:
		var method mse.CryptoMethod
		if stream, method, err = mse.ReceiveHandshake(ctx, rw, c.keys, c.cfg.Encryption.choose); err != nil {
			return nil, nil, err
		}
		crypt = method == mse.CryptoMethodRC4
	}
	h, err := readHandshake(stream)
	if err != nil {
		return nil, nil, err
	}
	t := c.find(h.hash)
	if t == nil {
		return nil, nil, fmt.Errorf("handshake: no such torrent %s", h.hash)
	}
	if short := t.short.Load(); short != nil && h.bits.GetBit(pp.ExtensionBitV2Upgrade) {
		h.hash = *short
	}
	if _, err := stream.Write(c.ours(t, h.hash)); err != nil {
		return nil, nil, err
	}
	conn, err := c.newConn(t, n, stream, h)
	if err != nil {
		return nil, nil, err
	}
	conn.incoming, conn.source, conn.crypt = true, "incoming", crypt
	return conn, t, nil
}

func (c *Client) newConn(t *Torrent, n net.Conn, rw io.ReadWriter, h handshake) (*conn, error) {
	if h.id == c.id {
		return nil, errSelf
	}
	addr := network.AddrPort(n.RemoteAddr())
	if c.isBannedID(h.id) || c.isBanned(addr) {
		return nil, errBanned
	}
	_ = n.SetDeadline(time.Time{})
	conn := &conn{
		t: t, net: n, rw: rw, addr: addr, id: h.id, fast: h.bits.SupportsFast(), choking: true,
		kick: make(chan struct{}, 1), gone: make(chan struct{}), asked: map[blockKey]int{},
		turns: []*shaper.Flow{t.uplink.Join(), c.uplink.Join()},
	}
	conn.hash.name = h.hash
	if h.bits.SupportsExtended() {
		conn.theirs = map[string]byte{}
	}
	return conn, nil
}
