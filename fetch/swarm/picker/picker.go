// Package picker decides which blocks to ask of which peer. It is pure: no I/O, no
// goroutine, time comes in as an argument.
//
// # The rule
//
// Wanted pieces stand in the order of their due times, those that someone waits for
// before those that someone will want, and so do their blocks. A peer that has room
// takes the first free block that it will bring in time:
//
//	finish(peer) <= max(due(block), base + (outstanding + before(block))/sum + slack)
//
// base is the round trip and one block of the best other peer that has the piece,
// outstanding what is on the way from all peers, before(block) what is still to be
// asked for ahead of the block, sum the rate of all peers: the right side is when
// the whole swarm, working in order, would have brought the block. So an urgent
// piece is spread over all peers that are fast enough, and a slow peer works further
// ahead where its slowness harms nobody. Who is sooner than all others always
// qualifies. (Comparing with the due time alone stops a swarm of equal slow peers:
// nobody is in time, so nobody asks. One peer per piece, the classic way, costs three
// times the seek time and lets one slow peer own what is waited for.)
//
// # Twice
//
// A block is asked of a second or third peer only if its reader would really wait
// for it (it is predicted to come after its due time and after the rest of its
// piece), another peer is predicted to be clearly sooner, and the waste budget
// allows it. On a saturated link a duplicate only makes everyone later.
package picker

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/btmount/btmount/fetch/swarm/pipeline"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	slack     = 12 * time.Millisecond
	maxOwners = 3 // two can both be slow
	// A duplicate must promise to be sooner by this much, and by a quarter.
	gain = 20 * time.Millisecond
)

// Peer is what the picker knows of a connection.
type Peer struct {
	Pipe   pipeline.Pipe
	Has    func(piece int) bool
	Choked bool              // we may only ask for Allowed pieces
	Mute   bool              // silent: is asked nothing until it speaks or is tried again
	Allow  map[int]bool      // BEP 6 allowed fast pieces
	Asked  []Request         // on the way, in the order asked
	Refuse map[int]time.Time // pieces that it rejected: not before
	Order  int               // makes sorting stable
}

// Request is one block on its way from a peer.
type Request struct {
	Piece, Block int
	Size         int
	Sent         time.Time
	Due          time.Time // predicted arrival
}

// Piece is a piece that someone wants.
type Piece struct {
	Index  int
	Size   int
	Due    time.Time
	Urgent bool  // someone waits for it, not only will
	Only   *Peer // after a hash failure: the one peer that may bring it
	blocks []block
	free   int // blocks with no owner and not here
	left   int // bytes not here
}

type block struct {
	here   bool
	owners [maxOwners]*Peer
	n      int8
}

// Left returns the bytes that have not arrived.
func (p *Piece) Left() int { return p.left }

// BlockSize returns the length of block b.
func (p *Piece) BlockSize(b int) int { return min(wire.BlockSize, p.Size-b*wire.BlockSize) }

// Picker holds the wanted pieces of one torrent.
type Picker struct {
	pieces []*Piece // urgent ones first, by due time, then index
	index  map[int]*Piece
}

// New returns an empty picker.
func New() *Picker { return &Picker{index: map[int]*Piece{}} }

// order puts what someone waits for first: read-ahead whose time has passed while
// nobody waits for it (a paused player's, say) is not late.
func order(a, b *Piece) int {
	if a.Urgent != b.Urgent {
		if a.Urgent {
			return -1
		}
		return 1
	}
	return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Index, b.Index))
}

// Len returns the number of wanted pieces.
func (k *Picker) Len() int { return len(k.pieces) }

// Find returns a wanted piece, or nil.
func (k *Picker) Find(index int) *Piece { return k.index[index] }

// Want adds a piece, or moves it to another due time. here tells which blocks have
// arrived before.
func (k *Picker) Want(index, size int, due time.Time, urgent bool, here func(block int) bool) *Piece {
	p := k.index[index]
	if p == nil {
		p = &Piece{Index: index, Size: size, left: size}
		p.blocks = make([]block, (size+wire.BlockSize-1)/wire.BlockSize)
		p.free = len(p.blocks)
		for b := range p.blocks {
			if here != nil && here(b) {
				p.blocks[b].here = true
				p.free--
				p.left -= p.BlockSize(b)
			}
		}
		k.index[index] = p
	} else {
		k.remove(p)
	}
	p.Due, p.Urgent = due, urgent
	at, _ := slices.BinarySearchFunc(k.pieces, p, order)
	k.pieces = slices.Insert(k.pieces, at, p)
	return p
}

func (k *Picker) remove(p *Piece) {
	if at, ok := slices.BinarySearchFunc(k.pieces, p, order); ok {
		k.pieces = slices.Delete(k.pieces, at, at+1)
	}
}

