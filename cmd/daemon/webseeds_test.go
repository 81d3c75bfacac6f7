package daemon_test

import (
	"net"
	"net/http"
	"path/filepath"
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
	l, err := net.Listen("tcp", "203.0.113.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(filepath.Dir(dir)))}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { server.Close(); <-done })
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
	_ = l.(*net.TCPListener).SetDeadline(time.Now())
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("loopback was asked")
	}
}
