package want

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is the block of a number, and id its CID.
func content(i int) []byte { return fmt.Appendf(nil, "block %d", i) }

func id(i int) cid.Cid {
	h, err := multihash.Sum(content(i), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

var root = id(-1)

// contents are the blocks that fakes have.
var contents = sync.OnceValue(func() map[cid.Cid][]byte {
	all := map[cid.Cid][]byte{}
	for i := range 1000 {
		all[id(i)] = content(i)
	}
	return all
})

// crowd is some peers and a client, in a bubble of synctest.
type crowd struct {
	t *testing.T
	c *Client

	mu    sync.Mutex
	peers map[peer.ID]*fake
	left  map[peer.ID]error
}

// fake is a peer that has all blocks, if it does not say otherwise.
type fake struct {
	n      *crowd
	id     peer.ID
	trip   time.Duration
	plain  bool
	refuse func() error // streams, or writes to them
	answer func(e message.Entry) says

	mu      sync.Mutex
	streams int
	told    []message.Entry
	full    int
}

// says is what a fake answers; the zero value is nothing.
type says struct {
	block, lie, has, lacks bool
	after                  time.Duration // more than a trip
}

func honest(e message.Entry) says {
	return says{block: e.WantType == pb.Message_Wantlist_Block, has: true}
}

// silent says to have everything, and sends nothing.
func silent(e message.Entry) says { return says{has: e.WantType == pb.Message_Wantlist_Have} }

func absent(message.Entry) says { return says{lacks: true} }

func inBubble(t *testing.T, f func(t *testing.T, n *crowd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &crowd{t: t, peers: map[peer.ID]*fake{}, left: map[peer.ID]error{}}
		n.c = New(Config{Open: n.open, Leave: func(p peer.ID, why error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.left[p] = why
		}})
		defer n.c.Close()
		f(t, n)
	})
}

func (n *crowd) open(_ context.Context, p peer.ID) (Stream, bool, error) {
	n.mu.Lock()
	f := n.peers[p]
	n.mu.Unlock()
	if f == nil {
		return nil, false, errors.New("not connected")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams++
	if f.refuse != nil {
		if err := f.refuse(); err != nil {
			return nil, false, err
		}
	}
	return stream{f}, f.plain, nil
}

// add connects a peer.
func (n *crowd) add(f *fake) *fake {
	f.n = n
	if f.answer == nil {
		f.answer = honest
	}
	n.mu.Lock()
	f.id = peer.ID(fmt.Sprint("peer ", len(n.peers)))
	n.peers[f.id] = f
	n.mu.Unlock()
	n.c.Connected(f.id)
	return f
}

// why is for what a peer was left; nil: it was not.
func (n *crowd) why(f *fake) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.left[f.id]
}

type stream struct{ *fake }

func (stream) SetWriteDeadline(time.Time) error { return nil }
func (stream) Reset() error                     { return nil }

func (s stream) Write(b []byte) (int, error) {
	m, _, err := message.FromNet(bytes.NewReader(b))
	if err != nil {
		s.n.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(); err != nil {
			return 0, err
		}
	}
	if m.Full() {
		s.full++
	}
	for _, e := range m.Wantlist() {
		s.told = append(s.told, e)
		if s.plain && e.WantType == pb.Message_Wantlist_Have {
			s.n.t.Error("a peer that speaks bitswap 1.1.0 is asked whether it has a block")
		}
		if e.Cancel {
			continue
		}
		a := s.answer(e)
		out := message.New(false)
		switch {
		case a.lie:
			out.AddBlock(blocks.NewBlock([]byte("lies about " + e.Cid.String())))
		case a.lacks:
			out.AddDontHave(e.Cid)
		case a.block:
			if b, err := blocks.NewBlockWithCid(contents()[e.Cid], e.Cid); err == nil {
				out.AddBlock(b)
			}
		case a.has:
			out.AddHave(e.Cid)
		}
		if !out.Empty() {
			time.AfterFunc(s.trip+a.after, func() {
				var b bytes.Buffer
				if err := out.ToNetV1(&b); err != nil {
					s.n.t.Error(err)
				}
				if err := s.n.c.Receive(s.id, &b); err != nil {
					s.n.t.Error(err)
				}
			})
		}
	}
	return len(b), nil
}

// asks is how often the peer was told something.
func (f *fake) asks(of func(e message.Entry) bool) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.told {
		if of(e) {
			n++
		}
	}
	return n
}

func forBlock(e message.Entry) bool {
	return !e.Cancel && e.WantType == pb.Message_Wantlist_Block
}
func cancelled(e message.Entry) bool { return e.Cancel }