// Unwant forgets a piece. The requests on their way for it are returned by peer.
func (k *Picker) Unwant(index int) (cancel map[*Peer][]int) {
	p := k.index[index]
	if p == nil {
		return nil
	}
	k.remove(p)
	delete(k.index, index)
	for b := range p.blocks {
		for _, o := range p.blocks[b].owners[:p.blocks[b].n] {
			if cancel == nil {
				cancel = map[*Peer][]int{}
			}
			cancel[o] = append(cancel[o], b)
		}
	}
	return cancel
}

// Got notes that a block is here and returns its other owners.
func (k *Picker) Got(index, b int, from *Peer) (others []*Peer) {
	p := k.index[index]
	if p == nil || p.blocks[b].here {
		return nil
	}
	bl := &p.blocks[b]
	if bl.n == 0 {
		p.free--
	}
	bl.here = true
	p.left -= p.BlockSize(b)
	for _, o := range bl.owners[:bl.n] {
		if o != from {
			others = append(others, o)
		}
	}
	bl.owners, bl.n = [maxOwners]*Peer{}, 0
	return others
}

// Lost takes peer's claim on a block away: it choked, rejected, left or went silent.
func (k *Picker) Lost(index, b int, peer *Peer) {
	p := k.index[index]
	if p == nil {
		return
	}
	bl := &p.blocks[b]
	for i, o := range bl.owners[:bl.n] {
		if o == peer {
			bl.n--
			bl.owners[i] = bl.owners[bl.n]
			bl.owners[bl.n] = nil
			if bl.n == 0 && !bl.here {
				p.free++
			}
			return
		}
	}
}

// Missing makes blocks of a piece wanted again whose bytes turned out useless.
func (k *Picker) Missing(index int, blocks []int) {
	p := k.index[index]
	if p == nil {
		return
	}
	for _, b := range blocks {
		if bl := &p.blocks[b]; bl.here {
			bl.here = false
			p.left += p.BlockSize(b)
			if bl.n == 0 {
				p.free++
			}
		}
	}
}

// may reports whether peer may be asked for piece p now.
func (p *Piece) may(peer *Peer, now time.Time) bool {
	if p.Only != nil && p.Only != peer || peer.Mute || !peer.Has(p.Index) {
		return false
	}
	if peer.Choked && !peer.Allow[p.Index] {
		return false
	}
	if len(peer.Refuse) > 0 && now.Before(peer.Refuse[p.Index]) {
		return false
	}
	return true
}

// Swarm is the view over all peers that one round of asking works with.
type Swarm struct {
	now   time.Time
	peers []*Peer // usable, by predicted finish
	at    []time.Time
	sum   float64
	out   int // bytes on the way from all of them
}

// View sorts the usable peers by when each would have brought one more block.
func View(peers []*Peer, now time.Time) *Swarm {
	s := &Swarm{now: now}
	for _, p := range peers {
		if !p.Mute && (!p.Choked || len(p.Allow) > 0) {
			s.peers = append(s.peers, p)
			s.sum += p.Pipe.Rate()
			s.out += p.Pipe.Outstanding()
		}
	}
	at := make(map[*Peer]time.Time, len(s.peers))
	for _, p := range s.peers {
		at[p] = p.Pipe.Finish(now, wire.BlockSize)
	}
	sort.Slice(s.peers, func(i, j int) bool {
		a, b := s.peers[i], s.peers[j]
		if c := at[a].Compare(at[b]); c != 0 {
			return c < 0
		}
		return a.Order < b.Order
	})
	for _, p := range s.peers {
		s.at = append(s.at, at[p])
	}
	return s
}

// Rate returns the summed rate of the usable peers whose rate is known.
func (s *Swarm) Rate() (sum float64) {
	for _, p := range s.peers {
		if p.Pipe.Known() && !p.Choked {
			sum += p.Pipe.Rate()
		}
	}
	return sum
}

// Peers returns the usable peers, soonest first.
func (s *Swarm) Peers() []*Peer { return s.peers }

// other returns when the best peer but not would finish one more block of p, and
// when it would if it were idle.
func (s *Swarm) other(p *Piece, not *Peer) (at, idle time.Time, ok bool) {
	for i, q := range s.peers {
		if q != not && p.may(q, s.now) {
			return s.at[i], q.Pipe.Idle(s.now, wire.BlockSize), true
		}
	}
	return at, idle, false
}

// Next assigns up to room blocks to peer and returns them in the order to ask.
func (k *Picker) Next(peer *Peer, s *Swarm, room int) (ask []Request) {
	before := 0 // bytes still to be asked for of all pieces ahead
	for _, p := range k.pieces {
		if room <= 0 {
			break
		}
		if p.free > 0 && p.may(peer, s.now) {
			ask = k.take(p, peer, s, before, room-len(ask), ask)
			if len(ask) >= room {
				break
			}
		}
		before += p.free * wire.BlockSize
	}
	return ask
}

