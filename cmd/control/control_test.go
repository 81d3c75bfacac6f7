package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a cache whose answers a test gives.
type fake struct {
	pin    func(ctx context.Context, r PinRequest, report func(Progress)) (PinResult, error)
	verify func(ctx context.Context, r VerifyRequest, report func(Progress)) (VerifyResult, error)
}

func (f *fake) CacheStatus(context.Context) (CacheStatus, error) {
	return CacheStatus{Used: 1 << 40, Torrents: []Torrent{{Name: "film"}}}, nil
}

func (f *fake) Pin(ctx context.Context, r PinRequest, report func(Progress)) (PinResult, error) {
	return f.pin(ctx, r, report)
}

func (f *fake) Unpin(context.Context, UnpinRequest) (PinResult, error) {
	return PinResult{}, errors.New("nothing is pinned")
}

func (f *fake) Evict(_ context.Context, r EvictRequest) (EvictResult, error) {
	if !r.All {
		return EvictResult{}, &RequestError{"give all"}
	}
	return EvictResult{Freed: 7}, nil
}

func (f *fake) Verify(ctx context.Context, r VerifyRequest, report func(Progress)) (VerifyResult, error) {
	return f.verify(ctx, r, report)
}

func (f *fake) Limit(_ context.Context, r LimitRequest) (LimitResult, error) {
	return LimitResult{Limit: r.Limit}, nil
}

