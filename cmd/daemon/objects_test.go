package daemon_test

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/btfs/btfstest"
	btfspeers "github.com/btmount/btmount/btfs/btfstest/peers"
)

// gateway serves blocks on loopback.
func gateway(t testing.TB, h http.Handler) (url string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// mountObjects mounts without torrents.
func (f folders) mountObjects(t testing.TB, args ...string) *mounted {
	return f.mount(t, append(args, "--no-dht", "--btfs-lookup-timeout", "3s")...)
}

// checkFixtures reads all that a real node made through the mount.
func checkFixtures(t *testing.T, m *mounted, all []btfstest.Fixture) {
	t.Helper()
	for _, f := range all {
		root := m.path("..", "btfs", f.CID.String())
		if _, err := os.Lstat(root); err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		for _, file := range f.Files {
			at := filepath.Join(root, file.Path)
			switch st, err := os.Lstat(at); {
			case err != nil:
				t.Errorf("%s: %v", f.Name, err)
			case file.Symlink != "":
				if target, err := os.Readlink(at); err != nil || target != file.Symlink {
					t.Errorf("%s: %s leads to %q, %v", f.Name, file.Path, target, err)
				}
			case st.Mode().Perm()&0o222 != 0:
				t.Errorf("%s: %s may be written: %v", f.Name, file.Path, st.Mode())
			case st.Size() != max(file.Size, int64(len(file.Content))):
				t.Errorf("%s: %s has %d bytes, want %d", f.Name, file.Path, st.Size(), file.Size)
			default:
				b, err := os.ReadFile(at)
				if err != nil || !file.Is(b) {
					t.Errorf("%s: %s differs: %d bytes, %v", f.Name, file.Path, len(b), err)
				}
			}
		}
		if !f.Whole {
			continue
		}
		seen := 0
		err := filepath.WalkDir(root, func(_ string, d iofs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				seen++
			}
			return err
		})
		if err != nil || seen != len(f.Files) {
			t.Errorf("%s: %d files, want %d; %v", f.Name, seen, len(f.Files), err)
		}
	}
}

// All that a real node made is read through a mount, whatever the source is like; and once
// more, from the cache, after a restart.
func TestObjects(t *testing.T) {
	t.Parallel()
	all, store := btfstest.Fixtures(t)
	lies := func(w http.ResponseWriter, _ *http.Request, _ cid.Cid) bool {
		_, _ = w.Write([]byte("not what you asked for"))
		return true
	}
	hangs := func(_ http.ResponseWriter, r *http.Request, _ cid.Cid) bool {
		<-r.Context().Done()
		return true
	}
	fake := &btfstest.Node{Store: store}
	node := gateway(t, fake)
	fake.Config = strings.TrimPrefix(node, "http://")
	real, raw := gateway(t, &btfstest.Gateway{Store: store}), gateway(t, &btfstest.Gateway{Store: store, Raw: true})
	for name, args := range map[string][]string{
		"gateway":     {"--btfs-gateway", real},
		"raw gateway": {"--btfs-gateway", raw},
		"node":        {"--btfs-node", node},
		"all, with faults": {
			"--btfs-gateway", gateway(t, &btfstest.Gateway{Store: store, Fault: lies}),
			"--btfs-gateway", gateway(t, &btfstest.Gateway{Store: store, Fault: hangs}),
			"--btfs-gateway", real, "--btfs-gateway", raw, "--btfs-node", node,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolders(t)
			m := f.mountObjects(t, args...)
			checkFixtures(t, m, all)
			m.stop()
			m = f.mountObjects(t, args...)
			checkFixtures(t, m, all)
			m.stop()
		})
	}
}

// A name of btfs/ is looked up when somebody asks for it. What is no CID does not exist, and
// what nobody has is an error in time, and no statement about what exists.
func TestObjectNames(t *testing.T) {
	t.Parallel()
	all, store := btfstest.Fixtures(t)
	g := &btfstest.Gateway{Store: store}
	other := &btfstest.Gateway{Store: store, NotFound: true}
	tree := btfstest.Named(t, all, "tree")
	m := newFolders(t).mountObjects(t, "--btfs-gateway", gateway(t, g), "btfs://"+tree.CID.String()+"/sub")
	at := func(names ...string) string { return m.path(append([]string{"..", "btfs"}, names...)...) }

	if got := list(t, at()); !slices.Equal(got, []string{tree.CID.String()}) {
		t.Errorf("btfs/ lists %q", got)
	}
	if raws, cars := g.Requests(); raws+cars != 0 {
		t.Errorf("%d requests before anybody looked", raws+cars)
	}
	for _, name := range []string{".git", "autorun.inf", "QmNo", strings.Repeat("Q", 255)} {
		if _, err := os.Stat(at(name)); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if raws, cars := g.Requests(); raws+cars != 0 {
		t.Errorf("%d requests for what is no CID", raws+cars)
	}
	if _, err := os.Stat(at(tree.CID.String(), "sub", "none")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a name that its directory does not have: %v", err)
	}
	unknown := cid.MustParse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn").String()
	if took := within(t, patience, "a CID that nobody has", func() error {
		if _, err := os.Stat(at(unknown)); err == nil || errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("stat: %v", err)
		}
		return nil
	}); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := list(t, at()); !slices.Equal(got, []string{tree.CID.String()}) {
		t.Errorf("btfs/ lists %q", got)
	}

	m = newFolders(t).mountObjects(t, "--btfs-gateway", gateway(t, other))
	if _, err := os.Stat(at(unknown)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a CID that all sources say they do not have: %v", err)
	}
}

