package rpc

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/btfstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func doer(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func client(t *testing.T, address, token string) *Client {
	t.Helper()
	c, err := New(address, token, doer(t), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write makes files of names and contents; one that ends with a slash is a directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, p); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What is added has the CIDs that a real node gave to the same: so both the multipart body
// and the fake are right.
func TestAdd(t *testing.T) {
	fixtures, store := btfstest.Fixtures(t)
	tree := btfstest.Named(t, fixtures, "tree")
	empty := btfstest.NewStore()
	node := btfstest.NewRPC(t, empty)
	c := client(t, node.URL, "")
	files := map[string]string{"hello": "hello\n"}
	for _, f := range tree.Files {
		files["tree/"+f.Path] = content(t, store, tree, f)
	}
	files["tree/.hidden"] = "no"
	dir := write(t, files)
	var sent int
	a, err := c.Add(t.Context(), filepath.Join(dir, "hello"), AddOptions{Pin: true}, func(n int) { sent += n })
	if err != nil || a.CID.String() != "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN" || a.Names != 1 || a.Bytes != 6 || sent != 6 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = c.Add(t.Context(), filepath.Join(dir, "tree")+"/", AddOptions{}, nil)
	if err != nil || !a.CID.Equals(tree.CID) {
		t.Errorf("%+v, %v, want %v", a, err, tree.CID)
	}
	if a, err = c.Add(t.Context(), filepath.Join(dir, "tree"), AddOptions{Hidden: true}, nil); err != nil || a.CID.Equals(tree.CID) {
		t.Errorf("%+v, %v", a, err)
	}
	pins, err := c.Pins(t.Context())
	if err != nil || len(pins) != 1 || pins[0].CID.String() != "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN" {
		t.Errorf("%+v, %v", pins, err)
	}
}

func content(t *testing.T, s *btfstest.Store, tree btfstest.Fixture, f btfstest.File) string {
	t.Helper()
	if f.Symlink != "" {
		return "-> " + f.Symlink
	}
	b, err := btfstest.ReadFile(t.Context(), s, tree.CID, f.Path)
	if err != nil || !f.Is(b) {
		t.Fatal(f.Path, len(b), err)
	}
	return string(b)
}

func TestAddFails(t *testing.T) {
	node := btfstest.NewRPC(t, btfstest.NewStore())
	c := client(t, node.URL, "")
	dir := write(t, map[string]string{"a/b": "x", "a/gone": "y"})
	if _, err := c.Add(t.Context(), filepath.Join(dir, "none"), AddOptions{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	sent := func(int) { os.Remove(filepath.Join(dir, "a/gone")) } // b was opened: gone is next
	if _, err := c.Add(t.Context(), filepath.Join(dir, "a"), AddOptions{}, sent); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "a/gone") {
		t.Error(err)
	}
	node.Set(btfstest.Behaviour{Answers: map[string]string{"add": `{"Name":"b","Hash":""}` + "\nerror:disk full"}})
	if _, err := c.Add(t.Context(), filepath.Join(dir, "a/b"), AddOptions{}, nil); err == nil || !strings.Contains(err.Error(), "add: it answers: disk full") {
		t.Error(err)
	}
	for answer, want := range map[string]string{
		`{"Name":"b","Hash":"Qmxyz"}`:                     "not a CID",
		`{"Name":"c","Hash":""}`:                          `does not say what "b" became`,
		`{"Name":"b","Hash":7}`:                           "not what was asked for",
		`{"Name":"` + strings.Repeat("n", 1<<17) + `"}`:   "longer than any",
		strings.Repeat("{}\n", 100000) + `{"Hash":"Qmx"}`: "not a CID",
		`<html>` + strings.Repeat("x", 100) + "\n":        "no JSON",
	} {
		node.Set(btfstest.Behaviour{Answers: map[string]string{"add": answer}})
		if _, err := c.Add(t.Context(), filepath.Join(dir, "a/b"), AddOptions{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", answer, err, want)
		}
	}
}

func TestPins(t *testing.T) {
	s := btfstest.NewStore()
	node := btfstest.NewRPC(t, s)
	c := client(t, node.URL, "")
	id := s.Leaf([]byte("x")).CID
	if err := c.Pin(t.Context(), id, func(int64) {}); err != nil {
		t.Error(err)
	}
	if err := c.Unpin(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := c.Unpin(t.Context(), id); !Refused(err) || !strings.Contains(err.Error(), "not pinned") {
		t.Error(err)
	}
	gone := btfstest.NewStore().Leaf([]byte("gone")).CID
	quick := client(t, node.URL, "")
	quick.quiet = 50 * time.Millisecond
	if err := quick.Pin(t.Context(), gone, nil); err == nil || Refused(err) || !strings.Contains(err.Error(), "nothing came from it for 50ms") {
		t.Error(err)
	}
	node.Set(btfstest.Behaviour{Answers: map[string]string{"pin/add": `{"Pins":["` + gone.String() + `"]}`, "pin/ls": `{"Keys":{"\u001b[2J":{"Type":"recursive"}}}`}})
	if err := c.Pin(t.Context(), id, nil); err == nil || !strings.Contains(err.Error(), "does not say") {
		t.Error(err)
	}
	if _, err := c.Pins(t.Context()); err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	node := btfstest.NewRPC(t, btfstest.NewStore())
	c := client(t, node.URL, "")
	s, err := c.Status(t.Context())
	if err != nil || s.Mode != "simple" || s.ID != btfstest.PeerID || s.Peers != 3 || s.Repo.Size.String() != "123456789" || len(s.Notes) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
	node.Set(btfstest.Behaviour{Full: true})
	if s, err = c.Status(t.Context()); err != nil || s.Mode != "full" || s.Vault != btfstest.VaultAddr {
		t.Errorf("%+v, %v", s, err)
	}
	node.Set(btfstest.Behaviour{Full: true, NoChain: true, Fails: map[string]string{"repo/stat": "broken"}})
	if s, err = c.Status(t.Context()); err != nil || s.Mode != "full" || s.Repo != nil || len(s.Notes) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Whatever a node answers becomes one sentence that says what to do.
func TestExplained(t *testing.T) {
	node := btfstest.NewRPC(t, btfstest.NewStore())
	ask := func(c *Client) error { _, _, err := c.Publish(t.Context(), "/btfs/x", "", time.Hour); return err }
	ports := strings.Replace(node.URL, "127.0.0.1", "localhost", 1) // as a port that is forwarded
	for _, x := range []struct {
		name  string
		c     *Client
		fails string
		want  string
		is    error
	}{
		{"no token", client(t, ports, ""), "", "wants a token (401)", nil},
		{"wrong token", client(t, ports, "bad"), "", "does not take the token", nil},
		{"no node", client(t, "http://"+closed(t), ""), "", "cannot connect", nil},
		{"simple mode", client(t, node.URL, ""), "this api is not support in simple mode, please check the node's simple mode! ", "start a node that was made without", ErrSimpleMode},
		{"no chain", client(t, node.URL, ""), "could not connect all rpc configuration after 1 min", "does not reach its chain", ErrNoChain},
		{"no funds", client(t, node.URL, ""), "vault: insufficient balance", "vault deposit", ErrFunds},
		{"10 MB", client(t, node.URL, ""), strings.Repeat("x\n", 5<<20), "it answers 500", nil},
	} {
		node.Set(btfstest.Behaviour{Fails: map[string]string{"name/publish": x.fails}})
		err := ask(x.c)
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 700 {
			t.Errorf("%s: %.300v", x.name, err)
		}
		if x.is != nil && !errors.Is(err, x.is) {
			t.Errorf("%s: %v is not %v", x.name, err, x.is)
		}
	}
	node.Set(btfstest.Behaviour{})
	c := client(t, node.URL, "")
	err := c.call(t.Context(), nil, callOf("storage/nothing"))
	node.Set(btfstest.Behaviour{Full: true})
	if err2 := c.call(t.Context(), nil, callOf("storage/nothing")); !errors.Is(err, ErrSimpleMode) || !Refused(err2) {
		t.Error(err, err2)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Version(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func closed(t *testing.T) string {
	s := httptest.NewServer(nil)
	defer s.Close()
	return s.Listener.Addr().String()
}

// A node that sends for ever, or too much, is left.
func TestEndless(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := []byte(strings.Repeat(" ", 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	c := client(t, s.URL, "")
	if _, err := c.Version(t.Context()); !errors.Is(err, ErrTooMuch) {
		t.Error(err)
	}
	if err := c.lines(t.Context(), callOf("add"), func([]byte) error { return nil }); !errors.Is(err, ErrTooMuch) {
		t.Error(err)
	}
}

// A node that sends elsewhere is not followed with what it was trusted with.
func TestSendsElsewhere(t *testing.T) {
	asked := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
		_, _ = w.Write([]byte(`{"Version":"4.1.0"}`))
	}))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/x", http.StatusFound)
	}))
	defer s.Close()
	_, err := client(t, s.URL, "secret-token").Version(t.Context())
	if err == nil || !strings.Contains(err.Error(), "it sends to") || strings.Contains(err.Error(), "secret-token") {
		t.Error(err)
	}
	if got := <-asked; strings.Contains(got, "secret-token") {
		t.Errorf("the token was told: %s", got)
	}
}

// What is added by a relative path has the name of its folder.
func TestAddHere(t *testing.T) {
	node := btfstest.NewRPC(t, btfstest.NewStore())
	dir := write(t, map[string]string{"place/a": "hello\n", "place/b/c": "x"})
	t.Chdir(filepath.Join(dir, "place", "b"))
	for _, path := range []string{"..", "../", "../b/..", filepath.Join(dir, "place")} {
		a, err := client(t, node.URL, "").Add(t.Context(), path, AddOptions{}, nil)
		if err != nil || a.Names != 4 {
			t.Errorf("%s: %+v, %v", path, a, err)
		}
	}
	if n, err := Measure(t.Context(), "..", false); n != 7 || err != nil {
		t.Error(n, err)
	}
}
