package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fetch/swarm/choker"
	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/shaper"
	"github.com/btmount/btmount/fetch/swarm/utp"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// conn is one connection to a peer of one torrent. Two goroutines serve it: one
// reads (and hashes and stores the blocks that come), one writes. Fields are owned
// by the torrent's goroutine unless said otherwise.
type conn struct {
	t        *Torrent
	net      net.Conn
	rw       io.ReadWriter // net, or its decrypted form
	addr     netip.AddrPort
	listen   netip.AddrPort // where it accepts connections, if known
	incoming bool
	crypt    bool
	id       [20]byte
	fast     bool // BEP 6
	source   string
	web      string // its URL, if it is a web seed

	view       picker.Peer
	field      []byte // its bitfield, first piece in the highest bit
	haveAll    bool
	haveCount  int
	scanned    int           // of the rarest pieces, for what is pinned
	interested bool          // we told it so
	voted      bool          // it told our address
	uploadOnly bool          // it wants nothing, though it may not have all (BEP 21)
	toldOnly   bool          // we told it that we want nothing
	useless    time.Time     // since when neither can help the other; zero: one can
	greeted    time.Duration // a round trip, by its answer to our handshake; 0 if it called us
	joined     time.Time
	unheard    time.Time   // since when it would send us nothing; zero: it would
	idle       bool        // it gave its place to another
	serve      choker.Peer // how the choker sees it
	given      float64     // bytes/s, measured by tick
	taken      float64
	lastDown   int64
	lastUp     int64
	suspect    bool // took part in a piece that failed
	retryMute  time.Time
	quiet      time.Time // since when it was, when it was called silent
	muteWait   time.Duration
	nudged     bool                   // asked for more since it paused
	nudges     int                    // blocks that it was asked for then, forgotten by the second
	cancelled  map[blockKey]time.Time // taken back and not yet answered; sizes are 0
	allow      map[int]bool           // BEP 6 allowed fast pieces
	theirs     map[string]byte        // their extension ids
	greetings  int                    // extended handshakes that came, less one for each second
	version    string
	closed     bool

	hash hashPeer // owned by the torrent

	metadataSize int64
	metadataBad  bool

	// Shared with the connection's goroutines.
	barred   atomic.Bool    // banned: nothing of it is taken any more
	down, up atomic.Int64   // payload bytes
	turns    []*shaper.Flow // on the uplink: that of the torrent, and ours
	wasted   atomic.Int64
	unasked  atomic.Int64
	kick     chan struct{} // capacity 1: something to write
	gone     chan struct{}
	goneOnce sync.Once

	mu      sync.Mutex
	asked   map[blockKey]int // asked and not answered, and how often: others are not taken
	out     []byte           // encoded messages
	uploads []blockKey       // requests of the peer, in order
	choking bool             // we do not serve it
	gift    map[int]int      // pieces that it may have all the same (BEP 6), and how many bytes of each; nil: not told
	err     error            // why it ended
}

// blockKey names bytes of a piece as peers do: blocks for what we ask, any range for
// what is asked of us. The keys of cancelled have units in place of pieces.
type blockKey struct{ piece, begin, size int }

const (
	writeTimeout = 60 * time.Second
	readTimeout  = 150 * time.Second
	keepalive    = 100 * time.Second
	maxOut       = 4 << 20 // encoded messages that a peer does not read
	maxUnasked   = 64      // blocks never asked for before the peer is dropped
)

var (
	errUnasked  = errors.New("sends blocks that nobody asked for")
	errNoReader = errors.New("does not read what it is sent")
)

// close ends the connection; safe from any goroutine.
func (c *conn) close(err error) {
	c.goneOnce.Do(func() {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		close(c.gone)
		c.net.Close()
	})
}

func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// write queues an encoded message. It does not wait.
func (c *conn) write(b []byte) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	tooMuch := len(c.out) > maxOut
	c.mu.Unlock()
	if tooMuch {
		c.close(errNoReader)
	}
	c.wake()
}

func (c *conn) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// request asks for blocks, in order.
func (c *conn) request(asks []picker.Request) {
	if len(asks) == 0 {
		return
	}
	c.write(c.ask(asks))
}

// ask notes the requests and encodes them.
func (c *conn) ask(asks []picker.Request) []byte {
	b := make([]byte, 0, 17*len(asks))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range asks {
		piece, begin := c.t.grid.wire(r.Piece, r.Block)
		c.asked[blockKey{piece, begin, r.Size}]++
		b = wire.AppendRange(b, pp.Request, piece, begin, r.Size)
	}
	return b
}

// cancel takes requests back. The blocks stay "asked": most come all the same. With
// BEP 6 the others should be rejected; Transmission says nothing (see expire).
func (c *conn) cancel(unit int, size func(int) int, blocks ...int) {
	var b []byte
	if c.cancelled == nil || len(c.cancelled) > 4096 {
		c.cancelled = map[blockKey]time.Time{}
	}
	for _, bl := range blocks {
		c.cancelled[blockKey{piece: unit, begin: bl * wire.BlockSize}] = c.t.clock
		piece, begin := c.t.grid.wire(unit, bl)
		b = wire.AppendRange(b, pp.Cancel, piece, begin, size(bl))
	}
	c.write(b)
}

