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

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// socks is a SOCKS5 proxy (RFC 1928, 1929) that asks for a user and a password, if it has one, and
// connects to places of the test's choice.
type socks struct {
	net.Listener
	user, password string
	to             map[string]string // where a host:port really is

	relay net.PacketConn // for UDP ASSOCIATE; nil: it does not know that
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
	want := byte(2)
	if s.user == "" {
		want = 0
	}
	if err != nil || version[0] != 5 || !strings.Contains(methods, string(want)) {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, want})
	if want == 2 {
		_, _ = io.ReadFull(c, version[:])
		user, _ := counted(c)
		password, err := counted(c)
		if err != nil || user != s.user || password != s.password {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[1] != 1 {
		s.mu.Lock()
		relay := s.relay
		s.mu.Unlock()
		if head[1] == 3 && relay != nil {
			port := relay.LocalAddr().(*net.UDPAddr).Port
			_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{5, 0, 0, 1, 0, 0, 0, 0}, uint16(port)))
			_, _ = io.Copy(io.Discard, c) // as long as it is there
			return
		}
		_, _ = c.Write([]byte{5, 7, 0, 1, 0, 0, 0, 0, 0, 0})
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

// startRelay lets it relay packets: names and addresses of the world are where to says,
// and what comes from there comes from an address of the world, as from does.
func (s *socks) startRelay(t testing.TB, from map[string]string) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.relay = pc
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		clients := map[int]net.Addr{} // who spoke last to a place
		b := make([]byte, 64<<10)
		for {
			n, by, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if at := from[by.String()]; at != "" {
				a := netip.MustParseAddrPort(at)
				p := append([]byte{0, 0, 0, 1}, a.Addr().AsSlice()...)
				p = append(binary.BigEndian.AppendUint16(p, a.Port()), b[:n]...)
				if c := clients[by.(*net.UDPAddr).Port]; c != nil {
					_, _ = pc.WriteTo(p, c)
				}
				continue
			}
			host, rest := "", b[4:n]
			switch b[3] {
			case 1:
				a, _ := netip.AddrFromSlice(rest[:4])
				host, rest = a.String(), rest[4:]
			case 3:
				host, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
			default:
				continue
			}
			at := net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(rest)))
			s.mu.Lock()
			s.asked = append(s.asked, "udp "+at)
			s.mu.Unlock()
			if to, err := net.ResolveUDPAddr("udp4", s.to["udp "+at]); err == nil && s.to["udp "+at] != "" {
				clients[to.Port] = by
				_, _ = pc.WriteTo(rest[2:], to)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
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

// answerUDP is a UDP server on loopback.
func answerUDP(t testing.TB, answer func(p []byte) []byte) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if p := answer(b[:n]); p != nil {
				_, _ = pc.WriteTo(p, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// With --proxy-udp the DHT, uTP and UDP trackers go through the proxy, names and all: each of
// three torrents is found, or read, by one of them alone.
func TestProxyUDP(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	byTracker := single(t, "by tracker", 4<<20, metainfo.MakeConfig{})
	byDHT := single(t, "by DHT", 4<<20, metainfo.MakeConfig{})
	byUTP := single(t, "by uTP", 4<<20, metainfo.MakeConfig{})
	a, _ := seed(t, byTracker, "--no-dht")
	b, _ := seed(t, byDHT, "--no-dht")
	l := startLibtorrent(t, "--torrent", byUTP.torrent, "--save", byUTP.parent(), "--seed", "--utp")
	// Both tell of peers of the world: they are there themselves, as far as we know.
	tracker := answerUDP(t, func(p []byte) []byte {
		switch {
		case len(p) == 16:
			return append(append(make([]byte, 4), p[12:16]...), "connect!"...)
		case string(p[16:36]) != string(byTracker.meta.Info.Hash[:]):
			return nil
		}
		return append(append([]byte{0, 0, 0, 1}, p[12:16]...), "\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1"...)
	})
	node := answerUDP(t, func(p []byte) []byte {
		var q dict
		if unbencode(p, &q) != nil || q["y"] != "q" {
			return nil
		}
		r := dict{"id": "a node of the whole world"[:20], "token": "token", "nodes": ""}
		if args, _ := q["a"].(dict); args["info_hash"] == string(byDHT.meta.Info.Hash[:]) {
			r["values"] = []string{"\xcb\x00\x71\x09\x1a\xe1"}
		}
		return bencode.MustMarshal(dict{"t": q["t"], "y": "r", "r": r})
	})
	s := startSocks(t, "", "", map[string]string{
		"udp tracker.example:6969": tracker, "udp 203.0.113.6:6969": tracker, "udp node.example:6881": node, "udp 203.0.113.5:6881": node,
		"203.0.113.7:6881": a, "203.0.113.9:6881": b, "udp 203.0.113.8:6881": l.addr(),
	})
	s.startRelay(t, map[string]string{tracker: "203.0.113.6:6969", node: "203.0.113.5:6881", l.addr(): "203.0.113.8:6881"})
	before := sent(t, "wan")
	f := newFolders(t)
	m := &mounted{folders: f, proc: command(t, btmount,
		"mount", f.point, byTracker.torrent, byDHT.torrent, byUTP.torrent, "--cache-dir", f.cache, "--state-dir", f.state, "--log-level", "debug",
		"--proxy", "socks5://"+s.Addr().String(), "--proxy-udp", "--tracker", "udp://tracker.example:6969/announce",
		"--dht-bootstrap", "node.example:6881", "--peer", "203.0.113.8:6881")}
	m.start()
	t.Cleanup(m.stop)
	m.await(`^mounted 3 torrents on .*; everything goes through the proxy, UDP too: no listening; `)
	for _, p := range []*payload{byUTP, byTracker, byDHT} {
		same(t, "sequential", m.path(p.name()), p.dir)
	}
	for _, st := range m.status(t).Torrents {
		t.Logf("%s: %+v", st.Name, st.Swarm)
	}
	for _, at := range []string{"udp tracker.example:6969", "udp node.example:6881", "udp 203.0.113.5:6881", "udp 203.0.113.8:6881", "203.0.113.7:6881", "203.0.113.9:6881"} {
		if !s.wasAsked(at) {
			t.Errorf("the proxy was not asked for %s", at)
		}
	}
	if now := sent(t, "wan"); now != before {
		t.Errorf("%d packets went past the proxy", now-before)
	}
	m.stop()
	// A proxy that does not relay is not gone around.
	s.mu.Lock()
	s.relay = nil
	s.mu.Unlock()
	r := start(t, btmount, "mount", f.point, byUTP.torrent, "--cache-dir", f.cache, "--state-dir", f.state, "--proxy", "socks5://"+s.Addr().String(), "--proxy-udp")
	r.ended(patience)
	if text := r.out.String(); r.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "does not know UDP; leave --proxy-udp out") || strings.Count(text, "\n") != 1 {
		t.Errorf("%v: %s", r.cmd.ProcessState, text)
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
