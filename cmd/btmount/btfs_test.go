package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
)

const somebody = "/p2p/16Uiu2HAmVeJwSMkeaEXEZdDAtxM6mngAALjTPwq4w2suehMVPwA5"

// btfsPlace is a place, a gateway as measured, and what it serves.
type btfsPlace struct {
	*place
	store    *btfstest.Store
	fixtures []btfstest.Fixture
	gateway  string
}

func newBTFSPlace(t *testing.T) *btfsPlace {
	p := &btfsPlace{place: newPlace(t)}
	p.fixtures, p.store = btfstest.Fixtures(t)
	p.gateway = p.serve(&btfstest.Gateway{Store: p.store, NotFound: true})
	return p
}

func (p *btfsPlace) serve(h http.Handler) string {
	s := httptest.NewServer(h)
	p.t.Cleanup(s.Close)
	return s.URL
}

func (p *btfsPlace) cid(name string) string {
	return btfstest.Named(p.t, p.fixtures, name).CID.String()
}

// btfs runs a btfs command that asks the gateway.
func (p *btfsPlace) btfs(args ...string) outcome {
	p.t.Helper()
	return p.run(append([]string{"btfs"}, append(args, "--btfs-gateway", p.gateway)...)...)
}

// Everything that the manifest has is written as it says, from a gateway, a node and peers
// that the DHT knows, beside those that lie or are silent; some of it from each alone.
func TestBTFSGet(t *testing.T) {
	p := newBTFSPlace(t)
	h := &btfstest.Node{Store: p.store}
	s := httptest.NewUnstartedServer(h)
	h.Config = s.Listener.Addr().String()
	s.Start()
	t.Cleanup(s.Close)
	node := s.URL
	first := peers.New(t, peers.Config{})
	far := peers.New(t, peers.Config{Store: p.store, Bootstrap: first})
	for _, f := range p.fixtures {
		far.Provide(t, f.CID)
	}
	liar := p.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.raw")
		fmt.Fprint(w, "lies")
	}))
	for name, from := range map[string][]string{
		"gateway": {"--btfs-gateway", p.gateway},
		"node":    {"--btfs-node", node},
		"peers":   {"--btfs-network", "main", "--btfs-bootstrap", first.Addr()},
		"all": {
			"--btfs-gateway", liar, "--btfs-gateway", p.gateway, "--btfs-node", node, "--btfs-network", "main", "--btfs-bootstrap", first.Addr(),
			"--btfs-peer", peers.New(t, peers.Config{Fault: peers.Silent}).Addr(), "--btfs-peer", peers.New(t, peers.Config{Fault: peers.Liar}).Addr(),
		},
	} {
		for _, f := range p.fixtures {
			if name != "all" && !strings.HasSuffix(f.Name, "reed-solomon") && f.Name != "tree" {
				continue // btfs/source has each of them from each kind of source
			}
			to := p.path(name + "-" + f.Name)
			got := p.run(append([]string{"btfs", "get", "/btfs/" + f.CID.String(), "--to", to}, from...)...)
			if got.code != 0 || !strings.HasPrefix(got.stdout, to+": ") {
				t.Errorf("%s, %s: %+v", name, f.Name, got)
			}
			for _, file := range f.Files {
				p.holds(filepath.Join(to, file.Path), file)
			}
			if files := len(leavesOf(t, to)); files != len(f.Files) {
				t.Errorf("%s, %s: %d files, not %d", name, f.Name, files, len(f.Files))
			}
		}
	}
	if left, _ := filepath.Glob(p.path(".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if st, err := os.Stat(p.path("all-file-mtime-mode")); err != nil || st.ModTime().Unix() != 981173106 || st.Mode() != 0o640 {
		t.Error(st.ModTime(), st.Mode(), err)
	}
}

