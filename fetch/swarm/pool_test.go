package swarm

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// Which peers are believed depends on who names them: nobody may name what is nearer
// to us than they are.
func TestFoundAsksThePolicy(t *testing.T) {
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
	var none netip.Addr
	far, lan, here := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.9"), netip.MustParseAddr("127.0.0.1")
	for i, c := range []struct {
		source string
		via    netip.Addr
		addr   string
		known  bool
	}{
		{"pex", far, "127.0.0.1:22", false},
		{"pex", far, "192.168.1.1:80", false},
		{"pex", far, "[::ffff:10.0.0.1]:80", false},
		{"pex", far, "203.0.113.7:0", false},
		{"pex", far, "203.0.113.7:6881", true},
		{"pex", lan, "192.168.1.7:6881", true},
		{"pex", lan, "127.0.0.1:22", false},
		{"dht", far, "10.0.0.1:80", false},
		{"dht", here, "127.0.0.1:6881", true},
		{"tracker", far, "192.168.1.1:80", false},
		{"tracker", lan, "192.168.1.7:6881", true},
		{"tracker", none, "192.168.1.7:6881", false},
		{"magnet", none, "127.0.0.1:22", false},
		{"magnet", none, "203.0.113.7:6881", true},
		{"given", none, "127.0.0.1:6881", true},
		{"given", none, "224.0.0.1:6881", false},
	} {
		tr.pool.empty()
		tr.found([]netip.AddrPort{netip.MustParseAddrPort(c.addr)}, c.source, c.via)
		if known := len(tr.pool.known_) == 1; known != c.known {
			t.Errorf("%d: %s of %s from %v: known %v", i, c.addr, c.source, c.via, known)
		}
	}
}

// empty forgets all who are known.
func (p *pool) empty() {
	for _, c := range p.known_ {
		p.forget(c)
	}
}

// The limits of a client hold for all its torrents together, except that a torrent of
// which someone waits gets a few peers in any case.
func TestLimitsOfAllTorrents(t *testing.T) {
	l, err := net.Listen("tcp4", ":0") // on all of loopback; says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := NewClient(Config{PeerPrefix: "-BM0000-", MaxConns: 5, MaxHalfOpen: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var group sync.WaitGroup
	var peers []netip.AddrPort
	for i := range 10 {
		peers = append(peers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), network.AddrPort(l.Addr()).Port()))
	}
	next := byte(0)
	dialling := func(waits bool) int {
		next++
		tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{next}})
		if err != nil {
			t.Fatal(err)
		}
		if !waits {
			tr.info = &metainfo.Info{}
		}
		tr.pool.start(ctx, nil, &group)
		tr.found(peers, "given", netip.Addr{})
		return tr.pool.dialing
	}
	if n := dialling(false); n != 3 {
		t.Errorf("the first dials %d, the limit is 3", n)
	}
	if n := dialling(false); n != 0 {
		t.Errorf("the second dials %d though all places are taken", n)
	}
	if n := dialling(true); n != spare {
		t.Errorf("one of which someone waits dials %d, want %d", n, spare)
	}
	cancel()
	group.Wait()
	if n := c.halfOpen.Load(); n != 0 {
		t.Errorf("%d are still being made", n)
	}
	ctx, cancel = context.WithCancel(t.Context())
	c.conns.Store(4)
	if n := dialling(false); n != 1 {
		t.Errorf("with 4 of 5 connections, %d more are dialled", n)
	}
	cancel()
	group.Wait()
}

// Peers are told when a router maps another port to ours.
func TestPeersAreToldOfAnotherPort(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	var port atomic.Uint32
	l := leech(t, meta, Config{External: func() uint16 { return uint16(port.Load()) }}, s)
	at := func(port uint16) func(*Torrent) bool {
		return func(tr *Torrent) bool { c := tr.only(); return c != nil && c.listen.Port() == port }
	}
	s.ask(t, "it knows our own port", at(l.client.Port()))
	l.ask(t, "a second has passed", func(tr *Torrent) bool { return tr.pool.port != 0 })
	port.Store(4711)
	s.ask(t, "it knows the mapped one", at(4711))
	l.stop()
}

func TestNobodyIsAcceptedBeyondTheLimit(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{MaxConns: 1})
	l := leech(t, meta, Config{}, s)
	if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: 1}, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr(s.client).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(handshakeTimeout / 2)) // a handshake would last longer
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a second connection is kept: ", err)
	}
	l.stop()
	s.stop()
	if n := s.client.conns.Load(); n != 0 {
		t.Errorf("%d connections of a client that has stopped", n)
	}
}
