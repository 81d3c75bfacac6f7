package picker

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	piece    = 1 << 20
	blockLen = wire.BlockSize
)

// sim is a swarm on simulated time: peers answer in order, at a rate, after a round
// trip. It drives the picker as the torrent does.
type sim struct {
	t     *testing.T
	now   time.Time
	pick  *Picker
	peers []*simPeer
	got   map[[2]int]bool
	waste int
	order []int // pieces in the order in which they became complete
	at    map[int]time.Time
}

type simPeer struct {
	Peer
	rate   float64
	rtt    time.Duration
	free   time.Time // when its link is free
	coming []arrival
	silent time.Time // answers nothing from then on
	blocks int
}

type arrival struct {
	Request
	at time.Time
}

func newSim(t *testing.T, peers ...*simPeer) *sim {
	s := &sim{t: t, now: time.Unix(1000, 0), pick: New(), peers: peers, got: map[[2]int]bool{}, at: map[int]time.Time{}}
	for i, p := range peers {
		p.Has, p.Order = func(int) bool { return true }, i
		p.Pipe.Line(p.rtt)
		p.Pipe.Reqq = 500
	}
	return s
}

func seeder(rate float64, rtt time.Duration) *simPeer { return &simPeer{rate: rate, rtt: rtt} }

func (s *sim) views() (out []*Peer) {
	for _, p := range s.peers {
		out = append(out, &p.Peer)
	}
	return out
}

func (s *sim) fill() {
	v := View(s.views(), s.now)
	for _, q := range v.Peers() {
		for _, p := range s.peers {
			if &p.Peer == q {
				s.send(p, s.pick.Next(q, v, q.Pipe.Limit(s.pick.Share(v))-q.Pipe.Outstanding()/blockLen, 1<<20))
			}
		}
	}
}

func (s *sim) send(p *simPeer, asks []Request) {
	for _, r := range asks {
		start := s.now.Add(p.rtt)
		if p.free.After(start) {
			start = p.free
		}
		p.free = start.Add(time.Duration(float64(r.Size) / p.rate * 1e9))
		if p.silent.IsZero() || p.free.Before(p.silent) {
			p.coming = append(p.coming, arrival{r, p.free})
		}
	}
}

// step goes to the next arrival, or 10 ms on, whichever is first.
func (s *sim) step() {
	tick := s.now.Add(10 * time.Millisecond)
	var first *simPeer
	for _, p := range s.peers {
		if len(p.coming) > 0 && (first == nil || p.coming[0].at.Before(first.coming[0].at)) {
			first = p
		}
	}
	if first != nil && first.coming[0].at.Before(tick) {
		a := first.coming[0]
		first.coming = first.coming[1:]
		s.now = a.at
		s.arrive(first, a.Request)
	} else {
		s.now = tick
		for _, p := range s.peers {
			if !p.Mute && p.Pipe.Silent(s.now) {
				p.Mute = true
				for _, r := range p.Asked {
					p.Pipe.Gone(r.Size)
					s.pick.Lost(r.Piece, r.Block, &p.Peer)
				}
				p.Asked = nil
			}
		}
		for _, h := range s.pick.Hedge(View(s.views(), s.now), 4<<20, 4<<20) {
			for _, p := range s.peers {
				if &p.Peer == h.Peer {
					s.send(p, []Request{h.Request})
				}
			}
		}
	}
	s.fill()
}

func (s *sim) arrive(p *simPeer, r Request) {
	if q, ok := p.Done(r.Piece, r.Block); ok {
		p.Pipe.Arrived(s.now, q.Sent, q.Due, q.Size)
	}
	p.blocks++
	key := [2]int{r.Piece, r.Block}
	if s.got[key] {
		s.waste += r.Size
		return
	}
	s.got[key] = true
	s.pick.Got(r.Piece, r.Block, &p.Peer)
	if w := s.pick.Find(r.Piece); w != nil && w.Left() == 0 {
		s.pick.Unwant(r.Piece)
		s.order = append(s.order, r.Piece)
		s.at[r.Piece] = s.now
	}
}

