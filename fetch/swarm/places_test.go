package swarm

import (
	"context"
	"crypto/sha1"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

func TestWorth(t *testing.T) {
	old := 10 * time.Minute
	for name, c := range map[string]struct {
		standing
		want worth
	}{
		"came just now":                       {standing{age: newcomer - 1}, held},
		"neither wants anything":              {standing{age: newcomer}, worthless},
		"the user's":                          {standing{age: old, fixed: true}, held},
		"serves what is wanted":               {standing{age: old, window: true, news: true, serves: true}, held},
		"may soon":                            {standing{age: old, window: true, news: true, unheard: unheard - 1}, held},
		"never does":                          {standing{age: old, window: true, news: true, unheard: unheard}, refusing},
		"never does, and asks":                {standing{age: old, window: true, news: true, unheard: unheard, asks: true}, refusing},
		"we serve it, so it may":              {standing{age: old, window: true, news: true, unheard: old, asks: true, served: true}, held},
		"gives what was wanted before":        {standing{age: old, news: true, serves: true, gives: 1000}, held},
		"has other things":                    {standing{age: old, news: true, serves: true}, elsewhere},
		"has other things, and asks":          {standing{age: old, news: true, serves: true, asks: true}, taking},
		"has nothing, and asks":               {standing{age: old, asks: true}, taking},
		"has nothing, and is given something": {standing{age: old, asks: true, served: true, takes: 1e6}, taking},
		"is given something since just now":   {standing{age: onTrial - 1, asks: true, served: true}, held},
		"is given something, and gives":       {standing{age: old, asks: true, served: true, gives: 1000}, held},
	} {
		if got := c.worth(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	// The less we are served, the more gives way; what is held never does.
	for w := worthless; w <= held; w++ {
		want := map[need]bool{wellServed: w == worthless, poorlyServed: w <= refusing, unserved: w < held}
		for n, parts := range want {
			if n.parts(w) != parts {
				t.Errorf("need %d, worth %d: gives way %v", n, w, !parts)
			}
		}
	}
}

func TestOrderOfCandidates(t *testing.T) {
	at := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, n}), 1) }
	ordered := []*candidate{
		{addr: at(1), source: "given"},
		{addr: at(2), source: "tracker", served: true, rate: 5e6},
		{addr: at(3), source: "pex", served: true, rate: 100e3, seed: true},
		{addr: at(4), source: "pex", served: true},
		{addr: at(5), source: "lsd", ranked: 1},
		{addr: at(6), source: "pex", seed: true, ranked: 2},
		{addr: at(7), source: "dht", ranked: 9},
		{addr: at(8), source: "tracker", ranked: 8},
		{addr: at(9), source: "given", fails: 1},
		{addr: at(10), source: "tracker", served: true, rate: 5e6, fails: 1},
		{addr: at(11), source: "tracker", fails: 2},
	}
	for i := range ordered {
		for j := range ordered {
			if got := ordered[i].compare(ordered[j]); (got < 0) != (i < j) {
				t.Errorf("%d and %d: %d", i+1, j+1, got)
			}
		}
	}
}

// What waits in the queues is what is known and not busy, in the right one, whatever
// happens to it; and the one that is called is the best.
func TestLinesOfCandidates(t *testing.T) {
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1}})
	if err != nil {
		t.Fatal(err)
	}
	p := &tr.pool
	p.start(t.Context(), nil, nil)
	tr.clock = time.Now()
	via := netip.MustParseAddr("203.0.113.1")
	random := uint32(1)
	next := func(n int) int { random = random*1664525 + 1013904223; return int(random>>8) % n }
	var busy []*candidate
	never := func(*candidate) bool { return false }
	for step := range 30000 {
		switch next(7) {
		case 0, 1:
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(next(40)), byte(next(250))}), 6881)
			tr.learn([]netip.AddrPort{a}, []string{"tracker", "dht", "pex", "given"}[next(4)], via)
		case 2, 3:
			if k := p.best(never); k != nil {
				for _, o := range p.known_ {
					if !o.busy && !tr.clock.Before(o.next) && o.compare(k) < 0 {
						t.Fatalf("step %d: %+v is called before %+v", step, k, o)
					}
				}
				p.take(k)
				k.busy = true
				busy = append(busy, k)
			}
		case 4, 5:
			if len(busy) > 0 {
				i := next(len(busy))
				k := busy[i]
				busy = slices.Delete(busy, i, i+1)
				switch next(3) {
				case 0:
					p.failed(k, io.EOF)
				case 1:
					p.refused(&conn{t: tr, listen: k.addr}, errFull)
				default:
					p.left(&conn{t: tr, listen: k.addr, joined: tr.clock, haveAll: next(2) == 0, idle: next(2) == 0})
				}
			}
		case 6:
			tr.clock = tr.clock.Add(time.Duration(next(3)) * time.Second)
			if next(50) == 0 {
				tr.left.Store(int64(next(2))) // complete, or not any more
			}
		}
		if step%100 == 0 || step > 29900 {
			p.check(t)
		}
	}
	if len(p.known_) < maxKnown/2 {
		t.Errorf("only %d are known", len(p.known_))
	}
}

