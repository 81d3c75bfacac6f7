package catalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
	"github.com/btmount/btmount/fs/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// torrent is a Mountable whose files are in memory.
type torrent struct {
	tree     *tree.Tree
	files    []fstest.File
	identity [32]byte
	present  func(tag int) (int64, bool)
}

func newTorrent(id byte, files ...fstest.File) *torrent {
	m := &torrent{files: files, identity: [32]byte{id, 0xab, 0xcd, 0xef, 0x01}}
	specs := make([]tree.Spec, len(files))
	for i, f := range files {
		specs[i] = tree.Spec{Size: int64(len(f.Data)), Exec: f.Exec, Tag: i}
		if f.Path != "" {
			specs[i].Path = strings.Split(f.Path, "/")
		}
		if f.Symlink != "" {
			specs[i].Symlink = strings.Split(f.Symlink, "/")
		}
	}
	m.tree = tree.Build(specs)
	return m
}

func (m *torrent) Tree() *tree.Tree   { return m.tree }
func (m *torrent) Identity() [32]byte { return m.identity }
func (m *torrent) ModTime() time.Time { return fstest.ModTime }

func (m *torrent) Present(tag int) (int64, bool) {
	switch {
	case m.present != nil:
		return m.present(tag)
	case tag == Whole:
		return m.tree.Total(0), true
	}
	return int64(len(m.files[tag].Data)), true
}

func (m *torrent) Open(_ context.Context, tag int) (fs.Content, error) {
	return fstest.Bytes(m.files[tag].Data), nil
}

func (m *torrent) Attributes(tag int) []string {
	return []string{"user.btmount.infohash", "user.btmount.tag"}
}

func (m *torrent) Attribute(tag int, name string) ([]byte, error) {
	switch name {
	case "user.btmount.infohash":
		return []byte(hex.EncodeToString(m.identity[:])), nil
	case "user.btmount.tag":
		return fmt.Append(nil, tag), nil
	}
	return nil, iofs.ErrNotExist
}

func add(t *testing.T, c *Catalog, name string, m Mountable) Handle {
	t.Helper()
	h, err := c.Add(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ls returns the names in a directory.
func ls(t *testing.T, c *Catalog, dir tree.ID) []string {
	t.Helper()
	var names []string
	for e, err := range c.List(context.Background(), dir, 0) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
	}
	return names
}

func show() []fstest.File {
	return []fstest.File{
		{Path: "Season 1/e1.mkv", Data: []byte("one")},
		{Path: "Season 1/e2.mkv", Data: []byte("two")},
		{Path: "run", Data: []byte("#!"), Exec: true},
		{Path: "latest", Symlink: "Season 1/e2.mkv"},
	}
}

func TestLayout(t *testing.T) {
	c := New()
	add(t, c, "A Show", newTorrent(1, show()...))
	add(t, c, "movie.mkv", newTorrent(2, fstest.File{Data: []byte("film")}))
	add(t, c, "../evil\x00", newTorrent(3, fstest.File{Path: "x", Data: []byte("y")}))
	if err := c.AddStatus("version", func() []byte { return []byte("1\n") }); err != nil {
		t.Fatal(err)
	}
	if err := c.AddStatus("version", nil); err == nil {
		t.Error("two status files of one name")
	}
	if err := c.AddStatus("a/b", nil); err == nil {
		t.Error("a status file of a bad name")
	}
	if got := ls(t, c, tree.Root); !slices.Equal(got, []string{".btmount", "torrents"}) {
		t.Errorf("root: %q", got)
	}
	files := []fstest.File{
		{Path: "../evil_/x", Data: []byte("y")},
		{Path: "movie.mkv", Data: []byte("film")},
	}
	files[0].Path = ".._evil_/x"
	for _, f := range show() {
		f.Path = "A Show/" + f.Path
		if f.Symlink != "" {
			f.Symlink = "A Show/" + f.Symlink
		}
		files = append(files, f)
	}
	fstest.RunCatalog(t, c, "torrents", files)
	fstest.RunCatalog(t, c, "", nil)
	if total, absent, n := c.Space(); total != 4+1+8 || absent != 0 || n != 6 {
		t.Errorf("space %d, %d, %d", total, absent, n)
	}
}

// Names and inode numbers depend on the set alone.
func TestStableWhateverTheOrder(t *testing.T) {
	type item struct {
		name string
		m    *torrent
	}
	items := []item{
		{"a.mkv", newTorrent(1, fstest.File{Data: []byte("1")})},
		{"a.mkv", newTorrent(2, fstest.File{Data: []byte("2")})},
		{"a.mkv", newTorrent(3, show()...)},
		{"a.mkv", newTorrent(4, fstest.File{Data: []byte("4")})},
		{"a [02abcdef].mkv", newTorrent(5, fstest.File{Data: []byte("5")})}, // what the second would get
		{"b", newTorrent(6, show()...)},
		{"", newTorrent(7, show()...)},
	}
	want := []string{
		"_", "a [02abcdef01000000].mkv", "a [02abcdef].mkv", "a [04abcdef].mkv", "a.mkv", "a.mkv [03abcdef]", "b",
	}
	inos := func(c *Catalog) map[string]uint64 {
		m := map[string]uint64{}
		for e := range c.List(context.Background(), torrents, 0) {
			m[e.Name] = e.Ino
			for f := range c.List(context.Background(), e.ID, 0) {
				m[e.Name+"/"+f.Name] = f.Ino
			}
		}
		return m
	}
	var first map[string]uint64
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := New()
		var handles []Handle
		for _, i := range r.Perm(len(items)) {
			handles = append(handles, add(t, c, items[i].name, items[i].m))
		}
		extra := add(t, c, "a.mkv", newTorrent(0))
		if err := c.Remove(extra); err != nil {
			t.Fatal(err)
		}
		if got := ls(t, c, torrents); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %q, want %q", seed, got, want)
		}
		got := inos(c)
		if first == nil {
			first = got
		}
		for name, ino := range got {
			if first[name] != ino {
				t.Fatalf("seed %d: %q has inode number %d, had %d", seed, name, ino, first[name])
			}
		}
		for _, h := range handles {
			if err := c.Remove(h); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.inodes)+len(c.slots)+len(c.names.given)+len(c.names.families)+len(c.names.identities) != 0 {
			t.Fatalf("something is left: %+v", c)
		}
	}
}

