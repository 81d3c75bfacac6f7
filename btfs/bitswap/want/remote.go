package want

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	openTimeout  = 8 * time.Second
	writeTimeout = 10 * time.Second
	retries      = 3   // streams that break one after the other, before a peer is given up
	perMessage   = 512 // wants
)

// remote is a peer that is connected. All of it is guarded by Client.mu.
type remote struct {
	id    peer.ID
	c     *Client
	end   context.CancelFunc
	plain bool // it cannot be asked whether it has a block
	deaf  bool // it speaks no bitswap, or is gone

	asked map[digest]*question
	owes  int // open questions for blocks
	out   map[digest]entry
	again bool // over a new stream, all of it
	wake  chan struct{}

	gave    int64         // blocks
	trip    time.Duration // of an answer of any kind, smoothed; 0: none came
	near    time.Duration // of a block when little else is asked for, about
	latency time.Duration // of a block, smoothed
	service time.Duration // of one more block beside others, smoothed
	size    int           // of a block in bytes, smoothed
	heard   time.Time     // last, an answer of any kind
	came    time.Time     // last, a block, or that it lacks one that it was asked for
	holds   int64         // bytes of its messages that have not come whole
	moved   atomic.Int64  // when bytes came last, in ns since Client.begun; not guarded
	fails   int           // times in a row that it was late and silent
	rests   time.Time     // until when it is asked last
	unasked int           // blocks that nobody wanted
}

// entry is what a peer is told of a block.
type entry struct {
	cid    cid.Cid
	cancel bool
	block  bool
	due    time.Time
}

// costLocked is in what time one more block would be here.
func (r *remote) costLocked(now time.Time) time.Duration {
	near, service := r.near, r.service
	if r.gave == 0 {
		near, service = guess, guess/probes
	}
	cost := max(near, service*time.Duration(1+r.owes))
	if now.Before(r.rests) {
		cost += time.Hour
	}
	return cost
}

// room is how many blocks it may be asked for at a time: so many answers can be on their way.
func (r *remote) room() int {
	if r.gave == 0 {
		return newOwes
	}
	size := max(r.size, 1)
	return min(maxAnswers*max(1, packed/size), maxOwes, max(maxCome/size, minOwes))
}

// lateAtLocked is when a question for a block is late: nothing came of the peer for a while,
// or others did for long and this did not.
func (r *remote) lateAtLocked(q *question) time.Time {
	patience := min(max(4*r.latency, minPatience), maxPatience)
	if r.gave == 0 {
		patience = newPatience / 2
		if r.trip > 0 {
			patience = min(max(8*r.trip, newMin), newPatience)
		}
	}
	most := longest
	if r.gave == 0 {
		most = newLongest
	}
	at, last := latest(q.since, r.came, r.movedAt()).Add(patience), q.since.Add(most)
	if last.Before(at) {
		return last
	}
	return at
}

func latest(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(t) {
			t = o
		}
	}
	return t
}

// movedAt is when bytes came last.
func (r *remote) movedAt() time.Time { return r.c.begun.Add(time.Duration(r.moved.Load())) }

// slipLocked notes that a question is late. One that sent no block since is asked last for a
// while, and is not known any more to have what it said to have.
func (r *remote) slipLocked(q *question, now time.Time) {
	q.late = true
	r.owes--
	if r.came.After(q.since) {
		return
	}
	if g := q.w.group; g.score[r] > 1 {
		g.score[r]--
	} else {
		delete(g.score, r)
	}
	if !now.Before(r.rests) {
		r.restLocked(now)
	}
}

func (r *remote) restLocked(now time.Time) {
	r.fails++
	r.rests = now.Add(min(minPatience<<min(r.fails, 10), maxRest))
}

// gaveLocked takes a block into account that came for a question.
func (r *remote) gaveLocked(q *question, size int, now time.Time) {
	r.fails, r.rests = 0, time.Time{}
	if !q.block {
		return // a small one, in place of saying that it has it
	}
	took := max(now.Sub(q.since), time.Microsecond)
	each := took / time.Duration(max(q.beside, 1))
	if r.gave++; r.gave == 1 {
		r.near, r.latency, r.service, r.size = took, took, each, size
		return
	}
	r.size += (size - r.size) / 8
	r.latency += (took - r.latency) / 8
	r.service += (each - r.service) / 8
	if took < r.near {
		r.near = took
	} else {
		r.near += (took - r.near) / 64
	}
}

