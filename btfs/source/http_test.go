package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/unixfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const brief = 700 * time.Millisecond // for what is meant to take too long

// client is a Doer without a policy, whose connections end with the test.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func serve(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func gateway(t testing.TB, h *btfstest.Gateway) *Gateway {
	t.Helper()
	g, err := NewGateway(serve(t, h)+"/btfs/", client(t))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// node serves a node that is asked at the address of its config.
func node(t testing.TB, h *btfstest.Node) *Node {
	t.Helper()
	address := serve(t, h)
	h.Config = strings.TrimPrefix(address, "http://")
	n, err := NewNode(address, "", client(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func pool(t testing.TB, timeout time.Duration, all ...Source) *Pool {
	p := NewPool(Config{Sources: all, Timeout: timeout})
	t.Cleanup(p.Wait)
	return p
}

// whole reads all of an object that a manifest has.
func whole(t *testing.T, blocks unixfs.Blocks, f btfstest.Fixture) {
	t.Helper()
	for i, file := range f.Files {
		if i%300 > 0 {
			continue
		}
		var path []string
		if file.Path != "" {
			path = strings.Split(file.Path, "/")
		}
		o, err := unixfs.Walk(t.Context(), blocks, f.CID, path)
		if err != nil {
			t.Fatal(err)
		}
		if file.Symlink != "" {
			if o.Target != file.Symlink {
				t.Errorf("%s -> %s", file.Path, o.Target)
			}
			continue
		}
		b := make([]byte, file.Size+1)
		n, err := o.ReadAt(t.Context(), b, 0)
		if err != io.EOF || int64(n) != file.Size || !file.Is(b[:n]) {
			t.Errorf("%s %s: %d bytes, %v", f.Name, file.Path, n, err)
		}
	}
}

// Every object comes whole from each kind of source alone, and from all together.
func TestFixtures(t *testing.T) {
	fixtures, store := btfstest.Fixtures(t)
	for name, sources := range map[string]func() []Source{
		"gateway of 4.1.0":   func() []Source { return []Source{gateway(t, &btfstest.Gateway{Store: store})} },
		"gateway with raw":   func() []Source { return []Source{gateway(t, &btfstest.Gateway{Store: store, Raw: true})} },
		"gateway with scope": func() []Source { return []Source{gateway(t, &btfstest.Gateway{Store: store, Scope: true})} },
		"node":               func() []Source { return []Source{node(t, &btfstest.Node{Store: store})} },
		"a gateway and a node": func() []Source {
			return []Source{gateway(t, &btfstest.Gateway{Store: store}), node(t, &btfstest.Node{Store: store})}
		},
		"all, and some useless": func() []Source { return mixed(t, store) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pool(t, 20*time.Second, sources()...)
			for _, f := range fixtures {
				whole(t, p, f)
			}
		})
	}
}

// mixed are good sources behind one that lies, one that hangs and one that is not there.
func mixed(t *testing.T, store *btfstest.Store) []Source {
	liar := gateway(t, &btfstest.Gateway{Store: store, Fault: flip})
	hangs := gateway(t, &btfstest.Gateway{Store: store, Fault: hang})
	gone, err := NewGateway("http://127.0.0.1:1", client(t))
	if err != nil {
		t.Fatal(err)
	}
	return []Source{
		liar, hangs, gone, gateway(t, &btfstest.Gateway{Store: store}),
		gateway(t, &btfstest.Gateway{Store: store, Raw: true}), node(t, &btfstest.Node{Store: store}),
	}
}

type fault = func(http.ResponseWriter, *http.Request, cid.Cid) bool

func hang(_ http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
	<-r.Context().Done()
	return true
}

// send answers with bytes of a type.
func send(w http.ResponseWriter, kind string, b []byte) bool {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b)
	return true
}

// of makes a fault of what becomes of the true answer, raw or CAR as it was asked for.
func of(store *btfstest.Store, change func(c cid.Cid, b []byte) (cid.Cid, []byte)) fault {
	return func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		b, err := store.Block(r.Context(), c)
		if err != nil {
			return false
		}
		id, b := change(c, bytes.Clone(b))
		if r.URL.Query().Get("format") == "car" {
			return send(w, typeCAR, append(btfstest.CARHeader(c), btfstest.CARBlock(id, b)...))
		}
		return send(w, typeRaw, b)
	}
}