func TestSameTorrentTwice(t *testing.T) {
	c := New()
	add(t, c, "a", newTorrent(1))
	_, err := c.Add("b", newTorrent(1))
	var already *MountedError
	if !errors.As(err, &already) || already.Name != "a" {
		t.Errorf("got %v", err)
	}
	h := add(t, c, "c", newTorrent(2))
	if err := c.Replace(h, "c", newTorrent(1)); !errors.As(err, &already) {
		t.Errorf("replaced by what is there already: %v", err)
	}
	if err := c.Replace(h, "d", newTorrent(2)); err != nil || c.Name(h) != "d" {
		t.Errorf("replaced by itself under another name: %v, %q", err, c.Name(h))
	}
	if err := c.Remove(h); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Remove(h), c.Replace(h, "x", newTorrent(3))} {
		if !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("of what is gone: %v", err)
		}
	}
}

// record collects changes as "dir/name".
func record(c *Catalog) (take func() []string) {
	var changes []string
	c.Watch(func(ch fs.Change) {
		c.Name(1) // a watcher may call back: no lock is held
		changes = append(changes, fmt.Sprintf("%d/%s", ch.Dir, ch.Name))
	})
	return func() []string {
		taken := changes
		changes = nil
		return taken
	}
}

func TestChanges(t *testing.T) {
	c := New()
	changes := record(c)
	dir := func(names ...string) []string {
		for i := range names {
			names[i] = fmt.Sprintf("%d/%s", torrents, names[i])
		}
		return names
	}
	expect := func(want []string) {
		t.Helper()
		if got := changes(); !slices.Equal(got, want) {
			t.Errorf("changes %q, want %q", got, want)
		}
	}
	b := add(t, c, "x", newTorrent(2, show()...))
	expect(dir("x"))
	a := add(t, c, "x", newTorrent(1, show()...)) // takes the plain name
	expect(dir("x", "x [02abcdef]"))
	if err := c.Remove(a); err != nil {
		t.Fatal(err)
	}
	expect(dir("x", "x [02abcdef]"))
	if err := c.Replace(b, "y", newTorrent(2, show()...)); err != nil {
		t.Fatal(err)
	}
	expect(dir("x", "y"))
	if err := c.AddStatus("s", func() []byte { return nil }); err != nil {
		t.Fatal(err)
	}
	expect([]string{fmt.Sprintf("%d/s", statusDir)})
}

func TestResolving(t *testing.T) {
	ctx := context.Background()
	c := New()
	changes := record(c)
	reason := "looking for peers"
	id := newTorrent(9).identity
	h, err := c.AddResolving("Show", id, func() []byte { return []byte(reason) })
	if err != nil || c.Name(h) != "Show.resolving" {
		t.Fatal(err, c.Name(h))
	}
	dir, err := c.Lookup(ctx, torrents, "Show.resolving")
	if err != nil || dir.Kind != tree.Dir {
		t.Fatal(dir, err)
	}
	file, err := c.Lookup(ctx, dir.ID, "reason")
	if err != nil || !file.Live {
		t.Fatal(file, err)
	}
	for _, reason = range []string{"looking for peers", "2 peers, no metadata yet"} {
		content, err := c.Open(ctx, file.ID)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, _ := content.ReadAt(ctx, buf, 0); string(buf[:n]) != reason {
			t.Errorf("reason %q, want %q", buf[:n], reason)
		}
	}
	changes()
	if err := c.Replace(h, "Show", newTorrent(9, show()...)); err != nil {
		t.Fatal(err)
	}
	if got := changes(); len(got) != 2 {
		t.Errorf("changes %q", got)
	}
	if got := ls(t, c, torrents); !slices.Equal(got, []string{"Show"}) {
		t.Errorf("%q", got)
	}
	for _, old := range []tree.ID{dir.ID, file.ID} {
		if _, err := c.Stat(ctx, old); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("an id of the magnet still means something: %v", err)
		}
	}
}

