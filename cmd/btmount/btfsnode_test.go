package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/rpc"
)

// nodePlace is a place and a fake node.
type nodePlace struct {
	*place
	store *btfstest.Store
	rpc   *btfstest.RPC
}

func newNodePlace(t *testing.T) *nodePlace { return newNodePlaceOf(t, btfstest.NewStore()) }

func newNodePlaceOf(t *testing.T, s *btfstest.Store) *nodePlace {
	p := &nodePlace{place: newPlace(t), store: s}
	p.rpc = btfstest.NewRPC(t, p.store)
	p.env = append(p.env, "BTMOUNT_BTFS_NETWORK=none") // blocks come from the fake alone
	t.Cleanup(p.noKeys)
	return p
}

// node runs a btfs command that asks the fake. Whatever it prints, there is no key in it.
func (p *nodePlace) node(args ...string) outcome {
	p.t.Helper()
	got := p.run(p.args(args...)...)
	if strings.Contains(got.stdout+got.stderr, btfstest.SecretKey) {
		p.t.Errorf("%v shows the key of the wallet: %+v", args, got)
	}
	if strings.ContainsAny(got.stdout+got.stderr, "\x1b\x00\r") {
		p.t.Errorf("%v prints control characters: %+v", args, got)
	}
	return got
}

func (p *nodePlace) args(args ...string) []string {
	return append([]string{"btfs"}, append(args, "--btfs-node", p.rpc.URL)...)
}

// noKeys fails the test if a key was written to any file.
func (p *nodePlace) noKeys() {
	_ = filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if info, err2 := d.Info(); err == nil && err2 == nil && d.Type().IsRegular() && info.Size() < 1<<24 {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(btfstest.SecretKey)) {
				p.t.Errorf("%s holds the key of the wallet", path)
			}
		}
		return nil
	})
}

func TestBTFSAdd(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	p.write("dir/a.txt", "hello\n")
	p.write("dir/sub/b", strings.Repeat("b", 600<<10))
	p.write("dir/.hidden", "x")
	if err := os.Symlink("../a.txt", p.path("dir/sub/link")); err != nil {
		t.Fatal(err)
	}
	got := p.node("add", p.path("dir/a.txt"), p.path("dir"))
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if got.code != 0 || got.stderr != "" || len(lines) != 2 || lines[0] != "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN  "+p.path("dir/a.txt") {
		t.Fatalf("%+v", got)
	}
	id, _, _ := strings.Cut(lines[1], "  ")
	// What was added can be got, from the same node.
	if got := p.node("get", id, "--to", p.path("got")); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if b, err := os.ReadFile(p.path("got/sub/b")); err != nil || len(b) != 600<<10 {
		t.Error(len(b), err)
	}
	if to, err := os.Readlink(p.path("got/sub/link")); to != "../a.txt" {
		t.Error(to, err)
	}
	if _, err := os.Stat(p.path("got/.hidden")); err == nil {
		t.Error("what is hidden was added")
	}
	var added btfsAdded
	got = p.node("add", "--json", "--no-pin", "--reed-solomon", p.path("dir/a.txt"))
	if err := json.Unmarshal([]byte(got.stdout), &added); err != nil || added.Bytes != 6 || added.Names != 1 || added.Path != p.path("dir/a.txt") {
		t.Errorf("%+v, %v", got, err)
	}
	if call := p.rpc.Calls()[len(p.rpc.Calls())-1]; !strings.Contains(call, "chunker=reed-solomon") || !strings.Contains(call, "pin=false") {
		t.Error(call)
	}
	if got = p.node("add", "--encrypt", "--peer-id", btfstest.PeerID, p.path("dir/a.txt")); got.code != 0 || strings.HasPrefix(got.stdout, "QmZULk") {
		t.Errorf("%+v", got)
	}
}

func TestBTFSAddBadInput(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	file := p.write("file", "x")
	if err := syscall.Mkfifo(p.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		code int
		args []string
		want []string
		how  btfstest.Behaviour
	}{
		{"nothing", 2, []string{"add"}, []string{"btmount btfs add PATH"}, btfstest.Behaviour{}},
		{"not there", 1, []string{"add", p.path("none")}, []string{p.path("none"), "no such file", "not added"}, btfstest.Behaviour{}},
		{"a pipe", 1, []string{"add", p.path("fifo")}, []string{"fifo", "neither a file"}, btfstest.Behaviour{}},
		{"key without encrypt", 2, []string{"add", file, "--peer-id", "x"}, []string{"--encrypt"}, btfstest.Behaviour{}},
		{"the node refuses", 1, []string{"add", file}, []string{file, "bad public key  [31m", "0 of 1 path added"}, btfstest.Behaviour{Fails: map[string]string{"add": "bad public key \x1b[31m\n"}}},
		{"it breaks off", 1, []string{"add", file, file}, []string{"disk full", "0 of 2 paths added"}, btfstest.Behaviour{Answers: map[string]string{"add": "error:disk full"}}},
		{"no CID", 1, []string{"add", file}, []string{"not a CID"}, btfstest.Behaviour{Answers: map[string]string{"add": `{"Name":"file","Hash":"\u001b]0;x"}`}}},
		{"it hangs", 1, []string{"add", file, "--btfs-node-timeout", "100ms"}, []string{"nothing came from it for 100ms", "--btfs-node-timeout"}, btfstest.Behaviour{Hang: map[string]bool{"add": true}}},
		{"old node", 1, []string{"node", "status"}, []string{"404", "go-btfs 4"}, btfstest.Behaviour{Fails: map[string]string{}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			p.rpc.Set(x.how)
			args := p.args(x.args...)
			if x.name == "old node" {
				args = append([]string{"btfs"}, append(x.args, "--btfs-node", (&btfsPlace{place: p.place}).serve(http.NotFoundHandler()))...)
			}
			got := p.run(args...)
			if got.code != x.code {
				t.Errorf("exit code %d, want %d", got.code, x.code)
			}
			holdsOneLine(t, got, x.want)
		})
	}
	holdsOneLine(t, p.run("btfs", "add", file), []string{"--btfs-node", "is needed", "127.0.0.1:5001"})
	localhost := strings.Replace(p.rpc.URL, "127.0.0.1", "localhost", 1)
	holdsOneLine(t, p.run("btfs", "add", file, "--btfs-node", localhost), []string{"401", "--btfs-token-file"})
}

