package swarm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// huge is a torrent of zeros, so that all its pieces are alike.
func huge(b *testing.B, v2 bool, pieces int, length int64) *metainfo.Meta {
	b.Helper()
	text := []byte("d4:info")
	if !v2 {
		hashes := bytes.Repeat(sha1OfZeros(length), pieces)
		text = fmt.Appendf(text, "d6:lengthi%de4:name4:huge12:piece lengthi%de6:pieces%d:%see", int64(pieces)*length, length, len(hashes), hashes)
	} else {
		leaves := make([]merkle.Hash, length/wire.BlockSize)
		for i := range leaves {
			leaves[i] = merkle.Leaf(make([]byte, wire.BlockSize))
		}
		layer := merkle.Layers(length / wire.BlockSize)
		node := merkle.Root(leaves, 0, layer)
		nodes := make([]merkle.Hash, pieces)
		for i := range nodes {
			nodes[i] = node
		}
		root := merkle.Root(nodes, layer, merkle.Layers(int64(pieces)))
		text = fmt.Appendf(text, "d9:file treed4:huged0:d6:lengthi%de11:pieces root32:%seee12:meta versioni2e4:name4:huge12:piece lengthi%dee", int64(pieces)*length, root[:], length)
		text = fmt.Appendf(text, "12:piece layersd32:%s%d:%se", root[:], 32*pieces, bytes.Repeat(node[:], pieces))
		text = append(text, 'e')
	}
	m, err := metainfo.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// vast is a store that keeps nothing but which units there are; every other one is there
// from the start.
type vast struct {
	mu   sync.Mutex
	have []bool
}

func (s *vast) Begin(int) error                  { return nil }
func (s *vast) Abandon(int)                      {}
func (s *vast) WriteVec([][]byte, int64) error   { return nil }
func (s *vast) ReadBack(p []byte, _ int64) error { clear(p); return nil }
func (s *vast) Fail(int, error)                  {}
func (s *vast) Known(u int) bool                 { return s.Has(u) }
func (s *vast) ReadPresent(p []byte, _ int64) error {
	clear(p)
	return nil
}

func (s *vast) Commit(u int, _ []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[u] = true
}

func (s *vast) Has(u int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[u]
}

func (s *vast) Each(f func(int)) {
	s.mu.Lock()
	have := bytes.Clone(boolBytes(s.have))
	s.mu.Unlock()
	for u, ok := range have {
		if ok != 0 {
			f(u)
		}
	}
}

func boolBytes(b []bool) []byte {
	out := make([]byte, len(b))
	for i, v := range b {
		if v {
			out[i] = 1
		}
	}
	return out
}

// crowd is a listener whose peers have every piece, say it piece by piece once more than
// they need to, serve zeros, and hang up after a while to come again.
func crowd(b *testing.B, meta *metainfo.Meta) (port uint16) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(func() { cancel(); l.Close(); group.Wait() })
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				_ = flood(c, meta)
			})
		}
	})
	return network.AddrPort(l.Addr()).Port()
}

func flood(c net.Conn, meta *metainfo.Meta) error {
	hello := make([]byte, handshakeSize)
	if _, err := io.ReadFull(c, hello); err != nil {
		return err
	}
	_, _ = rand.Read(hello[48:])
	clear(hello[20:28])
	hello[27] = 0x04
	n := meta.Info.NumPieces()
	var mu sync.Mutex
	write := func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := c.Write(p)
		return err
	}
	// All but the first pieces, which are told one by one.
	first := append(hello, wire.AppendBitfield(nil, n, func(p int) bool { return p >= n/10 })...)
	if err := write(append(first, wire.AppendFlag(nil, pp.Unchoke)...)); err != nil {
		return err
	}
	var told sync.WaitGroup
	defer told.Wait()
	told.Go(func() {
		var out []byte
		for p := range n / 10 {
			if out = wire.AppendIndex(out, pp.Have, p); len(out) > 8192 {
				if write(out) != nil {
					return
				}
				out = out[:0]
			}
		}
	})
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	r := wire.NewReader(c)
	zeros := make([]byte, wire.BlockSize)
	for {
		m, err := r.Read()
		if err != nil {
			return err
		}
		if m.Type == pp.Request {
			if err := write(append(wire.AppendPieceHeader(nil, int(m.Index), int(m.Begin), int(m.Length)), zeros[:m.Length]...)); err != nil {
				return err
			}
		}
	}
}

// BenchmarkLongestEvent tells the longest time that one event of a torrent of many pieces
// takes, while peers come and go, tell of pieces one by one, and reads jump about. No event
// should take 10 ms.
func BenchmarkLongestEvent(b *testing.B) {
	for _, c := range []struct {
		name   string
		v2     bool
		pieces int
		length int64
	}{
		{"v1-100k-pieces", false, 100_000, 16 << 10},
		{"v2-1M-units", true, 1 << 16, 256 << 10},
	} {
		b.Run(c.name, func(b *testing.B) {
			meta := huge(b, c.v2, c.pieces, c.length)
			port := crowd(b, meta)
			var at []netip.AddrPort
			for i := range 40 {
				at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}), port))
			}
			longest := map[string]time.Duration{}
			events := 0
			for b.Loop() {
				store := &vast{have: make([]bool, int((meta.Info.Length-1)/UnitLength(meta))+1)}
				for u := range store.have {
					store.have[u] = u%2 == 0
				}
				c, err := NewClient(Config{Listen: "127.0.0.1:0", PeerPrefix: "-BM0000-", Encryption: EncryptionForbid})
				if err != nil {
					b.Fatal(err)
				}
				t, err := c.Add(TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: at[:1]})
				if err != nil {
					b.Fatal(err)
				}
				t.took = func(what string, d time.Duration) { longest[what] = max(longest[what], d); events++ }
				t.Attach(meta, store)
				ctx, cancel := context.WithTimeout(b.Context(), 6*time.Second)
				var group sync.WaitGroup
				group.Go(func() { t.Run(ctx) })
				t.post(func() { t.found(at, "given", netip.Addr{}) })
				for r := range 8 {
					random := mrand.New(mrand.NewPCG(uint64(r), 1))
					group.Go(func() {
						for ctx.Err() == nil {
							off := random.Int64N(meta.Info.Length - 1<<20)
							_ = t.Fetch(ctx, extent.Extent{Off: off, Len: 1 << 20}, time.Now())
						}
					})
				}
				group.Wait()
				cancel()
				c.Close()
			}
			for what, d := range longest {
				b.ReportMetric(float64(d.Microseconds())/1000, "ms-"+what)
			}
			b.ReportMetric(float64(events)/float64(b.N), "events/op")
		})
	}
}

func sha1OfZeros(n int64) []byte {
	h := sha1.Sum(make([]byte, n))
	return h[:]
}
