package btfs

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tree = "QmVZsDWCSVMdC7ndvijyZB2DuXbzcRPe2vAkc8hv3sMhyk"

func TestParsePath(t *testing.T) {
	for text, want := range map[string]string{
		tree:                              tree,
		"/btfs/" + tree:                   tree,
		"btfs://" + tree + "/":            tree,
		tree + "/a/b c/é":                 tree + "/a/b c/é",
		"btfs://" + tree + "//a/":         tree + "/a",
		tree + "/%2e%2e":                  tree + "/%2e%2e", // names are names
		tree + "/..":                      "",
		tree + "/./a":                     "",
		"":                                "",
		"/":                               "",
		"/btfs/":                          "",
		"/ipfs/" + tree:                   "",
		"btns://k51abc":                   "",
		tree[:45]:                         "",
		tree + strings.Repeat("/a", 3000): "",
	} {
		p, err := ParsePath(text)
		if want == "" && err == nil || want != "" && (err != nil || p.String() != want) {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	if p, _ := ParsePath(tree + "/a/b"); p.Name() != "b" {
		t.Error(p.Name())
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/btfs/" + tree + "/a/b")
	f.Add("btfs://" + tree)
	f.Add("/btns/x")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePath(text)
		if err != nil {
			return
		}
		again, err := ParsePath(p.String())
		if err != nil || again.String() != p.String() || len(again.Names) != len(p.Names) {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
		for _, n := range p.Names {
			if n == "" || n == "." || n == ".." || strings.Contains(n, "/") {
				t.Fatalf("%q: the name %q", text, n)
			}
		}
	})
}

func TestStore(t *testing.T) {
	_, blocks := btfstest.Fixtures(t)
	server := httptest.NewServer(&btfstest.Gateway{Store: blocks})
	defer server.Close()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	s, err := Open(Config{Gateways: []string{server.URL}, Timeout: time.Minute, Client: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := ParsePath(tree + "/sub/b.bin")
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Walk(t.Context(), p)
	if err != nil || o.Size != 300_000 {
		t.Fatal(o, err)
	}
	n, size, err := s.Node(t.Context(), o.CID)
	if err != nil || len(n.Links) != 2 || size < 80 {
		t.Error(n, size, err)
	}
	if _, _, err := s.Node(t.Context(), cid.Undef); err == nil {
		t.Error("no CID")
	}
	if _, err := Open(Config{}); !errors.Is(err, source.ErrNoSource) {
		t.Error(err)
	}
}

// late has blocks that come late, each after another time.
type late struct {
	*btfstest.Store
	mu     sync.Mutex
	n      int
	active int
	most   int
}

func (l *late) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	l.mu.Lock()
	l.n++
	wait := time.Duration(1+l.n*7%5) * 10 * time.Millisecond
	l.active++
	l.most = max(l.most, l.active)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.active--
	}()
	select {
	case <-time.After(wait):
		return l.Store.Block(ctx, c)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *late) file(n int) (*unixfs.Object, []byte) {
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	var parts []btfstest.Link
	for b := content; len(b) > 0; {
		k := min(len(b), 256<<10)
		parts, b = append(parts, l.Leaf(b[:k])), b[k:]
	}
	o, err := unixfs.Open(context.Background(), l.Store, l.Tree(parts...).CID)
	if err != nil {
		panic(err)
	}
	again, err := unixfs.Open(context.Background(), l, o.CID)
	if err != nil {
		panic(err)
	}
	return again, content
}

// Files are written in order whatever comes first, several at a time, and what lies in
// memory is bounded for all of them.
func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &late{Store: btfstest.NewStore()}
		o, content := l.file(20<<20 + 12345)
		c := NewCopier()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				var got bytes.Buffer
				wrote := 0
				if err := c.Copy(t.Context(), &got, o, func(n int) { wrote += n }); err != nil || !bytes.Equal(got.Bytes(), content) || wrote != len(content) {
					t.Error(err, got.Len(), wrote)
				}
			})
		}
		all.Wait()
		if l.most < copyAhead || l.most > copyAhead*5 {
			t.Errorf("%d blocks at a time", l.most)
		}
		if len(c.slots) != 0 {
			t.Errorf("%d slots are not given back", len(c.slots))
		}
	})
}

// broken fails after some writes.
type broken struct{ left int }

var errFull = errors.New("full")

func (b *broken) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestCopyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &late{Store: btfstest.NewStore()}
		o, _ := l.file(8 << 20)
		c := NewCopier()
		if err := c.Copy(t.Context(), &broken{2}, o, nil); !errors.Is(err, errFull) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
		defer cancel()
		if err := c.Copy(ctx, &broken{100}, o, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for _, cid := range l.CIDs() {
			if cid != o.CID {
				l.Drop(cid)
				break
			}
		}
		if err := c.Copy(t.Context(), &broken{100}, o, nil); !errors.Is(err, btfstest.ErrAbsent) {
			t.Error(err)
		}
		if len(c.slots) != 0 {
			t.Errorf("%d slots are not given back", len(c.slots))
		}
	})
}
