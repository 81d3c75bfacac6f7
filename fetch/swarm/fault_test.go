package swarm

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// trap is a store of which one method panics once.
type trap struct {
	Store
	in   string
	done atomic.Bool
}

func (s *trap) spring(in string) {
	if in == s.in && !s.done.Swap(true) {
		panic("planted in " + in)
	}
}

func (s *trap) Begin(u int) error { s.spring("Begin"); return s.Store.Begin(u) }
func (s *trap) WriteVec(v [][]byte, off int64) error {
	s.spring("WriteVec")
	return s.Store.WriteVec(v, off)
}
func (s *trap) Commit(u int, tag []byte) { s.spring("Commit"); s.Store.Commit(u, tag) }
func (s *trap) ReadPresent(p []byte, off int64) error {
	s.spring("ReadPresent")
	return s.Store.ReadPresent(p, off)
}

// A fault in a handler fails the torrent and nothing else; made anew, it works.
func TestFaultEndsOneTorrent(t *testing.T) {
	dirs := []string{sample(t, 2<<20), sample(t, 3<<20)}
	var metas []*metainfo.Meta
	var seeds []*peer
	for _, dir := range dirs {
		meta := makeTorrent(t, dir, "v1")
		metas, seeds = append(metas, meta), append(seeds, seed(t, meta, dir, Config{}))
	}
	l := leech(t, metas[0], Config{}, seeds[0])
	unchoked(t, l, 1)
	other, err := l.client.Add(TorrentConfig{Hash: metas[1].Info.Hash, Info: metas[1].Info})
	if err != nil {
		t.Fatal(err)
	}
	other.Attach(metas[1], object(t, metas[1])) // nobody is known who has it: reads wait
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	ran := make(chan error, 1)
	running.Go(func() { ran <- other.Run(ctx) })

	reads := make(chan error, 2)
	for range cap(reads) {
		running.Go(func() { reads <- other.Fetch(within(t, 30*time.Second), extent.Extent{Len: 1}, time.Now()) })
	}
	for waiting := make(chan int); ; { // until both are noted
		other.post(func() { waiting <- len(other.wants[0]) })
		if <-waiting == 2 {
			break
		}
	}
	other.post(func() { other.wants = nil; other.wants[0] = nil })

	var f *FaultError
	for range cap(reads) {
		if err := <-reads; !errors.As(err, &f) || !f.Permanent() {
			t.Errorf("a read ended with %v", err)
		}
	}
	if err := <-ran; !errors.As(err, &f) || f.Hash != metas[1].Info.Hash {
		t.Errorf("Run ended with %v", err)
	}
	if err := other.Fetch(t.Context(), extent.Extent{Len: 1}, time.Now()); !errors.As(err, &f) {
		t.Errorf("a later read ended with %v", err)
	}
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: metas[0].Info.Length}, time.Now()); err != nil {
		t.Errorf("the torrent beside it: %v", err)
	}

	l.client.Remove(other)
	again, err := l.client.Add(TorrentConfig{Hash: metas[1].Info.Hash, Info: metas[1].Info, Peers: []netip.AddrPort{addr(seeds[1].client)}})
	if err != nil {
		t.Fatal(err)
	}
	again.Attach(metas[1], object(t, metas[1]))
	running.Go(func() { ran <- again.Run(ctx) })
	if err := again.Fetch(within(t, 30*time.Second), extent.Extent{Len: metas[1].Info.Length}, time.Now()); err != nil {
		t.Errorf("made anew: %v", err)
	}
}

// Faults in the goroutines of a connection, with the locks of a unit held, end that
// connection: nothing hangs, and the bytes come in the end.
func TestFaultEndsOnePeer(t *testing.T) {
	for _, kind := range kinds {
		for _, in := range []string{"WriteVec", "Commit", "ReadPresent"} {
			t.Run(kind+" "+in, func(t *testing.T) { faultEndsOnePeer(t, kind, in) })
		}
	}
}

func faultEndsOnePeer(t *testing.T, kind, in string) {
	dir := sample(t, 2<<20)
	meta := makeTorrent(t, dir, kind)
	files, err := NewFiles(meta, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	up := &trap{Store: files, in: in} // ReadPresent is for who seeds
	s := start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, func(*Torrent) Store { return up })
	o := object(t, meta)
	down := &trap{Store: o, in: in}
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(s)}
	l := start(t, Config{}, meta, tc, func(*Torrent) Store { return down })
	ctx := within(t, 30*time.Second)
	for {
		err := l.torrent.Fetch(ctx, extent.Extent{Len: meta.Info.Length}, time.Now())
		if err == nil {
			break
		}
		if f := (*FaultError)(nil); kind != "v1" && in == "Commit" && errors.As(err, &f) {
			<-l.torrent.gone
			return // the hash came after the blocks, and the torrent itself committed
		}
		if f := (*fault.Error)(nil); !errors.As(err, &f) {
			t.Fatal(err) // the torrent itself goes on
		}
	}
	same(t, o, meta.Info, dir)
	if !up.done.Load() && !down.done.Load() {
		t.Error("nothing panicked")
	}
}

// A fault in a handler while blocks are on their way leaves no goroutine behind that
// writes to the store.
func TestFaultWithBlocksOnTheWay(t *testing.T) {
	for _, kind := range kinds {
		dir := sample(t, 2<<20)
		meta := makeTorrent(t, dir, kind)
		s := seed(t, meta, dir, Config{})
		l := start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(s)}, func(*Torrent) Store {
			return &trap{Store: object(t, meta), in: "Begin"}
		})
		var f *FaultError
		if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); !errors.As(err, &f) {
			t.Errorf("%s: the read ended with %v", kind, err)
		}
		<-l.torrent.gone
	}
}

// What runs beside the torrent fails it too: it can not go on without.
func TestFaultBesideTheTorrent(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	l := start(t, Config{}, meta, TorrentConfig{
		Hash: meta.Info.Hash, Peers: peersAt(s), OnInfo: func(*metainfo.Info, error) { panic("planted") },
	}, nil)
	<-l.torrent.gone
	if f := (*FaultError)(nil); !errors.As(l.torrent.stopped(), &f) {
		t.Errorf("it ended with %v", l.torrent.stopped())
	}
}
