package swarm

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// oddSample is sample, with names that mean something in a URL, and small files.
func oddSample(t testing.TB, n int64) string {
	t.Helper()
	dir := sample(t, n)
	for _, name := range []string{"a b/c%20d", "q?x=1#y", "naïve ☃", "plus+&;=@:", "..x", "t/1", "t/2", "t/3"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Repeat([]byte(name), 500), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// webServer serves the folder that dir lies in.
func webServer(t testing.TB, dir string, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := http.FileServer(http.Dir(filepath.Dir(dir)))
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// webLeech has web seeds that the user trusts: else nobody may name loopback.
func webLeech(t testing.TB, meta *metainfo.Meta, urls []string, peers ...*peer) *peer {
	t.Helper()
	return webLeechOf(t, Config{}, meta, TorrentConfig{WebSeeds: urls, Peers: peersAt(peers...)})
}

func webLeechOf(t testing.TB, cfg Config, meta *metainfo.Meta, tc TorrentConfig) *peer {
	t.Helper()
	o := object(t, meta)
	tc.Hash, tc.Info = meta.Info.Hash, meta.Info
	p := start(t, cfg, meta, tc, func(tr *Torrent) Store { tr.webFrom = network.Typed; return o })
	p.object = o
	return p
}

func (p *peer) all(t testing.TB, meta *metainfo.Meta, dir string) Status {
	t.Helper()
	if err := p.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	same(t, p.object, meta.Info, dir)
	s, _ := p.torrent.Status(within(t, 5*time.Second))
	return s
}

func TestWebSeedAlone(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := oddSample(t, 9<<20)
			meta := makeTorrent(t, dir, kind)
			var asked atomic.Int64
			url := webServer(t, dir, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); h.ServeHTTP(w, r) })
			})
			s := webLeech(t, meta, []string{url + "/"}).all(t, meta, dir)
			if len(s.Swarm) != 1 || s.Swarm[0].Source != "web" || s.Swarm[0].Addr != url+"/" || s.Corrupt != 0 {
				t.Errorf("%+v", s)
			}
			if n := asked.Load(); n > 200 {
				t.Errorf("%d requests of HTTP", n)
			}
			t.Logf("%d requests of HTTP", asked.Load())
		})
	}
}

func TestWebSeedOfOneFile(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			fetchtest.Run(t, func(t *testing.T) fetchtest.Rig {
				path := filepath.Join(t.TempDir(), "file name")
				truth := fetchtest.Truth(5<<20 + 123)
				if err := os.WriteFile(path, truth, 0o600); err != nil {
					t.Fatal(err)
				}
				meta := makeTorrent(t, path, kind)
				url := webServer(t, path, nil)
				l := webLeech(t, meta, []string{url + "/file%20name"})
				return fetchtest.Rig{Download: l.torrent, Object: l.object, Truth: truth}
			})
		})
	}
}

// What stands in a .torrent may not lead to a server of this machine.
func TestWebSeedOfAStrangerOnLoopback(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	var asked atomic.Int64
	url := webServer(t, dir, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	})
	o := object(t, meta)
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, WebSeeds: []string{url}}
	l := start(t, Config{}, meta, tc, func(*Torrent) Store { return o })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.torrent.Fetch(ctx, extent.Extent{Len: 1}, time.Now()); err == nil || asked.Load() > 0 {
		t.Fatalf("err %v, asked %d times", err, asked.Load())
	}
}

// A seed that fails in some way, beside one that is good: all bytes come.
func TestWebSeedThatFailsBesideAGoodOne(t *testing.T) {
	fails := map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"503": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
		"wrong range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		},
		"stalls":   func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() },
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"loops":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
	}
	for what, f := range fails {
		t.Run(what, func(t *testing.T) {
			dir := oddSample(t, 3<<20)
			meta := makeTorrent(t, dir, "hybrid")
			bad := webServer(t, dir, func(http.Handler) http.Handler { return f })
			webLeech(t, meta, []string{bad, webServer(t, dir, nil)}).all(t, meta, dir)
		})
	}
}

// A server without some files still serves the others.
func TestWebSeedWithoutSomeFiles(t *testing.T) {
	dir := oddSample(t, 3<<20)
	meta := makeTorrent(t, dir, "v2")
	part := webServer(t, dir, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/t/") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	l := webLeech(t, meta, []string{part}, seed(t, meta, dir, Config{}))
	s := l.all(t, meta, dir)
	if len(s.Swarm) != 2 {
		t.Errorf("%+v", s.Swarm)
	}
}

// A server that sends whole files, in chunks, is good enough for files that are short.
func TestWebSeedWithoutRanges(t *testing.T) {
	dir := oddSample(t, 200<<10)
	meta := makeTorrent(t, dir, "hybrid")
	url := webServer(t, dir, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), filepath.FromSlash(r.URL.Path)))
			if err != nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			for len(b) > 0 {
				n := min(len(b), 5000)
				_, _ = w.Write(b[:n])
				w.(http.Flusher).Flush()
				b = b[n:]
			}
		})
	})
	webLeech(t, meta, []string{url}).all(t, meta, dir)
}

// lying spoils what a handler sends.
type lying struct{ http.ResponseWriter }

func (l lying) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	for i := 0; i < len(q); i += 1000 {
		q[i] ^= 1
	}
	return l.ResponseWriter.Write(q)
}

func TestWebSeedThatLiesIsBanned(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := sample(t, 9<<20)
			meta := makeTorrent(t, dir, kind)
			bad := webServer(t, dir, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(lying{w}, r) })
			})
			l := webLeech(t, meta, []string{bad}, seed(t, meta, dir, Config{EachUp: 3 << 20}))
			unchoked(t, l, 1)
			s := l.all(t, meta, dir)
			if s.Banned != 1 || s.Corrupt == 0 || s.Peers != 1 {
				t.Errorf("banned %d, corrupt %d, %d peers", s.Banned, s.Corrupt, s.Peers)
			}
		})
	}
}
