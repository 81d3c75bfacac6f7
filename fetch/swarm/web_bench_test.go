package swarm

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// BenchmarkWebSeed downloads 256 MiB from one web server in this process.
func BenchmarkWebSeed(b *testing.B) {
	path := filepath.Join(b.TempDir(), "big")
	if err := os.WriteFile(path, make([]byte, 256<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	meta, err := metainfo.Make(b.Context(), path, metainfo.MakeConfig{PieceLength: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(path))))
	defer s.Close()
	b.SetBytes(256 << 20)
	for b.Loop() {
		b.StopTimer()
		l := webLeech(b, meta, []string{s.URL + "/big"})
		b.StartTimer()
		download(b, l.torrent, meta.Info, 32)
		b.StopTimer()
		l.stop()
		b.StartTimer()
	}
}