// serve runs a server in a folder until the test ends, or stop is called.
func serve(t *testing.T, dir string, f *fake) (stop func()) {
	t.Helper()
	s, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, s, f, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Error("the server does not stop")
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestCalls(t *testing.T) {
	dir := t.TempDir()
	stop := serve(t, dir, &fake{
		pin: func(_ context.Context, r PinRequest, report func(Progress)) (PinResult, error) {
			for i := range 3 {
				report(Progress{Done: int64(i), Total: 3})
			}
			if len(r.Patterns) != 1 {
				return PinResult{}, errors.New("too late")
			}
			return PinResult{Bytes: 3}, nil
		},
	})
	c, ctx := NewClient(dir), t.Context()
	if s, err := c.CacheStatus(ctx); err != nil || s.Used != 1<<40 || s.Torrents[0].Name != "film" {
		t.Errorf("%+v, %v", s, err)
	}
	var seen []int64
	if r, err := c.Pin(ctx, PinRequest{Patterns: []string{"film"}}, func(p Progress) { seen = append(seen, p.Done) }); err != nil || r.Bytes != 3 || fmt.Sprint(seen) != "[0 1 2]" {
		t.Errorf("%+v, %v, %v", r, seen, err)
	}
	if _, err := c.Pin(ctx, PinRequest{}, nil); err == nil || err.Error() != "too late" {
		t.Error(err)
	}
	if _, err := c.Unpin(ctx, UnpinRequest{}); err == nil || err.Error() != "nothing is pinned" {
		t.Error(err)
	}
	if r, err := c.Evict(ctx, EvictRequest{All: true}); err != nil || r.Freed != 7 {
		t.Error(r, err)
	}
	if _, err := c.Evict(ctx, EvictRequest{}); err == nil || err.Error() != "give all" {
		t.Error(err)
	}
	if r, err := c.Limit(ctx, LimitRequest{Limit: 1 << 50}); err != nil || r.Limit != 1<<50 {
		t.Error(r, err)
	}
	if st, err := os.Lstat(filepath.Join(dir, socketName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	stop()
	if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a socket is left")
	}
}

// What a client asked for ends when it hangs up, and when the daemon stops.
func TestEnds(t *testing.T) {
	for _, way := range []string{"client", "daemon"} {
		began, ended := make(chan struct{}), make(chan struct{})
		dir := t.TempDir()
		stop := serve(t, dir, &fake{verify: func(ctx context.Context, _ VerifyRequest, report func(Progress)) (VerifyResult, error) {
			report(Progress{})
			close(began)
			<-ctx.Done()
			close(ended)
			return VerifyResult{}, context.Cause(ctx)
		}})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		result := make(chan error, 1)
		go func() { // ends with the call
			_, err := NewClient(dir).Verify(ctx, VerifyRequest{}, nil)
			result <- err
		}()
		<-began
		if way == "client" {
			cancel()
		} else {
			stop()
		}
		<-ended
		if err := <-result; err == nil {
			t.Errorf("%s: no error", way)
		}
		stop()
	}
}

// A socket that a killed daemon left is replaced; one in use, and what is no socket, is not.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	c := NewClient(dir)
	absent := func() {
		t.Helper()
		_, err := c.CacheStatus(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "no btmount runs with state folder "+dir) || !strings.Contains(err.Error(), "--state-dir") {
			t.Error(err)
		}
	}
	absent()
	path := filepath.Join(dir, socketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	absent()
	stop := serve(t, dir, &fake{})
	if _, err := Listen(dir); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Error(err)
	}
	if _, err := c.CacheStatus(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	absent()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("a file was removed")
	}
	if _, err := NewClient(filepath.Join(path, "x")).CacheStatus(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "no btmount runs") {
		t.Error(err)
	}
}

// The address of a socket has 107 bytes, the path of a folder may have more.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, dir, &fake{})
	if _, err := NewClient(dir).CacheStatus(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := NewClient(dir).CacheStatus(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "no btmount runs") {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a socket is left")
	}
}

// Whatever is sent is answered in words, and harms nobody.
func TestHostile(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, &fake{pin: func(context.Context, PinRequest, func(Progress)) (PinResult, error) { panic("planted") }})
	const js = "Host: btmount\r\nContent-Type: application/json\r\n"
	post := func(path, head, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", path, head, len(body), body)
	}
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"another path":    {"GET /v2/cache HTTP/1.1\r\nHost: btmount\r\n\r\n", 404},
		"another method":  {"DELETE /v1/cache HTTP/1.1\r\nHost: btmount\r\n\r\n", 405},
		"get for a post":  {"GET /v1/cache/evict HTTP/1.1\r\nHost: btmount\r\n\r\n", 405},
		"rebinding":       {"GET /v1/cache HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		"a browser":       {post("/v1/cache/evict", js+"Origin: http://evil.example\r\n", `{"all":true}`), 403},
		"a form":          {post("/v1/cache/evict", "Host: btmount\r\nContent-Type: text/plain\r\n", `{"all":true}`), 415},
		"no type":         {post("/v1/cache/evict", "Host: btmount\r\n", `{"all":true}`), 415},
		"a huge body":     {post("/v1/cache/pin", js, `{"patterns":["`+strings.Repeat("x", 2*maxBody)+`"]}`), 413},
		"no JSON":         {post("/v1/cache/evict", js, `all`), 400},
		"another kind":    {post("/v1/cache/evict", js, `{"all":"yes"}`), 400},
		"two requests":    {post("/v1/cache/evict", js, `{"all":true}{"all":true}`), 400},
		"nothing":         {post("/v1/cache/evict", js, ``), 400},
		"nested":          {post("/v1/cache/evict", js, strings.Repeat(`[`, 100_000)), 400},
		"large header":    {"GET /v1/cache HTTP/1.1\r\nHost: btmount\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431},
		"no HTTP":         {"\x00\x01\x02\r\n\r\n", 400},
		"it panics":       {post("/v1/cache/pin", js, `{}`), 0},
		"a lying length":  {"POST /v1/cache/evict HTTP/1.1\r\n" + js + "Content-Length: 99999999999\r\n\r\n" + strings.Repeat(" ", 2*maxBody), 413},
		"what is allowed": {post("/v1/cache/evict", js, `{"all":true}`), 200},
	} {
		conn, err := net.Dial("unix", filepath.Join(dir, socketName))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() { _, _ = io.WriteString(conn, c.request) }() // ends with the connection
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		status := 0
		if err == nil {
			status = resp.StatusCode
			var l line[json.RawMessage]
			if err := json.NewDecoder(resp.Body).Decode(&l); status != 200 && status != 404 && status != 405 && status != 431 && name != "no HTTP" && (err != nil || l.Error == "" || strings.Contains(l.Error, "\n")) {
				t.Errorf("%s: no error in words: %+v, %v", name, l, err)
			}
		}
		if status != c.status {
			t.Errorf("%s: %d, %v; want %d", name, status, err, c.status)
		}
		conn.Close()
	}
	if _, err := NewClient(dir).CacheStatus(t.Context()); err != nil {
		t.Error(err)
	}
}

// Clients that say nothing, or take nothing, take no place from others for long, and the server
// stops all the same.
func TestSlowClients(t *testing.T) {
	dir := t.TempDir()
	ended := make(chan struct{})
	stop := serve(t, dir, &fake{pin: func(ctx context.Context, _ PinRequest, report func(Progress)) (PinResult, error) {
		defer close(ended)
		for ctx.Err() == nil {
			report(Progress{Name: strings.Repeat("x", 1<<16)})
		}
		return PinResult{}, ctx.Err()
	}})
	var conns []net.Conn
	for range maxCalls/2 + 1 {
		conn, err := net.Dial("unix", filepath.Join(dir, socketName))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "POST /v1/cache/pin HTTP/1.1\r\nHost: btmount\r\n")
		conns = append(conns, conn)
	}
	_, _ = io.WriteString(conns[0], "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}") // and reads nothing
	if _, err := NewClient(dir).CacheStatus(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-ended: // after slow
	case <-time.After(3 * slow):
		t.Error("who reads nothing is served for ever")
	}
	one := make([]byte, 1)
	_ = conns[1].SetReadDeadline(time.Now().Add(3 * slow))
	if _, err := conns[1].Read(one); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EAGAIN) {
		t.Error("who says nothing is waited for")
	}
	stop()
}