// take assigns free blocks of p to peer as far as they will be in time.
func (k *Picker) take(p *Piece, peer *Peer, s *Swarm, before, room int, ask []Request) []Request {
	other, base, contest := s.other(p, peer)
	for b := range p.blocks {
		bl := &p.blocks[b]
		if room == 0 {
			break
		}
		if bl.here || bl.n > 0 {
			continue
		}
		size := p.BlockSize(b)
		finish := peer.Pipe.Finish(s.now, size)
		limit := base.Add(slack + time.Duration(float64(s.out+before)/s.sum*1e9))
		if contest && finish.After(limit) && finish.After(p.Due) && finish.After(other) {
			before += size
			continue // further back it may be in time
		}
		bl.owners[0], bl.n = peer, 1
		p.free--
		room--
		s.out += size
		ask = append(ask, peer.ask(p.Index, b, size, s.now, finish))
	}
	return ask
}

// ask notes a request.
func (peer *Peer) ask(piece, b, size int, now, finish time.Time) Request {
	r := Request{Piece: piece, Block: b, Size: size, Sent: now, Due: finish}
	peer.Pipe.Sent(now, size)
	peer.Asked = append(peer.Asked, r)
	return r
}

// Twice is a block to be asked of one more peer.
type Twice struct {
	Peer *Peer
	Request
}

// Hedge returns the blocks that are worth asking again, at most budget bytes of them.
func (k *Picker) Hedge(s *Swarm, budget int) (twice []Twice) {
	if len(s.peers) < 2 {
		return nil
	}
	for _, p := range k.pieces {
		if !p.Urgent && p.Due.After(s.now.Add(time.Second)) || budget < wire.BlockSize {
			break
		}
		if p.Only != nil || p.free == len(p.blocks) {
			continue
		}
		for _, l := range p.late(s.now) {
			if l.rest.Add(gain).After(l.at) || p.Due.After(l.at) || budget < wire.BlockSize {
				continue
			}
			if t, ok := k.again(p, l, s); ok {
				twice = append(twice, t)
				budget -= t.Size
			}
		}
	}
	return twice
}

// lateBlock is a block and when it is predicted to come, beside the rest of its piece.
type lateBlock struct {
	b        int
	at, rest time.Time
}

// late returns the blocks on their way that come last, each with the time at which
// all blocks of other owners will be here.
func (p *Piece) late(now time.Time) (out []lateBlock) {
	last := map[*Peer]time.Time{}
	all := make([]lateBlock, 0, len(p.blocks))
	for b := range p.blocks {
		bl := &p.blocks[b]
		if bl.here || bl.n == 0 {
			continue
		}
		at := time.Time{}
		for _, o := range bl.owners[:bl.n] {
			if t := o.predict(p.Index, b, now); at.IsZero() || t.Before(at) {
				at = t
			}
		}
		all = append(all, lateBlock{b: b, at: at})
		if o := bl.owners[0]; last[o].Before(at) {
			last[o] = at
		}
	}
	for _, l := range all {
		own := p.blocks[l.b].owners[0]
		l.rest = now
		for o, t := range last {
			if o != own && t.After(l.rest) {
				l.rest = t
			}
		}
		out = append(out, l)
	}
	return out
}

// predict returns when a block that was asked of peer will come, seen from now.
func (peer *Peer) predict(piece, b int, now time.Time) time.Time {
	ahead := 0
	for _, r := range peer.Asked {
		ahead += r.Size
		if r.Piece == piece && r.Block == b {
			return peer.Pipe.Arrival(now, ahead)
		}
	}
	return now
}

// again asks a late block of the peer that would bring it soonest.
func (k *Picker) again(p *Piece, l lateBlock, s *Swarm) (Twice, bool) {
	bl := &p.blocks[l.b]
	if int(bl.n) == maxOwners {
		return Twice{}, false
	}
	for _, q := range s.peers {
		if !p.may(q, s.now) || slices.Contains(bl.owners[:bl.n], q) {
			continue
		}
		size := p.BlockSize(l.b)
		finish := q.Pipe.Finish(s.now, size)
		wait := l.at.Sub(s.now)
		if finish.Add(gain + wait/4).After(l.at) {
			continue
		}
		bl.owners[bl.n] = q
		bl.n++
		return Twice{Peer: q, Request: q.ask(p.Index, l.b, size, s.now, finish)}, true
	}
	return Twice{}, false
}

// Done removes a request of peer and returns it.
func (peer *Peer) Done(piece, b int) (Request, bool) {
	for i, r := range peer.Asked {
		if r.Piece == piece && r.Block == b {
			if i == 0 {
				peer.Asked = peer.Asked[1:] // the usual case: peers answer in order
			} else {
				peer.Asked = slices.Delete(peer.Asked, i, i+1)
			}
			return r, true
		}
	}
	return Request{}, false
}

// OnlyFrom returns the pieces that only peer may bring.
func (k *Picker) OnlyFrom(peer *Peer) (pieces []int) {
	for _, p := range k.pieces {
		if p.Only == peer {
			pieces = append(pieces, p.Index)
		}
	}
	return pieces
}
