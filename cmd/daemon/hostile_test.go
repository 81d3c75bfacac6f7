package daemon_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// endless keeps a connection until the other side ends it.
func (p *rawPeer) endless() error { return p.each(func(wire.Message) error { return nil }) }

func (p *rawPeer) flood(msg []byte, n int) error {
	ended := make(chan error, 1)
	go func() { ended <- p.endless() }()
	for range n {
		if p.say(msg) != nil {
			break
		}
	}
	return <-ended
}

// hostile are the ways in which a peer can be bad.
var hostile = map[string]func(p *rawPeer) error{
	"blocks of the wrong length": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.answer(func(m wire.Message) error {
			for _, n := range []uint32{0, 1, m.Length - 1, m.Length + 1, 100_000} {
				if err := p.say(append(wire.AppendPieceHeader(nil, int(m.Index), int(m.Begin), int(n)), make([]byte, n)...)); err != nil {
					return err
				}
			}
			return nil
		})
	},
	"blocks that nobody asked for": func(p *rawPeer) error {
		_ = p.seedAll()
		block := append(wire.AppendPieceHeader(nil, 1, 0, wire.BlockSize), make([]byte, wire.BlockSize)...)
		return p.flood(block, 2000)
	},
	"blocks at absurd places": func(p *rawPeer) error {
		_ = p.seedAll()
		for _, at := range [][2]int{{1 << 31, 0}, {0xffffffff, 0xffffffff}, {0, 0xfffffff0}, {0, 3}} {
			_ = p.say(append(wire.AppendPieceHeader(nil, at[0], at[1], wire.BlockSize), make([]byte, wire.BlockSize)...))
		}
		return p.endless()
	},
	"wrong bytes": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.answer(func(m wire.Message) error {
			return p.say(append(wire.AppendPieceHeader(nil, int(m.Index), int(m.Begin), int(m.Length)), make([]byte, m.Length)...))
		})
	},
	"have out of range": func(p *rawPeer) error {
		_ = p.say(wire.AppendFlag(nil, pp.HaveNone), wire.AppendIndex(nil, pp.Have, 1<<31-1), wire.AppendIndex(nil, pp.Have, 0xffffffff))
		return p.endless()
	},
	"bitfield too long": func(p *rawPeer) error {
		_ = p.say(wire.AppendBitfield(nil, p.meta.Info.NumPieces()+800, func(int) bool { return true }))
		return p.endless()
	},
	"bitfield too short": func(p *rawPeer) error {
		_ = p.say(wire.AppendBitfield(nil, 8, func(int) bool { return true }))
		return p.endless()
	},
	"spare bits": func(p *rawPeer) error {
		_ = p.say(wire.AppendBitfield(nil, (p.meta.Info.NumPieces()+7)/8*8, func(int) bool { return true }))
		return p.endless()
	},
	"a message of 4 GiB": func(p *rawPeer) error {
		_ = p.say([]byte{0xff, 0xff, 0xff, 0xff, 20, 0})
		for { // and it does come
			if err := p.say(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
	},
	"a bitfield of 2 MiB, slowly, many times": func(p *rawPeer) error {
		return p.flood(wire.AppendBitfield(nil, 8<<20, func(int) bool { return false }), 20)
	},
	"unknown messages": func(p *rawPeer) error {
		for id := range 256 {
			if err := p.say([]byte{0, 0, 0, 5, byte(id), 1, 2, 3, 4}); err != nil {
				return err
			}
		}
		return p.endless()
	},
	"broken bencode": func(p *rawPeer) error {
		deep := []byte(strings.Repeat("l", 100_000))
		for id := range byte(4) {
			_ = p.say(wire.AppendExtended(nil, id, deep), wire.AppendExtended(nil, id, []byte("d1:md11:ut_metadatai-5ee99999999:")), wire.AppendExtended(nil, id, nil))
		}
		return p.endless()
	},
	"peer exchange of nonsense": func(p *rawPeer) error {
		_ = p.say(extended(0, dict{"m": dict{"ut_pex": 1, "ut_metadata": 2}}))
		h, err := p.handshakeOf()
		if err != nil {
			return err
		}
		m, _ := h["m"].(dict)
		id, ok := m["ut_pex"].(int64)
		if !ok {
			return errors.New("it speaks no ut_pex")
		}
		var added []byte
		self := netip.MustParseAddrPort(p.RemoteAddr().String())
		for i := range 10_000 {
			ip := [][]byte{{0, 0, 0, 0}, {224, 0, 0, byte(i)}, {255, 255, 255, 255}, self.Addr().AsSlice(), {127, 0, byte(i >> 8), byte(i)}}[i%5]
			added = binary.BigEndian.AppendUint16(append(added, ip...), uint16(i))
		}
		return p.flood(extended(byte(id), dict{"added": string(added), "added.f": "", "added6": string(bytes.Repeat([]byte{0}, 18)), "dropped": string(added)}), 10)
	},
	"requests without end": func(p *rawPeer) error {
		_ = p.say(wire.AppendFlag(nil, pp.HaveNone), wire.AppendFlag(nil, pp.Interested))
		return p.flood(wire.AppendRange(nil, pp.Request, 0, 0, wire.BlockSize), 100_000)
	},
	"absurd requests": func(p *rawPeer) error {
		_ = p.say(wire.AppendFlag(nil, pp.Interested))
		for _, r := range [][3]int{{0, 0, 0}, {0, 0, 1 << 30}, {0, 0xffffffff, 0xffffffff}, {0xffffffff, 0, 16384}} {
			_ = p.say(wire.AppendRange(nil, pp.Request, r[0], r[1], r[2]))
		}
		return p.endless()
	},
	"choke after each request": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.answer(func(wire.Message) error {
			return p.say(wire.AppendFlag(nil, pp.Choke), wire.AppendFlag(nil, pp.Unchoke))
		})
	},
	"rejects everything": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.answer(func(m wire.Message) error {
			return p.say(wire.AppendRange(nil, pp.Reject, int(m.Index), int(m.Begin), int(m.Length)))
		})
	},
	"silent after unchoke": func(p *rawPeer) error { _ = p.seedAll(); return p.endless() },
	"never reads": func(p *rawPeer) error {
		_ = p.seedAll()
		_, err := p.Write(bytes.Repeat(wire.AppendRange(nil, pp.Cancel, 0, 0, wire.BlockSize), 10_000))
		<-time.After(3 * time.Second) // its window is full
		return err
	},
}