// has reports whether the peer has a piece.
func (c *conn) has(piece int) bool {
	return c.haveAll || piece/8 < len(c.field) && c.field[piece/8]&(0x80>>(piece%8)) != 0
}

// hasUnit reports whether the peer has the piece of a unit.
func (c *conn) hasUnit(u int) bool { return c.has(c.t.grid.piece(u)) }

// allowed reports whether the peer serves a unit while it chokes us.
func (c *conn) allowed(u int) bool { return c.allow[c.t.grid.piece(u)] }

// setHave notes a piece, and tells whether that is news; bounded by what a bitfield may hold.
func (c *conn) setHave(piece int) (news bool, err error) {
	if piece < 0 || piece >= wire.MaxBitfield*8 || c.t.info != nil && piece >= c.t.info.NumPieces() {
		return false, fmt.Errorf("has piece %d, which does not exist", piece)
	}
	if short := piece/8 + 1 - len(c.field); short > 0 {
		c.field = append(c.field, make([]byte, short)...)
	}
	if !c.haveAll && c.field[piece/8]&(0x80>>(piece%8)) == 0 {
		c.field[piece/8] |= 0x80 >> (piece % 8)
		c.haveCount++
		return true, nil
	}
	return false, nil
}

// arrival is one block that came, for the torrent's goroutine.
type arrival struct {
	piece, block, size int // piece is the unit
	at                 time.Time
	what               outcome
	err                error
}

// maxRun is how many blocks that lie in the buffer are taken at once: so many are written
// together, and stay in the processor's cache meanwhile.
const maxRun = 16

// endsGroup reports whether a block is the last of those that are written together: who goes on
// with the next takes a whole group from the buffer, and nothing of it is copied.
func endsGroup(m *wire.Message) bool {
	return m.Begin/wire.BlockSize%together == together-1
}

// read runs until the connection ends.
func (c *conn) read(ctx context.Context) error {
	r := wire.NewReaderWithin(c.t.client.buffers, c.rw)
	defer r.Release()
	var batch []arrival
	run := make([]wire.Message, 0, maxRun)
	flush := func() {
		if len(batch) > 0 {
			b := batch
			batch = nil
			c.t.post(func() { c.t.arrived(c, b) })
		}
	}
	for {
		if !r.Ready() {
			flush()
			_ = c.net.SetReadDeadline(time.Now().Add(readTimeout))
		}
		m, err := r.Read()
		if err != nil {
			flush()
			return err
		}
		if m.Keepalive {
			continue
		}
		if m.Type != pp.Piece {
			flush()
			if err := c.message(&m); err != nil {
				return err
			}
			continue
		}
		run = append(run[:0], m)
		for len(run) < maxRun && !endsGroup(&m) && r.ReadyBlock() && err == nil {
			if m, err = r.Read(); err == nil {
				run = append(run, m)
			}
		}
		arrived, got := c.blocks(run, batch)
		if batch = arrived; len(batch) >= 64 || got.soon {
			flush()
		}
		if got.err != nil || err != nil {
			flush()
			return cmp.Or(got.err, err)
		}
		for _, l := range c.t.downLimits {
			if err := c.take(ctx, l, got.bytes); err != nil {
				return err
			}
		}
	}
}

// ackSoon has the kernel acknowledge the answer to a request when we have read its
// beginning. Otherwise it waits for up to 40 ms for something to send along, and
// libtorrent's kernel meanwhile holds back the end of a block (see push.go): a file of
// one block took 44 ms on loopback. Each request that is sent undoes it.
func ackSoon(raw syscall.RawConn) {
	if raw != nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	}
}

// received is what became of a run of blocks.
type received struct {
	bytes int
	soon  bool // the torrent is told at once
	err   error
}

// blocks stores and hashes blocks that came, and adds those that were asked for to batch.
func (c *conn) blocks(run []wire.Message, batch []arrival) ([]arrival, received) {
	first, out := len(batch), received{}
	if batch == nil {
		batch = make([]arrival, 0, 64+maxRun)
	}
	var payloads [maxRun][]byte
	c.mu.Lock()
	for i := range run {
		m := &run[i]
		key := blockKey{int(m.Index), int(m.Begin), len(m.Payload)}
		out.bytes += key.size
		if !c.answerLocked(key) {
			c.unasked.Add(1)
			c.wasted.Add(int64(key.size))
			continue
		}
		unit, block, ok := c.t.served.Load().grid.block(key.piece, key.begin)
		if !ok {
			continue // can not be: it was asked for
		}
		c.down.Add(int64(key.size))
		payloads[len(batch)-first] = m.Payload
		batch = append(batch, arrival{piece: unit, block: block, size: key.size, what: duplicate})
	}
	c.mu.Unlock()
	fresh := batch[first:]
	for from := 0; from < len(fresh); {
		to := from + 1
		for to < len(fresh) && fresh[to].piece == fresh[from].piece && fresh[to].block == fresh[to-1].block+1 {
			to++
		}
		if err := c.give(fresh[from:to], payloads[from:to]); err != nil {
			out.err = err
		}
		from = to
	}
	now := time.Now()
	for i := range fresh {
		a := &fresh[i]
		a.at = now
		if a.what == duplicate {
			c.wasted.Add(int64(a.size))
		}
		out.soon = out.soon || a.what != stored
	}
	if c.unasked.Load() > maxUnasked && out.err == nil {
		out.err = errUnasked
	}
	return batch, out
}

