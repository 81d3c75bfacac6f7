package daemon_test

import (
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// answering serves blocks and leaves hash requests to f.
func answering(f func(p *rawPeer, r merkle.Request) error) func(p *rawPeer) error {
	return func(p *rawPeer) error {
		_ = p.seedAll()
		return p.each(func(m wire.Message) error {
			switch {
			case m.Keepalive:
			case m.Type == pp.Request:
				return p.serve(m)
			case m.Type == pp.HashRequest:
				return f(p, m.Hashes)
			}
			return nil
		})
	}
}

// hashesOf is an answer of n hashes that are nobody's.
func hashesOf(r merkle.Request, n int) []byte {
	return wire.AppendHashes(nil, pp.Hashes, r, make([]merkle.Hash, n)...)
}

// badHashes are the ways in which a peer can be bad with hashes.
var badHashes = map[string]func(p *rawPeer) error{
	"hashes of nothing": answering(func(p *rawPeer, r merkle.Request) error { return p.say(hashesOf(r, r.Hashes())) }),
	"wrong lengths": answering(func(p *rawPeer, r merkle.Request) error {
		for _, n := range []int{0, 1, r.Hashes() - 1, r.Hashes() + 1, wire.MaxHashes} {
			if err := p.say(hashesOf(r, n)); err != nil {
				return err
			}
		}
		return nil
	}),
	"torn hashes": answering(func(p *rawPeer, r merkle.Request) error {
		b := append(hashesOf(r, r.Hashes()), 1, 2, 3)
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
		return p.say(b)
	}),
	"a megabyte of hashes": answering(func(p *rawPeer, r merkle.Request) error { return p.say(hashesOf(r, 32<<10)) }),
	"answers to other requests": answering(func(p *rawPeer, r merkle.Request) error {
		for i := range uint32(200) {
			other := r
			other.Index += r.Length * i
			other.Proof = i
			if err := p.say(hashesOf(other, int(r.Length))); err != nil {
				return err
			}
		}
		return nil
	}),
	"hashes that nobody asked for": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.flood(hashesOf(merkle.Request{Root: p.meta.Info.Files[0].Root, Length: 64}, 64), 20_000)
	},
	"rejects that nobody asked for": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.flood(wire.AppendHashes(nil, pp.HashReject, merkle.Request{Root: p.meta.Info.Files[0].Root, Length: 64}), 20_000)
	},
	"absurd indexes": answering(func(p *rawPeer, r merkle.Request) error {
		for _, q := range []merkle.Request{
			{Root: r.Root, Index: 0xffffffff, Length: 2}, {Root: r.Root, Base: 0xffffffff, Length: 0xffffffff, Proof: 0xffffffff}, {}, {Root: r.Root, Length: 1 << 31},
		} {
			_ = p.say(hashesOf(q, 2), wire.AppendHashes(nil, pp.HashReject, q))
		}
		return p.say(hashesOf(r, r.Hashes()))
	}),
	"rejects": answering(func(p *rawPeer, r merkle.Request) error { return p.say(wire.AppendHashes(nil, pp.HashReject, r)) }),
	"silent":  answering(func(*rawPeer, merkle.Request) error { return nil }),
	"requests for hashes without end": func(p *rawPeer) error {
		_ = p.seedAll()
		return p.flood(wire.AppendHashes(nil, pp.HashRequest, merkle.Request{Root: p.meta.Info.Files[0].Root, Length: 512}), 100_000)
	},
}

