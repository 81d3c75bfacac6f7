package swarm

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/discovery"
)

// Peers that a torrent found are known to it when it is joined again, from whom they were
// heard, so that the same rules hold for them; those that served first.
func TestKnownPeersAreTriedAgain(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	via := netip.MustParseAddr("127.0.0.1")
	l := leech(t, meta, Config{})
	dead := netip.MustParseAddrPort("127.0.0.1:1")
	l.torrent.postFound([]discovery.Peer{
		{Addr: dead, Source: "tracker", Via: via},
		{Addr: addr(s.client), Source: "tracker", Via: via},
		{Addr: netip.MustParseAddrPort("192.168.1.2:5"), Source: "pex", Via: netip.MustParseAddr("9.9.9.9")}, // may not say so
	})
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length / 2}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for failed := make(chan bool); ; { // the dead one was dialled
		l.torrent.post(func() { failed <- l.torrent.pool.known_[dead].fails > 0 })
		if <-failed {
			break
		}
	}
	l.stop()
	known := l.torrent.Known()
	if len(known) == 0 || known[0] != (discovery.Peer{Addr: addr(s.client), Source: "tracker", Via: via}) {
		t.Fatalf("known are %+v", known)
	}
	for _, p := range known {
		if p.Addr == dead || p.Source == "pex" {
			t.Errorf("known is %+v", p)
		}
	}
	again := start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Known: known}, func(*Torrent) Store { return l.object })
	if err := again.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	same(t, l.object, meta.Info, dir)
}

// A torrent ends at once though a peer that called is being served at a crawl: else the
// torrent could not be woken again until then.
func TestEndsWhileItIsServed(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	c, err := NewClient(Config{Listen: "127.0.0.1:0", PeerPrefix: "-BM0000-", UpLimit: 1})
	if err != nil {
		t.Fatal(err)
	}
	files, err := NewFiles(meta, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	tr, err := c.Add(TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info})
	if err != nil {
		t.Fatal(err)
	}
	tr.Attach(meta, files)
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running.Go(func() { c.Run(ctx) })
	of, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	running.Go(func() { ended <- tr.Run(of) })
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: []netip.AddrPort{addr(c)}}
	l := start(t, Config{}, meta, tc, func(*Torrent) Store { return object(t, meta) })
	reading, give := context.WithCancel(ctx)
	defer give()
	running.Go(func() { _ = l.torrent.Fetch(reading, extent.Extent{Len: meta.Info.Length}, time.Now()) })
	for wait := within(t, 30*time.Second); tr.Uploaded() == 0; { // the second block waits for hours
		if _, ok := tr.Status(wait); !ok {
			t.Fatal("nothing is served")
		}
	}
	end()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-within(t, 10*time.Second).Done():
		t.Error("it does not end")
	}
}

// The store is free when Freed says so, however long the farewell takes.
func TestFreedBeforeTheFarewell(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.Add(TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info})
	if err != nil {
		t.Fatal(err)
	}
	tr.Attach(meta, object(t, meta))
	ctx, cancel := context.WithCancel(t.Context())
	ended, farewell := make(chan error, 1), make(chan struct{})
	go func() { ended <- tr.Run(ctx) }()
	tr.post(func() {
		tr.pool.background(&tr.pool.farewell, "a farewell", func() error { <-farewell; return nil })
	})
	if _, ok := tr.Status(t.Context()); !ok {
		t.Fatal("it does not run")
	}
	cancel()
	<-tr.Freed()
	select {
	case <-ended:
		t.Error("Run ended before its farewell")
	default:
	}
	close(farewell)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
