package swarm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// talk is an extension for tests: what it is told goes to channels.
type talk struct {
	hello    string // sent to whoever speaks it
	attached chan *Remote
	said     chan string
	left     chan *Remote
	ticks    chan struct{}
	answer   func(r *Remote, said string)
}

func newTalk(hello string) *talk {
	return &talk{hello: hello, attached: make(chan *Remote, 16), said: make(chan string, 16), left: make(chan *Remote, 16), ticks: make(chan struct{}, 1)}
}

func (x *talk) Name() string { return "bm_talk" }

func (x *talk) Attach(r *Remote) {
	if x.hello != "" {
		r.Send([]byte(x.hello))
	}
	x.attached <- r
}

func (x *talk) Message(r *Remote, payload []byte) error {
	if x.answer != nil {
		x.answer(r, string(payload))
	}
	if string(payload) == "bad" {
		return errors.New("said something bad")
	}
	x.said <- string(payload)
	return nil
}

func (x *talk) Detach(r *Remote) { x.left <- r }

func (x *talk) Tick(time.Time) {
	select {
	case x.ticks <- struct{}{}:
	default:
	}
}

func (x *talk) in() []func(metainfo.InfoHash) Extension {
	return []func(metainfo.InfoHash) Extension{func(metainfo.InfoHash) Extension { return x }}
}

// TestExtensionTalks over a real connection, in both directions, until the peer leaves.
func TestExtensionTalks(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	a, b := newTalk("hello from a"), newTalk("")
	s := seed(t, meta, dir, Config{Extensions: a.in()})
	l := leech(t, meta, Config{Extensions: b.in()}, s)
	atA, atB := <-a.attached, <-b.attached
	if got := <-b.said; got != "hello from a" {
		t.Fatalf("b was told %q", got)
	}
	if !atB.Send([]byte("and back")) {
		t.Fatal("cannot answer")
	}
	if got := <-a.said; got != "and back" {
		t.Fatalf("a was told %q", got)
	}
	if atA.Torrent() != meta.Info.Hash || atA.ID() != l.client.id || !atA.Addr().IsValid() {
		t.Errorf("a sees %v %x %v", atA.Torrent(), atA.ID(), atA.Addr())
	}
	atB.Send([]byte("bad")) // an error ends the connection
	if <-a.left != atA || <-b.left != atB {
		t.Error("another one left")
	}
	if atA.Send([]byte("still there?")) {
		t.Error("sent to who has left")
	}
}