// leavesOf lists what is no directory.
func leavesOf(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

func (p *btfsPlace) holds(path string, file btfstest.File) {
	p.t.Helper()
	if file.Symlink != "" {
		if to, err := os.Readlink(path); err != nil || to != file.Symlink {
			p.t.Errorf("%s -> %s, %v", path, to, err)
		}
		return
	}
	if b, err := os.ReadFile(path); err != nil || !file.Is(b) {
		p.t.Errorf("%s: %d bytes, %v", path, len(b), err)
	}
}

func TestBTFSGetToStdoutAndByName(t *testing.T) {
	p := newBTFSPlace(t)
	got := p.btfs("get", p.cid("tree")+"/sub/déjà vu/c d.txt", "--to", "-")
	h := sha256.Sum256([]byte(got.stdout))
	if got.code != 0 || got.stderr != "" || hex.EncodeToString(h[:]) != "7511aceb19257eba72b6c6470138bb8894efb55ac151b97af16fa889bb7eb225" {
		t.Errorf("%+v", got)
	}
	if got := p.btfs("get", p.cid("tree")+"/sub/b.bin", "--json"); got.code != 0 || !strings.HasSuffix(got.stdout, `/sub/b.bin","to":"b.bin","files":1,"bytes":300000}`+"\n") {
		t.Errorf("%+v", got)
	}
	if st, err := os.Stat(p.path("b.bin")); err != nil || st.Size() != 300000 {
		t.Error(err)
	}
	holdsOneLine(t, p.btfs("get", p.cid("tree")+"/sub/b.bin"), []string{"b.bin: exists", "--to"})
	holdsOneLine(t, p.btfs("get", p.cid("tree")+"/sub/b.bin", "--to", p.path("no", "where")), []string{p.path("no"), "no such file", "--to"})
}

func noTerminal(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// newTerminal makes a terminal, and returns what a user and what a program has of it.
func newTerminal(t *testing.T) (ptmx, tty *os.File) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		noTerminal(t, err)
	}
	t.Cleanup(func() { ptmx.Close() })
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	}
	if err != nil {
		noTerminal(t, err)
	}
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		noTerminal(t, err)
	}
	return ptmx, tty
}

// On a terminal a bar shows how far it is, and is gone in the end.
func TestBTFSGetOnATerminal(t *testing.T) {
	p := newBTFSPlace(t)
	ptmx, tty := newTerminal(t)
	var drawn bytes.Buffer
	seen, read := make(chan struct{}), make(chan struct{})
	go func() { // ends when nobody has the terminal open
		defer close(read)
		told := false
		for b := make([]byte, 4096); ; {
			n, err := ptmx.Read(b)
			drawn.Write(b[:n])
			if !told && bytes.Contains(drawn.Bytes(), []byte("got ")) {
				told = true
				close(seen)
			}
			if err != nil {
				return
			}
		}
	}()
	root := p.cid("tree")
	slow := p.serve(&btfstest.Gateway{Store: p.store, Raw: true, Fault: func(_ http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		if c.String() != root {
			select {
			case <-seen:
			case <-r.Context().Done():
			}
		}
		return false
	}})
	cmd := p.command("btfs", "get", root, "--to", p.path("tree"), "--btfs-gateway", slow)
	cmd.Stderr = tty
	err := cmd.Run()
	tty.Close()
	<-read
	if err != nil || !strings.Contains(drawn.String(), "got ") {
		t.Errorf("%v: %q", err, drawn.String())
	}
	for _, file := range btfstest.Named(t, p.fixtures, "tree").Files {
		p.holds(p.path("tree", file.Path), file)
	}
}

