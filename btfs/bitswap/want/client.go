package want

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/btmount/btmount/btfs/block"
)

// Errors of a Client.
var (
	ErrClosed    = errors.New("nobody is asked any more")
	ErrNoDigest  = errors.New("a block without SHA-256 cannot be asked for")
	ErrUnasked   = errors.New("it sends blocks that were not asked for")
	ErrNoBitswap = errors.New("it speaks no bitswap")
	ErrFlood     = errors.New("it has more messages begun than anybody needs")
)

const (
	maxGroups  = 64
	remembered = 8192 // blocks that were asked for last
	maxUnasked = 16   // blocks of one peer that were not, before it is left
)

// Stream is where wants are written to a peer. It may be a network.Stream.
type Stream interface {
	io.Writer
	SetWriteDeadline(time.Time) error
	Reset() error
}

// Config of a Client.
type Config struct {
	// Open opens a stream to a peer that is connected. plain says that it speaks bitswap
	// 1.1.0, which knows no questions but for blocks.
	Open func(ctx context.Context, p peer.ID) (s Stream, plain bool, err error)
	// Leave is told of a peer that is not spoken to any more, and why: ErrUnasked, ErrFlood,
	// ErrNoBitswap of Open, or what came of several streams. If it stays connected it is asked
	// nothing.
	Leave func(p peer.ID, why error)
}

// Client asks peers for blocks. It is safe for use by several goroutines.
type Client struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup // that write
	begun  time.Time

	mu     sync.Mutex
	closed bool
	peers  map[peer.ID]*remote
	wants  map[digest]*want
	groups map[cid.Cid]*group
	held   []*want // all who may be asked for these have enough to do
	asked  asked
	wasted int64
	holds  int64 // bytes of messages that have not come whole
}

type digest = [32]byte

// group is an object, or what is known to be of none, and who has it.
type group struct {
	used  time.Time
	score map[*remote]int // above 0: has blocks of it, most likely
}

const maxScore = 64

// want is a block that somebody waits for.
type want struct {
	cid     cid.Cid
	key     digest
	group   *group
	due     time.Time
	waiting int
	done    chan struct{} // closed when bytes are there
	bytes   []byte
	at      map[*remote]*question
	spread  bool // all were asked whether they have it
	rounds  int  // in which all who were left were asked
	lates   int  // times that all who were asked were late
	held    bool // in Client.held
	timer   *time.Timer
}

// question is a want that one peer was told.
type question struct {
	w      *want
	block  bool // it was asked for the block, and not only whether it has it
	sent   bool // or about to be written
	since  time.Time
	beside int // blocks that the peer was asked for, with this one
	said   answer
	late   bool
}

type answer uint8

const (
	nothing answer = iota
	has
	lacks
)

// open reports whether a block may come of it soon.
func (q *question) open() bool { return q.block && !q.late && q.said != lacks }

// New makes a client that knows nobody.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, begun: time.Now(), peers: map[peer.ID]*remote{}, wants: map[digest]*want{}, groups: map[cid.Cid]*group{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends everything, and returns when it has. Who waits gets ErrClosed.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	for _, w := range c.wants {
		w.timer.Stop()
	}
	c.mu.Unlock()
	c.cancel()
	c.all.Wait()
}