// get brings a block, and returns what it took.
func (n *crowd) get(i int) time.Duration {
	n.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	b, err := n.c.Get(ctx, root, id(i), start)
	if err != nil || !bytes.Equal(b, content(i)) {
		n.t.Errorf("block %d: %q, %v", i, b, err)
	}
	return time.Since(start)
}

// Peers that say to have every block and send none cost a moment each, once.
func TestSilentPeers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		for range 5 {
			n.add(&fake{trip: time.Millisecond, answer: silent})
		}
		n.add(&fake{trip: 20 * time.Millisecond})
		if took := n.get(0); took > time.Second {
			t.Errorf("the first block took %v", took)
		}
		for i := range 100 {
			if took := n.get(1 + i); took > 25*time.Millisecond {
				t.Errorf("block %d took %v", 1+i, took)
			}
		}
	})
}

// Many such, who are nearer than the honest one, are gone through faster and faster.
func TestManySilentPeers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		for range 30 {
			n.add(&fake{trip: 50 * time.Millisecond, answer: silent})
		}
		n.add(&fake{trip: 100 * time.Millisecond})
		if took := n.get(0); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// One that stops to send is given up for the next within a moment.
func TestStopsSending(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		asked := 0
		n.add(&fake{trip: time.Millisecond, answer: func(e message.Entry) says {
			if asked++; asked > 20 {
				return says{}
			}
			return honest(e)
		}})
		n.add(&fake{trip: 30 * time.Millisecond})
		for i := range 50 {
			if took := n.get(i); took > 400*time.Millisecond {
				t.Errorf("block %d took %v", i, took)
			}
		}
	})
}

// A question that got lost in the only peer there is is asked again.
func TestLostQuestion(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		lost := 0
		f := n.add(&fake{trip: 50 * time.Millisecond})
		f.answer = func(e message.Entry) says {
			if lost++; lost == 1 || lost == 4 {
				return says{}
			}
			return honest(e)
		}
		for i := range 4 {
			if took := n.get(i); took > 3*time.Second {
				t.Errorf("block %d took %v", i, took)
			}
		}
		if lost != 6 {
			t.Errorf("it was asked %d times", lost)
		}
	})
}

// Who gave others of an object is asked for the next without a question before.
func TestOneTrip(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		const trip = 50 * time.Millisecond
		there, away := n.add(&fake{trip: trip}), n.add(&fake{trip: trip, answer: absent})
		if took := n.get(0); took != 2*trip {
			t.Errorf("the first block took %v", took)
		}
		for i := range 10 {
			if took := n.get(1 + i); took != trip {
				t.Errorf("block %d took %v", 1+i, took)
			}
		}
		synctest.Wait()
		if n := len(away.told); n != 2 { // whether it has the first, and that it came
			t.Errorf("who has nothing was told %d things", n)
		}
		if n := there.asks(cancelled); n > 0 {
			t.Errorf("who gave the block was told %d times that it came", n)
		}
	})
}

// Whoever was asked and did not give the block is told that it came, or is not wanted.
func TestTakesBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		f := n.add(&fake{trip: time.Hour})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("enough"))
		defer cancel()
		if _, err := n.c.Get(ctx, root, id(0), time.Now()); err == nil || err.Error() != "enough" {
			t.Error(err)
		}
		synctest.Wait()
		if f.asks(forBlock) != 1 || f.asks(cancelled) != 1 {
			t.Errorf("told %+v", f.told)
		}
		if _, err := n.c.Get(t.Context(), root, cid.NewCidV1(cid.Raw, []byte{0, 1, 'x'}), time.Now()); !errors.Is(err, ErrNoDigest) {
			t.Error(err)
		}
		n.c.Close()
		if _, err := n.c.Get(t.Context(), root, id(1), time.Now()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// What is due earlier is asked for with a higher priority, also if it becomes so later.
func TestPriority(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		f := n.add(&fake{trip: time.Second})
		var all sync.WaitGroup
		now := time.Now()
		for i, due := range []time.Duration{time.Minute, 0, time.Hour, -time.Hour} {
			time.AfterFunc(time.Duration(i)*time.Millisecond, func() {
				all.Go(func() { _, _ = n.c.Get(t.Context(), root, id(i%3), now.Add(due)) })
			})
		}
		<-time.After(10 * time.Millisecond)
		synctest.Wait()
		all.Wait()
		told := f.told
		if len(told) != 4 || told[0].Priority >= told[1].Priority || told[2].Priority >= told[0].Priority || told[3].Priority <= told[1].Priority {
			t.Errorf("told %+v", told)
		}
	})
}

