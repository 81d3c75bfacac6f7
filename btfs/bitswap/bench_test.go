package bitswap_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
	"github.com/btmount/btmount/btfs/unixfs"
)

// BenchmarkSilentPeers reads a file from one honest peer, beside two that say to have every
// block and send none, with a node that has just woken, and tells how long the rounds took.
// -benchtime 2000x, on a busy machine, finds stalls that are rare.
func BenchmarkSilentPeers(b *testing.B) {
	fixtures, store := btfstest.Fixtures(b)
	honest := peers.New(b, peers.Config{Store: store})
	cfg := bitswap.Config{Peers: []string{honest.Addr()}}
	for range 2 {
		cfg.Peers = append(cfg.Peers, peers.New(b, peers.Config{Fault: peers.Silent}).Addr())
	}
	f := btfstest.Named(b, fixtures, "file-balanced")
	var all []time.Duration
	stalls, failures := 0, 0
	for b.Loop() {
		n := node(b, cfg)
		ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
		start := time.Now()
		o, err := unixfs.Walk(ctx, object{n, f.CID}, f.CID, nil)
		if err == nil {
			_, err = o.ReadAt(ctx, make([]byte, o.Size), 0)
		}
		took := time.Since(start)
		cancel()
		n.Close()
		if all = append(all, took); took > 2*time.Second {
			stalls++
		}
		if err != nil {
			b.Logf("after %v: %v", took, err)
			failures++
		}
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(float64(all[len(all)-1].Milliseconds()), "max-ms")
	b.ReportMetric(float64(stalls), "over-2s")
	b.ReportMetric(float64(failures), "failed")
}