// bring wants pieces, all due now, and returns how long they took.
func (s *sim) bring(pieces ...int) time.Duration {
	s.t.Helper()
	start := s.now
	for _, p := range pieces {
		s.pick.Want(p, piece, s.now, Ahead, nil)
	}
	s.fill()
	for s.pick.Len() > 0 {
		if s.now.Sub(start) > 5*time.Minute {
			s.t.Fatal("no progress: the swarm stands still")
		}
		s.step()
	}
	return s.now.Sub(start)
}

func (s *sim) rest(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.step()
	}
}

func span(from, to int) (out []int) {
	for p := from; p < to; p++ {
		out = append(out, p)
	}
	return out
}

// floor is what physics takes: a round trip of the nearest and the bytes at the sum
// of the rates.
func (s *sim) floor(bytes int) time.Duration {
	sum, rtt := 0.0, time.Hour
	for _, p := range s.peers {
		if p.silent.IsZero() {
			sum += p.rate
			rtt = min(rtt, p.rtt)
		}
	}
	return rtt + time.Duration(float64(bytes)/sum*1e9)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func TestSeekTakesLittleMoreThanTheFloor(t *testing.T) {
	for name, peers := range map[string][]*simPeer{
		"four equal":        {seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6)},
		"one fast six slow": {seeder(4e6, 20e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6)},
		"one far":           {seeder(12.5e6, 100e6)},
		"mixed":             {seeder(5e6, 30e6), seeder(1e6, 80e6), seeder(3e5, 10e6)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, peers...)
			s.bring(span(0, 24)...) // rates become known
			worst := 0.0
			for i := range 20 {
				s.rest(300 * time.Millisecond)
				worst = max(worst, ratio(s.bring(100+7*i), s.floor(piece)))
			}
			t.Logf("worst seek %.2f x floor, %d bytes twice", worst, s.waste)
			if worst > 1.4 {
				t.Errorf("a seek took %.2f x the floor", worst)
			}
		})
	}
}

func TestFirstReadDoesNotWaitForSlowPeersOfUnknownRate(t *testing.T) {
	s := newSim(t, seeder(4e6, 20e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6), seeder(1e5, 200e6))
	took := s.bring(0)
	t.Logf("first piece in %v, %.2f x floor, %d bytes twice", took, ratio(took, s.floor(piece)), s.waste)
	if ratio(took, s.floor(piece)) > 2 {
		t.Errorf("took %v", took)
	}
}

func TestOnePeerPerPieceWouldBeWorse(t *testing.T) {
	s := newSim(t, seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6))
	s.bring(span(0, 12)...)
	s.rest(time.Second)
	counts := func() (out []int) {
		for _, p := range s.peers {
			out = append(out, p.blocks)
		}
		return out
	}
	before := counts()
	s.bring(50)
	for i, n := range counts() {
		if d := n - before[i]; d < 10 || d > 24 {
			t.Errorf("peer %d brought %d of 64 blocks", i, d)
		}
	}
}

func TestSequentialUsesTheWholeLink(t *testing.T) {
	s := newSim(t, seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(1e5, 200e6))
	took := s.bring(span(0, 60)...)
	if r := ratio(took, s.floor(60*piece)); r > 1.08 {
		t.Errorf("60 pieces in a row took %.2f x the floor", r)
	}
	if float64(s.waste) > 0.02*60*piece {
		t.Errorf("%d bytes twice", s.waste)
	}
	late := 0
	for i, p := range s.order {
		if p > i+6 {
			late++
		}
	}
	if late > 3 {
		t.Errorf("%d pieces far out of order: %v", late, s.order)
	}
}