// A stream that breaks is opened anew, and all that is still wanted is asked there. A peer
// none of whose streams holds is left, and what it was asked is asked of others.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		writes := 0
		f := n.add(&fake{trip: time.Millisecond, refuse: func() error {
			if writes++; writes%4 == 0 {
				return errors.New("broken")
			}
			return nil
		}})
		for i := range 20 {
			if took := n.get(i); took > 10*time.Millisecond {
				t.Errorf("block %d took %v", i, took)
			}
		}
		if f.full < 3 {
			t.Errorf("told all that is wanted %d times", f.full)
		}
		broken := errors.New("broken for good")
		f.mu.Lock()
		f.refuse = func() error { return broken }
		f.mu.Unlock()
		n.add(&fake{trip: 20 * time.Millisecond})
		if took := n.get(100); took > time.Second {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		if !errors.Is(n.why(f), broken) {
			t.Error(n.why(f))
		}
	})
}

// What a peer was asked that is gone is asked of others at once, and of it when it is back.
func TestDisconnected(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		f := n.add(&fake{trip: time.Millisecond, answer: silent})
		time.AfterFunc(100*time.Millisecond, func() { n.c.Disconnected(f.id) })
		time.AfterFunc(200*time.Millisecond, func() {
			f.mu.Lock()
			f.answer = honest
			f.mu.Unlock()
			n.c.Connected(f.id)
		})
		if took := n.get(0); took != 201*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// One that sends what nobody asked for is left, and what it was asked comes from others.
func TestLiar(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		liar := n.add(&fake{trip: time.Millisecond, answer: func(e message.Entry) says {
			return says{has: true, lie: e.WantType == pb.Message_Wantlist_Block}
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if _, err := n.c.Get(ctx, root, id(i), time.Now()); err == nil {
					t.Error("a lie")
				}
			})
		}
		all.Wait()
		if !errors.Is(n.why(liar), ErrUnasked) {
			t.Error(n.why(liar))
		}
		n.add(&fake{trip: 20 * time.Millisecond})
		for i := range 20 {
			if took := n.get(i); took > 50*time.Millisecond {
				t.Errorf("block %d took %v", i, took)
			}
		}
	})
}

// waiting is a reader of which nothing comes until it ends.
type waiting chan struct{}

func (w waiting) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

// A peer that begins many large messages and ends none is left.
func TestFlood(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		f := n.add(&fake{})
		end := make(chan struct{})
		defer close(end)
		for range 20 {
			go func() { // ends with end
				begun := append([]byte{0x80, 0x80, 0x80, 1}, make([]byte, 2<<20-1)...) // of 2 MiB a byte is missing
				_ = n.c.Receive(f.id, io.MultiReader(bytes.NewReader(begun), waiting(end)))
			}()
		}
		synctest.Wait()
		if !errors.Is(n.why(f), ErrFlood) {
			t.Error(n.why(f))
		}
	})
}

// Of several that have an object the fast ones give most, and the slow ones some.
func TestSpeeds(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		var line sync.Mutex // of the slow one, which sends a block in 20 ms
		var free time.Time
		slow := n.add(&fake{trip: 5 * time.Millisecond, answer: func(e message.Entry) says {
			a := honest(e)
			if a.block {
				line.Lock()
				defer line.Unlock()
				if free.Before(time.Now()) {
					free = time.Now()
				}
				free = free.Add(20 * time.Millisecond)
				a.after = time.Until(free)
			}
			return a
		}})
		fast := n.add(&fake{trip: 40 * time.Millisecond})
		slots, all := make(chan struct{}, 32), sync.WaitGroup{}
		for i := range 500 {
			slots <- struct{}{}
			all.Go(func() { n.get(i); <-slots })
		}
		all.Wait()
		s, f := slow.asks(forBlock), fast.asks(forBlock)
		if s+f > 550 || s < 5 || f < 5*s {
			t.Errorf("%d of the slow one, %d of the fast one", s, f)
		}
	})
}

// A peer that speaks an older bitswap is asked for blocks, when nobody else is known to have them.
func TestPlain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, n *crowd) {
		n.add(&fake{trip: time.Millisecond, answer: absent})
		n.add(&fake{trip: time.Millisecond, plain: true})
		n.get(0)
		for i := range 10 {
			if took := n.get(1 + i); took != time.Millisecond {
				t.Errorf("block %d took %v", i, took)
			}
		}
	})
}