// In turn, each kind of hostile peer stands beside an honest one. The read gets the
// right bytes, and the daemon keeps its memory.
func TestHostilePeers(t *testing.T) {
	for name, behave := range hostile {
		t.Run(name, func(t *testing.T) {
			p := single(t, "film", 6<<20+5, metainfo.MakeConfig{PieceLength: 64 << 10})
			data := mustRead(t, p.dir)
			met := make(chan struct{}, 100)
			var bad []netip.AddrPort
			for range 3 {
				bad = append(bad, netip.MustParseAddrPort(listenRaw(t, p.meta, data, func(p *rawPeer) error {
					select {
					case met <- struct{}{}:
					default:
					}
					return behave(p)
				})))
			}
			d, f, _ := inProcess(t, daemon.Config{NoDHT: true, Peers: bad}, p.torrent)
			for range bad { // all of them are there before the honest one
				select {
				case <-met:
				case <-time.After(patience):
					t.Fatal("a hostile peer was not asked")
				}
			}
			before := heap()
			honest(t, p, data, d.Addr())
			same(t, "sequential", f.path("film"), p.dir)
			if grown := heap() - before; grown > 64<<20 {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
		})
	}
}

// The only peer knows no BEP 6 and drops requests without a word, as Transmission does
// when its queue is full. What is lost is asked for again, and nothing else.
func TestOnlyPeerDropsRequests(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 4<<20+5, metainfo.MakeConfig{PieceLength: 256 << 10})
	data := mustRead(t, p.dir)
	addr := rawPeer{meta: p.meta, data: data, slow: true}.listen(t, func(p *rawPeer) error {
		_ = p.say(wire.AppendBitfield(nil, p.meta.Info.NumPieces(), func(int) bool { return true }), wire.AppendFlag(nil, pp.Unchoke))
		n, dropped := 0, map[[2]uint32]bool{}
		return p.answer(func(m wire.Message) error {
			at := [2]uint32{uint32(m.Index), uint32(m.Begin)}
			if n++; !dropped[at] && (n%50 == 7 || int(m.Index) == p.meta.Info.NumPieces()-1) {
				dropped[at] = true
				return nil
			}
			return p.serve(m)
		})
	})
	m := mount(t, append(peers(addr), p.torrent)...)
	same(t, "sequential", m.path("film"), p.dir)
	s := m.torrent(t)
	t.Logf("downloaded %d, wasted %d", s.Downloaded, s.Wasted)
	if s.Wasted > s.Size/20 {
		t.Errorf("%d bytes came twice", s.Wasted)
	}
}

