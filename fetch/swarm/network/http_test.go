package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs an HTTP server on an address and returns how often it was asked.
func serve(t *testing.T, addr string, h http.HandlerFunc) *atomic.Int64 {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); h(w, r) })}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return &n
}

func get(t *testing.T, n *Network, url string, use Use, from Origin) (via netip.Addr, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, via, err := n.Do(req, use, from)
	if err == nil {
		resp.Body.Close()
	}
	return via, err
}

// Each hop is checked where it leads, from where it comes.
func TestRedirects(t *testing.T) {
	if !namespaced(t, "addr add 203.0.113.1/32 dev lo", "addr add 203.0.113.2/32 dev lo", "addr add 10.0.0.1/32 dev lo", "addr add 169.254.169.254/32 dev lo") {
		return
	}
	ok := func(http.ResponseWriter, *http.Request) {}
	counts := map[string]*atomic.Int64{}
	for _, a := range []string{"127.0.0.1", "203.0.113.2", "10.0.0.1", "169.254.169.254", "[::1]"} {
		counts[a] = serve(t, a+":80", ok)
	}
	redirect := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.URL.Query().Get("to")+"/announce", http.StatusFound)
	}
	for _, a := range []string{"127.0.0.1", "203.0.113.1", "10.0.0.1"} {
		serve(t, a+":8080", redirect)
	}
	for _, c := range []struct {
		name, url string
		from      Origin
		at        string // the server that is meant to be kept from us, or to answer
		ok        bool
	}{
		{"typed, here", "http://127.0.0.1/x", Typed, "127.0.0.1", true},
		{"typed, metadata service", "http://169.254.169.254/x", Typed, "169.254.169.254", true},
		{"file, here", "http://127.0.0.1/announce", File, "127.0.0.1", false},
		{"file, here, over IPv6", "http://[::1]/announce", File, "[::1]", false},
		{"file, here, by name", "http://localhost/announce", File, "127.0.0.1", false},
		{"file, metadata service", "http://169.254.169.254/announce", File, "169.254.169.254", false},
		{"file, LAN", "http://10.0.0.1/announce", File, "10.0.0.1", true},
		{"file, router", "http://10.0.0.1/reboot", File, "10.0.0.1", false},
		{"file, world", "http://203.0.113.2/x", File, "203.0.113.2", true},
		{"world to world", "http://203.0.113.1:8080/?to=203.0.113.2", File, "203.0.113.2", true},
		{"world to here", "http://203.0.113.1:8080/?to=127.0.0.1", File, "127.0.0.1", false},
		{"world to LAN", "http://203.0.113.1:8080/?to=10.0.0.1", File, "10.0.0.1", false},
		{"typed, world to here", "http://203.0.113.1:8080/?to=127.0.0.1", Typed, "127.0.0.1", false},
		{"typed, world to here by name", "http://203.0.113.1:8080/?to=localhost", Typed, "127.0.0.1", false},
		{"typed, world to metadata service", "http://203.0.113.1:8080/?to=169.254.169.254", Typed, "169.254.169.254", false},
		{"typed, LAN to LAN", "http://10.0.0.1:8080/?to=10.0.0.1", Typed, "10.0.0.1", true},
		{"typed, LAN to here", "http://10.0.0.1:8080/?to=127.0.0.1", Typed, "127.0.0.1", false},
		{"typed, here to LAN", "http://127.0.0.1:8080/?to=10.0.0.1", Typed, "10.0.0.1", true},
		{"here, to world, and back", "http://127.0.0.1:8080/?to=203.0.113.1:8080/%3Fto=127.0.0.1%26", Typed, "127.0.0.1", false},
	} {
		for _, use := range []Use{Tracker, WebSeed} {
			want := c.ok && (use == Tracker || c.name != "file, LAN") // only trackers of the LAN may be named by a file
			before := counts[c.at].Load()
			via, err := get(t, System(), c.url, use, c.from)
			reached := counts[c.at].Load() > before
			refused := (*RefusedError)(nil)
			if (err == nil) != want || reached != want || err != nil && !errors.As(err, &refused) {
				t.Errorf("%s, %v: %v, reached: %v", c.name, use, err, reached)
			}
			if want && via.String() != c.at {
				t.Errorf("%s, %v: answered by %v", c.name, use, via)
			}
		}
	}
}