func TestUrgentPieceOvertakesReadAhead(t *testing.T) {
	s := newSim(t, seeder(2e6, 50e6), seeder(2e6, 50e6))
	for p := range 32 {
		s.pick.Want(p, piece, s.now.Add(time.Duration(p)*250*time.Millisecond), Ahead, nil)
	}
	s.fill()
	s.rest(2 * time.Second)
	start := s.now
	s.pick.Want(500, piece, s.now, Urgent, nil)
	s.fill()
	for s.at[500].IsZero() {
		s.step()
	}
	// What is on the way already, 0.12 s and a round trip, stands before it.
	if took := s.at[500].Sub(start); took > s.floor(piece)+250*time.Millisecond {
		t.Errorf("an urgent piece behind read-ahead took %v, floor %v", took, s.floor(piece))
	}
}

func TestSilentPeerCostsOneShortGap(t *testing.T) {
	s := newSim(t, seeder(2e6, 50e6), seeder(2e6, 50e6), seeder(2e6, 50e6))
	s.bring(span(0, 8)...)
	s.peers[1].silent = s.now.Add(time.Second)
	s.bring(span(8, 40)...)
	gap, last := time.Duration(0), s.at[7]
	for _, p := range s.order[8:] {
		gap = max(gap, s.at[p].Sub(last))
		last = s.at[p]
	}
	if gap > 900*time.Millisecond {
		t.Errorf("gap of %v after a peer fell silent", gap)
	}
}

func TestSlowPeersAloneStillWork(t *testing.T) {
	s := newSim(t, seeder(1e5, 200e6), seeder(1e5, 200e6))
	if r := ratio(s.bring(0, 1), s.floor(2*piece)); r > 1.3 {
		t.Errorf("two slow peers took %.2f x the floor", r)
	}
}

func TestPieceThatOnlyASlowPeerHas(t *testing.T) {
	s := newSim(t, seeder(5e6, 20e6), seeder(2e5, 100e6))
	s.peers[0].Has = func(p int) bool { return p != 3 }
	s.bring(span(0, 6)...)
	if s.at[3].IsZero() {
		t.Error("never came")
	}
}

func TestOnlyAndChokedAndRefused(t *testing.T) {
	s := newSim(t, seeder(1e6, 1e6), seeder(1e6, 1e6), seeder(1e6, 1e6))
	a, b, c := &s.peers[0].Peer, &s.peers[1].Peer, &s.peers[2].Peer
	b.Choked, b.Allow = true, func(p int) bool { return p == 7 }
	c.Refuse = map[int]time.Time{6: s.now.Add(time.Second)}
	s.pick.Want(6, piece, s.now, Ahead, nil)
	v := View(s.views(), s.now)
	if n := len(s.pick.Next(b, v, 5, 0)); n != 0 {
		t.Errorf("a choked peer was asked for %d blocks", n)
	}
	if n := len(s.pick.Next(c, v, 5, 0)); n != 0 {
		t.Errorf("a piece was asked again of who refused it: %d", n)
	}
	p7 := s.pick.Want(7, piece, s.now, Ahead, nil)
	if n := len(s.pick.Next(b, v, 2, 0)); n != 2 {
		t.Errorf("allowed fast piece: %d blocks", n)
	}
	p7.Only = c
	for _, r := range s.pick.Next(a, v, 200, 0) {
		if r.Piece == 7 {
			t.Fatal("a piece reserved for one peer was asked of another")
		}
	}
}