// honest connects a peer to a daemon that has everything and behaves.
func honest(t testing.TB, p *payload, data []byte, to netip.AddrPort) {
	t.Helper()
	var c *rawPeer
	eventually(t, patience, "an honest peer gets in", func() (ok bool) {
		var err error
		if c, err = dialRaw(to.String(), p.meta); err != nil {
			return false
		}
		return c.seedAll() == nil
	})
	c.data = data
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.answer(c.serve)
	}()
	t.Cleanup(func() { c.Close(); <-ended })
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// Peers lie about the metadata of a magnet; an honest one brings it.
func TestHostileMetadata(t *testing.T) {
	offer := func(size int64, serve func(p *rawPeer, id byte, piece int64) error) func(*rawPeer) error {
		return func(p *rawPeer) error {
			_ = p.say(extended(0, dict{"m": dict{"ut_metadata": 3}, "metadata_size": size}))
			var id byte
			return p.each(func(m wire.Message) error {
				if m.Type != pp.Extended || m.Keepalive {
					return nil
				}
				var h dict
				if err := unbencode(m.Payload, &h); err != nil {
					return err
				}
				if m.Extended == 0 {
					ids, _ := h["m"].(dict)
					n, _ := ids["ut_metadata"].(int64)
					id = byte(n)
					return nil
				}
				if piece, ok := h["piece"].(int64); ok && h["msg_type"] == int64(0) {
					return serve(p, id, piece)
				}
				return nil
			})
		}
	}
	data := func(piece int64, total int64, b []byte) func(p *rawPeer, id byte) error {
		return func(p *rawPeer, id byte) error {
			return p.say(extended(id, dict{"msg_type": 1, "piece": piece, "total_size": total}, b))
		}
	}
	nothing := func(*rawPeer, byte, int64) error { return nil }
	for name, behave := range map[string]func(*rawPeer) error{
		"size 2 GiB":  offer(2<<30, nothing),
		"size -1":     offer(-1, nothing),
		"size 0":      offer(0, nothing),
		"size 2^63-1": offer(1<<63-1, nothing),
		"never comes": offer(20_000, nothing),
		"wrong bytes": offer(20_000, func(p *rawPeer, id byte, piece int64) error {
			return data(piece, 20_000, make([]byte, min(16<<10, 20_000-piece<<14)))(p, id)
		}),
		"wrong pieces": offer(20_000, func(p *rawPeer, id byte, piece int64) error {
			for _, n := range []int64{-1, 1 << 40, piece + 1} {
				if err := data(n, -1, make([]byte, 20_000))(p, id); err != nil {
					return err
				}
			}
			return nil
		}),
		"rejects": offer(20_000, func(p *rawPeer, id byte, piece int64) error {
			return p.say(extended(id, dict{"msg_type": 2, "piece": piece}))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p := single(t, "film", 1<<20, metainfo.MakeConfig{PieceLength: 16 << 10})
			met := make(chan struct{}, 100)
			var bad []netip.AddrPort
			for range 2 {
				bad = append(bad, netip.MustParseAddrPort(listenRaw(t, p.meta, nil, func(p *rawPeer) error {
					select {
					case met <- struct{}{}:
					default:
					}
					return behave(p)
				})))
			}
			d, f, _ := inProcess(t, daemon.Config{NoDHT: true, Peers: bad}, p.magnet())
			<-met
			before := heap()
			seed(t, p, "--no-dht", "--peer", d.Addr().String())
			began := time.Now()
			eventually(t, patience, "the metadata", func() bool {
				_, all := d.Torrents()
				return all == 1
			})
			t.Logf("metadata after %v", time.Since(began).Round(time.Millisecond))
			same(t, "sequential", f.path("film"), p.dir)
			if grown := heap() - before; grown > 64<<20 {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
		})
	}
}

// 500 connections that say their handshake slowly, or not at all, do not keep a
// reader from an honest peer, not even from one that comes later.
func TestSlowHandshakes(t *testing.T) {
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	data := mustRead(t, p.dir)
	d, f, _ := inProcess(t, daemon.Config{NoDHT: true}, p.torrent)
	const crowd = 500
	stop := make(chan struct{})
	ended := make(chan struct{}, crowd)
	for range crowd {
		c, err := net.Dial("tcp4", d.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer func() { c.Close(); ended <- struct{}{} }()
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte(pp.Protocol) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		}()
	}
	defer func() {
		close(stop)
		for range crowd {
			<-ended
		}
	}()
	began := time.Now()
	honest(t, p, data, d.Addr())
	same(t, "sequential", f.path("film"), p.dir)
	t.Logf("read beside %d slow handshakes after %v", crowd, time.Since(began).Round(time.Millisecond))
}