// Ctrl-C says what was added before it.
func TestBTFSAddIsInterrupted(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	file := p.write("file", "x")
	big := p.path("big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<40); err != nil { // of nothing, and never at its end
		t.Fatal(err)
	}
	r := p.start(p.args("add", file, big)...)
	r.line(file)
	got := r.end(syscall.SIGINT)
	if got.code != 1 || !strings.Contains(got.stderr, "interrupted; 1 of 2 paths added") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%+v", got)
	}
}

func TestBTFSPins(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	a, b := p.store.Leaf([]byte("a")).CID.String(), p.store.Leaf([]byte("b")).CID.String()
	if got := p.node("pin", a, "/btfs/"+b); got.code != 0 || got.stdout != "pinned "+a+"\npinned "+b+"\n" {
		t.Errorf("%+v", got)
	}
	if got := p.node("pins"); got.code != 0 || strings.Count(got.stdout, "recursive\n") != 2 || !strings.Contains(got.stdout, a) {
		t.Errorf("%+v", got)
	}
	if got := p.node("unpin", a); got.code != 0 || got.stdout != "unpinned "+a+"\n" {
		t.Errorf("%+v", got)
	}
	got := p.node("unpin", a, b)
	if got.code != 1 || got.stdout != "unpinned "+b+"\n" || !strings.Contains(got.stderr, a) || !strings.Contains(got.stderr, "not pinned") {
		t.Errorf("%+v", got)
	}
	if got := p.node("pins", "--json"); got.code != 0 || strings.Join(strings.Fields(got.stdout), "") != `{"pins":[]}` {
		t.Errorf("%+v", got)
	}
	holdsOneLine(t, p.node("pin", "Qmx"), []string{"not a CID"})
	gone := btfstest.NewStore().Leaf([]byte("gone")).CID.String()
	holdsOneLine(t, p.node("pin", gone, "--btfs-node-timeout", "100ms"), []string{gone, "nothing came from it"})
}

func TestBTFSNodeStatus(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	got := p.node("node", "status")
	for _, want := range []string{btfstest.PeerID, "4.1.0", "simple: it adds", "peers    3", "123456789 bytes of 10000000000"} {
		if got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in %+v", want, got)
		}
	}
	p.rpc.Set(btfstest.Behaviour{Full: true})
	var s rpc.Status
	got = p.node("node", "status", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &s); err != nil || s.Mode != "full" || s.Vault != btfstest.VaultAddr {
		t.Errorf("%+v, %v", got, err)
	}
	for _, call := range p.rpc.Calls() {
		if strings.HasPrefix(call, "config/") || strings.HasPrefix(call, "cheque/chaininfo") || strings.HasPrefix(call, "storage/announce") {
			t.Error("it asked for what holds the key:", call)
		}
	}
}

// A token opens a node that is asked at another address than its config has, and is not
// told to anybody else.
func TestBTFSNodeToken(t *testing.T) {
	t.Parallel()
	p := newNodePlace(t)
	p.rpc.SetToken("secret-token")
	localhost := strings.Replace(p.rpc.URL, "127.0.0.1", "localhost", 1)
	good, bad := p.write("good", "secret-token\n"), p.write("bad", "bad-secret\n")
	ask := func(token string) outcome {
		return p.run("btfs", "node", "status", "--btfs-node", localhost, "--btfs-token-file", token)
	}
	if got := ask(good); got.code != 0 || strings.Contains(got.stdout+got.stderr, "secret-token") {
		t.Errorf("%+v", got)
	}
	got := ask(bad)
	holdsOneLine(t, got, []string{"does not take the token", "--btfs-token-file"})
	if strings.Contains(got.stderr, "bad-secret") {
		t.Error("the token is told")
	}
	p.rpc.Set(btfstest.Behaviour{Fails: map[string]string{"version": "bad token secret-token"}})
	if got := ask(good); got.code != 1 || strings.Contains(got.stderr, "secret-token") {
		t.Errorf("%+v", got)
	}
	if got := p.run("btfs", "rentals"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}
