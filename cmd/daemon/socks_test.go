package daemon_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// socks is a SOCKS5 proxy (RFC 1928, 1929) that asks for a user and a password, and
// connects to places of the test's choice.
type socks struct {
	net.Listener
	user, password string
	to             map[string]string // where a host:port really is

	mu    sync.Mutex
	asked []string
}

func startSocks(t testing.TB, user, password string, to map[string]string) *socks {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &socks{Listener: l, user: user, password: password, to: to}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() { s.serve(c); c.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// counted reads a byte of length and what it counts.
func counted(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

func (s *socks) serve(c net.Conn) {
	var version [1]byte
	_, _ = io.ReadFull(c, version[:])
	methods, err := counted(c)
	if err != nil || version[0] != 5 || !strings.Contains(methods, "\x02") {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, 2})
	_, _ = io.ReadFull(c, version[:])
	user, _ := counted(c)
	password, err := counted(c)
	if err != nil || user != s.user || password != s.password {
		_, _ = c.Write([]byte{1, 1})
		return
	}
	_, _ = c.Write([]byte{1, 0})
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[1] != 1 {
		return
	}
	host := ""
	switch head[3] {
	case 1, 4:
		b := make([]byte, map[byte]int{1: 4, 4: 16}[head[3]])
		_, _ = io.ReadFull(c, b)
		a, _ := netip.AddrFromSlice(b)
		host = a.String()
	case 3:
		host, _ = counted(c)
	}
	var port [2]byte
	if _, err := io.ReadFull(c, port[:]); err != nil {
		return
	}
	at := net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(port[:])))
	s.mu.Lock()
	s.asked = append(s.asked, at)
	s.mu.Unlock()
	out, err := net.Dial("tcp", s.to[at])
	if err != nil {
		_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	done := make(chan struct{})
	go func() { _, _ = io.Copy(out, c); out.Close(); c.Close(); close(done) }() // ends with either side
	_, _ = io.Copy(c, out)
	c.Close()
	out.Close()
	<-done
}

func (s *socks) wasAsked(at string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.asked, at)
}

// Everything goes through the proxy, and what cannot is not sent at all.
func TestProxy(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	// The test is as a user's machine: what asks a name server asks one in the world.
	p := single(t, "film", 8<<20, metainfo.MakeConfig{})
	addr, _ := seed(t, p, "--no-dht")
	text, err := os.ReadFile(p.torrent)
	if err != nil {
		t.Fatal(err)
	}
	// The proxy alone knows the names; the tracker tells of a peer of the world.
	web := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".torrent") {
			_, _ = w.Write(text)
			return
		}
		_, _ = w.Write([]byte("d8:intervali60e5:peers6:\xcb\x00\x71\x09\x1a\xe1e")) // 203.0.113.9:6881
	})
	const password = "correct horse battery"
	s := startSocks(t, "somebody", password, map[string]string{
		"203.0.113.9:6881": addr, "torrents.example:80": web, "tracker.example:80": web,
	})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := sent(t, "wan")
	f := newFolders(t)
	args := append([]string{
		"mount", f.point, "http://torrents.example/film.torrent", "--cache-dir", f.cache, "--state-dir", f.state, "--log-level", "debug",
		"--proxy", "socks5://somebody@" + s.Addr().String(), "--proxy-password-file", file,
		"--tracker", "http://tracker.example/announce", "--tracker", "udp://udp.example:6969/announce",
	}, world...)
	m := &mounted{folders: f, proc: command(t, btmount, args...)}
	m.start()
	t.Cleanup(m.stop)
	m.await(`^mounted 1 torrent on .*; everything goes through the proxy: no listening, no DHT, no UDP trackers; `)
	same(t, "sequential", m.path("film"), p.dir)
	m.await(`tracker failed.* tracker=udp.example:6969 .*not through the proxy`)
	for _, at := range []string{"203.0.113.9:6881", "203.0.113.5:6881", "torrents.example:80", "tracker.example:80", "203.0.113.6:80"} {
		eventually(t, patience, "the proxy was asked for "+at, func() bool { return s.wasAsked(at) })
	}
	if tr := m.torrent(t).Trackers; !slices.ContainsFunc(tr, func(s discovery.TrackerStatus) bool { return strings.Contains(s.Failure, "not through the proxy") }) {
		t.Errorf("trackers %+v", tr)
	}
	if st := m.torrent(t); len(st.Swarm) == 0 || st.Swarm[0].Addr != "203.0.113.9:6881" {
		t.Errorf("peers %+v", st.Swarm)
	}
	if l := listening(t, m.cmd.Process.Pid); len(l) > 0 {
		t.Errorf("listens on %v", l)
	}
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets went past the proxy", now-before)
	}
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.cmd.Process.Pid))
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.cmd.Process.Pid))
	if strings.Contains(m.out.String()+string(environ)+string(cmdline), password) {
		t.Error("the password can be seen")
	}
	m.stop()

	// A proxy that is not there, or does not want us, is not gone around.
	for _, c := range []struct{ url, says string }{
		{"socks5://somebody@127.0.0.1:1", "through the proxy 127.0.0.1:1: connection refused"},
		{"socks5://somebody-else@" + s.Addr().String(), "through the proxy " + s.Addr().String() + ": "},
	} {
		r := start(t, btmount, "mount", f.point, "http://torrents.example/film.torrent", "--cache-dir", f.cache, "--state-dir", f.state,
			"--proxy", c.url, "--proxy-password-file", file)
		r.ended(patience)
		if text := r.out.String(); r.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, c.says) || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: %v: %s", c.url, r.cmd.ProcessState, text)
		}
	}
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets went past a proxy that does not work", now-before)
	}
}

// startHTTP runs a server on loopback and returns its host:port.
func startHTTP(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// listening returns the sockets of a process, of this network namespace, that anybody
// can send to: TCP that listens, and UDP.
func listening(t testing.TB, pid int) (out []string) {
	t.Helper()
	ours := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatal("no descriptors: ", err)
	}
	for _, fd := range fds {
		if s, err := os.Readlink(fd); err == nil && strings.HasPrefix(s, "socket:[") {
			ours[strings.Trim(s, "socket:[]")] = true
		}
	}
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 9 && ours[f[9]] && (f[3] == "0A" || strings.HasPrefix(proto, "udp")) {
				out = append(out, proto+" "+f[1])
			}
		}
	}
	return out
}
