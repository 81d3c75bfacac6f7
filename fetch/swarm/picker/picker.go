// Package picker decides which blocks to ask of which peer. It is pure: no I/O, no
// goroutine, time comes in as an argument.
//
// # The rule
//
// Wanted pieces stand in the order of their due times, those that someone waits for
// before those that someone will want, and so do their blocks. A peer that has room
// takes the first free block that it will bring in time:
//
//	finish(peer) <= max(due(block), turn(block) + slack, best other finish)
//
// turn(block) is when the whole swarm, working in order, would have brought it: the
// time at which all peers, each from when it is free and at its own rate, have moved
// the bytes that are still to be asked for ahead of the block. Peers that become free
// later than that take no part in it. So an urgent piece is spread over all peers
// that are fast and near enough, and a slow peer works further ahead where its
// slowness harms nobody. Who is sooner than all others always qualifies. (Comparing
// with the due time alone stops a swarm of equal slow peers: nobody is in time, so
// nobody asks. One peer per piece, the classic way, costs three times the seek time
// and lets one slow peer own what is waited for.)
//
// # Twice
//
// A block is asked of a second or third peer only if its reader would really wait
// for it (it is predicted to come after its due time, and last of its piece),
// another peer is predicted to be clearly sooner, and the waste budget allows it. On a saturated link a duplicate only makes everyone later.
package picker

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/btmount/btmount/fetch/swarm/pipeline"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	// A block is taken for passed over so long after the time it was predicted for.
	overdue   = 300 * time.Millisecond
	slack     = 12 * time.Millisecond
	maxOwners = 3 // two can both be slow
	// After a piece that a peer would bring too late, none is tried that is not so far
	// behind it: where pieces are single blocks, deepest would reach half a MiB.
	stride    = 256 << 10
	lookAhead = 512 // pieces that Need looks at
	deepest   = 32  // pieces that a peer may be too slow for before it is left idle
	// A duplicate must promise to be sooner by this much, and by a quarter: less is
	// what a busy machine is late by anyway.
	gain = 50 * time.Millisecond
)

// Peer is what the picker knows of a connection.
type Peer struct {
	Pipe   pipeline.Pipe
	Has    func(piece int) bool
	Choked bool              // we may only ask for Allowed pieces
	Mute   bool              // silent: is asked nothing until it speaks or is tried again
	Allow  func(int) bool    // BEP 6 allowed fast; nil if it allowed none
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
	Skipped      int       // later requests that were answered before
}

// Class says who wants a piece. A higher one goes first, whatever is due when.
type Class int8

const (
	Background Class = iota // nobody reads it: it is to be kept
	Ahead                   // a reader will want it
	Urgent                  // someone waits for it
)

