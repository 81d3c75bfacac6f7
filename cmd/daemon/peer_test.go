package daemon_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// rawPeer is one connection of a peer that a test writes by hand.
type rawPeer struct {
	net.Conn
	*wire.Reader
	meta     *metainfo.Meta
	data     []byte
	greeting []byte // the handshake that we got
	slow     bool   // without BEP 6
}

// say sends messages.
func (p *rawPeer) say(msgs ...[]byte) error {
	_, err := p.Write(bytes.Join(msgs, nil))
	return err
}

// listenRaw accepts connections as a peer with a torrent; behave has each of them
// until it returns. An error of behave is the end of that connection and no more.
func listenRaw(t testing.TB, meta *metainfo.Meta, data []byte, behave func(*rawPeer) error) string {
	t.Helper()
	return rawPeer{meta: meta, data: data}.listen(t, behave)
}

// listen is listenRaw for peers like p.
func (like rawPeer) listen(t testing.TB, behave func(*rawPeer) error) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				p := like
				p.Conn = c
				if p.shake() == nil {
					_ = behave(&p)
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); group.Wait() })
	return l.Addr().String()
}

// dialRaw connects to a client as a peer.
func dialRaw(addr string, meta *metainfo.Meta) (*rawPeer, error) {
	c, err := net.DialTimeout("tcp4", addr, patience)
	if err != nil {
		return nil, err
	}
	p := &rawPeer{Conn: c, meta: meta}
	if err = p.hello(); err == nil {
		err = p.hear()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

func (p *rawPeer) shake() error {
	if err := p.hear(); err != nil {
		return err
	}
	return p.hello()
}

func (p *rawPeer) hear() error {
	p.greeting = make([]byte, 68)
	_ = p.SetReadDeadline(time.Now().Add(patience))
	_, err := io.ReadFull(p.Conn, p.greeting)
	_ = p.SetReadDeadline(time.Time{})
	p.Reader = wire.NewReader(p.Conn)
	return err
}

func (p *rawPeer) hello() error {
	bits := pp.NewPeerExtensionBytes(pp.ExtensionBitLtep)
	if !p.slow {
		bits.SetBit(pp.ExtensionBitFast, true)
	}
	id := make([]byte, 12)
	_, _ = rand.Read(id)
	hash := p.meta.Info.Hash
	return p.say([]byte(pp.Protocol), bits[:], hash[:], []byte("-XX0000-"), id)
}

// extended encodes an extension message.
func extended(id byte, v any, more ...[]byte) []byte {
	return wire.AppendExtended(nil, id, append([][]byte{bencode.MustMarshal(v)}, more...)...)
}

type dict = map[string]any

// seedAll is what an honest seeder says first.
func (p *rawPeer) seedAll() error {
	return p.say(wire.AppendFlag(nil, pp.HaveAll), wire.AppendFlag(nil, pp.Unchoke))
}

// piece encodes a block.
func (p *rawPeer) piece(m wire.Message) []byte {
	at := int64(m.Index)*p.meta.Info.PieceLength + int64(m.Begin)
	return append(wire.AppendPieceHeader(nil, int(m.Index), int(m.Begin), int(m.Length)), p.data[at:at+int64(m.Length)]...)
}

// serve answers a request.
func (p *rawPeer) serve(m wire.Message) error { return p.say(p.piece(m)) }

// each calls f with every message until the connection ends.
func (p *rawPeer) each(f func(wire.Message) error) error {
	for {
		m, err := p.Read2()
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

// Read2 reads the next message; net.Conn has a Read as well.
func (p *rawPeer) Read2() (wire.Message, error) { return p.Reader.Read() }

// answer calls f with every request.
func (p *rawPeer) answer(f func(wire.Message) error) error {
	return p.each(func(m wire.Message) error {
		if m.Type == pp.Request && !m.Keepalive {
			return f(m)
		}
		return nil
	})
}

// leech asks for every block, again and again, whatever it is told, until it has all
// of them or the connection ends; it returns how many bytes came.
func (p *rawPeer) leech() (got int) {
	var all []byte
	for piece := range p.meta.Info.NumPieces() {
		for at := int64(0); at < p.meta.Info.PieceSize(piece); at += wire.BlockSize {
			all = wire.AppendRange(all, pp.Request, piece, int(at), int(min(wire.BlockSize, p.meta.Info.PieceSize(piece)-at)))
		}
	}
	if p.say(wire.AppendFlag(nil, pp.HaveNone), wire.AppendFlag(nil, pp.Interested), all) != nil {
		return 0
	}
	_ = p.each(func(m wire.Message) error {
		switch {
		case m.Keepalive:
		case m.Type == pp.Piece:
			if got += len(m.Payload); int64(got) >= p.meta.Info.Length {
				return io.EOF
			}
		case m.Type == pp.Unchoke:
			return p.say(all)
		}
		return nil
	})
	return got
}

func unbencode(b []byte, v any) error {
	d := bencode.NewDecoder(bytes.NewReader(b)) // what follows the value is data
	return d.Decode(v)
}

// handshakeOf waits for a peer's extended handshake.
func (p *rawPeer) handshakeOf() (h dict, err error) {
	_ = p.SetReadDeadline(time.Now().Add(patience))
	defer p.SetReadDeadline(time.Time{})
	for {
		m, err := p.Read2()
		if err != nil {
			return nil, err
		}
		if m.Type == pp.Extended && m.Extended == 0 {
			err := bencode.Unmarshal(m.Payload, &h)
			return h, err
		}
	}
}