// A listing brings the blocks of its directory, and none of what is in it.
func TestObjectListingFetchesNoChildren(t *testing.T) {
	t.Parallel()
	store := btfstest.NewStore()
	var links []btfstest.Link
	for i := range 300 {
		l := store.Leaf(fmt.Appendf(nil, "file %d", i))
		l.Name = fmt.Sprintf("%04d", i)
		links = append(links, l)
	}
	dir := store.Dir(links...)
	m := newFolders(t).mountObjects(t, "--btfs-gateway", gateway(t, &btfstest.Gateway{Store: store, Raw: true}))
	at := m.path("..", "btfs", dir.String())
	out := output(t, patience, "ls", "-U", at)
	if n := strings.Count(out, "\n"); n != len(links) {
		t.Errorf("ls shows %d names", n)
	}
	if n := store.Asked(); n != 1 {
		t.Errorf("ls brought %d blocks", n)
	}
	long := output(t, patience, "ls", "-l", at)
	if n := strings.Count(long, "-r--r--r--"); n != len(links) {
		t.Errorf("ls -l shows %d files: %s", n, long)
	}
	if n := store.Asked(); n != len(links) {
		t.Errorf("ls -l brought %d blocks", n)
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err = f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// A name of BTNS is a directory of btns/, and leads to something else once its record does.
func TestObjectsByName(t *testing.T) {
	t.Parallel()
	all, store := btfstest.Fixtures(t)
	tree := btfstest.Named(t, all, "tree").CID.String()
	node := btfstest.NewRPC(t, store)
	const key = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r"
	node.SetName(key, "/btfs/"+tree+"/sub")
	m := newFolders(t).mountObjects(t, "--btfs-node", node.URL)
	at := func(names ...string) string { return m.path(append([]string{"..", "btns"}, names...)...) }
	if got := list(t, at(key)); !slices.Equal(got, []string{"b.bin", "déjà vu", "link"}) {
		t.Errorf("the name lists %q", got)
	}
	if target, err := os.Readlink(at(key, "link")); err == nil {
		t.Errorf("a link that leads out of what the name stands for leads to %q", target)
	}
	if got := list(t, at()); !slices.Equal(got, []string{key}) {
		t.Errorf("btns/ lists %q", got)
	}
	if b, err := os.ReadFile(at(key, "b.bin")); err != nil || len(b) != 300_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, name := range []string{"nothing", ".git"} {
		if _, err := os.Stat(at(name)); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// big adds a file of n bytes in leaves of 256 KiB.
func big(store *btfstest.Store, n int) (id string, content []byte) {
	content = make([]byte, n)
	rand.NewChaCha8([32]byte{5}).Read(content)
	var leaves []btfstest.Link
	for leaf := range slices.Chunk(content, 256<<10) {
		leaves = append(leaves, store.Leaf(leaf))
	}
	return store.Tree(leaves...).CID.String(), content
}

// Nobody is held by a source that hangs: who waits for a name, a listing or a byte can be
// killed, and the mount ends as if nobody waited.
func TestObjectsHang(t *testing.T) {
	t.Parallel()
	store := btfstest.NewStore()
	id, _ := big(store, 4<<20)
	dir := btfstest.Link{CID: store.Dir(), Name: "dir"}
	root := store.Dir(dir).String()
	g := &btfstest.Gateway{Store: store, Raw: true, Fault: func(_ http.ResponseWriter, r *http.Request, c cid.Cid) bool {
		if c.String() == id || c.String() == root {
			return false
		}
		<-r.Context().Done()
		return true
	}}
	m := newFolders(t).mount(t, "--no-dht", "--btfs-lookup-timeout", "10m", "--read-timeout", "10m", "--btfs-gateway", gateway(t, g))
	at := func(names ...string) string { return m.path(append([]string{"..", "btfs"}, names...)...) }
	if st, err := os.Stat(at(id)); err != nil || st.Size() != 4<<20 {
		t.Fatal(st, err)
	}
	// Of one name that is looked up the kernel asks once; others wait for that in a way that
	// nothing interrupts, and ask one after the other once it is answered.
	waits := func() (all []*proc) {
		for range 20 {
			all = append(all, start(t, "cat", at(id)), start(t, "ls", at(root, "dir")), start(t, "stat", at(store.Leaf([]byte{byte(len(all))}).CID.String())))
		}
		for _, p := range all {
			eventually(t, patience, "a process that waits", func() bool {
				wchan, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.cmd.Process.Pid))
				return err == nil && slices.Contains([]string{"request_wait_answer", "folio_wait_bit_common", "d_alloc_parallel"}, string(wchan))
			})
		}
		return all
	}
	killed := waits()
	began := time.Now()
	for _, p := range killed { // those that stand in line too
		p.signal(syscall.SIGKILL)
	}
	for _, p := range killed {
		p.ended(patience)
	}
	t.Logf("%d processes gone after %v", len(killed), time.Since(began))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := list(t, at()); len(got) != 2 {
		t.Errorf("btfs/ lists %q", got)
	}
	more := waits()
	began = time.Now()
	output(t, patience, btmount, "unmount", m.point)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("unmount took %v", took)
	}
	for _, p := range more {
		p.ended(time.Second)
	}
	m.ended(2 * time.Second)
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the daemon ended with %v", m.cmd.ProcessState)
	}
}

