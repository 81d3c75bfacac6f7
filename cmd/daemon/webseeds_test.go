package daemon_test

import (
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A torrent that nobody has but web servers: one that is dead, one that works. It is
// read whole through the mount, in every version of BitTorrent, and private.
func TestReadFromWebSeedAlone(t *testing.T) {
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 203.0.113.1/32 dev lo")
	dir := filepath.Join(t.TempDir(), "library")
	mustWrite(t, filepath.Join(dir, "big"), 8<<20+12345)
	for _, name := range []string{"a b%20c", "q?x#y", "ü/☃", "1", "2", "3"} {
		mustWrite(t, filepath.Join(dir, name), 5000)
	}
	serveWeb(t, "203.0.113.1:8080", filepath.Dir(dir))
	for _, c := range []metainfo.MakeConfig{{}, {Hybrid: true}, {V2: true}, {Private: true}} {
		c.PieceLength = 128 << 10
		c.WebSeeds = []string{"http://203.0.113.1:9/", "http://203.0.113.1:8080/"}
		lib := mustTorrent(t, dir, c)
		m := mount(t, "--no-dht", lib.torrent)
		sameTree(t, m.path("library"), dir)
		s := m.torrent(t)
		web := 0
		for _, p := range s.Swarm {
			if p.Source == "web" && p.Down > 0 {
				web++
			}
		}
		if web != 1 || s.Corrupt != 0 {
			t.Errorf("%+v", s)
		}
		m.stop()
	}
}

// The same server on loopback is never asked.
func TestWebSeedOnLoopbackIsNotAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lib := single(t, "file", 100_000, metainfo.MakeConfig{WebSeeds: []string{"http://" + l.Addr().String() + "/"}})
	m := mount(t, "--no-dht", "--read-timeout", "2s", lib.torrent)
	if err := head(m.path("file")); err == nil {
		t.Error("a read without a source succeeds")
	}
	m.await("web seed failed")
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond)) // what waits is taken at once
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("loopback was asked")
	}
}

// webServer is a web seed that notes who asks.
type webServer struct {
	mu    sync.Mutex
	asked map[string]int // by address
}

func serveWeb(t *testing.T, addr, dir string) *webServer {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	w := &webServer{asked: map[string]int{}}
	files := http.FileServer(http.Dir(dir))
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.mu.Lock()
		w.asked[host]++
		w.mu.Unlock()
		files.ServeHTTP(out, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { server.Close(); <-done })
	return w
}

// by returns who asked since the last time.
func (w *webServer) by() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	who := slices.Sorted(maps.Keys(w.asked))
	clear(w.asked)
	return who
}

// unread expects that a file cannot be read, and that no packet leaves.
func unread(t *testing.T, m *mounted, file string) {
	t.Helper()
	before := sent(t, "wan")
	if err := head(m.path(file)); err == nil {
		t.Errorf("%s is read", file)
	}
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets left", now-before)
	}
}

// Web seeds go through the proxy, names and all, or nowhere.
func TestWebSeedThroughProxy(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 203.0.113.1/32 dev lo")
	lib := single(t, "film", 2<<20, metainfo.MakeConfig{WebSeeds: []string{"http://seed.example/"}})
	other := single(t, "other", 2<<20, metainfo.MakeConfig{WebSeeds: []string{"http://203.0.113.1/"}})
	w, direct := serveWeb(t, "127.0.0.1:8080", lib.parent()), serveWeb(t, "203.0.113.1:80", other.parent())
	s := startSocks(t, "", "", map[string]string{"seed.example:80": "127.0.0.1:8080", "203.0.113.1:80": "203.0.113.1:80"})
	before := sent(t, "wan")
	f := newFolders(t)
	run := func(f folders, args ...string) *mounted {
		m := &mounted{folders: f, proc: command(t, btmount, append([]string{"mount", f.point, "--cache-dir", f.cache, "--state-dir", f.state}, args...)...)}
		m.start()
		t.Cleanup(m.stop)
		m.await("^mounted ")
		return m
	}
	m := run(f, lib.torrent, other.torrent, "--proxy", "socks5://"+s.Addr().String())
	same(t, "sequential", m.path("film"), lib.dir)
	same(t, "sequential", m.path("other"), other.dir)
	for _, at := range []string{"seed.example:80", "203.0.113.1:80"} {
		if !s.wasAsked(at) {
			t.Errorf("the proxy was not asked for %s", at)
		}
	}
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets went past the proxy", now-before)
	}
	m.stop()
	// One that is not there is not gone around: the web seed could be reached.
	if w.by(); len(direct.by()) == 0 {
		t.Error("the second was not asked at all")
	}
	m = run(newFolders(t), lib.torrent, other.torrent, "--proxy", "socks5://127.0.0.1:1", "--read-timeout", "3s")
	unread(t, m, "film")
	unread(t, m, "other")
	if a, b := w.by(), direct.by(); len(a)+len(b) > 0 {
		t.Errorf("past the proxy: %v, %v", a, b)
	}
}

// Web seeds are asked from the address that btmount is bound to, and not at all when the
// interface is gone that it is bound to.
func TestWebSeedBound(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 203.0.113.1/32 dev lo")
	lib := single(t, "film", 2<<20, metainfo.MakeConfig{WebSeeds: []string{"http://203.0.113.1/"}})
	w := serveWeb(t, "203.0.113.1:80", lib.parent())
	m := mount(t, "--no-dht", "--no-lsd", "--bind", "198.51.100.2", "--listen", "198.51.100.2:0", lib.torrent)
	same(t, "sequential", m.path("film"), lib.dir)
	if by := w.by(); !slices.Equal(by, []string{"198.51.100.2"}) {
		t.Errorf("asked from %v", by)
	}
	m.stop()
	veth(t, "vpn", "10.8.0.2/24")
	m = mount(t, "--no-dht", "--no-lsd", "--bind", "vpn", "--listen", "10.8.0.2:0", "--read-timeout", "3s", lib.torrent)
	ip(t, "link del vpn")
	unread(t, m, "film")
	if by := w.by(); len(by) > 0 {
		t.Errorf("asked from %v, past the interface", by)
	}
}

// A web seed of a blocklist is not asked; another one is.
func TestWebSeedBlocked(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 203.0.113.1/32 dev lo")
	ip(t, "addr add 203.0.113.2/32 dev lo")
	list := filepath.Join(t.TempDir(), "list.p2p")
	if err := os.WriteFile(list, []byte("the one:203.0.113.1-203.0.113.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := single(t, "bad", 1<<20, metainfo.MakeConfig{WebSeeds: []string{"http://203.0.113.1/"}})
	both := single(t, "both", 1<<20, metainfo.MakeConfig{WebSeeds: []string{"http://203.0.113.1:81/", "http://203.0.113.2/"}})
	w, bothAt1, good := serveWeb(t, "203.0.113.1:80", bad.parent()), serveWeb(t, "203.0.113.1:81", both.parent()), serveWeb(t, "203.0.113.2:80", both.parent())
	m := mount(t, "--no-dht", "--no-lsd", "--blocklist", list, "--read-timeout", "3s", bad.torrent, both.torrent)
	same(t, "sequential", m.path("both"), both.dir)
	unread(t, m, "bad")
	m.await(`web seed.*in a blocklist`)
	if a, b, c := w.by(), bothAt1.by(), good.by(); len(a)+len(b) > 0 || len(c) == 0 {
		t.Errorf("asked: %v, %v; and the other: %v", a, b, c)
	}
}
