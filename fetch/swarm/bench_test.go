package swarm

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// BenchmarkLoopback downloads 256 MiB from one peer in this process, pieces of
// 1 MiB, 32 of them in flight: both sides of the protocol, hashing and the disk.
func BenchmarkLoopback(b *testing.B) {
	path := filepath.Join(b.TempDir(), "big")
	if err := os.WriteFile(path, make([]byte, 256<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	meta, err := metainfo.Make(b.Context(), path, metainfo.MakeConfig{PieceLength: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(256 << 20)
	for b.Loop() {
		b.StopTimer()
		s := seed(b, meta, path, Config{})
		l := leech(b, meta, Config{}, s)
		b.StartTimer()
		download(b, l.torrent, meta.Info, 32)
		b.StopTimer()
		l.stop()
		s.stop()
		b.StartTimer()
	}
}

// download fetches all pieces, so many at a time.
func download(b *testing.B, t *Torrent, info *metainfo.Info, window int) {
	slots := make(chan struct{}, window)
	done := make(chan error, info.NumPieces())
	for p := range info.NumPieces() {
		slots <- struct{}{}
		go func() {
			done <- t.Fetch(context.Background(), extent.Extent{Off: int64(p) * info.PieceLength, Len: 1}, time.Now().Add(time.Duration(p)*time.Millisecond))
			<-slots
		}()
	}
	for range info.NumPieces() {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
