package swarm

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// pieceServer is a script of BEP 17 that has a torrent; the first of its answers is that
// it is busy.
func pieceServer(t testing.TB, meta *metainfo.Meta, dir string) (url string, answers *atomic.Int64) {
	t.Helper()
	files, err := NewFiles(meta, dir)
	if err != nil {
		t.Fatal(err)
	}
	answers = &atomic.Int64{}
	var busy sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		first, last, _ := strings.Cut(q.Get("ranges"), "-")
		piece, err1 := strconv.ParseInt(q.Get("piece"), 10, 64)
		a, err2 := strconv.ParseInt(first, 10, 64)
		b, err3 := strconv.ParseInt(last, 10, 64)
		off := piece*meta.Info.PieceLength + a
		if q.Get("info_hash") != string(meta.Info.Hash[:]) || q.Get("key") != "v" || err1 != nil || err2 != nil || err3 != nil || b < a ||
			b >= meta.Info.PieceLength || off+b-a >= meta.Info.Length {
			t.Errorf("asked for %s", r.URL)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		is := false
		if busy.Do(func() { is = true }); is {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("1"))
			return
		}
		buf := make([]byte, b-a+1)
		if err := files.ReadPresent(buf, off); err != nil {
			t.Error(err)
		}
		answers.Add(1)
		_, _ = w.Write(buf)
	}))
	t.Cleanup(func() { s.Close(); files.Close() })
	return s.URL + "/seed?key=v", answers
}

// A torrent that only a script has (BEP 17).
func TestWebSeedOfPieces(t *testing.T) {
	for _, kind := range []string{"v1", "hybrid"} {
		t.Run(kind, func(t *testing.T) {
			dir := oddSample(t, 3<<20)
			meta := makeTorrent(t, dir, kind)
			url, answers := pieceServer(t, meta, dir)
			s := webLeechOf(t, Config{}, meta, TorrentConfig{WebPieces: []string{url}}).all(t, meta, dir)
			if answers.Load() == 0 || s.Corrupt != 0 {
				t.Errorf("%d answers, %+v", answers.Load(), s)
			}
		})
	}
}

// buffer is a log that goroutines write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A signed URL, as of a bucket, works for a torrent of one file, and its signature is in no
// log and no status, also if it fails. Reads use few connections.
func TestWebSeedWithASignedURL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	truth := fetchtest.Truth(5<<20 + 123)
	if err := os.WriteFile(path, truth, 0o600); err != nil {
		t.Fatal(err)
	}
	meta := makeTorrent(t, path, "v1")
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.RawQuery != "sig=s3cr3t":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "http://127.0.0.1:9/?sig=s3cr3t", http.StatusFound)
		default:
			http.ServeFile(w, r, path)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	log := &buffer{}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	// One that leads elsewhere, where nobody is.
	bad := webLeechOf(t, cfg, meta, TorrentConfig{WebSeeds: []string{s.URL + "/moved?sig=s3cr3t"}})
	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	go func() { _ = bad.torrent.Fetch(waiting, extent.Extent{Len: 1}, time.Now()) }() // ends with giveUp
	for ctx := within(t, 10*time.Second); !strings.Contains(log.String(), "web seed failed"); {
		if _, ok := bad.torrent.Status(ctx); !ok {
			t.Fatal("the log has\n" + log.String())
		}
	}
	giveUp()
	bad.stop()
	conns.Store(0)
	l := webLeechOf(t, cfg, meta, TorrentConfig{WebSeeds: []string{s.URL + "/file?sig=s3cr3t"}})
	ctx := within(t, 30*time.Second)
	for piece := range int64(20) { // one after the other, as seeks do
		if err := l.torrent.Fetch(ctx, extent.Extent{Off: piece * meta.Info.PieceLength, Len: 1 << 10}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	status, _ := l.torrent.Status(within(t, 5*time.Second))
	if len(status.Swarm) == 0 || status.Swarm[0].Addr != s.URL+"/file?..." {
		t.Errorf("%+v", status.Swarm)
	}
	if n := conns.Load(); n > 6 { // three requests are on their way at a time, and one may come too late
		t.Errorf("%d connections", n)
	}
	l.stop()
	if text := log.String(); strings.Contains(text, "s3cr3t") {
		t.Errorf("the log has\n%s", text)
	}
}

// The same URL can not name the files of a folder.
func TestWebSeedWithAQueryOfManyFiles(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	var asked atomic.Int64
	url := webServer(t, dir, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	})
	log := &buffer{}
	l := webLeechOf(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))}, meta, TorrentConfig{WebSeeds: []string{url + "/?a=b"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.torrent.Fetch(ctx, extent.Extent{Len: 1}, time.Now()); err == nil || asked.Load() > 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	if text := log.String(); strings.Count(text, "web seed not used") != 1 || strings.Contains(text, "a=b") {
		t.Errorf("the log has\n%s", text)
	}
}