// dns answers every question for an IPv4 address with the next of addrs, then with the
// last one for ever.
func dns(t *testing.T, addrs ...string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12 // of the question's name
			for end < n && b[end] != 0 {
				end += int(b[end]) + 1
			}
			q := b[12 : end+5]
			reply := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q...)
			if q[len(q)-3] == 1 { // type A
				reply[7] = 1
				ip := netip.MustParseAddr(addrs[0]).As4()
				reply = append(append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
				if len(addrs) > 1 {
					addrs = addrs[1:]
				}
			}
			_, _ = pc.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

// A name that leads to the world at first and then to this machine is caught when it
// is connected to.
func TestRebinding(t *testing.T) {
	if !namespaced(t, "addr add 203.0.113.1/32 dev lo") {
		return
	}
	world := serve(t, "203.0.113.1:80", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://tracker.example/again/announce", http.StatusFound)
	})
	here := serve(t, "127.0.0.1:80", func(http.ResponseWriter, *http.Request) {})
	n := System()
	n.resolver = dns(t, "203.0.113.1", "127.0.0.1")
	_, err := get(t, n, "http://tracker.example/announce", Tracker, File)
	refused := (*RefusedError)(nil)
	if !errors.As(err, &refused) || world.Load() != 1 || here.Load() != 0 {
		t.Errorf("%v; asked in the world %d times, here %d times", err, world.Load(), here.Load())
	}
	// What the user typed may be here, by name too.
	if _, err := get(t, n, "http://tracker.example/announce", Tracker, Typed); err != nil || here.Load() != 1 {
		t.Error(err, here.Load())
	}
}

// fetchBody asks a client and reads the answer to its end, so that the connection is kept.
func fetchBody(t *testing.T, c *Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A client connects once for many requests. What it keeps does not open a door: a server
// of this machine that was asked because the user typed it is not asked because a
// stranger redirects there, or because a stranger's .torrent names it.
func TestKeptConnections(t *testing.T) {
	if !namespaced(t, "addr add 203.0.113.1/32 dev lo") {
		return
	}
	here, world := "http://127.0.0.1:8080/", "http://203.0.113.1:8080/"
	from := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }
	asked := serve(t, "127.0.0.1:8080", from)
	serve(t, "203.0.113.1:8080", func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		from(w, r)
	})
	c := System().Client(WebSeed, Typed)
	defer c.Close()
	for _, url := range []string{here, world, world + "?to=/x"} {
		first, err := fetchBody(t, c, url)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if again, err := fetchBody(t, c, url); again != first || err != nil {
				t.Errorf("%s: asked from %s, then from %s, %v", url, first, again, err)
			}
		}
	}
	before := asked.Load()
	refused := (*RefusedError)(nil)
	if _, err := fetchBody(t, c, world+"?to="+here); !errors.As(err, &refused) || asked.Load() != before {
		t.Errorf("a stranger's redirect: %v, asked %d times", err, asked.Load()-before)
	}
	stranger := System().Client(WebSeed, File)
	defer stranger.Close()
	if _, err := fetchBody(t, stranger, here); !errors.As(err, &refused) || asked.Load() != before {
		t.Errorf("a stranger's .torrent: %v, asked %d times", err, asked.Load()-before)
	}
}

// The query of a URL may be a secret: neither errors nor the next server see it.
func TestQueryIsNotTold(t *testing.T) {
	if !namespaced(t) {
		return
	}
	var referer atomic.Value
	serve(t, "127.0.0.1:8081", func(_ http.ResponseWriter, r *http.Request) { referer.Store(r.Header.Get("Referer")) })
	serve(t, "127.0.0.1:8080", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:8081/", http.StatusFound)
	})
	c := System().Client(WebSeed, Typed)
	defer c.Close()
	if _, err := fetchBody(t, c, "http://127.0.0.1:8080/?secret"); err != nil || referer.Load() != "" {
		t.Errorf("%v; the next server is told %q", err, referer.Load())
	}
	if _, err := fetchBody(t, c, "http://127.0.0.1:9/?secret"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
}
