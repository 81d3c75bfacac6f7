package swarm

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Extension speaks one BEP 10 extension on behalf of a torrent, for who registers it
// in [Config].Extensions. Its methods are called by the torrent's own goroutine, one at
// a time, and must not wait. A panic in one of them ends the torrent, as any fault.
type Extension interface {
	// Name is the key in the handshake's m dictionary, "xx_name".
	Name() string
	// Attach is called when a peer has said that it speaks the extension.
	Attach(r *Remote)
	// Message is called with a payload from the peer, of at most 1 MiB, which is the
	// callee's. An error ends the connection.
	Message(r *Remote, payload []byte) error
	// Detach is called when a peer of which Attach was told has left.
	Detach(r *Remote)
	// Tick is called about once a second.
	Tick(now time.Time)
}

// Remote is a peer that speaks an [Extension]. Its methods may be called from any
// goroutine, also after the peer has left.
type Remote struct {
	c  *conn
	id atomic.Uint32 // under which the peer speaks the extension; 0: not any more
}

// Torrent returns the info-hash of the swarm that the connection is for.
func (r *Remote) Torrent() metainfo.InfoHash { return r.c.t.hash }

// ID returns the peer id that it gave.
func (r *Remote) ID() [20]byte { return r.c.id }

// Addr returns the other end of the connection.
func (r *Remote) Addr() netip.AddrPort { return r.c.addr }

// Send queues a message of the extension; false if the peer does not speak it any more
// or has left. It does not wait: a peer that does not read is left.
func (r *Remote) Send(payload []byte) bool {
	id := r.id.Load()
	select {
	case <-r.c.gone:
		return false
	default:
	}
	if id == 0 {
		return false
	}
	r.c.write(wire.AppendExtended(nil, byte(id), payload))
	return true
}

// SetWeight sets the share of the peer on a limited uplink: bytes are sent in the
// ratio of the weights of those that ask for more than there is. It is 1 at the start.
func (r *Remote) SetWeight(w float64) { r.c.setWeight(w) }

// Sent and Received return the payload bytes of the connection so far.
func (r *Remote) Sent() int64     { return r.c.up.Load() }
func (r *Remote) Received() int64 { return r.c.down.Load() }

// Close ends the connection.
func (r *Remote) Close(err error) { r.c.close(err) }

// plugged makes an extension of a torrent of an Extension.
type plugged struct {
	t       *Torrent
	ext     Extension
	remotes map[*conn]*Remote
}

func newPlugged(t *Torrent, e Extension) *plugged {
	return &plugged{t: t, ext: e, remotes: map[*conn]*Remote{}}
}

func (p *plugged) name() string { return p.ext.Name() }

func (p *plugged) attach(c *conn) {
	if p.remotes[c] != nil {
		return // it had taken its word back in between
	}
	r := &Remote{c: c}
	r.id.Store(uint32(c.theirs[p.name()]))
	p.remotes[c] = r
	p.ext.Attach(r)
}

func (p *plugged) renamed(c *conn, id byte) {
	if r := p.remotes[c]; r != nil {
		r.id.Store(uint32(id))
	}
}

func (p *plugged) message(c *conn, payload []byte) error {
	r := p.remotes[c]
	if r == nil {
		return nil // it speaks before it has said that it does
	}
	return p.ext.Message(r, payload)
}

func (p *plugged) detach(c *conn) {
	if r := p.remotes[c]; r != nil {
		delete(p.remotes, c)
		p.ext.Detach(r)
	}
}

func (p *plugged) tick() { p.ext.Tick(p.t.clock) }