func TestPresent(t *testing.T) {
	ctx := context.Background()
	m := newTorrent(1, show()...)
	m.present = func(tag int) (int64, bool) {
		return map[int]int64{Whole: 5, 0: 3, 1: -1, 2: 100}[tag], tag == 0
	}
	c := New()
	add(t, c, "s", m)
	dir, _ := c.Lookup(ctx, torrents, "s")
	run, err := c.Lookup(ctx, dir.ID, "run")
	if err != nil || run.Present != 2 || run.Settled || !run.Exec {
		t.Errorf("%+v, %v", run, err)
	}
	season, _ := c.Lookup(ctx, dir.ID, "Season 1")
	for name, want := range map[string]int64{"e1.mkv": 3, "e2.mkv": 0} {
		e, err := c.Lookup(ctx, season.ID, name)
		if err != nil || e.Present != want || e.Settled != (want == 3) {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if total, absent, _ := c.Space(); total != 8 || absent != 3 {
		t.Errorf("space %d, %d", total, absent)
	}
}

func TestInodeClash(t *testing.T) {
	c := New()
	m := newTorrent(1, show()...)
	probe := mounted("x", m)
	c.inodes[probe.inodes[2]] = struct{}{} // somebody has the number of the third node
	add(t, c, "x", m)
	fstest.RunCatalog(t, c, "", nil)
	if got := c.slots[1].inodes[2]; got != probe.inodes[2]+1 {
		t.Errorf("stepped from %d to %d", probe.inodes[2], got)
	}
	for _, hash := range []string{"0000000000000000", "0000000000000001", "ffffffffffffffff", "8000000000000000"} {
		b, _ := hex.DecodeString(hash)
		if ino := inode(b); ino < 2 || ino >= 1<<63 {
			t.Errorf("%s makes %d", hash, ino)
		}
	}
}

func TestUnknownIDs(t *testing.T) {
	ctx := context.Background()
	c := New()
	add(t, c, "x", newTorrent(1, show()...))
	for _, id := range []tree.ID{0, 99, 1 << 32, 1<<32 | 1000, 2<<32 | 1, 1<<32 | 0xffffffff, ^tree.ID(0)} {
		_, stat := c.Stat(ctx, id)
		_, lookup := c.Lookup(ctx, id, "x")
		_, open := c.Open(ctx, id)
		_, attribute := c.Attribute(ctx, id, "user.x")
		for _, err := range []error{stat, lookup, open, attribute} {
			if !errors.Is(err, iofs.ErrNotExist) {
				t.Errorf("id %x: %v", id, err)
			}
		}
		for _, err := range c.List(ctx, id, 0) {
			if !errors.Is(err, iofs.ErrNotExist) {
				t.Errorf("list of %x: %v", id, err)
			}
		}
	}
}

// A file of a mounted torrent that nobody has looked at costs its place in the tree,
// its name, and its inode number twice.
func TestBytesPerFile(t *testing.T) {
	const n = 200_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	c := New()
	for i := range 20 {
		specs := make([]tree.Spec, n/20)
		for k := range specs {
			specs[k] = tree.Spec{Path: []string{fmt.Sprint("d", k/100), fmt.Sprintf("episode %06d.mkv", k)}, Tag: k}
		}
		add(t, c, "x", &torrent{identity: [32]byte{byte(i)}, tree: tree.Build(specs)})
	}
	got := (heap() - before) / n
	t.Logf("%d bytes a file, of which %d are its name", got, len("episode 000000.mkv"))
	if got > 100 {
		t.Errorf("%d bytes a file", got)
	}
	runtime.KeepAlive(c)
}

func BenchmarkAdd(b *testing.B) {
	files := make([]fstest.File, 100_000)
	for i := range files {
		files[i].Path = fmt.Sprintf("d%d/f%d", i/1000, i)
	}
	m := newTorrent(1, files...)
	b.ReportAllocs()
	for b.Loop() {
		c := New()
		if _, err := c.Add("x", m); err != nil {
			b.Fatal(err)
		}
	}
}

// Who goes by inode numbers reads the files of a torrent in its order.
func TestInodeOrder(t *testing.T) {
	var specs []tree.Spec
	for i := range 100 {
		specs = append(specs, tree.Spec{Path: []string{fmt.Sprint("d", i/10), fmt.Sprint(i * 37 % 100)}, Size: 1, Tag: i})
	}
	m := newTorrent(1)
	m.tree = tree.Build(specs)
	at := mounted("x", m)
	seen := map[uint64]bool{}
	byTag := make([]uint64, len(specs))
	for i, n := range m.tree.All() {
		if seen[at.inodes[i]] {
			t.Errorf("%d twice", at.inodes[i])
		}
		seen[at.inodes[i]] = true
		if n.Tag != tree.NoTag {
			byTag[n.Tag] = at.inodes[i]
		}
	}
	if !slices.IsSorted(byTag) {
		t.Error(byTag)
	}
}