// A daemon that is killed while it reads serves right bytes afterwards, and fetches little again.
func TestObjectsKilled(t *testing.T) {
	t.Parallel()
	store := btfstest.NewStore()
	id, content := big(store, 24<<20)
	url := gateway(t, &btfstest.Gateway{Store: store, Raw: true})
	f := newFolders(t)
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, content, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for round := range 4 {
		m := f.mountObjects(t, "--btfs-gateway", url)
		r := reader(t, "compare", "sequential", m.path("..", "btfs", id), original)
		goal := (round + 1) * len(content) / 6
		eventually(t, patience, "some of it", func() bool {
			var st unix.Stat_t
			return unix.Stat(m.path("..", "btfs", id), &st) == nil && st.Blocks*512 >= int64(goal)
		})
		m.kill()
		r.ended(5 * time.Second)
		asked += store.Asked()
	}
	m := f.mountObjects(t, "--btfs-gateway", url)
	same(t, "sequential", m.path("..", "btfs", id), original)
	same(t, "random", m.path("..", "btfs", id), original)
	asked += store.Asked()
	t.Logf("%d blocks were asked for, of %d", asked, len(content)/(256<<10)+1)
	if most := 3 * len(content) / (256 << 10); asked > most {
		t.Errorf("%d blocks were asked for, %d at most", asked, most)
	}
}

// Without a node the record of a name comes from the DHT, and what it stands for from peers.
func TestObjectsByRecord(t *testing.T) {
	t.Parallel()
	all, store := btfstest.Fixtures(t)
	tree := btfstest.Named(t, all, "tree").CID
	first := btfspeers.New(t, btfspeers.Config{})
	p := btfspeers.New(t, btfspeers.Config{Store: store, Bootstrap: first})
	p.Provide(t, tree)
	name := p.Publish(t, btfspeers.Key(t), "/btfs/"+tree.String()+"/sub", time.Now().Add(time.Hour), 1)
	m := newFolders(t).mountObjects(t, "--btfs-network", "main", "--btfs-bootstrap", first.Addr())
	at := func(names ...string) string { return m.path(append([]string{"..", "btns"}, names...)...) }
	if got := list(t, at(name)); !slices.Equal(got, []string{"b.bin", "déjà vu", "link"}) {
		t.Errorf("the name lists %q", got)
	}
	if b, err := os.ReadFile(at(name, "b.bin")); err != nil || len(b) != 300_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if got := xattr(t, at(name, "b.bin"), "user.btmount.source"); got != "BTFS peers" {
		t.Errorf("it comes from %q", got)
	}
	st := m.status(t).BTFS
	if st == nil || st.Bytes < 300_000 || st.Node == nil || st.Node.Network != "main" || st.Node.Peers != 2 || len(st.Sources) != 1 || st.Sources[0].Blocks == 0 {
		t.Errorf("%+v", st)
	}
	const nobody = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r"
	if _, err := os.Stat(at(nobody)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a name without a record: %v", err)
	}
}