// In turn, peers that are bad with hashes stand beside an honest one, and hold the right
// blocks themselves. The read gets the right bytes and the daemon keeps its memory; from
// a magnet the piece layer comes from them too.
func TestHostileHashes(t *testing.T) {
	for name, behave := range badHashes {
		t.Run(name, func(t *testing.T) {
			p := single(t, "film", 8<<20+5, metainfo.MakeConfig{PieceLength: 1 << 20, V2: true})
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
			bare := *p.meta // without piece layers, as a magnet gives it
			bare.PieceLayers = nil
			path := t.TempDir() + "/bare.torrent"
			if err := os.WriteFile(path, bare.Encode(), 0o644); err != nil {
				t.Fatal(err)
			}
			d, f, _ := inProcess(t, daemon.Config{NoDHT: true, Peers: bad}, path)
			for range bad {
				select {
				case <-met:
				case <-time.After(patience):
					t.Fatal("a hostile peer was not asked")
				}
			}
			before := heap()
			seed(t, p, "--no-dht", "--peer", d.Addr().String())
			same(t, "random", f.path("film"), p.dir)
			same(t, "sequential", f.path("film"), p.dir)
			if grown := heap() - before; grown > 64<<20 {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
		})
	}
}

// A seed answers every request for hashes once: with what proves itself, or with a reject.
func TestSeedAnswersHashRequests(t *testing.T) {
	p := single(t, "film", 5<<20+5, metainfo.MakeConfig{PieceLength: 256 << 10, V2: true})
	addr, _ := seed(t, p, "--no-dht")
	c, err := dialRaw(addr, p.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file := p.meta.Info.Files[0]
	tree := merkle.NewTree(file.Root, file.Length, p.pieces, p.meta.PieceLayers[file.Root])
	good := []merkle.Request{tree.LayerRequest(0), tree.LeafRequest(0, 64), tree.LeafRequest(320, 64), tree.LeafRequest(17, 4), tree.LeafRequest(33, 512)}
	bare := merkle.NewTree(file.Root, file.Length, p.pieces, nil)
	good = append(good, bare.LeafRequest(100, 32), bare.LeafRequest(320, 2))
	var bad []merkle.Request
	for _, r := range good {
		for _, change := range []func(*merkle.Request){
			func(r *merkle.Request) { r.Root[3] ^= 1 }, func(r *merkle.Request) { r.Index++ }, func(r *merkle.Request) { r.Length-- },
			func(r *merkle.Request) { r.Base += 1 << 20 }, func(r *merkle.Request) { r.Index |= 1 << 31 }, func(r *merkle.Request) { r.Proof = 1 << 31 },
			func(r *merkle.Request) { r.Length = 1 << 31 }, func(r *merkle.Request) { r.Base = 1 },
		} {
			q := r
			change(&q)
			bad = append(bad, q)
		}
	}
	want := map[merkle.Request]pp.MessageType{}
	for _, r := range bad {
		want[r] = pp.HashReject
	}
	for _, r := range good {
		want[r] = pp.Hashes
	}
	for r := range want {
		if err := c.say(wire.AppendHashes(nil, pp.HashRequest, r)); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	err = c.each(func(m wire.Message) error {
		if m.Keepalive || m.Type != pp.Hashes && m.Type != pp.HashReject {
			return nil
		}
		kind, ok := want[m.Hashes]
		if !ok || m.Type != kind {
			t.Errorf("%+v is answered by %v, asked before: %v", m.Hashes, m.Type, ok)
		}
		delete(want, m.Hashes)
		if m.Type == pp.Hashes {
			checkHashes(t, tree, bare, m)
		}
		if len(want) == 0 {
			return io.EOF
		}
		return nil
	})
	if err != io.EOF {
		t.Errorf("%v; never answered: %v", err, want)
	}
}

func checkHashes(t *testing.T, tree, bare *merkle.Tree, m wire.Message) {
	t.Helper()
	hashes := make([]merkle.Hash, len(m.Payload)/32)
	for i := range hashes {
		hashes[i] = merkle.Hash(m.Payload[32*i:])
	}
	if len(hashes) != m.Hashes.Hashes() || !tree.Check(m.Hashes, hashes) && !bare.Check(m.Hashes, hashes) {
		t.Errorf("%+v: %d hashes that prove nothing", m.Hashes, len(hashes))
	}
}
