package swarm

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// Peers that a torrent found are known to it when it is joined again, from whom they were
// heard, so that the same rules hold for them; those that served first.
func TestKnownPeersAreTriedAgain(t *testing.T) {
	dir := sample(t, 8<<20) // in less the rate is not known
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
	if len(known) == 0 || known[0].Addr != addr(s.client) || known[0].Source != "tracker" || known[0].Via != via || !known[0].Served || known[0].Rate == 0 {
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

// In the second start those who served are called first.
func TestSecondStartCallsWhoServed(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	via := netip.MustParseAddr("127.0.0.1")
	l, err := net.Listen("tcp4", "0.0.0.0:0") // hangs up on everybody
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer l.Close()
	group.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	var others []discovery.Peer
	for i := range 40 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, 0, byte(i + 1)}), network.AddrPort(l.Addr()).Port())
		others = append(others, discovery.Peer{Addr: at, Source: "lsd", Via: via}) // before those of trackers
	}
	fetch := func(known []Known) (first *peer, called int) {
		tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Known: known}
		p := start(t, Config{MaxHalfOpen: 1, Encryption: EncryptionForbid}, meta, tc, func(tr *Torrent) Store {
			tr.postFound(append(slices.Clone(others), discovery.Peer{Addr: addr(s.client), Source: "tracker", Via: via}))
			return object(t, meta)
		})
		p.ask(t, "the seeder is connected", func(tr *Torrent) bool {
			called = 0
			at := tr.pool.known_[addr(s.client)]
			for _, o := range others {
				if k := tr.pool.known_[o.Addr]; at != nil && k != nil && !k.tried.IsZero() && k.tried.Before(at.tried) {
					called++
				}
			}
			return len(tr.conns) == 1
		})
		return p, called
	}
	first, before := fetch(nil)
	if err := first.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	running, ok := first.torrent.Remember(within(t, 5*time.Second))
	if !ok || len(running) == 0 || !running[0].Served {
		t.Errorf("while it runs: %+v, %v", running, ok)
	}
	first.stop()
	known := first.torrent.Known()
	if len(known) == 0 || !known[0].Served || known[0].Rate == 0 {
		t.Fatalf("known are %+v", known)
	}
	second, after := fetch(known)
	t.Logf("%d others were called before the seeder at first, %d at the second start", before, after)
	if before < len(others)/2 || after > 0 { // several are called at a time
		t.Errorf("%d others were called before the one that served, and %d at the first start", after, before)
	}
	second.stop()
}

// What is remembered of peers is bounded, and counts for those that the user named only
// as long as they are named.
func TestWhatIsRememberedIsChecked(t *testing.T) {
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1}})
	if err != nil {
		t.Fatal(err)
	}
	tr.pool.start(t.Context(), nil, nil)
	tr.pool.dialing = maxDialing // nothing is dialled here
	at := netip.MustParseAddrPort
	far := netip.MustParseAddr("203.0.113.9")
	tr.learn([]netip.AddrPort{at("203.0.113.1:1")}, "given", netip.Addr{})
	known := []Known{
		{Addr: at("203.0.113.1:1"), Source: "given", Served: true, Rate: 1e300},
		{Addr: at("203.0.113.2:1"), Source: "given", Served: true, Rate: 1e6},
		{Addr: at("203.0.113.3:1"), Source: "tracker", Via: far, Served: true, Rate: -5},
		{Addr: at("192.168.0.1:1"), Source: "pex", Via: far, Served: true, Rate: 1e6},
		{Addr: at("203.0.113.4:1"), Source: "incoming", Served: true},
		{},
	}
	for i := range 100 {
		known = append(known, Known{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 114, byte(i)}), 1), Source: "dht"})
	}
	tr.remember(known)
	if n := len(tr.pool.known_); n > MaxKnown {
		t.Errorf("%d are known", n)
	}
	for addr, want := range map[string]*candidate{
		"203.0.113.1:1": {source: "given", served: true, rate: mostLearned},
		"203.0.113.2:1": nil, "192.168.0.1:1": nil, "203.0.113.4:1": nil,
		"203.0.113.3:1": {source: "tracker", served: true},
	} {
		got := tr.pool.known_[at(addr)]
		if (got == nil) != (want == nil) || got != nil && (got.source != want.source || got.served != want.served || got.rate != want.rate) {
			t.Errorf("%s: %+v, want %+v", addr, got, want)
		}
	}
	tr.pool.check(t)
}