// TestBooks does random things and checks that the counters stay true.
func TestBooks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	s := newSim(t, seeder(1e6, 1e6), seeder(2e6, 1e6), seeder(3e6, 1e6))
	size := func(p int) int { return 3*blockLen + p }
	for range 20000 {
		i := r.IntN(12)
		p := &s.peers[r.IntN(3)].Peer
		switch r.IntN(7) {
		case 0:
			s.pick.Want(i, size(i), s.now.Add(time.Duration(r.IntN(9))*time.Second), Class(r.IntN(3)), nil)
		case 1:
			for o, blocks := range s.pick.Unwant(i) {
				for _, b := range blocks {
					o.Done(i, b)
				}
			}
		case 2:
			s.pick.Next(p, View(s.views(), s.now), r.IntN(6), r.IntN(3))
		case 3:
			s.pick.Got(i, r.IntN(3), p)
		case 4:
			s.pick.Lost(i, r.IntN(3), p)
		case 5:
			s.pick.Missing(i, []int{r.IntN(3)})
		case 6:
			s.pick.Hedge(View(s.views(), s.now), 1<<20, 1<<20)
		}
		for _, w := range s.pick.pieces {
			free, left := 0, 0
			for b := range w.blocks {
				if !w.blocks[b].here {
					left += w.BlockSize(b)
					if w.blocks[b].n == 0 {
						free++
					}
				}
			}
			if free != w.free || left != w.left || s.pick.index[w.Index] != w {
				t.Fatalf("piece %d: free %d counted %d, left %d counted %d", w.Index, w.free, free, w.left, left)
			}
		}
		if len(s.pick.pieces) != len(s.pick.index) {
			t.Fatal("list and index differ")
		}
	}
}

// BenchmarkNext asks 200 peers, in turn, for blocks of what 100 readers want that each have
// a window of 64 pieces. It tells which share of a core that is at 100 MB/s.
func BenchmarkNext(b *testing.B) {
	pick := New()
	now := time.Now()
	var peers []*Peer
	for i := range 200 {
		p := &Peer{Has: func(int) bool { return true }, Order: i}
		p.Pipe.Line(time.Duration(10+i) * time.Millisecond)
		peers = append(peers, p)
	}
	for p := range 6400 {
		pick.Want(p, piece, now.Add(time.Duration(p)*time.Millisecond), Ahead, nil)
	}
	b.ReportAllocs()
	blocks := 0
	for i := 0; b.Loop(); i++ {
		p := peers[i%200]
		for _, r := range pick.Next(p, View(peers, now), 8, 0) {
			blocks++
			p.Done(r.Piece, r.Block)
			p.Pipe.Gone(r.Size)
			pick.Lost(r.Piece, r.Block, p)
		}
	}
	perBlock := b.Elapsed().Seconds() / float64(max(1, blocks))
	b.ReportMetric(100*perBlock*100e6/wire.BlockSize, "%core@100MB/s")
}