func flip(w http.ResponseWriter, r *http.Request, c cid.Cid) bool {
	b := []byte("not the bytes")
	if r.URL.Query().Get("format") == "car" {
		b = append(btfstest.CARHeader(c), btfstest.CARBlock(c, b)...)
		return send(w, typeCAR, b)
	}
	return send(w, typeRaw, b)
}

// endless sends a byte after the other, until nobody reads.
func endless(kind string, head func(c cid.Cid) []byte, pause time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(head(c))
		junk := make([]byte, 32<<10)
		tick := time.NewTicker(max(pause, time.Nanosecond))
		defer tick.Stop()
		for {
			if pause > 0 {
				junk = junk[:1]
			}
			if _, err := w.Write(junk); err != nil {
				return true
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return true
			}
		}
	}
}

// Whatever a gateway does, a reader gets true bytes or a line that says what it did; who
// lied is not asked again.
func TestHostileGateways(t *testing.T) {
	store := btfstest.NewStore()
	content := bytes.Repeat([]byte("content "), 10_000)
	c, other, third := store.Leaf(content).CID, store.Leaf([]byte("other")).CID, store.Leaf([]byte("third")).CID
	otherBytes, _ := store.Block(t.Context(), other)
	good, _ := store.Block(t.Context(), c)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 64<<20))
	_ = z.Close()
	only := func(format string, f fault) fault {
		return func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool {
			return r.URL.Query().Get("format") == format && f(w, r, c)
		}
	}
	page := func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
		return send(w, "text/html", []byte("<!doctype html><title>503</title>"))
	}
	carOf := func(blocks ...[]byte) fault {
		return only("car", func(w http.ResponseWriter, _ *http.Request, c cid.Cid) bool {
			return send(w, typeCAR, append(btfstest.CARHeader(c), bytes.Join(blocks, nil)...))
		})
	}
	redirect := func(to string) fault {
		return func(w http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
			http.Redirect(w, r, to, http.StatusFound)
			return true
		}
	}
	none := func(cid.Cid) []byte { return nil }
	others := slices.Repeat([][]byte{btfstest.CARBlock(other, otherBytes)}, 20)
	for _, h := range []struct {
		name  string
		fault fault
		want  string // of the error; "" is a good answer
		lies  bool
	}{
		{"raw, a flipped bit", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { b[9] ^= 1; return c, b }), "it lies", true},
		{"raw, cut", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { return c, b[:100] }), "it lies", true},
		{"raw, another block", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { return c, otherBytes }), "it lies", true},
		{"raw, nothing", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { return c, nil }), "it lies", true},
		{"raw, 3 MiB", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { return c, make([]byte, 3<<20) }), "larger than 2 MiB", false},
		{"raw, for ever", only("raw", endless(typeRaw, none, 0)), "larger than 2 MiB", false},
		{"raw, a byte now and then", only("raw", endless(typeRaw, none, 5*time.Millisecond)), "stopped sending", false},
		{"raw, hangs", only("raw", hang), "no answer within", false},
		{"raw, connection lost", only("raw", func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			w.Header().Set("Content-Type", typeRaw)
			_, _ = w.Write(good[:50])
			return true
		}), "hung up", false},
		{"raw, gzip bomb", func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return send(w, typeRaw, packed.Bytes())
		}, "compressed", false},
		{"raw is a web page, CAR works", only("raw", page), "", false},
		{"raw is a large file, CAR works", only("raw", endless("video/mp4", none, 0)), "", false},
		{"all are web pages", page, "text/html: nothing that can be verified", false},
		{"all is 500", func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			http.Error(w, "no\n\x1b[2J", http.StatusInternalServerError)
			return true
		}, "500 Internal Server Error; asked for a CAR, it answers 500", false},
		{"all is 404", func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			http.Error(w, "", http.StatusNotFound)
			return true
		}, "does not have the block (404 Not Found)", false},
		{"all is 429", func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			http.Error(w, "", http.StatusTooManyRequests)
			return true
		}, "429 Too Many Requests", false},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
			return true
		}, "redirects", false},
		{"redirects to a file", redirect("file:///etc/passwd"), "unsupported protocol scheme", false},

		{"CAR, a flipped bit", only("car", of(store, func(c cid.Cid, b []byte) (cid.Cid, []byte) { b[9] ^= 1; return c, b })), "it lies", true},
		{"CAR, of another block", carOf(btfstest.CARBlock(other, otherBytes)), "does not hold the block", false},
		{"CAR, others first", carOf(btfstest.CARBlock(other, otherBytes), btfstest.CARBlock(other, otherBytes), btfstest.CARBlock(c, good)), "", false},
		{"CAR, twenty others first", carOf(append(others, btfstest.CARBlock(c, good))...), "does not begin with the block: 16 others came", false},
		{"CAR, empty", carOf(), "does not hold the block", false},
		{"CAR, junk after the block", carOf(btfstest.CARBlock(c, good), make([]byte, 1000)), "", false},
		{"CAR, cut", carOf(btfstest.CARBlock(c, good)[:500]), "unexpected EOF", false},
		{"CAR, zeros for ever", only("car", endless(typeCAR, btfstest.CARHeader, 0)), "it says 0 bytes", false},
		{"CAR, one block for ever", only("car", endless(typeCAR, func(c cid.Cid) []byte {
			return append(btfstest.CARHeader(c), 0xff, 0xff, 0xff, 0x00)
		}, 0)), "CAR: block at byte", false},
		{"CAR, a byte now and then", only("car", endless(typeCAR, btfstest.CARHeader, 5*time.Millisecond)), "CAR: block at byte", false},
		{"CAR, hangs", only("car", hang), "no answer within", false},
		{"as measured", nil, "", false},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			g := &btfstest.Gateway{Store: store, Fault: h.fault}
			first := gateway(t, g)
			first.stall = brief
			p := pool(t, 3*brief, first)
			start := time.Now()
			b, err := p.Block(t.Context(), c)
			switch {
			case h.want == "" && (err != nil || !bytes.Equal(b, good)):
				t.Error(err)
			case h.want != "" && (err == nil || !strings.Contains(err.Error(), h.want) || !strings.Contains(err.Error(), c.String()+": gateway http://127.0.0.1:") || strings.ContainsAny(err.Error(), "\n\x1b")):
				t.Errorf("%v, want %q", err, h.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			raws, cars := g.Requests()
			_, err = p.Block(t.Context(), third)
			if r, c := g.Requests(); h.lies != (r == raws && c == cars) || h.lies && !strings.Contains(err.Error(), "not asked any more") {
				t.Errorf("asked again: %d, %d, then %d, %d: %v", raws, cars, r, c, err)
			}
			// Beside a good source it does no harm.
			p = pool(t, 20*time.Second, gateway(t, &btfstest.Gateway{Store: store, Fault: h.fault}), gateway(t, &btfstest.Gateway{Store: store}))
			if b, err := p.Block(t.Context(), c); err != nil || !bytes.Equal(b, good) {
				t.Error(err)
			}
		})
	}
}

