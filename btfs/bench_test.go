package btfs_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	boxo "github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	boxoio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
	"github.com/btmount/btmount/btfs/unixfs"
)

// store reads from peers, and is connected to them.
func store(t testing.TB, d *peers.Direct, all ...*peers.Peer) *btfs.Store {
	t.Helper()
	cfg := &bitswap.Config{Network: bitswap.Main, Bootstrap: []string{}, Dialer: d}
	for _, p := range all {
		cfg.Peers = append(cfg.Peers, p.Addr())
	}
	s, err := btfs.Open(btfs.Config{Peers: cfg, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// open opens an object.
func open(t testing.TB, s *btfs.Store, c cid.Cid) *unixfs.Object {
	t.Helper()
	o, err := s.Walk(t.Context(), btfs.Path{CID: c})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// far dials for libp2p.
type far struct{ d *peers.Direct }

func (f far) DialContext(ctx context.Context, _, to string) (net.Conn, error) {
	return f.d.Dial(ctx, bitswap.Ask{To: netip.MustParseAddrPort(to)})
}

// stock is a node of boxo's parts alone, connected to a peer.
func stock(t testing.TB, d *peers.Direct, p *peers.Peer) blockservice.BlockService {
	t.Helper()
	key, err := pnet.DecodeV1PSK(strings.NewReader(peers.MainKey))
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.PrivateNetwork(key), libp2p.NoListenAddrs, libp2p.DisableMetrics(),
		libp2p.Transport(tcp.NewTCPTransport, tcp.WithDialerForAddr(func(multiaddr.Multiaddr) (tcp.ContextDialer, error) { return far{d}, nil })))
	if err != nil {
		t.Fatal(err)
	}
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	n := bsnet.NewFromIpfsHost(h)
	client := boxo.New(context.Background(), n, nil, bs)
	n.Start(client)
	t.Cleanup(func() { n.Stop(); client.Close(); h.Close() })
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: p.Host.ID(), Addrs: p.Host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return blockservice.New(bs, client)
}

// BenchmarkFile reads 50 MB from one peer on loopback, and has boxo's own parts do the same.
func BenchmarkFile(b *testing.B) { benchmarkFile(b, 0) }

// BenchmarkFileFarAway does it over a way of 50 ms.
func BenchmarkFileFarAway(b *testing.B) { benchmarkFile(b, 50*time.Millisecond) }

func benchmarkFile(b *testing.B, rtt time.Duration) {
	const size = 50_000_000
	blocks := btfstest.NewStore()
	file := blocks.File(size, 1)
	p := peers.New(b, peers.Config{Store: blocks})
	var ours, theirs []float64
	for b.Loop() {
		s := store(b, &peers.Direct{Delay: rtt}, p)
		o := open(b, s, file.CID) // connected from here on
		start := time.Now()
		if err := btfs.NewCopier().Copy(b.Context(), io.Discard, o, nil); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, size/1e6/time.Since(start).Seconds())
		s.Close()

		dag := merkledag.NewDAGService(stock(b, &peers.Direct{Delay: rtt}, p))
		reader := merkledag.NewReadOnlyDagService(merkledag.NewSession(b.Context(), dag))
		root, err := reader.Get(b.Context(), file.CID)
		if err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		r, err := boxoio.NewDagReader(b.Context(), root, reader)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != size {
			b.Fatal(n, err)
		}
		theirs = append(theirs, size/1e6/time.Since(start).Seconds())
	}
	b.ReportMetric(median(ours), "MB/s")
	b.ReportMetric(median(theirs), "boxo-MB/s")
	b.ReportMetric(median(ours)/median(theirs), "of-boxo")
}

func median(all []float64) float64 {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkRandomReads reads 64 KiB here and there of 1 GiB over a way of 50 ms, against
// the round trips for inner blocks and what one leaf takes boxo's parts alone. A leaf takes
// two: bitswap opens a stream for each message, and yamux lets no stream begin with more
// than 256 KiB, of which a leaf and its frame are a few bytes more.
func BenchmarkRandomReads(b *testing.B) {
	const size, rtt, piece = 1 << 30, 50 * time.Millisecond, 64 << 10
	blocks := btfstest.NewStore()
	file := blocks.File(size, 2)
	p := peers.New(b, peers.Config{Store: blocks})
	s := store(b, &peers.Direct{Delay: rtt}, p)
	o := open(b, s, file.CID)
	alone := blockservice.NewSession(b.Context(), stock(b, &peers.Direct{Delay: rtt}, p))
	var singles []float64
	for i := range 20 {
		c := blocks.Leaf(make([]byte, 256<<10-i)).CID
		start := time.Now()
		if _, err := alone.GetBlock(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		singles = append(singles, time.Since(start).Seconds()*1000)
	}
	leaf := median(singles)
	seen := map[int64]bool{}
	var times, ratios []float64
	buf := make([]byte, piece)
	for b.Loop() {
		for range 60 {
			off := rand.Int64N(size/piece) * piece
			floor := leaf
			if inner := off / (174 * 256 << 10); !seen[inner] {
				seen[inner] = true
				floor += rtt.Seconds() * 1000
			}
			start := time.Now()
			if _, err := o.ReadAt(b.Context(), buf, off); err != nil {
				b.Fatal(err)
			}
			took := time.Since(start).Seconds() * 1000
			times, ratios = append(times, took), append(ratios, took/floor)
		}
	}
	b.ReportMetric(median(times), "p50-ms")
	b.ReportMetric(leaf, "leaf-ms")
	b.ReportMetric(median(ratios), "of-trips-and-leaf")
}

// hamt makes a directory of many names, with boxo.
func hamt(b *testing.B, blocks *btfstest.Store, names int) cid.Cid {
	b.Helper()
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
	leaf := boxofs.EmptyFileNode()
	if err := dag.Add(b.Context(), leaf); err != nil {
		b.Fatal(err)
	}
	dir, err := boxoio.NewDirectory(dag)
	if err != nil {
		b.Fatal(err)
	}
	for i := range names {
		if err := dir.AddChild(b.Context(), fmt.Sprintf("a name that is about as long as names are %06d.txt", i), leaf); err != nil {
			b.Fatal(err)
		}
	}
	root, err := dir.GetNode()
	if err != nil {
		b.Fatal(err)
	}
	if err := dag.Add(b.Context(), root); err != nil {
		b.Fatal(err)
	}
	keys, err := bs.AllKeysChan(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for c := range keys {
		blk, err := bs.Get(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		blocks.Put(cid.DagProtobuf, blk.RawData())
	}
	return root.Cid()
}

// BenchmarkListing lists 10,000 names in a HAMT over a way of 50 ms, and has a session of
// boxo bring the same blocks, all of a level at once.
func BenchmarkListing(b *testing.B) {
	const names, rtt = 10_000, 50 * time.Millisecond
	blocks := btfstest.NewStore()
	root := hamt(b, blocks, names)
	p := peers.New(b, peers.Config{Store: blocks})
	var ours, floor []float64
	for b.Loop() {
		s := store(b, &peers.Direct{Delay: rtt}, p)
		o := open(b, s, root)
		start := time.Now()
		list, err := o.List(b.Context())
		if err != nil || len(list) != names {
			b.Fatal(len(list), err)
		}
		ours = append(ours, time.Since(start).Seconds()*1000)
		s.Close()

		again := store(b, &peers.Direct{Delay: rtt}, p)
		level := shards(b, again, root)
		start = time.Now()
		for len(level) > 0 {
			var all sync.WaitGroup
			next := make([][]cid.Cid, len(level))
			for i, c := range level {
				all.Go(func() { next[i] = shards(b, again, c) })
			}
			all.Wait()
			level = slices.Concat(next...)
		}
		floor = append(floor, time.Since(start).Seconds()*1000)
		again.Close()
	}
	b.ReportMetric(median(ours), "ms")
	b.ReportMetric(median(floor), "all-at-once-ms")
	b.ReportMetric(median(ours)/median(floor), "of-all-at-once")
}

// shards brings a shard and returns those below it.
func shards(b *testing.B, s *btfs.Store, c cid.Cid) (all []cid.Cid) {
	n, _, err := s.Node(b.Context(), c)
	if err != nil {
		b.Error(err)
		return nil
	}
	for i := range n.Links {
		if l := &n.Links[i]; len(l.Name) == 2 {
			all = append(all, l.CID())
		}
	}
	return all
}

// slow is a gateway that sends no more than so many blocks of 256 KiB in a second.
func slow(each time.Duration) func(http.ResponseWriter, *http.Request, cid.Cid) bool {
	gate := make(chan struct{}, 1)
	return func(_ http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
		gate <- struct{}{}
		defer func() { <-gate }()
		select {
		case <-time.After(each):
		case <-r.Context().Done():
		}
		return false
	}
}

// BenchmarkTenGateways reads from four good gateways, beside three that lie and three that
// hang, and from the four alone.
func BenchmarkTenGateways(b *testing.B) {
	const size = 100_000_000
	blocks := btfstest.NewStore()
	file := blocks.File(size, 4)
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		b.Cleanup(s.Close)
		return s.URL
	}
	var good, bad []string
	for range 4 {
		good = append(good, serve(&btfstest.Gateway{Store: blocks, Raw: true, Fault: slow(20 * time.Millisecond)}))
	}
	for range 3 {
		bad = append(bad,
			serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.ipld.raw")
				fmt.Fprint(w, "lies")
			})),
			serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
	}
	rate := func(gateways []string) float64 {
		tr := &http.Transport{MaxIdleConnsPerHost: 64}
		defer tr.CloseIdleConnections()
		s, err := btfs.Open(btfs.Config{Gateways: gateways, Timeout: time.Minute, Client: &http.Client{Transport: tr}})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		start := time.Now()
		if err := btfs.NewCopier().Copy(b.Context(), io.Discard, open(b, s, file.CID), nil); err != nil {
			b.Fatal(err)
		}
		return size / 1e6 / time.Since(start).Seconds()
	}
	var alone, together []float64
	for b.Loop() {
		alone, together = append(alone, rate(good)), append(together, rate(append(slices.Clone(bad), good...)))
	}
	b.ReportMetric(median(together), "MB/s")
	b.ReportMetric(median(alone), "alone-MB/s")
	b.ReportMetric(median(together)/median(alone), "of-alone")
}

// BenchmarkIdle tells what share of a processor a node takes that is awake, connected to
// eight peers and asked nothing: with what the peers take in the same process, on their
// side of the connections too.
func BenchmarkIdle(b *testing.B) {
	blocks := btfstest.NewStore()
	file := blocks.File(1, 5)
	var all []*peers.Peer
	for range 8 {
		all = append(all, peers.New(b, peers.Config{Store: blocks}))
	}
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	share := func() float64 {
		before, start := used(), time.Now()
		<-time.After(10 * time.Second)
		return float64(used()-before) / float64(time.Since(start)) * 100
	}
	var alone, awake []float64
	for b.Loop() {
		alone = append(alone, share())
		s := store(b, &peers.Direct{}, all...)
		open(b, s, file.CID)
		<-time.After(2 * time.Second)
		awake = append(awake, share())
		s.Close()
	}
	b.ReportMetric(median(alone), "%cpu-of-the-peers")
	b.ReportMetric(median(awake), "%cpu-with-the-node")
}