// A bid is in time if the peer brings the block before its turn: when the team, working in
// order, would have moved all bytes up to it. Here turns are worked out one by one.
func TestBidIsBeforeTheTurn(t *testing.T) {
	turn := func(tm *team, n int) float64 {
		at := math.Inf(1)
		for {
			work, rate, left := float64(n), 0.0, false
			for i, f := range tm.free {
				if f <= at {
					work += f * tm.rate[i]
					rate += tm.rate[i]
				}
			}
			next := work / rate
			for _, f := range tm.free {
				left = left || f <= at && f > next
			}
			if at = next; !left {
				return at
			}
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	yes, no := 0, 0
	for range 20000 {
		tm := &team{best: math.Inf(-1)}
		for range 1 + r.IntN(9) {
			tm.free = append(tm.free, r.Float64())
			tm.rate = append(tm.rate, 1e4+1e6*r.Float64())
		}
		n := r.IntN(1 << 20)
		f := 2 * r.Float64()
		want := f <= turn(tm, n)
		got := bid{moved: tm.moved(f)}.inTime(n)
		if math.Abs(f-turn(tm, n)) > 1e-9 && got != want {
			t.Fatalf("finish %v, turn %v: in time is %v", f, turn(tm, n), got)
		}
		if got {
			yes++
		} else {
			no++
		}
	}
	if yes < 1000 || no < 1000 {
		t.Errorf("%d in time, %d not: this test shows little", yes, no)
	}
}

// A peer that nobody knows is taken for slow and never in time beside a fast one.
// It is given a little of what is wanted last, so that it gets known.
func TestUnknownPeerIsExplored(t *testing.T) {
	s := newSim(t, seeder(50e6, 1e6), seeder(50e6, 1e6))
	late := s.peers[1]
	late.Choked = true
	s.bring(0, 1) // the first one is known now
	for p := range 8 {
		s.pick.Want(10+p, 1<<20, s.now, Urgent, nil)
	}
	s.fill()
	late.Choked = false
	v := View(s.views(), s.now)
	if asks := s.pick.Next(&late.Peer, v, 6, 0); len(asks) > 0 {
		t.Fatalf("it is in time with %v: this test shows nothing", asks)
	}
	free := s.pick.Find(17).free
	asks := s.pick.Explore(&late.Peer, s.now, 4)
	for i, r := range asks {
		if r.Piece != 17 || r.Block != 60+i {
			t.Errorf("request %d is for piece %d block %d", i, r.Piece, r.Block)
		}
	}
	if len(asks) != 4 || s.pick.Find(17).free != free-4 || late.Pipe.Outstanding() != 4*blockLen {
		t.Errorf("%d asked, %d of %d blocks free", len(asks), s.pick.Find(17).free, free)
	}
}

// A probe leaves its block to whoever else has room.
func TestProbeOwnsNothing(t *testing.T) {
	s := newSim(t, seeder(1e6, 1e6), seeder(1e6, 1e6))
	silent, other := s.peers[0], s.peers[1]
	silent.Mute = true
	s.pick.Want(3, 2*blockLen, s.now, Urgent, nil)
	r, ok := s.pick.Probe(&silent.Peer, s.now)
	if !ok || r.Piece != 3 || r.Block != 1 || !silent.Mute || len(silent.Asked) != 1 {
		t.Fatalf("probe %+v, %v", r, ok)
	}
	if asks := s.pick.Next(&other.Peer, View(s.views(), s.now), 6, 0); len(asks) != 2 {
		t.Errorf("the other peer was asked for %v", asks)
	}
	if _, ok := s.pick.Probe(&Peer{Has: func(int) bool { return false }}, s.now); ok {
		t.Error("a peer without the piece is probed")
	}
}

// A peer passes a piece over and serves others: what is late is asked of somebody
// else, and does not fill the peer's queue.
func TestPassedOverPieceIsAskedElsewhere(t *testing.T) {
	s := newSim(t, seeder(4e6, 20e6), seeder(4e6, 20e6))
	s.bring(0, 1)
	s.pick.Want(7, 4*blockLen, s.now, Urgent, nil)
	first := s.peers[0]
	asks := s.pick.Next(&first.Peer, View([]*Peer{&first.Peer}, s.now), 4, 0)
	if len(asks) != 4 {
		t.Fatalf("asked %v", asks)
	}
	if twice := s.pick.Hedge(View(s.views(), s.now), 1<<20, 1<<20); len(twice) > 0 {
		t.Errorf("asked twice at once: %v", twice)
	}
	s.pick.Want(8, 1<<20, s.now.Add(time.Hour), Ahead, nil)
	if n := first.PassedOver(s.now.Add(time.Second)); n > 0 {
		t.Errorf("%d bytes of a peer that is merely late are passed over", n)
	}
	for b := range 50 { // other blocks keep coming
		r := first.ask(8, b, blockLen, s.now, s.now)
		s.now = s.now.Add(20 * time.Millisecond)
		first.Done(8, b)
		first.Pipe.Arrived(s.now, r.Sent, r.Due, blockLen)
	}
	if n := first.PassedOver(s.now); n != 4*blockLen {
		t.Errorf("%d bytes are passed over", n)
	}
	twice := s.pick.Hedge(View(s.views(), s.now), 1<<20, 1<<20)
	if len(twice) != 4 || twice[0].Peer != &s.peers[1].Peer {
		t.Errorf("after a second: %v", twice)
	}
}
