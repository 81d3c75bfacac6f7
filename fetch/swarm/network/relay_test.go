package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// relayer is a proxy that takes no connections but relays packets (RFC 1928). It sends
// names, and addresses of the world, to places of the test's choice.
type relayer struct {
	t     *testing.T
	tcp   net.Listener
	udp   net.PacketConn
	auth  string // "user:password"; "" for none
	code  byte   // of its answer
	place map[string]net.Addr

	mu       sync.Mutex
	controls []net.Conn
	client   net.Addr
}

func startRelayer(t *testing.T, auth string, code byte, place map[string]net.Addr) *relayer {
	t.Helper()
	s := &relayer{t: t, auth: auth, code: code, place: place}
	var err error
	if s.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := s.tcp.Accept()
			if err != nil {
				return
			}
			s.serve(c)
		}
	})
	wg.Go(s.relay)
	t.Cleanup(func() { s.tcp.Close(); s.udp.Close(); s.hangUp(); wg.Wait() })
	return s
}

// hangUp ends the connections, and with them the relay.
func (s *relayer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.controls {
		c.Close()
	}
	s.controls = nil
}

func (s *relayer) serve(c net.Conn) {
	b := make([]byte, 300)
	_, _ = io.ReadFull(c, b[:3])
	_, _ = c.Write([]byte{5, b[2]})
	if b[2] == socksPassword {
		n, _ := c.Read(b)
		user, password, _ := strings.Cut(s.auth, ":")
		if string(b[:n]) != fmt.Sprintf("\x01%c%s%c%s", len(user), user, len(password), password) {
			_, _ = c.Write([]byte{1, 1})
			c.Close()
			return
		}
		_, _ = c.Write([]byte{1, 0})
	}
	if _, err := io.ReadFull(c, b[:10]); err != nil || string(b[:10]) != "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00" {
		s.t.Errorf("asked for %x: %v", b[:10], err)
	}
	port := s.udp.LocalAddr().(*net.UDPAddr).Port
	_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{5, s.code, 0, 1, 0, 0, 0, 0}, uint16(port)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.controls = append(s.controls, c)
}

func (s *relayer) relay() {
	b := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(b)
		if err != nil {
			return
		}
		for name, at := range s.place { // from such a place
			if from.String() == at.String() && n > 0 {
				host, _, _ := net.SplitHostPort(name)
				if _, err := netip.ParseAddr(host); err != nil {
					name = "203.0.113.77:7" // what the name stands for
				}
				a := netip.MustParseAddrPort(name)
				p := append([]byte{0, 0, 0, 1}, a.Addr().AsSlice()...)
				if a.Addr().Is6() {
					p[3] = 4
				}
				p = append(binary.BigEndian.AppendUint16(p, a.Port()), b[:n]...)
				_, _ = s.udp.WriteTo(p, s.client)
			}
		}
		if n < 10 || b[0]|b[1]|b[2] != 0 {
			continue
		}
		s.client = from
		var host string
		rest := b[4:n]
		switch b[3] {
		case 1, 4:
			size := map[byte]int{1: 4, 4: 16}[b[3]]
			a, _ := netip.AddrFromSlice(rest[:size])
			host, rest = a.String(), rest[size:]
		case 3:
			host, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
		}
		if to := s.place[net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(rest)))]; to != nil {
			_, _ = s.udp.WriteTo(rest[2:], to)
		}
	}
}

// echo answers packets with themselves.
func echo(t *testing.T) net.Addr {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
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
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr()
}