// give gives blocks that follow each other to their unit. After a fault the unit is in no known
// state: it fails, and is fetched anew; only a fault is returned.
func (c *conn) give(run []arrival, payloads [][]byte) error {
	as := c.t.flying.find(run[0].piece)
	if as == nil {
		return nil
	}
	var what [maxRun]outcome
	err := fault.Catch(c.t.log, "a block of a peer", func() error {
		return as.accept(run[0].block, payloads, what[:len(run)], c)
	})
	f := (*fault.Error)(nil)
	fell := errors.As(err, &f)
	for i := range run {
		if run[i].what = what[i]; fell || what[i] == failed {
			run[i].what, run[i].err = failed, err
		}
	}
	if fell {
		return f
	}
	return nil
}

// answerLocked takes one request as answered, if there was one. A block is asked twice
// of a peer that was given up in between, and comes twice.
func (c *conn) answerLocked(k blockKey) bool {
	n := c.asked[k]
	if n > 1 {
		c.asked[k] = n - 1
	} else {
		delete(c.asked, k)
	}
	return n > 0
}

// message handles everything but blocks.
func (c *conn) message(m *wire.Message) error {
	switch m.Type {
	case pp.Request:
		return c.asks(blockKey{int(m.Index), int(m.Begin), int(m.Length)})
	case pp.Cancel:
		c.unask(blockKey{int(m.Index), int(m.Begin), int(m.Length)})
		return nil
	case pp.Reject:
		c.mu.Lock()
		c.answerLocked(blockKey{int(m.Index), int(m.Begin), int(m.Length)})
		c.mu.Unlock()
	}
	msg := *m
	msg.Payload = append([]byte(nil), m.Payload...)
	if !c.t.post(func() {
		if c.closed {
			return
		}
		if err := c.t.handle(c, &msg); err != nil {
			c.close(err)
		}
	}) {
		return net.ErrClosed
	}
	return nil
}

// writer runs until the connection ends. Messages go before blocks, and do not wait for
// a block that waits for its turn on the uplink: among them are our own requests. One
// block at a time, so that a cancel or a choke takes the rest back.
func (c *conn) writer(ctx context.Context) error {
	idle := time.NewTimer(keepalive)
	defer idle.Stop()
	var buf []byte
	var raw syscall.RawConn
	if t, ok := c.net.(syscall.Conn); ok {
		raw, _ = t.SyscallConn()
	}
	defer c.leaveTurns()
	const none = -1
	turn, asked := none, 0 // which turn a block of so many bytes waits for
	for {
		c.mu.Lock()
		out := c.out
		c.out = nil
		next := 0
		if len(c.uploads) > 0 {
			next = c.uploads[0].size
		}
		c.mu.Unlock()
		_ = c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
		if len(out) > 0 {
			if _, err := c.rw.Write(out); err != nil {
				return err
			}
			ackSoon(raw)
			continue
		}
		if turn == none && next > 0 {
			turn, asked = 0, next
			c.turns[turn].Ask(asked)
		}
		var ready <-chan struct{}
		if turn != none {
			ready = c.turns[turn].Ready()
		}
		select {
		case <-c.gone:
			return net.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.kick:
		case <-idle.C:
			c.write(wire.AppendKeepalive(nil))
		case <-ready:
			if turn++; turn < len(c.turns) {
				c.turns[turn].Ask(asked)
				continue
			}
			turn = none
			var err error
			if buf, err = c.upload(asked, buf); err != nil {
				return err
			}
			continue
		}
		idle.Reset(keepalive)
	}
}

// leaveTurns gives up what waits for its turn.
func (c *conn) leaveTurns() {
	for _, f := range c.turns {
		f.Leave()
	}
}

// rtt is the smallest round trip of a connection. Of TCP the kernel knows it.
func rtt(c net.Conn) time.Duration {
	if u, ok := c.(*utp.Conn); ok {
		return u.RTT()
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	var us uint32
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			if us = info.Min_rtt; us == 0 || us == ^uint32(0) {
				us = info.Rtt
			}
		}
	})
	return time.Duration(us) * time.Microsecond
}