// Piece is a piece that someone wants.
type Piece struct {
	Index  int
	Size   int
	Due    time.Time
	Class  Class
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

// Free returns how many blocks have not arrived and were asked of nobody.
func (p *Piece) Free() int { return p.free }

// BlockSize returns the length of block b.
func (p *Piece) BlockSize(b int) int { return min(wire.BlockSize, p.Size-b*wire.BlockSize) }

// Picker holds the wanted pieces of one torrent.
type Picker struct {
	pieces []*Piece // by class, due time, then index
	index  map[int]*Piece
}

// New returns an empty picker.
func New() *Picker { return &Picker{index: map[int]*Piece{}} }

// order puts what someone waits for first: read-ahead whose time has passed while
// nobody waits for it (a paused player's, say) is not late.
func order(a, b *Piece) int {
	return cmp.Or(cmp.Compare(b.Class, a.Class), a.Due.Compare(b.Due), cmp.Compare(a.Index, b.Index))
}

// Len returns the number of wanted pieces.
func (k *Picker) Len() int { return len(k.pieces) }

// Reading reports whether anything is wanted for a reader.
func (k *Picker) Reading() bool { return len(k.pieces) > 0 && k.pieces[0].Class > Background }

// Find returns a wanted piece, or nil.
func (k *Picker) Find(index int) *Piece { return k.index[index] }

// Want adds a piece, or moves it to another due time. here tells which blocks have
// arrived before.
func (k *Picker) Want(index, size int, due time.Time, class Class, here func(block int) bool) *Piece {
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
	p.Due, p.Class = due, class
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
	if peer.Choked && (peer.Allow == nil || !peer.Allow(p.Index)) {
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
	peers []*Peer // usable, by predicted finish of one more block
	// Of each peer, in seconds from now: when it finishes one more block, when it is
	// free; and its rate.
	at, free, rate []float64
	spare          team // reused
}

// View sorts the usable peers by when each would have brought one more block.
func View(peers []*Peer, now time.Time) *Swarm {
	s := &Swarm{now: now, peers: make([]*Peer, 0, len(peers))}
	for _, p := range peers {
		if !p.Mute && (!p.Choked || p.Allow != nil) {
			s.peers = append(s.peers, p)
		}
	}
	type entry struct {
		peer *Peer
		at   float64
	}
	list := make([]entry, len(s.peers))
	for i, p := range s.peers {
		list[i] = entry{p, p.Pipe.Finish(now, wire.BlockSize).Sub(now).Seconds()}
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.peer.Order, b.peer.Order)) })
	room := make([]float64, 3*len(list))
	s.at, s.free, s.rate = room[:len(list)], room[len(list):2*len(list)], room[2*len(list):]
	for i, e := range list {
		s.peers[i], s.at[i], s.rate[i] = e.peer, e.at, e.peer.Pipe.Rate()
		s.free[i] = e.peer.Pipe.Finish(now, 0).Sub(now).Seconds()
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

// Need tells whether a read waits, or will within horizon if rate bytes/s come, and
// the rate with which none would.
func (k *Picker) Need(now time.Time, rate float64, horizon time.Duration) (late bool, need float64) {
	sum := 0.0
	for i, p := range k.pieces {
		if p.Class == Urgent {
			return true, math.Inf(1)
		}
		left := p.Due.Sub(now)
		if left > horizon || p.Class == Background || i == lookAhead {
			break
		}
		if sum += float64(p.left); left <= 0 {
			continue // nobody waits for it: its reader stopped
		}
		at := sum / left.Seconds()
		late, need = late || at > rate, max(need, at)
	}
	return late, need
}

// Peers returns the usable peers, soonest first.
func (s *Swarm) Peers() []*Peer { return s.peers }

// team is who may bring a piece: when each is free, and its rate, in the order of
// the view.
type team struct {
	free []float64 // seconds from now
	rate []float64
	self int     // index of the peer that is being filled
	best float64 // soonest finish of one more block of all others
}

// team returns who may bring p besides peer; alone: nobody does.
func (s *Swarm) team(p *Piece, peer *Peer) (t team, alone bool) {
	t = team{free: s.spare.free[:0], rate: s.spare.rate[:0], self: -1, best: math.Inf(1)}
	for i, q := range s.peers {
		if !p.may(q, s.now) {
			continue
		}
		if q == peer {
			t.self = len(t.free)
		} else {
			t.best = min(t.best, s.at[i])
		}
		t.free = append(t.free, s.free[i])
		t.rate = append(t.rate, s.rate[i])
	}
	s.spare = t
	return t, len(t.free) < 2
}

// moved returns how many bytes the team, working in order, will have moved at a time,
// seconds from now.
func (t *team) moved(at float64) (n float64) {
	for i, f := range t.free {
		if f < at {
			n += (at - f) * t.rate[i]
		}
	}
	return n
}

// Share returns how many blocks that someone waits for there are for each peer,
// rounded up.
func (k *Picker) Share(s *Swarm) int {
	n := 0
	for _, p := range k.pieces {
		if p.Class != Urgent {
			break
		}
		n += p.free
	}
	return (n + len(s.peers) - 1) / max(1, len(s.peers))
}

// Next assigns up to room blocks to peer and returns them in the order to ask. Of what
// nobody reads it assigns no more than spare.
func (k *Picker) Next(peer *Peer, s *Swarm, room, spare int) (ask []Request) {
	before := 0 // bytes still to be asked for of all pieces ahead
	tried, skip := 0, 0
	for _, p := range k.pieces {
		if p.Class == Background {
			room = min(room, len(ask)+spare)
		}
		if len(ask) >= room || tried == deepest {
			break
		}
		if p.free > 0 && before >= skip && p.may(peer, s.now) {
			had := len(ask)
			ask = k.take(p, peer, s, before, room-len(ask), ask)
			if len(ask) >= room {
				break
			}
			if len(ask) == had {
				tried, skip = tried+1, before+stride
			}
		}
		before += p.free * wire.BlockSize
	}
	return ask
}

// take assigns free blocks of p to peer as far as they will be in time.
func (k *Picker) take(p *Piece, peer *Peer, s *Swarm, before, room int, ask []Request) []Request {
	team, alone := s.team(p, peer)
	var next bid
	if !alone {
		if next = s.bid(p, peer, &team); !next.inTime(before + p.free*wire.BlockSize) {
			return ask // not even the last block
		}
	}
	for b := range p.blocks {
		bl := &p.blocks[b]
		if room == 0 {
			break
		}
		if bl.here || bl.n > 0 {
			continue
		}
		size := p.BlockSize(b)
		if !alone && !next.inTime(before+size) {
			before += size
			continue // further back it may be in time
		}
		finish := peer.Pipe.Finish(s.now, size)
		bl.owners[0], bl.n = peer, 1
		p.free--
		room--
		ask = append(ask, peer.ask(p.Index, b, size, s.now, finish))
		if team.self >= 0 {
			team.free[team.self] = finish.Sub(s.now).Seconds()
		}
		if !alone {
			next = s.bid(p, peer, &team)
		}
	}
	return ask
}

// bid is the time at which a peer would bring one more block of a piece.
type bid struct {
	early bool    // sooner than all others, or when it is due
	moved float64 // bytes that the team will have moved then, but for the slack
}

func (s *Swarm) bid(p *Piece, peer *Peer, t *team) bid {
	finish := peer.Pipe.Finish(s.now, wire.BlockSize)
	f := finish.Sub(s.now).Seconds()
	if f <= t.best || !finish.After(p.Due) {
		return bid{early: true}
	}
	return bid{moved: t.moved(f - slack.Seconds())}
}

// inTime reports whether that is before the turn of the block that ends n bytes behind the
// front: the team will not have moved more by then.
func (b bid) inTime(n int) bool { return b.early || b.moved <= float64(n) }

// ask notes a request.
func (peer *Peer) ask(piece, b, size int, now, finish time.Time) Request {
	r := Request{Piece: piece, Block: b, Size: size, Sent: now, Due: finish}
	peer.Pipe.Sent(now, size)
	peer.Asked = append(peer.Asked, r)
	return r
}

// Explore assigns up to room blocks of the pieces that are wanted last to a peer that
// is not known yet, so that it gets to be: taken for slow, it would never be in time
// where others are fast. A peer that pauses is asked for some of them as well.
func (k *Picker) Explore(peer *Peer, now time.Time, room int) (ask []Request) {
	for _, p := range slices.Backward(k.pieces) {
		if p.free == 0 || !p.may(peer, now) {
			continue
		}
		for b := len(p.blocks) - 1; b >= 0 && len(ask) < room; b-- {
			if bl := &p.blocks[b]; !bl.here && bl.n == 0 {
				bl.owners[0], bl.n = peer, 1
				p.free--
				size := p.BlockSize(b)
				ask = append(ask, peer.ask(p.Index, b, size, now, peer.Pipe.Finish(now, size)))
			}
		}
		if len(ask) == room {
			break
		}
	}
	slices.Reverse(ask)
	return ask
}

// Probe returns one block to ask of a peer that pauses: the last of the piece that is
// wanted last. The peer does not own it: whoever else has room may be asked for it.
func (k *Picker) Probe(peer *Peer, now time.Time) (r Request, ok bool) {
	mute := peer.Mute
	peer.Mute = false
	defer func() { peer.Mute = mute }()
	for _, p := range slices.Backward(k.pieces) {
		if !p.may(peer, now) {
			continue
		}
		for b := len(p.blocks) - 1; b >= 0; b-- {
			if bl := &p.blocks[b]; !bl.here && !slices.Contains(bl.owners[:bl.n], peer) {
				size := p.BlockSize(b)
				return peer.ask(p.Index, b, size, now, peer.Pipe.Finish(now, size)), true
			}
		}
	}
	return Request{}, false
}

// PassedOver returns the bytes asked that should have come long ago, and that the peer
// has left aside for later ones: they are not in the way of what would be asked now.
func (peer *Peer) PassedOver(now time.Time) (n int) {
	for _, r := range peer.Asked {
		if r.Skipped > 0 && now.Sub(r.Due) > overdue {
			n += r.Size
		}
	}
	return n
}

// Done removes a request of peer and returns it.
func (peer *Peer) Done(piece, b int) (Request, bool) {
	for i, r := range peer.Asked {
		if r.Piece == piece && r.Block == b {
			// Peers answer nearly in order: the few before it move, not the many behind it.
			copy(peer.Asked[1:], peer.Asked[:i])
			peer.Asked = peer.Asked[1:]
			for j := range i {
				peer.Asked[j].Skipped++
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