// proxiedUDP is a network behind a proxy that relays.
func proxiedUDP(t *testing.T, addr, auth string) *Network {
	t.Helper()
	user, password, _ := strings.Cut(auth, ":")
	url := "socks5://" + addr
	if user != "" {
		url = "socks5://" + user + "@" + addr
	}
	n, err := Open(Config{Proxy: url, ProxyPassword: password, ProxyUDP: true})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// answered sends a packet until it is answered, and returns from where.
func answered(t *testing.T, pc net.PacketConn, to net.Addr) string {
	t.Helper()
	b := make([]byte, 100)
	for range 50 {
		if _, err := pc.WriteTo([]byte("hello"), to); err != nil && !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		_ = pc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, from, err := pc.ReadFrom(b); err == nil && string(b[:n]) == "hello" {
			return from.String()
		}
	}
	t.Fatal("no answer of ", to)
	return ""
}

// Packets go to addresses of both families and to names, and come back; a relay that
// ends is made anew, and what is not of the proxy is dropped.
func TestRelay(t *testing.T) {
	for _, auth := range []string{"", "me:secret"} {
		at := echo(t)
		s := startRelayer(t, auth, 0, map[string]net.Addr{"203.0.113.5:7": at, "[2001:db8::5]:7": echo(t), "echo.example:7": echo(t)})
		n := proxiedUDP(t, s.tcp.Addr().String(), auth)
		pc, err := n.ListenPacket(t.Context(), "udp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for target, want := range map[string]string{"203.0.113.5:7": "203.0.113.5:7", "[2001:db8::5]:7": "[2001:db8::5]:7", "echo.example:7": "203.0.113.77:7"} {
			to, err := n.Targets(t.Context(), target)
			if err != nil || len(to) != 1 {
				t.Fatal(to, err)
			}
			if got := answered(t, pc, to[0]); got != want {
				t.Errorf("%s: answered from %s, want %s", target, got, want)
			}
		}
		// A stranger sends what looks like the proxy's.
		to := &net.UDPAddr{IP: net.IP{203, 0, 113, 5}, Port: 7}
		stranger, err := net.Dial("udp", fmt.Sprint("127.0.0.1:", pc.LocalAddr().(*net.UDPAddr).Port))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Write([]byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x07hello")); err != nil {
			t.Fatal(err)
		}
		stranger.Close()
		if got := answered(t, pc, to); got != "203.0.113.5:7" {
			t.Error("answered from ", got)
		}
		s.hangUp()
		for err := error(nil); !errors.Is(err, ErrUnreachable); { // nothing is sent meanwhile
			_, err = pc.WriteTo([]byte("x"), to)
		}
		answered(t, pc, to)
		s.mu.Lock()
		if len(s.controls) != 1 {
			t.Errorf("%d connections to the proxy", len(s.controls))
		}
		s.mu.Unlock()
	}
}

func TestRelayRefused(t *testing.T) {
	for _, c := range []struct {
		ours, theirs string
		code         byte
		want         string
	}{
		{"", "", 7, "does not know UDP; leave --proxy-udp out"},
		{"", "", 2, "does not allow UDP"},
		{"", "", 9, "refuses UDP (9)"},
		{"me:wrong", "me:right", 0, "refuses the user or the password"},
	} {
		s := startRelayer(t, c.theirs, c.code, nil)
		_, err := proxiedUDP(t, s.tcp.Addr().String(), c.ours).Associate(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%v, want one with %q", err, c.want)
		}
	}
	if _, err := proxiedUDP(t, "127.0.0.1:1", "").Associate(t.Context()); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: connection refused") {
		t.Error(err)
	}
	if _, err := Open(Config{ProxyUDP: true}); err == nil {
		t.Error("UDP through no proxy")
	}
	// Names of this machine are its addresses, and are judged as such.
	n := proxiedUDP(t, "127.0.0.1:1", "")
	for _, local := range []string{"localhost:7", "x.LOCALHOST.:7", "127.0.0.1:7"} {
		to, err := n.Targets(t.Context(), local)
		if err != nil || len(to) != 1 || to[0].String() != "127.0.0.1:7" {
			t.Error(local, to, err)
		}
	}
}

// A proxy that other people wrote.
func TestRelayThroughDante(t *testing.T) {
	if _, err := exec.LookPath("danted"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	conf := filepath.Join(t.TempDir(), "danted.conf")
	text := fmt.Sprintf(`logoutput: stderr
internal: 127.0.0.1 port = %d
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 command: udpassociate }
socks pass { from: 0.0.0.0/0 to: 127.0.0.0/8 command: udpreply }
`, addr.Port)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("danted", "-f", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	r, err := proxiedUDP(t, addr.String(), "").Associate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	to := echo(t)
	if got := answered(t, r, to); got != to.String() {
		t.Errorf("answered from %s, want %s", got, to)
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x07hello"))
	f.Add([]byte("\x00\x00\x00\x04\x01\x02\x03\x04\x00\x07hello"))
	f.Add([]byte("\x00\x00\x01\x03\x01\x02\x03\x04\x00\x07hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, from, ok := unwrap(b)
		if ok && (len(data) > len(b)-10 || !from.IsValid()) {
			t.Fatalf("%q from %v of %q", data, from, b)
		}
	})
}