// check compares the queues with who is known.
func (p *pool) check(t *testing.T) {
	t.Helper()
	waiting := 0
	for _, q := range []*queue{&p.lines.ready, &p.lines.resting, &p.lines.seeds} {
		for i, c := range q.list {
			waiting++
			if p.known_[c.addr] != c || c.busy || c.in != q || c.index != i {
				t.Fatalf("%+v waits", c)
			}
			if i > 0 && q.less(c, q.list[(i-1)/2]) {
				t.Fatal("a queue is out of order")
			}
		}
	}
	for _, c := range p.known_ {
		if c.busy {
			waiting++
		}
	}
	if waiting != len(p.known_) {
		t.Fatalf("%d are known, %d of them wait or are busy", len(p.known_), waiting)
	}
}

// bystanders are peers at 127.1.0.1 and up that take every call, have nothing, want
// nothing and never hang up.
type bystanders struct {
	found []discovery.Peer
	mu    sync.Mutex
	calls map[netip.Addr]int
	open  int
	most  int
}

func standBy(t *testing.T, meta *metainfo.Meta, n int) *bystanders {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bystanders{calls: map[netip.Addr]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); l.Close(); group.Wait() })
	group.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { // ends with the connection, or the test
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				b.serve(c, meta)
			})
		}
	})
	port := network.AddrPort(l.Addr()).Port()
	for i := range n {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 0, byte(i + 1)}), port)
		b.found = append(b.found, discovery.Peer{Addr: at, Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")})
	}
	return b
}

func (b *bystanders) serve(c net.Conn, meta *metainfo.Meta) {
	if _, err := readHandshake(c); err != nil {
		return
	}
	at := network.AddrPort(c.LocalAddr()).Addr()
	b.mu.Lock()
	b.calls[at]++
	b.open++
	b.most = max(b.most, b.open)
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.open--; b.mu.Unlock() }()
	bits := pp.NewPeerExtensionBytes(pp.ExtensionBitFast)
	id := sha1.Sum(at.AsSlice())
	hello := append([]byte(pp.Protocol), bits[:]...)
	hello = append(hello, meta.Info.Hash[:]...)
	hello = append(hello, id[:]...)
	if _, err := c.Write(wire.AppendFlag(hello, pp.HaveNone)); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