func TestBTFSLs(t *testing.T) {
	p := newBTFSPlace(t)
	got := p.btfs("ls", "btfs://"+p.cid("tree")+"/sub/")
	var names []string
	for line := range strings.Lines(got.stdout) {
		fields := strings.SplitN(strings.TrimSpace(line), "  ", 3)
		names = append(names, strings.TrimSpace(fields[len(fields)-1]))
	}
	if got.code != 0 || strings.Join(names, ",") != "b.bin,déjà vu,link" {
		t.Errorf("%q, %+v", names, got)
	}
	var list struct{ Entries []btfsEntry }
	got = p.btfs("ls", p.cid("dir-hamt"), "--json")
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || len(list.Entries) != 3000 || list.Entries[7].Name != "entry-with-a-rather-long-name-to-force-sharding-00007.txt" {
		t.Error(err, len(list.Entries))
	}
	got = p.btfs("ls", p.cid("dir-reed-solomon"))
	if got.code != 0 || got.stdout != "-  600  first.txt\n-  0    x/\n" {
		t.Errorf("%+v", got)
	}
	if got := p.btfs("ls", p.cid("tree")+"/a.txt"); got.code != 0 || !strings.HasSuffix(got.stdout, "  6  a.txt\n") {
		t.Errorf("%+v", got)
	}
}

