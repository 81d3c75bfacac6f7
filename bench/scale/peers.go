package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// sink is a swarm.Store that keeps nothing but which units there are.
type sink struct {
	units int

	mu   sync.Mutex
	have []bool
}

func newSink(m *metainfo.Meta) *sink {
	n := int((m.Info.Length-1)/swarm.UnitLength(m)) + 1
	return &sink{units: n, have: make([]bool, n)}
}

func (s *sink) Begin(int) error                { return nil }
func (s *sink) Abandon(int)                    {}
func (s *sink) WriteVec([][]byte, int64) error { return nil }
func (s *sink) Fail(int, error)                {}
func (s *sink) Known(u int) bool               { return s.Has(u) }
func (s *sink) ReadBack([]byte, int64) error {
	return fmt.Errorf("nothing is kept")
}

func (s *sink) ReadPresent([]byte, int64) error {
	return fmt.Errorf("nothing is kept")
}

func (s *sink) Commit(u int, _ []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[u] = true
}

func (s *sink) Has(u int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[u]
}

func (s *sink) Each(f func(int)) {
	s.mu.Lock()
	var all []int
	for u, ok := range s.have {
		if ok {
			all = append(all, u)
		}
	}
	s.mu.Unlock()
	for _, u := range all {
		f(u)
	}
}

// swarms are the torrents of the peers scenario: all pieces of one are alike, so that
// they cost nothing to hash beforehand.
func swarms(n int) (out []*content, metas []*metainfo.Meta, err error) {
	for i := range n {
		c := &content{number: i, piece: 1 << 20, length: 8 << 30, same: true}
		m, err := c.meta(name(i), 1, true)
		if err != nil {
			return nil, nil, err
		}
		out, metas = append(out, c), append(metas, m)
	}
	return out, metas, nil
}

// serveSwarms is the process of the seeders.
func serveSwarms(torrents int, rate float64) error {
	cs, metas, err := swarms(torrents)
	if err != nil {
		return err
	}
	s := &seeders{torrents: map[metainfo.InfoHash]*content{}, rate: rate * 1e6}
	s.greet = func(_ *content, write func([]byte)) { write(wire.AppendFlag(nil, msgHaveAll)) }
	for i, m := range metas {
		s.torrents[m.Info.Hash] = cs[i]
	}
	return s.run(os.Stdin, os.Stdout)
}

// peers measures the engine with many connections.
func peers(ctx context.Context, n, torrents int, rate float64, length time.Duration, profile string) error {
	_, metas, err := swarms(torrents)
	if err != nil {
		return err
	}
	port, err := child(ctx, "seeders", "-torrents", strconv.Itoa(torrents), "-rate", fmt.Sprint(rate))
	if err != nil {
		return err
	}
	c, err := swarm.NewClient(swarm.Config{PeerPrefix: "-SC0002-", MaxConns: 2 * n, MaxPeers: n/torrents + 1, Encryption: swarm.EncryptionForbid, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	var at []netip.AddrPort
	for i := range n / torrents {
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(1 + i/200), byte(1 + i%200)}), uint16(port)))
	}
	runtime.GC()
	before := memory(os.Getpid())["VmRSS"]
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var all []*swarm.Torrent
	for _, m := range metas {
		t, err := c.Add(swarm.TorrentConfig{Hash: m.Info.Hash, Info: m.Info, Peers: at})
		if err != nil {
			return err
		}
		t.Attach(m, newSink(m))
		group.Go(func() { _ = t.Run(ctx) })
		all = append(all, t)
	}
	for connected := 0; connected < n/torrents*torrents; time.Sleep(50 * time.Millisecond) {
		connected = 0
		for _, t := range all {
			connected += t.Peers()
		}
	}
	idle := memory(os.Getpid())["VmRSS"]
	var done atomic.Int64
	for i, t := range all {
		group.Go(func() { readOn(ctx, t, metas[i].Info, &done) })
	}
	time.Sleep(5 * time.Second) // rates become known
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	began, cpu, bytes := time.Now(), processorTime(os.Getpid()), done.Load()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return ctx.Err()
	}
	secs := time.Since(began).Seconds()
	used := (processorTime(os.Getpid()) - cpu).Seconds()
	got := float64(done.Load()-bytes) / 1e6
	fmt.Printf("%d peers, %d torrents: %.1f MB/s, %.2f of a core (%.2f s/GB); RSS %d MB before, %d MB connected (%d KB each), %d MB busy, peak %d MB\n",
		n, torrents, got/secs, used/secs, used/got*1000, before, idle, (idle-before)*1000/n, memory(os.Getpid())["VmRSS"], memory(os.Getpid())["VmHWM"])
	return nil
}

// readOn fetches in order, 8 pieces at a time.
func readOn(ctx context.Context, t *swarm.Torrent, info *metainfo.Info, done *atomic.Int64) {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, 8)
	for p := range info.NumPieces() {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		group.Go(func() {
			e := extent.Extent{Off: int64(p) * info.PieceLength, Len: 1}
			if t.Fetch(ctx, e, time.Now().Add(500*time.Millisecond)) == nil {
				done.Add(info.PieceSize(p))
			}
			<-slots
		})
	}
}