// tellLocked has a question written.
func (r *remote) tellLocked(q *question) {
	r.out[q.w.key] = entry{cid: q.w.cid, block: q.block || r.plain, due: q.w.due}
	r.wakeLocked()
}

func (r *remote) cancelLocked(w *want) {
	r.out[w.key] = entry{cid: w.cid, cancel: true}
	r.wakeLocked()
}

func (r *remote) wakeLocked() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be written next, nil for nothing. All of what is asked is written
// to a new stream, which the peer takes in place of what it knew.
func (r *remote) take(all bool) (m message.BitSwapMessage, fresh bool) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if fresh = r.again; fresh || all {
		r.again = false
		clear(r.out)
		for key, q := range r.asked {
			if q.said != lacks {
				r.out[key] = entry{cid: q.w.cid, block: q.block || r.plain, due: q.w.due}
			}
		}
		all = true
	}
	if len(r.out) == 0 && !fresh {
		return nil, false
	}
	keys := make([]digest, 0, len(r.out))
	for k := range r.out {
		keys = append(keys, k)
	}
	if len(keys) > perMessage { // cancels first, and what is due first
		slices.SortFunc(keys, func(a, b digest) int {
			x, y := r.out[a], r.out[b]
			if x.cancel != y.cancel {
				return cmp.Compare(btoi(y.cancel), btoi(x.cancel))
			}
			return x.due.Compare(y.due)
		})
		keys = keys[:perMessage]
	}
	m = message.New(all)
	for _, k := range keys {
		e := r.out[k]
		delete(r.out, k)
		if e.cancel {
			m.Cancel(e.cid)
			continue
		}
		kind := pb.Message_Wantlist_Have
		if e.block {
			kind = pb.Message_Wantlist_Block
		}
		m.AddEntry(e.cid, r.c.priority(e.due), kind, true)
		if q := r.asked[k]; q != nil {
			q.sent = true
		}
	}
	return m, fresh
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// priority is that of a due time on the wire, in hundredths of a second from the beginning.
func (c *Client) priority(due time.Time) int32 {
	const middle = math.MaxInt32 / 2
	return int32(middle - min(max(due.Sub(c.begun).Milliseconds()/10, 1-middle), middle-1))
}

// write writes to a peer what it is asked, as long as it is there.
func (r *remote) write(ctx context.Context) {
	var s Stream
	defer func() {
		if s != nil {
			_ = s.Reset() // nobody reads its end
		}
	}()
	broken := 0
	for {
		m, fresh := r.take(false)
		if m == nil {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if fresh && s != nil {
			_ = s.Reset()
			s = nil
		}
		for {
			err := r.put(ctx, &s, m)
			if err == nil {
				broken = 0
				break
			}
			if broken++; broken == retries || ctx.Err() != nil || errors.Is(err, ErrNoBitswap) {
				r.giveUp(err)
				return
			}
			if s != nil {
				_ = s.Reset()
				s = nil
			}
			if m, _ = r.take(true); m == nil {
				break
			}
		}
	}
}

// put writes a message to the stream, which it opens if there is none.
func (r *remote) put(ctx context.Context, s *Stream, m message.BitSwapMessage) error {
	if *s == nil {
		timed, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		opened, plain, err := r.c.cfg.Open(timed, r.id)
		if err != nil {
			return err
		}
		*s = opened
		context.AfterFunc(ctx, func() { _ = opened.Reset() }) // so that no write outlasts it
		if plain {
			r.c.mu.Lock()
			r.plain = true
			r.c.mu.Unlock()
			m = plainly(m)
		}
	}
	if m.Empty() {
		return nil
	}
	if err := (*s).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return m.ToNetV1(*s)
}

// plainly leaves of a message what bitswap 1.1.0 knows: questions whether it has a block
// would be taken as such for the block.
func plainly(m message.BitSwapMessage) message.BitSwapMessage {
	for _, e := range m.Wantlist() {
		if e.WantType == pb.Message_Wantlist_Have {
			m.Remove(e.Cid)
		}
	}
	return m
}

// giveUp has others asked for what this peer was.
func (r *remote) giveUp(err error) {
	r.c.mu.Lock()
	there := !r.c.closed && r.c.peers[r.id] == r
	if there {
		r.c.dropLocked(r)
	}
	r.c.mu.Unlock()
	if there {
		r.c.cfg.Leave(r.id, err)
	}
}