func TestBTFSStatAndDag(t *testing.T) {
	p := newBTFSPlace(t)
	for name, want := range map[string]string{
		"file-mtime-mode":     "type      file, one block\nsize      6 bytes (6 B)\nmode      0640\nmtime     2001-02-03T04:05:06Z\n",
		"file-reed-solomon":   "type      file, Reed-Solomon file, 10 data and 20 parity shards\nsize      700000 bytes (684 KiB)\nmetadata  {\"NumData\":10",
		"file-token-metadata": "type      file, tree of blocks, with token metadata\nsize      1500000 bytes (1.4 MiB)\nmetadata  {\"price\":11.2,",
		"dir-hamt":            "type      directory, HAMT directory\n",
		"tree/sub/link":       "type      symlink, symlink\nsize      8 bytes (8 B)\ntarget    ../a.txt\n",
	} {
		name, below, _ := strings.Cut(name, "/")
		got := p.btfs("stat", p.cid(name)+"/"+below)
		if got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	var info btfsInfo
	got := p.btfs("stat", "--json", p.cid("file-mtime-mode"))
	if err := json.Unmarshal([]byte(got.stdout), &info); err != nil || info.Size != 6 || info.Mode != "0640" || info.ModTime.Unix() != 981173106 {
		t.Errorf("%+v, %v", got, err)
	}
	got = p.btfs("dag", p.cid("file-balanced"))
	if got.code != 0 || !strings.Contains(got.stdout, "file, a block of 296 bytes, 0 of them content, 6 links\n") || !strings.Contains(got.stdout, "262158  at 1310720\n") && !strings.Contains(got.stdout, "at 1310720\n") {
		t.Errorf("%+v", got)
	}
	var b btfsBlock
	got = p.btfs("dag", p.cid("file-balanced"), "--json")
	if err := json.Unmarshal([]byte(got.stdout), &b); err != nil || len(b.Links) != 6 || *b.Size != 1500000 || *b.Links[5].Size != 189280 {
		t.Errorf("%+v, %v", got, err)
	}
	holdsOneLine(t, p.btfs("dag", p.cid("dir-reed-solomon")+"/first.txt"), []string{"first.txt", "no block of its own"})
}

// Whatever is wrong is one line that says what, and who was asked and answered what.
func TestBTFSBadInput(t *testing.T) {
	p := newBTFSPlace(t)
	c := p.cid("tree")
	gone := btfstest.NewStore().Leaf([]byte("gone")).CID.String()
	hangs := p.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	liar := p.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.raw")
		fmt.Fprint(w, "lies")
	}))
	dead := "http://" + deadAddr(t)
	token := p.write("token", "secret-token\n")
	node := p.serve(&btfstest.Node{Store: p.store, Config: "127.0.0.1:5001"})
	nothing := peers.New(t, peers.Config{})
	slash := p.store.Dir(btfstest.Link{CID: p.store.Leaf(nil).CID, Name: "a/b"}).String()
	for _, x := range []struct {
		name string
		code int
		args []string
		want []string
	}{
		{"no object", 2, []string{"ls"}, []string{"btmount btfs ls CID"}},
		{"malformed", 2, []string{"ls", "Qmxyz", "--btfs-gateway", p.gateway}, []string{`"Qmxyz": not a CID`, "check"}},
		{"unknown codec", 2, []string{"stat", "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "--btfs-gateway", p.gateway}, []string{"codec 0x71", "dag-pb or raw"}},
		{"unknown hash", 2, []string{"stat", "bafkrwifz2b5rkx3gqkhr2z2zmmojtebtxhdbujcqhmtmlhrmgpgpnkjd6q", "--btfs-gateway", p.gateway}, []string{"hash keccak-256", "only sha2-256"}},
		{"BTNS", 1, []string{"ls", "/btns/k51x", "--btfs-gateway", p.gateway}, []string{"k51x", "not a peer id"}},
		{"dots", 2, []string{"get", c + "/../x", "--btfs-gateway", p.gateway}, []string{"without . and .."}},
		{"no source", 2, []string{"ls", c}, []string{"no source is named", "--btfs-gateway", "--btfs-node", "--btfs-network"}},
		{"off", 2, []string{"ls", c, "--btfs", "off"}, []string{"BTFS is off"}},
		{"neither on nor off", 2, []string{"ls", c, "--btfs", "no"}, []string{`--btfs "no"`, "on or off"}},
		{"no peer", 2, []string{"ls", c, "--btfs-peer", "127.0.0.1:4001"}, []string{`--btfs-peer "127.0.0.1:4001"`, "no multiaddr", "/ip4/"}},
		{"no such network", 2, []string{"ls", c, "--btfs-network", "mainnet"}, []string{`--btfs-network "mainnet"`, "no such file", "main, test"}},
		{"no swarm key", 2, []string{"ls", c, "--btfs-network", token}, []string{"not a swarm key"}},
		{"a network that begins nowhere", 2, []string{"ls", c, "--btfs-network", p.write("swarm.key", peers.MainKey)}, []string{"--btfs-bootstrap"}},
		{"nobody is there", 1, []string{"ls", c, "--btfs-network", "main", "--btfs-bootstrap", "/ip4/" + strings.Replace(deadAddr(t), ":", "/tcp/", 1) + somebody}, []string{"block " + c, "BTFS peers: no node could be reached", "cannot connect", "connection refused"}},
		{"a peer that has nothing", 1, []string{"ls", c, "--btfs-network", "main", "--btfs-bootstrap", nothing.Addr(), "--btfs-lookup-timeout", "2s"}, []string{"block " + c, "BTFS peers: no answer within 2s", "1 peers connected", "the DHT names nobody who has it"}},
		{"a peer of another network", 1, []string{"ls", c, "--btfs-network", "test", "--btfs-bootstrap", nothing.Addr()}, []string{nothing.Addr(), "wrong swarm key?", "--btfs-network"}},
		{"no URL", 2, []string{"ls", c, "--btfs-gateway", "gateway.example"}, []string{`--btfs-gateway "gateway.example"`, "http://"}},
		{"a password in the URL", 2, []string{"ls", c, "--btfs-node", "http://u:secret-token@127.0.0.1:1"}, []string{`--btfs-node "http:…"`, "without user"}},
		{"a token in the URL", 2, []string{"ls", c, "--btfs-node", "http://127.0.0.1:1/?token=secret-token"}, []string{`--btfs-node "http:…"`, "and query"}},
		{"bad time", 2, []string{"ls", c, "--btfs-gateway", p.gateway, "--btfs-lookup-timeout", "1"}, []string{"--btfs-lookup-timeout", "give a time"}},
		{"no token file", 2, []string{"ls", c, "--btfs-node", node, "--btfs-token-file", p.path("none")}, []string{"--btfs-token-file", "no such file"}},
		{"a node that wants a token", 1, []string{"ls", c, "--btfs-node", node}, []string{"block " + c, "node " + node, "401", "--btfs-token-file"}},
		{"a node that wants another token", 1, []string{"ls", c, "--btfs-node", node, "--btfs-token-file", token}, []string{"does not take the token"}},
		{"absent", 1, []string{"ls", gone, "--btfs-gateway", p.gateway}, []string{"block " + gone, "gateway " + p.gateway, "404"}},
		{"two that do not have it", 1, []string{"ls", gone, "--btfs-gateway", p.gateway, "--btfs-gateway", hangs, "--btfs-lookup-timeout", "4s"}, []string{"gateway " + p.gateway, "404", "gateway " + hangs, "no answer within 4s"}},
		{"nobody listens", 1, []string{"ls", c, "--btfs-gateway", dead}, []string{"gateway " + dead, "cannot connect", "check the address"}},
		{"a liar", 1, []string{"get", c, "--btfs-gateway", liar, "--to", p.path("x")}, []string{"gateway " + liar, "it lies"}},
		{"no such name", 1, []string{"get", c + "/gone", "--btfs-gateway", p.gateway}, []string{c + "/gone", "no such name"}},
		{"below a file", 1, []string{"get", c + "/a.txt/x", "--btfs-gateway", p.gateway}, []string{c + "/a.txt", "no directory"}},
		{"through a symlink", 1, []string{"get", c + "/sub/link/x", "--btfs-gateway", p.gateway}, []string{"/sub/link", "symlink", "not followed"}},
		{"a symlink", 1, []string{"get", c + "/sub/link", "--btfs-gateway", p.gateway}, []string{"symlink to", "../a.txt"}},
		{"a directory to stdout", 2, []string{"get", c, "--btfs-gateway", p.gateway, "--to", "-"}, []string{"only a file"}},
		{"a name with a slash", 1, []string{"ls", slash, "--btfs-gateway", p.gateway}, []string{"block " + slash, "with a slash or NUL"}},
		{"a bad proxy", 1, []string{"ls", c, "--btfs-gateway", p.gateway, "--proxy", "ftp://x"}, []string{"proxy"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := p.run(append([]string{"btfs"}, x.args...)...)
			if got.code != x.code {
				t.Errorf("exit code %d, want %d", got.code, x.code)
			}
			if x.name == "a liar" { // and a line of the log
				if !strings.Contains(got.stderr, x.want[0]) || !strings.Contains(got.stderr, x.want[1]) {
					t.Errorf("%+v", got)
				}
				return
			}
			holdsOneLine(t, got, x.want)
			if strings.Contains(got.stderr, "secret-token") {
				t.Error("the token is told")
			}
		})
	}
	if left, _ := filepath.Glob(p.path(".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A stranger's directory makes nothing outside of itself, and nothing that harms: what is
// not written is told, and the rest is.
func TestBTFSGetHostile(t *testing.T) {
	p := newBTFSPlace(t)
	link := func(target string) btfstest.Link {
		return btfstest.Link{CID: p.store.Put(0x70, btfstest.Encode(btfstest.PB{}.Num(1, 4).Text(2, target)))}
	}
	as := func(name string, l btfstest.Link) btfstest.Link { l.Name = name; return l }
	leaf := p.store.Leaf([]byte("content"))
	lie := btfstest.Link{CID: p.store.Put(0x70, btfstest.Encode(btfstest.PB{}.Num(1, 2).Num(3, 9).Num(4, 9), leaf))}
	setuid := btfstest.Link{CID: p.store.Put(0x70, btfstest.Encode(btfstest.PB{}.Num(1, 2).Num(7, 0o7777)))}
	sub := p.store.Dir(as("up", link("..")), as("etc", link("up/../../etc")), as("good", link("../dir/../a")), as("out", link("../../a")))
	root := p.store.Dir(
		as("a", leaf), as("a", leaf), as("b\x1b[2J", leaf), as("abs", link("/etc/passwd")), as("dir", btfstest.Link{CID: sub}),
		as("lie", lie), as("self", link("self")), as("setuid", setuid), as("up", link("../x")),
	)
	to := p.path("got")
	got := p.btfs("get", root.String(), "--to", to)
	if got.code != 1 || !strings.HasPrefix(got.stdout, to+": 4 files") {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		`/abs: a symlink to "/etc/passwd", which leads out`, `/dir/out: a symlink to "../../a", which leads out`,
		`/up: a symlink to "../x", which leads out`, `/lie: block `, "it holds 7 bytes where 9 are promised",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%q is not told in %q", want, got.stderr)
		}
	}
	if n := strings.Count(got.stderr, "\n"); n != 4 {
		t.Errorf("%d lines: %s", n, got.stderr)
	}
	var names []string
	for _, path := range leavesOf(t, to) {
		rest, _ := filepath.Rel(to, path)
		if target, err := os.Readlink(path); err == nil {
			rest += " -> " + target
		}
		names = append(names, rest)
	}
	if want := "a,a~2,b_[2J,dir/etc -> ../etc,dir/good -> ../a,dir/up -> ..,self -> self,setuid"; strings.Join(names, ",") != want {
		t.Errorf("%s, want %s", strings.Join(names, ","), want)
	}
	if st, err := os.Stat(filepath.Join(to, "setuid")); err != nil || st.Mode() != 0o755 {
		t.Error(st.Mode(), err)
	}
	// A few blocks that say they are an exabyte.
	big := p.store.Leaf(make([]byte, 256<<10))
	for range 42 {
		big = p.store.Tree(big, big)
	}
	holdsOneLine(t, p.btfs("get", big.CID.String(), "--to", p.path("big")), []string{big.CID.String() + ": it has 1.0 EiB", "free", "--to"})
	// And some that say they are 2^30 files.
	many := p.store.Dir(as("x", leaf))
	for range 30 {
		many = p.store.Dir(as("l", btfstest.Link{CID: many}), as("r", btfstest.Link{CID: many}))
	}
	if got := p.btfs("stat", many.String()); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// Ctrl-C ends a get at once, and leaves nothing of what is not whole.
func TestBTFSGetIsInterrupted(t *testing.T) {
	p := newBTFSPlace(t)
	root := p.cid("file-balanced")
	leaf := p.firstLeaf(root)
	asked := make(chan struct{}, 100)
	hangs := p.serve(&btfstest.Gateway{Store: p.store, Raw: true, Fault: func(_ http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		if c.String() == root || c.String() == leaf {
			return false
		}
		asked <- struct{}{}
		<-r.Context().Done()
		return true
	}})
	r := p.start("btfs", "get", root, "--to", p.path("got"), "--btfs-gateway", hangs)
	<-asked
	got := r.end(syscall.SIGINT)
	if got.code != 1 || got.stdout != "" || got.stderr != "btmount: interrupted\n" {
		t.Errorf("%+v", got)
	}
	if left, _ := filepath.Glob(p.path("*got*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob(p.path(".*got*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func (p *btfsPlace) firstLeaf(root string) string {
	got := p.btfs("dag", root, "--json")
	var b btfsBlock
	if err := json.Unmarshal([]byte(got.stdout), &b); err != nil {
		p.t.Error(err)
	}
	return b.Links[0].CID
}

// Sources stand in the config file or in the environment as well.
func TestBTFSConfig(t *testing.T) {
	p := newBTFSPlace(t)
	config := p.write("config.toml", `btfs-gateway = ["`+p.gateway+`"]`+"\n"+`cache-size = "1GiB"`+"\n")
	if got := p.run("btfs", "ls", p.cid("tree"), "--config", config); got.code != 0 || strings.Count(got.stdout, "\n") != 3 {
		t.Errorf("%+v", got)
	}
	p.env = append(p.env, "BTMOUNT_BTFS_GATEWAY=http://"+deadAddr(t)+" "+p.gateway)
	if got := p.run("btfs", "ls", p.cid("tree")); got.code != 0 || strings.Count(got.stdout, "\n") != 3 {
		t.Errorf("%+v", got)
	}
}