// TestUplinkFollowsWeights: three peers download over a limited uplink; each gets its
// share of it, within 5 %.
func TestUplinkFollowsWeights(t *testing.T) {
	dir := sample(t, 48<<20)
	meta := makeTorrent(t, dir, "v1")
	weights := map[string]float64{"1": 1, "2": 2, "5": 5}
	sell := newTalk("")
	remotes := make(chan *Remote, 3)
	sell.answer = func(r *Remote, said string) {
		r.SetWeight(weights[said])
		remotes <- r
	}
	s := seed(t, meta, dir, Config{UpLimit: 2.5e6, Extensions: sell.in()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	for w := range weights {
		l := leech(t, meta, Config{NoUpload: true, Extensions: newTalk(w).in()}, s)
		readers.Go(func() { _ = l.torrent.Fetch(ctx, extent.Extent{Len: meta.Info.Length}, time.Now()) })
	}
	var all []*Remote
	for range weights {
		all = append(all, <-remotes)
	}
	sent := func() (v []float64, sum float64) {
		for _, r := range all {
			v = append(v, float64(r.Sent()))
			sum += v[len(v)-1]
		}
		return v, sum
	}
	wait := func(n float64) (v []float64, sum float64) {
		for v, sum = sent(); sum < n; v, sum = sent() {
			<-sell.ticks
		}
		return v, sum
	}
	total := 0.0
	for _, r := range all {
		total += weightOf(r)
	}
	// On a machine that is busy otherwise a peer may ask too late to use its share: then
	// it is measured again.
	before, first := wait(4e6)
	for try := range 3 {
		after, last := wait(first + 12e6)
		off := 0
		for i, r := range all {
			got, want := (after[i]-before[i])/(last-first), weightOf(r)/total
			if math.Abs(got-want) > 0.05*want {
				t.Logf("try %d: weight %v of %v got %.4f, want %.4f within 5 %%", try, weightOf(r), total, got, want)
				off++
			}
		}
		if off == 0 {
			return
		}
		before, first = after, last
	}
	t.Error("the uplink does not follow the weights")
}

func weightOf(r *Remote) float64 { return r.c.turns[0].Weight() }

// TestMessagesPassWaitingBlocks: with an uplink on which the next block would take
// hours, messages still go out at once.
func TestMessagesPassWaitingBlocks(t *testing.T) {
	dir := sample(t, 4<<20)
	meta := makeTorrent(t, dir, "v1")
	a, b := newTalk(""), newTalk("")
	s := seed(t, meta, dir, Config{UpLimit: 1, Extensions: a.in()})
	l := leech(t, meta, Config{Extensions: b.in()}, s)
	ctx, cancel := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() { _ = l.torrent.Fetch(ctx, extent.Extent{Len: meta.Info.Length}, time.Now()) })
	defer reader.Wait()
	defer cancel()
	r := <-a.attached
	for r.Sent() == 0 {
		<-a.ticks
	}
	<-a.ticks
	r.Send([]byte("quick"))
	if got := <-b.said; got != "quick" {
		t.Fatal(got)
	}
}

// TestSeedRatio: when as much was sent as asked for, nobody is served any more: not who
// was served until then, nor who comes and wants something.
func TestSeedRatio(t *testing.T) {
	dir := sample(t, 2<<20)
	meta := makeTorrent(t, dir, "v1")
	const rate = 1 << 20
	for _, share := range []Share{{Ratio: 0.25}, {Time: time.Nanosecond}} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			t.Parallel()
			s := seed(t, meta, dir, Config{Share: share, UpLimit: rate})
			l := leech(t, meta, Config{}, s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := make(chan error, 1)
			go func() {
				err <- l.torrent.Fetch(ctx, extent.Extent{Len: meta.Info.Length}, time.Now())
			}()
			<-s.torrent.Sated()
			s.ask(t, "nobody is served", func(tr *Torrent) bool {
				for c := range tr.conns {
					if c.serve.Unchoked || !c.serve.Interested {
						return false
					}
				}
				return len(tr.conns) > 0
			})
			sent := s.torrent.Uploaded()
			// Time decides once a second, and so does the choker.
			if most := int64(share.Ratio*float64(payload(meta))) + 3*rate/2; sent > most || share.Ratio == 0 && sent > 0 {
				t.Errorf("sent %d bytes, at most %d may be", sent, most)
			}
			cancel()
			if <-err == nil {
				t.Error("all of it was sent")
			}
			l.stop() // it would share what it has with the newcomer
			another := leech(t, meta, Config{}, s)
			if another.torrent.Fetch(within(t, 3*time.Second), extent.Extent{Len: 1}, time.Now()) == nil {
				t.Error("a newcomer is served")
			}
			if now := s.torrent.Uploaded(); now > sent {
				t.Errorf("sent %d bytes, and %d more since", sent, now-sent)
			}
		})
	}
}

// TestLimitOfOneTorrent holds it to its rate, in both directions.
func TestLimitOfOneTorrent(t *testing.T) {
	dir := sample(t, 3<<20)
	meta := makeTorrent(t, dir, "v1")
	for name, c := range map[string]struct{ seed, leech Config }{
		"up":   {seed: Config{EachUp: 2 << 20}},
		"down": {leech: Config{EachDown: 2 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := seed(t, meta, dir, c.seed)
			l := leech(t, meta, c.leech, s)
			begin := time.Now()
			if err := l.torrent.Fetch(t.Context(), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(begin); d < time.Second {
				t.Errorf("3 MiB at 2 MiB/s took %v", d)
			}
			same(t, l.object, meta.Info, dir)
		})
	}
}