// Whatever peers do, and however they come and go: each block comes soon after one honest
// peer is there for good, and nothing is left of what was wanted.
func TestAnyPeers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		inBubble(t, func(t *testing.T, n *crowd) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			odds := 1 + rnd.IntN(5)
			for range odds {
				rnd := rand.New(rand.NewPCG(rnd.Uint64(), 3))
				f := &fake{trip: time.Duration(rnd.IntN(50)) * time.Millisecond, plain: rnd.IntN(5) == 0}
				f.answer = func(e message.Entry) says {
					a := says{after: time.Duration(rnd.IntN(400)) * time.Millisecond}
					switch rnd.IntN(8) {
					case 0:
						a.lacks = true
					case 1:
						a.has = true
					case 2:
						a.lie = true
					case 3, 4:
						a.has, a.block = true, e.WantType == pb.Message_Wantlist_Block
					}
					return a
				}
				if rnd.IntN(3) == 0 {
					f.answer = silent
				}
				if rnd.IntN(3) == 0 {
					f.refuse = func() error {
						if rnd.IntN(4) == 0 {
							return errors.New("no")
						}
						return nil
					}
				}
				n.add(f)
			}
			ctx, stop := context.WithCancel(t.Context())
			var all, churn sync.WaitGroup
			churn.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 2))
				for ctx.Err() == nil {
					p := peer.ID(fmt.Sprint("peer ", rnd.IntN(odds)))
					n.c.Disconnected(p)
					<-time.After(time.Duration(rnd.IntN(500)) * time.Millisecond)
					n.c.Connected(p)
				}
			})
			for i := range 30 {
				all.Go(func() {
					<-time.After(time.Duration(i*97%1000) * time.Millisecond)
					if i%3 == 0 { // and given up, and wanted again
						short, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
						defer cancel()
						_, _ = n.c.Get(short, root, id(i), time.Now())
					}
					if took := n.get(i); took > 6*time.Second {
						t.Errorf("seed %d: block %d took %v", seed, i, took)
					}
				})
			}
			<-time.After(2 * time.Second)
			good := n.add(&fake{trip: 10 * time.Millisecond})
			all.Wait()
			stop()
			churn.Wait()
			synctest.Wait()
			n.c.mu.Lock()
			defer n.c.mu.Unlock()
			if len(n.c.wants) > 0 {
				t.Errorf("seed %d: %d wants are left", seed, len(n.c.wants))
			}
			for _, r := range n.c.peers {
				if r.owes != 0 || len(r.asked) > 0 || len(r.out) > 0 && !r.deaf {
					t.Errorf("seed %d: %s owes %d of %d, %d to write", seed, r.id, r.owes, len(r.asked), len(r.out))
				}
			}
			if err := n.why(good); err != nil {
				t.Errorf("seed %d: the good one is left: %v", seed, err)
			}
		})
	}
}

// What strangers send is read without harm, and as the library reads it.
func FuzzReceive(f *testing.F) {
	m := message.New(true)
	m.AddEntry(id(1), 1, pb.Message_Wantlist_Have, true)
	b, err := blocks.NewBlockWithCid(content(1), id(1))
	if err != nil {
		f.Fatal(err)
	}
	m.AddBlock(b)
	m.AddHave(id(2))
	m.AddDontHave(id(3))
	for _, write := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return m.ToNetV1(b) }, func(b *bytes.Buffer) error { return m.ToNetV0(b) },
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			f.Fatal(err)
		}
		f.Add(out.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := New(Config{Open: func(context.Context, peer.ID) (Stream, bool, error) { return nil, false, ErrNoBitswap }, Leave: func(peer.ID, error) {}})
		defer c.Close()
		c.Connected("p")
		_ = c.Receive("p", bytes.NewReader(b))
		theirs, _, err := message.FromNet(bytes.NewReader(b))
		if err != nil {
			return
		}
		r := bytes.NewReader(b)
		raw, err := readMessage(bufio.NewReader(r), func(int64) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		ours, err := parse(raw)
		if err != nil {
			return // stricter about what is skipped there
		}
		for _, want := range theirs.Blocks() {
			found := false
			for _, b := range ours.blocks {
				found = found || bytes.Equal(b, want.RawData())
			}
			if !found {
				t.Errorf("a block of %d bytes is missing", len(want.RawData()))
			}
		}
		for _, want := range theirs.Haves() {
			key, ok := block.Digest(want)
			found := !ok
			for _, s := range ours.said {
				found = found || s.key == key
			}
			if !found {
				t.Errorf("it has %s, and that is missing", want)
			}
		}
	})
}