// Fifty places are taken by peers that have nothing. A seeder that becomes known gets one
// of them within seconds, whether we call it or it calls us, and nobody else has to go.
func TestSeederGetsThePlaceOfWhoHasNothing(t *testing.T) {
	const places = 50
	for _, incoming := range []bool{false, true} {
		dir := sample(t, 1<<20)
		meta := makeTorrent(t, dir, "v1")
		others := standBy(t, meta, places)
		l := leech(t, meta, Config{MaxPeers: places, Encryption: EncryptionForbid})
		l.torrent.postFound(others.found)
		l.ask(t, "all places are taken", func(tr *Torrent) bool { return len(tr.conns) == places })
		began := time.Now()
		fetched := make(chan error, 1)
		go func() {
			fetched <- l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now())
		}()
		if incoming {
			files, err := NewFiles(meta, dir)
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: peersAt(l)}
			// With one place it does not call the bystanders, whom it is told of (PEX).
			start(t, Config{MaxPeers: 1}, meta, tc, func(*Torrent) Store { return files })
		} else {
			s := seed(t, meta, dir, Config{})
			l.torrent.postFound([]discovery.Peer{{Addr: addr(s.client), Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")}})
		}
		if err := <-fetched; err != nil {
			t.Fatalf("incoming %v: %v", incoming, err)
		}
		t.Logf("incoming %v: found and fetched after %v", incoming, time.Since(began))
		conns, gone := 0, 0
		l.ask(t, "how many are connected", func(tr *Torrent) bool { conns, gone = len(tr.conns), len(tr.pool.idle); return true })
		if conns != places || gone != 1 {
			t.Errorf("incoming %v: %d connections, want %d; %d gave their place to another", incoming, conns, places, gone)
		}
		others.mu.Lock()
		if others.most > places {
			t.Errorf("%d connections where %d may be", others.most, places)
		}
		others.mu.Unlock()
		l.stop()
	}
}

// Two clients whose places are all taken, and of which readers wait in vain, try whoever
// they know once, and do not turn each other and the others out in turns.
func TestFullClientsDoNotFlap(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	others := standBy(t, meta, 3)
	a, b := leech(t, meta, Config{MaxPeers: 3, Encryption: EncryptionForbid}), leech(t, meta, Config{MaxPeers: 3, Encryption: EncryptionForbid})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	via := netip.MustParseAddr("127.0.0.1")
	for _, p := range []*peer{a, b} {
		other := map[*peer]*peer{a: b, b: a}[p]
		p.torrent.postFound(append([]discovery.Peer{{Addr: addr(other.client), Source: "tracker", Via: via}}, others.found...))
		group.Go(func() { _ = p.torrent.Fetch(ctx, extent.Extent{Len: meta.Info.Length}, time.Now()) })
	}
	wait := time.NewTimer(20 * time.Second) // several times newcomer, and twenty of tradeSoon
	defer wait.Stop()
	<-wait.C
	joins := 0
	for _, p := range []*peer{a, b} {
		p.ask(t, "how many joined", func(tr *Torrent) bool {
			joins += tr.counter
			if tr.pool.traded.IsZero() {
				t.Error("no place changed hands at all")
			}
			return true
		})
	}
	others.mu.Lock()
	defer others.mu.Unlock()
	for at, n := range others.calls {
		if n > 4 { // it may be called in vain once, when the other end calls at the same time
			t.Errorf("%v was called %d times by two", at, n)
		}
	}
	// Each of the two knows four others.
	if joins > 2*4+6 {
		t.Errorf("%d connections", joins)
	}
}

// When all places of a client are taken by what nobody reads, a torrent that is served by
// few gets some of them.
func TestPlacesGoToWhereSomeoneReads(t *testing.T) {
	const places = 16
	read, other := sample(t, 1<<20), sample(t, 2<<20)
	metas := []*metainfo.Meta{makeTorrent(t, read, "v1"), makeTorrent(t, other, "v1")}
	crowd := standBy(t, metas[1], places)
	seeds := []*peer{seed(t, metas[0], read, Config{UpLimit: 10 << 10}), seed(t, metas[0], read, Config{UpLimit: 10 << 10}), seed(t, metas[0], read, Config{UpLimit: 10 << 10})}
	idle := leech(t, metas[1], Config{MaxConns: places, MaxPeers: places, Encryption: EncryptionForbid})
	idle.torrent.postFound(crowd.found)
	idle.ask(t, "all places are taken", func(tr *Torrent) bool { return tr.client.conns.Load() == places })
	tr, err := idle.client.Add(TorrentConfig{Hash: metas[0].Info.Hash, Info: metas[0].Info, Peers: peersAt(seeds[0])})
	if err != nil {
		t.Fatal(err)
	}
	tr.Attach(metas[0], object(t, metas[0]))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { _ = tr.Run(ctx) })
	group.Go(func() { _ = tr.Fetch(ctx, extent.Extent{Len: metas[0].Info.Length}, time.Now()) })
	second := &peer{client: idle.client, torrent: tr}
	second.ask(t, "one of beyond the limit", func(tr *Torrent) bool { return len(tr.conns) == 1 })
	tr.postFound([]discovery.Peer{{Addr: addr(seeds[1].client), Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")}, {Addr: addr(seeds[2].client), Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")}})
	second.ask(t, "the others get places of the torrent that nobody reads", func(tr *Torrent) bool { return len(tr.conns) == 3 })
	if n := idle.client.conns.Load(); n > places+spare {
		t.Errorf("%d connections", n)
	}
}

// Peers that take calls and say nothing do not keep a reader from the one that would
// serve, though many of them are called first.
func TestSilentPeersHoldNobodyUp(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	mute, err := net.Listen("tcp4", "0.0.0.0:0") // the kernel takes the calls
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	via := netip.MustParseAddr("127.0.0.1")
	var found []discovery.Peer
	for i := range 30 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 3, 0, byte(i + 1)}), network.AddrPort(mute.Addr()).Port())
		found = append(found, discovery.Peer{Addr: at, Source: "lsd", Via: via}) // before those of trackers
	}
	s, l := seed(t, meta, dir, Config{}), leech(t, meta, Config{Encryption: EncryptionForbid})
	l.torrent.postFound(append(found, discovery.Peer{Addr: addr(s.client), Source: "tracker", Via: via}))
	began := time.Now()
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > handshakeTimeout {
		t.Errorf("fetched after %v", took)
	}
}

// A peer that is said to have all is called before others.
func TestSeedsOfPEXComeFirst(t *testing.T) {
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
	x := newPex(tr)
	from := &conn{t: tr, addr: netip.MustParseAddrPort("203.0.113.1:1")}
	seed := netip.MustParseAddrPort("203.0.113.77:6881")
	added, flags := "", ""
	for i := range 90 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 2)}), 6881)
		added += compact(a)
		if a == seed {
			flags += "\x02"
		} else {
			flags += "\x10"
		}
	}
	if err := x.message(from, bencode.MustMarshal(pexMessage{Added: added, AddedF: flags})); err != nil {
		t.Fatal(err)
	}
	if best := tr.pool.best(func(*candidate) bool { return false }); best == nil || best.addr != seed {
		t.Errorf("%+v is called first", best)
	}
	// Fewer flags than addresses, or more, are no harm.
	for _, flags := range []string{"", "\x02", string(make([]byte, 500))} {
		if err := newPex(tr).message(from, bencode.MustMarshal(pexMessage{Added: added, AddedF: flags})); err != nil {
			t.Error(err)
		}
	}
}
