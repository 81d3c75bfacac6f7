package swarm

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/utp"
)

// router is a socket behind a router that lets in only whom something was sent to.
type router struct {
	*network.UDP
	mu     sync.Mutex
	sent   map[netip.AddrPort]bool
	turned int // away
}

func (r *router) Write(b []byte, to netip.AddrPort) error {
	r.mu.Lock()
	r.sent[to] = true
	r.mu.Unlock()
	return r.UDP.Write(b, to)
}

func (r *router) Read(f func(network.Datagram)) error {
	return r.UDP.Read(func(d network.Datagram) {
		r.mu.Lock()
		in := r.sent[d.From]
		if !in {
			r.turned++
		}
		r.mu.Unlock()
		if in {
			f(d)
		}
	})
}

// behind runs a client without TCP, behind a router or not.
func behind(t *testing.T, walled bool, tc TorrentConfig, attach func(*Torrent)) (*peer, netip.AddrPort) {
	t.Helper()
	n := network.System()
	u, err := n.ListenUDP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var packets utp.Packets = u
	if walled {
		packets = &router{UDP: u, sent: map[netip.AddrPort]bool{}}
	}
	c, err := NewClient(Config{PeerPrefix: "-BM0000-", Network: n, UTP: utp.New(packets, n, logger(t)), Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.Add(tc)
	if err != nil {
		t.Fatal(err)
	}
	attach(tr)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	wg.Go(func() { tr.Run(ctx) })
	p := &peer{client: c, torrent: tr}
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	return p, u.Addr()
}

// deaf is an extension that hears nothing.
type deaf struct{ extension }

func (deaf) message(*conn, []byte) error { return nil }

// Two peers whose routers let nobody in read from each other, since a third one, which
// has nothing, tells both to call at the same time.
func TestHolepunch(t *testing.T) {
	dir := sample(t, 2<<20)
	meta := makeTorrent(t, dir, "v1")
	relay, at := behind(t, false, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, func(tr *Torrent) { tr.Attach(meta, object(t, meta)) })
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: []netip.AddrPort{at}}
	has, hasAt := behind(t, true, tc, func(tr *Torrent) {
		f, err := NewFiles(meta, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		tr.Attach(meta, f)
	})
	// It does not call by itself whom it hears of: else both would by chance call at once.
	has.torrent.post(func() {
		for i, e := range has.torrent.extensions {
			if e.name() == "ut_pex" {
				has.torrent.extensions[i] = deaf{e}
			}
		}
	})
	for ctx := within(t, 10*time.Second); ; {
		if s, ok := relay.torrent.Status(ctx); !ok {
			t.Fatal("nobody calls the relay")
		} else if len(s.Swarm) == 1 {
			break
		}
	}
	o := object(t, meta)
	wants, _ := behind(t, true, tc, func(tr *Torrent) { tr.Attach(meta, o) })
	wants.object = o
	s := wants.all(t, meta, dir)
	direct := false
	for _, p := range s.Swarm {
		direct = direct || p.Addr == hasAt.String() && p.Transport == "utp" && p.Down > 0
	}
	if !direct {
		t.Errorf("%+v", s.Swarm)
	}
}

// A relay answers what it can not do, and no more than it has to.
func TestRelay(t *testing.T) {
	tr := &Torrent{conns: map[*conn]struct{}{}, clock: time.Unix(1000, 0)}
	x := newPunch(tr)
	add := func(addr string, speaks bool) *conn {
		c := &conn{t: tr, addr: netip.MustParseAddrPort(addr), theirs: map[string]byte{}, kick: make(chan struct{}, 1), gone: make(chan struct{})}
		tr.conns[c] = struct{}{}
		if speaks {
			c.theirs[punchName] = 7
			x.attach(c)
		}
		return c
	}
	a, b, mute := add("203.0.113.1:1", true), add("203.0.113.2:2", true), add("203.0.113.3:3", false)
	said := func(c *conn) (out []punchMessage) {
		for b := c.out; len(b) > 6; b = b[4+int(b[3]):] {
			m, err := parsePunch(b[6 : 4+int(b[3])])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, m)
		}
		c.out = nil
		return out
	}
	ask := func(to string) []punchMessage {
		if err := x.message(a, punchMessage{kind: punchRendezvous, addr: netip.MustParseAddrPort(to)}.append(nil)); err != nil {
			t.Fatal(err)
		}
		return said(a)
	}
	for to, code := range map[string]uint32{
		"203.0.113.1:1": punchNoSelf, "203.0.113.3:3": punchNoSupport, "203.0.113.9:9": punchNotConnected,
		"203.0.113.2:0": punchNoSuchPeer, "0.0.0.0:5": punchNoSuchPeer, "[2001:db8::1]:5": punchNotConnected,
	} {
		if got := ask(to); len(got) != 1 || got[0] != (punchMessage{punchError, netip.MustParseAddrPort(to), code}) {
			t.Errorf("%s: %+v, want error %d", to, got, code)
		}
	}
	if got := ask("203.0.113.2:2"); len(got) != 1 || got[0] != (punchMessage{kind: punchConnect, addr: b.addr}) {
		t.Errorf("%+v", got)
	}
	if got := said(b); len(got) != 1 || got[0] != (punchMessage{kind: punchConnect, addr: a.addr}) {
		t.Errorf("%+v", got)
	}
	n := 0
	for range 1000 {
		n += len(ask("203.0.113.2:2"))
	}
	if n != punchBurst-7 || len(said(b)) != n || len(said(mute)) != 0 {
		t.Errorf("%d messages of a flood were answered", n)
	}
	tr.clock = tr.clock.Add(2 * punchEvery)
	if n := len(ask("203.0.113.2:2")) + len(ask("203.0.113.2:2")) + len(ask("203.0.113.2:2")); n != 2 {
		t.Errorf("%d messages later", n)
	}
}

// Who may name an address is a matter of the policy: a stranger's "call" leads nowhere
// near.
func TestPunchAsksThePolicy(t *testing.T) {
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
	x := newPunch(tr)
	stranger := &conn{t: tr, addr: netip.MustParseAddrPort("203.0.113.1:1")}
	for to, want := range map[string]bool{"127.0.0.1:80": false, "192.168.1.1:80": false, "[fe80::1]:80": false, "203.0.113.7:0": false, "203.0.113.7:6881": true} {
		tr.pool.empty()
		x.call(stranger, netip.MustParseAddrPort(to))
		if got := len(tr.pool.known_) == 1; got != want {
			t.Errorf("%s: %v", to, got)
		}
	}
}

// Both sides of two calls at once keep the same one, whichever each knew first.
func TestSettleTwice(t *testing.T) {
	small, large := [20]byte{1}, [20]byte{2}
	kept := func(us, them [20]byte, weMadeFirst bool) (ours bool) {
		c, err := NewClient(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1}})
		if err != nil {
			t.Fatal(err)
		}
		tr.pool.start(t.Context(), nil, nil)
		c.id = us
		make := func(incoming bool) *conn {
			return &conn{
				t: tr, id: them, incoming: incoming, closed: true, net: &utp.Conn{}, // closed: there is nothing to take leave of
				kick: make(chan struct{}, 1), gone: make(chan struct{}), joined: tr.clock,
			}
		}
		old, c2 := make(!weMadeFirst), make(weMadeFirst)
		close(old.gone)
		old.goneOnce.Do(func() {})
		if tr.settleTwice(old, c2) {
			return !c2.incoming
		}
		return !old.incoming
	}
	for _, first := range []bool{true, false} {
		for _, second := range []bool{true, false} {
			if a, b := kept(small, large, first), kept(large, small, second); a || !b {
				t.Errorf("the smaller keeps its own: %v, the larger: %v", a, b)
			}
		}
	}
}

func FuzzPunch(f *testing.F) {
	for _, a := range []string{"203.0.113.1:1", "[2001:db8::1]:5"} {
		f.Add(punchMessage{punchError, netip.MustParseAddrPort(a), punchNoSelf}.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parsePunch(b)
		if err != nil {
			return
		}
		if again, err := parsePunch(m.append(nil)); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}