// Get brings a block by a due time, verified. root is of the object that it is a part of,
// cid.Undef if that is not known. It waits until a block comes or ctx ends.
func (c *Client) Get(ctx context.Context, root, id cid.Cid, due time.Time) ([]byte, error) {
	key, ok := block.Digest(id)
	if !ok {
		return nil, ErrNoDigest
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	w := c.wants[key]
	if w == nil {
		w = &want{cid: id, key: key, group: c.groupLocked(root), due: due, done: make(chan struct{}), at: map[*remote]*question{}}
		w.timer = time.AfterFunc(math.MaxInt64, func() { c.look(w) })
		c.wants[key] = w
		c.asked.add(key)
		c.placeLocked(w, time.Now())
		c.fillLocked(time.Now())
	} else if due.Before(w.due) {
		w.due = due
		for r, q := range w.at {
			if q.open() {
				r.tellLocked(q)
			}
		}
	}
	w.waiting++
	c.mu.Unlock()
	select {
	case <-w.done:
		return w.bytes, nil
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-w.done: // meanwhile
		return w.bytes, nil
	default:
	}
	if w.waiting--; w.waiting == 0 {
		c.endLocked(w, nil)
		c.fillLocked(time.Now())
	}
	if c.closed {
		return nil, ErrClosed
	}
	return nil, context.Cause(ctx)
}

// Wasted returns the bytes that came twice.
func (c *Client) Wasted() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wasted
}

func (c *Client) groupLocked(root cid.Cid) *group {
	now := time.Now()
	g := c.groups[root]
	if g == nil {
		if len(c.groups) >= maxGroups {
			var oldest cid.Cid
			for id, g := range c.groups {
				if o := c.groups[oldest]; o == nil || g.used.Before(o.used) {
					oldest = id
				}
			}
			delete(c.groups, oldest) // its wants go on with it
		}
		g = &group{score: map[*remote]int{}}
		c.groups[root] = g
	}
	g.used = now
	return g
}

// endLocked ends a want, whose block came from a peer, or that nobody waits for: nil.
func (c *Client) endLocked(w *want, from *remote) {
	w.timer.Stop()
	delete(c.wants, w.key)
	if w.held {
		w.held = false
		c.held = slices.DeleteFunc(c.held, func(x *want) bool { return x == w })
	}
	for r := range w.at {
		c.forgetLocked(w, r, r != from)
	}
}

// forgetLocked takes a question back.
func (c *Client) forgetLocked(w *want, r *remote, tell bool) {
	q := w.at[r]
	if q.open() {
		r.owes--
	}
	delete(w.at, r)
	delete(r.asked, w.key)
	if !q.sent {
		delete(r.out, w.key)
	} else if tell {
		r.cancelLocked(w)
	}
}

// Connected tells of a peer that can be asked.
func (c *Client) Connected(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.peers[p] != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	r := &remote{id: p, c: c, end: cancel, out: map[digest]entry{}, asked: map[digest]*question{}, wake: make(chan struct{}, 1)}
	c.peers[p] = r
	c.all.Go(func() { r.write(ctx) }) // ends with the client, the connection, or when it speaks no bitswap
	now := time.Now()
	for _, w := range c.wants {
		switch {
		case !w.openLocked():
			w.spread = false
			c.placeLocked(w, now)
		case w.spread:
			c.askLocked(w, r, false, now)
		}
	}
	c.fillLocked(now)
}

// Disconnected tells that a peer is gone, with all that it was asked.
func (c *Client) Disconnected(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.peers[p]; r != nil {
		delete(c.peers, p)
		c.dropLocked(r)
	}
}

// dropLocked ends what a peer was asked, and asks others.
func (c *Client) dropLocked(r *remote) {
	r.end()
	r.deaf = true
	now := time.Now()
	for _, g := range c.groups {
		delete(g.score, r)
	}
	for _, q := range r.asked {
		c.forgetLocked(q.w, r, false)
		delete(q.w.group.score, r)
		if !q.w.openLocked() {
			c.placeLocked(q.w, now)
		}
	}
	c.fillLocked(now)
}

// asked remembers what was asked for, so that other blocks are known as such.
type asked struct {
	set  map[digest]bool
	ring []digest
	next int
}

func (a *asked) add(d digest) {
	if a.set[d] {
		return
	}
	if a.set == nil {
		a.set = map[digest]bool{}
	}
	if len(a.ring) < remembered {
		a.ring = append(a.ring, d)
	} else {
		delete(a.set, a.ring[a.next])
		a.ring[a.next] = d
		a.next = (a.next + 1) % remembered
	}
	a.set[d] = true
}