// The form is found out once: one failed request for a block, and CARs from then on, of
// which the connection is used again.
func TestProbedOnce(t *testing.T) {
	fixtures, store := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-balanced")
	for _, raw := range []bool{false, true} {
		h := &btfstest.Gateway{Store: store, Raw: raw}
		whole(t, pool(t, 20*time.Second, gateway(t, h)), f)
		raws, cars := h.Requests()
		if raw && (raws != 7 || cars != 0) || !raw && (raws != 1 || cars != 7) {
			t.Errorf("raw %v: %d raw, %d CAR", raw, raws, cars)
		}
	}
}

// A small tree comes with its root, in one request.
func TestSmallTreesComeAtOnce(t *testing.T) {
	fixtures, store := btfstest.Fixtures(t)
	h := &btfstest.Gateway{Store: store}
	p := pool(t, 20*time.Second, gateway(t, h))
	f := btfstest.Named(t, fixtures, "dir-reed-solomon")
	whole(t, p, f)
	if _, cars := h.Requests(); cars != 1 {
		t.Errorf("%d requests for %d KiB", cars, 150)
	}
}

func TestNode(t *testing.T) {
	store := btfstest.NewStore()
	c := store.Leaf([]byte("content")).CID
	gone := btfstest.NewStore().Leaf([]byte("gone")).CID
	const token = "a+secret/token=="
	for _, h := range []struct {
		name   string
		node   *btfstest.Node
		token  string
		config string // "" is the address that is asked
		cid    cid.Cid
		want   string
	}{
		{"as its config says", &btfstest.Node{}, "", "", c, ""},
		{"another address, no token", &btfstest.Node{}, "", "127.0.0.1:5001", c, "it wants a token (401)"},
		{"another address, a token", &btfstest.Node{Token: token}, token, "127.0.0.1:5001", c, ""},
		{"another address, a wrong token", &btfstest.Node{Token: token}, "wrong", "127.0.0.1:5001", c, "does not take the token (401)"},
		{"absent", &btfstest.Node{}, "", "", gone, "does not have the block (context deadline exceeded)"},
		{"wrong bytes", &btfstest.Node{Fault: func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			return send(w, "text/plain", []byte("x"))
		}}, "", "", c, "it lies"},
		{"hangs longer than asked for", &btfstest.Node{Fault: hang}, "", "", c, "no answer within"},
		{"for ever", &btfstest.Node{Fault: endless("text/plain", func(cid.Cid) []byte { return nil }, 0)}, "", "", c, "larger than 2 MiB"},
		{"an error that repeats the token", &btfstest.Node{Token: token, Fault: func(w http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
			w.WriteHeader(500)
			fmt.Fprintf(w, `{"Message":"bad request %s","Type":"error"}`, r.URL.String()+" "+token)
			return true
		}}, token, "", c, "bad request"},
		{"keys instead of an error", &btfstest.Node{Fault: func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
			w.WriteHeader(500)
			fmt.Fprint(w, `{"Info":{"PrivateKey":"`+token+`"}}`)
			return true
		}}, token, "", c, "it answers 500"},
		{"sends elsewhere", &btfstest.Node{Fault: func(w http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
			http.Redirect(w, r, strings.Replace(serve(t, http.NotFoundHandler()), "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
			return true
		}}, token, "", c, "it sends to localhost"},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			h.node.Store = store
			n := node(t, h.node)
			n.token = h.token
			if h.config != "" {
				h.node.Config = h.config
			}
			p := pool(t, 4*time.Second, n)
			_, err := p.Block(t.Context(), h.cid)
			if (h.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), h.want) {
				t.Errorf("%v, want %q", err, h.want)
			}
			if err != nil && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "a%2Bsecret")) {
				t.Errorf("the token is in %v", err)
			}
			if others := h.node.Others(); len(others) > 0 {
				t.Errorf("it was asked for %v", others)
			}
		})
	}
	// What is no node: a web server.
	n, err := NewNode(serve(t, http.NotFoundHandler()), "", client(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool(t, time.Second, n).Block(t.Context(), c); err == nil || !strings.Contains(err.Error(), "give the address of a node's RPC") {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:8080":        "gateway http://127.0.0.1:8080",
		"https://gw.example/":          "gateway https://gw.example",
		"https://gw.example/btfs/":     "gateway https://gw.example",
		"https://gw.example/x/btfs":    "gateway https://gw.example/x",
		"gw.example":                   "",
		"ftp://gw.example":             "",
		"http://":                      "",
		"":                             "",
		"http://u:p@gw.example":        "",
		"http://gw.example/?token=abc": "",
		"http://gw.example/#x":         "",
		"http://\x00":                  "",
	} {
		g, err := NewGateway(text, nil)
		if (err == nil) != (want != "") || err == nil && g.Name() != want {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Error(err)
		}
	}
	n, err := NewNode("http://127.0.0.1:5001/api/v1/", "", nil)
	if err != nil || n.Name() != "node http://127.0.0.1:5001" {
		t.Error(err)
	}
}

// Who asks is gone: the request ends, and the next who asks is not harmed.
func TestInterrupted(t *testing.T) {
	store := btfstest.NewStore()
	c := store.Leaf([]byte("content")).CID
	asked, once := make(chan struct{}), false
	p := pool(t, time.Minute, gateway(t, &btfstest.Gateway{Store: store, Fault: func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		if once {
			return false
		}
		once = true
		close(asked)
		return hang(w, r, c)
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }() // ends when the gateway is asked
	if _, err := p.Block(ctx, c); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := p.Block(t.Context(), c); err != nil {
		t.Error(err)
	}
}
