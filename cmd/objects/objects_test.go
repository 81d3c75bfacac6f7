package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/names"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fs/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a forest with all that is below it.
type bed struct {
	*Forest
	cache *cache.Store
	end   func()
}

func newBed(t testing.TB, dir string, blocks unixfs.Blocks, limit int64) *bed {
	t.Helper()
	store, err := cache.Open(cache.Config{Dir: dir, Limit: limit, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	s := fetch.New(fetch.Config{})
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = s.Run(ctx) })
	all.Go(func() { _ = store.Run(ctx) })
	b := &bed{Forest: New(Config{Blocks: blocks, Cache: store, Scheduler: s, Log: slog.New(slog.DiscardHandler)}), cache: store}
	b.end = sync.OnceFunc(func() {
		b.Close()
		stop()
		all.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.end)
	return b
}

// walk looks a path up.
func (b *bed) walk(ctx context.Context, path string) (e tree.Entry, err error) {
	e.ID = tree.Root
	for name := range strings.SplitSeq(path, "/") {
		if e, err = b.Lookup(ctx, e.ID, name); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (b *bed) read(t testing.TB, path string) []byte {
	t.Helper()
	e, err := b.walk(t.Context(), path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	c, err := b.Open(t.Context(), e.ID)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer c.Close()
	p := make([]byte, e.Size)
	if n, err := c.ReadAt(t.Context(), p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("%s: %d bytes, %v", path, n, err)
	}
	return p
}

// All that was read is read again after a restart without a source, but for what the cache
// has no room for.
func TestRestartWithoutSource(t *testing.T) {
	all, store := btfstest.Fixtures(t)
	dir := t.TempDir()
	read := func(b *bed) {
		for _, f := range all {
			for _, file := range f.Files[:min(len(f.Files), 300)] {
				path := strings.TrimSuffix(f.CID.String()+"/"+file.Path, "/")
				if file.Symlink != "" {
					if e, err := b.walk(t.Context(), path); err != nil || e.Target != file.Symlink {
						t.Errorf("%s leads to %q, %v", path, e.Target, err)
					}
				} else if !file.Is(b.read(t, path)) {
					t.Errorf("%s differs", path)
				}
			}
		}
	}
	b := newBed(t, dir, store, 1<<30)
	read(b)
	b.end()
	store.Asked()
	b = newBed(t, dir, store, 1<<30)
	read(b)
	if again := store.AskedFor(); len(again) != 0 {
		t.Errorf("asked for again: %v", again)
	}
}

// A cache that holds a tenth of what is read serves all of it, and stays within its limit.
func TestSmallCache(t *testing.T) {
	store := btfstest.NewStore()
	var names []btfstest.Link
	var want [][]byte
	for i := range 40 {
		var parts []btfstest.Link
		content := bytes.Repeat(fmt.Appendf(nil, "%05d ", i), 50_000)
		for part := range slices.Chunk(content, 100_000) {
			parts = append(parts, store.Leaf(part))
		}
		l := store.Tree(parts...)
		l.Name = fmt.Sprint(i)
		names, want = append(names, l), append(want, content)
	}
	root := store.Dir(names...).String()
	const limit = 2 << 20
	b := newBed(t, t.TempDir(), store, limit)
	for range 2 {
		for i := range want {
			if !bytes.Equal(b.read(t, fmt.Sprintf("%s/%d", root, i)), want[i]) {
				t.Errorf("file %d differs", i)
			}
			if used, _ := b.cache.Usage(); used > limit {
				t.Errorf("%d bytes are used", used)
			}
		}
	}
}

// A node that the forest had to forget is stale, and found again by its path; those above
// one that is used are not forgotten.
func TestForgotten(t *testing.T) {
	all, store := btfstest.Fixtures(t)
	b := newBed(t, t.TempDir(), store, 1<<30)
	root := btfstest.Named(t, all, "tree").CID.String()
	e, err := b.walk(t.Context(), root+"/sub/b.bin")
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	last := b.order.Back().Value.(*node)
	b.forgetLocked(b.nodes[e.ID])
	b.mu.Unlock()
	if last.name == root {
		t.Error("the root would be forgotten before what is below it")
	}
	if _, err := b.Stat(t.Context(), e.ID); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("stat: %v", err)
	}
	again, err := b.walk(t.Context(), root+"/sub/b.bin")
	if err != nil || again.ID == e.ID || again.Ino != e.Ino {
		t.Errorf("%v, %v, %v", again, e, err)
	}
}

// Names that cannot be shown get others, by which they are found.
func TestOddNames(t *testing.T) {
	store := btfstest.NewStore()
	odd := []string{"a\x01b", "a_b", "a\x02b", strings.Repeat("x", 300), "\u202egpj.exe", "bad\xff", "plain"}
	var links []btfstest.Link
	for _, name := range odd {
		l := store.Leaf([]byte(name))
		l.Name = name
		links = append(links, l)
	}
	b := newBed(t, t.TempDir(), store, 1<<30)
	root := store.Dir(links...).String()
	e, err := b.walk(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for c, err := range b.List(t.Context(), e.ID, 0) {
		if err != nil || tree.CleanName(c.Name) != c.Name {
			t.Errorf("%q, %v", c.Name, err)
		}
		seen[string(b.read(t, root+"/"+c.Name))] = c.Name
	}
	if len(seen) != len(odd) || seen["a_b"] != "a_b" || seen["a\x01b"] != "a_b~2" || seen["plain"] != "plain" {
		t.Errorf("%q", seen)
	}
	for _, none := range []string{"a_c", "b~2", "nothing"} {
		if _, err := b.walk(t.Context(), root+"/"+none); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", none, err)
		}
	}
}

func TestInside(t *testing.T) {
	for _, c := range []struct {
		target string
		depth  int
		want   string
		ok     bool
	}{
		{"a", 0, "a", true},
		{"./a//b/.", 0, "a/b", true},
		{"..", 0, "", false},
		{"..", 1, "..", true},
		{"../../x", 2, "../../x", true},
		{"../../x", 1, "", false},
		{"a/../../x", 0, "", false},
		{"a/../x", 0, "x", true},
		{"/etc/passwd", 9, "", false},
		{"", 9, "", false},
		{"..a/x", 0, "..a/x", true},
		{"a\x1bb", 3, "", false},
		{strings.Repeat("../", 40), 39, "", false},
	} {
		got, ok := inside(c.target, c.depth)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("inside(%q, %d) = %q, %v", c.target, c.depth, got, ok)
		}
	}
}

// A broken object is an error at once, and says so to the kernel side; one that nobody has
// is not, and no statement about what exists.
func TestBroken(t *testing.T) {
	store := btfstest.NewStore()
	leaf := store.Leaf(bytes.Repeat([]byte("x"), 200_000))
	liar := leaf
	liar.Size += 5
	file := store.Tree(leaf, liar, leaf)
	b := newBed(t, t.TempDir(), store, 1<<30)
	e, err := b.walk(t.Context(), file.CID.String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Open(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	why := (*Error)(nil)
	if _, err := c.ReadAt(t.Context(), make([]byte, 10), 250_000); !errors.As(err, &why) || !why.Corrupt() {
		t.Errorf("read: %v", err)
	}
	huge := store.Tree(btfstest.Link{CID: leaf.CID, Size: 1 << 62})
	if e, err = b.walk(t.Context(), huge.CID.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), e.ID); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("open: %v", err)
	}
	gone := store.Leaf([]byte("gone"))
	store.Drop(gone.CID)
	if _, err := b.walk(t.Context(), gone.CID.String()); err == nil || errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("what nobody has: %v", err)
	}
}

// blocked is a source that answers when it is told to.
type blocked struct {
	unixfs.Blocks
	asked chan block.CID
	let   chan struct{}
}

func (b *blocked) Block(ctx context.Context, c block.CID) ([]byte, error) {
	select {
	case b.asked <- c:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-b.let:
		return b.Blocks.Block(ctx, c)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Whoever waits for a name is let go when he gives up, and a read too.
func TestInterrupted(t *testing.T) {
	store := btfstest.NewStore()
	part := store.Leaf(bytes.Repeat([]byte("x"), 200_000))
	file := store.Tree(part, part, part) // of two links the first would be brought too: it may be metadata
	slow := &blocked{Blocks: store, asked: make(chan block.CID), let: make(chan struct{})}
	b := newBed(t, t.TempDir(), slow, 1<<30)
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { _, err := b.walk(ctx, file.CID.String()); done <- err }()
	<-slow.asked
	stop(syscall.EINTR)
	if err := <-done; !errors.Is(err, syscall.EINTR) {
		t.Errorf("lookup: %v", err)
	}
	var e tree.Entry
	go func() { var err error; e, err = b.walk(t.Context(), file.CID.String()); done <- err }()
	<-slow.asked
	slow.let <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c, err := b.Open(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancelCause(t.Context())
	go func() { _, err := c.ReadAt(ctx, make([]byte, 10), 0); done <- err }()
	<-slow.asked
	stop(syscall.EINTR)
	if err := <-done; !errors.Is(err, syscall.EINTR) {
		t.Errorf("read: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Looking at one name after the other brings the next ones; looking here and there does not.
func TestAhead(t *testing.T) {
	var a ahead
	a.init()
	defer a.close()
	brought := map[int]int{}
	for i := range 1000 {
		from, to := a.step(a.looks, way{dir: 7}, i, 1000, maxAhead)
		for n := from; n < to; n++ {
			if brought[n]++; n <= i {
				t.Errorf("name %d is brought after it was looked at", n)
			}
		}
	}
	if len(brought) < 990 {
		t.Errorf("%d names were brought", len(brought))
	}
	for n, times := range brought {
		if times > 1 {
			t.Errorf("name %d was brought %d times", n, times)
		}
	}
	for i := range 100 {
		if from, to := a.step(a.looks, way{dir: 8}, i*37%1000, 1000, maxAhead); from != to {
			t.Errorf("look %d brings %d names", i, to-from)
		}
	}
}

// What the pack has is true, or is asked for again: also when units were evicted, reused, or
// written over by somebody.
func TestPack(t *testing.T) {
	store := btfstest.NewStore()
	var all []btfstest.Link
	for i := range 3000 {
		all = append(all, store.Leaf(bytes.Repeat(fmt.Appendf(nil, "%d.", i), 1+i%700)))
	}
	dir := t.TempDir()
	b := newBed(t, dir, store, 2<<20) // three units at most: the others are evicted
	check := func() {
		for _, l := range all {
			got, err := b.pack.Block(t.Context(), l.CID)
			want, _ := store.Block(t.Context(), l.CID)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %v", l.CID, err)
			}
		}
	}
	check()
	check()
	if used, limit := b.cache.Usage(); used > limit || used == 0 {
		t.Errorf("%d bytes of %d are used", used, limit)
	}
	b.end()
	b = newBed(t, dir, store, 2<<20)
	if b.pack.open() == nil || len(b.pack.index) < 300 {
		t.Errorf("%d blocks are there after a restart", len(b.pack.index))
	}
	b.pack.mu.Lock() // each stands where another does: the table lies, or the unit was reused
	places := make(map[digest]place, len(b.pack.index))
	last := place{}
	for d, at := range b.pack.index {
		places[d], last = last, at
	}
	b.pack.index = places
	b.pack.mu.Unlock()
	check()
}

// says is a resolver that answers what it is told.
type says map[string]names.Resolved

func (s says) Resolve(_ context.Context, name string) (names.Resolved, error) {
	to, ok := s[name]
	if !ok {
		return to, names.ErrNoLink
	}
	return to, nil
}

// A name is what it stands for, as long as its record says; then it may be another object,
// and what was open stays what it was.
func TestNames(t *testing.T) {
	all, store := btfstest.Fixtures(t)
	b := newBed(t, t.TempDir(), store, 1<<30)
	sub := btfs.Path{CID: btfstest.Named(t, all, "tree").CID, Names: []string{"sub"}}
	within := btfs.Path{CID: btfstest.Named(t, all, "dir-reed-solomon").CID, Names: []string{"x", "second.bin"}}
	to := says{"example.org": {Path: sub, TTL: 7 * time.Second}, "file.org": {Path: within, TTL: time.Minute}}
	n := NewNames(b.Forest, to)
	n.Name("file.org")
	e, err := n.Lookup(t.Context(), tree.Root, "example.org")
	if err != nil || e.TTL != 7*time.Second || e.Kind != tree.Dir {
		t.Fatalf("%+v, %v", e, err)
	}
	file, err := n.Lookup(t.Context(), e.ID, "b.bin")
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Open(t.Context(), file.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to["example.org"] = names.Resolved{Path: btfs.Path{CID: sub.CID}, TTL: time.Second}
	later, err := n.Lookup(t.Context(), tree.Root, "example.org")
	if err != nil || later.ID == e.ID || later.Ino == e.Ino {
		t.Errorf("%+v, %v", later, err)
	}
	if _, err := n.Lookup(t.Context(), later.ID, "a.txt"); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadAt(t.Context(), make([]byte, 100), 299_000); err != nil {
		t.Errorf("what was open: %v", err)
	}
	rs, err := n.Lookup(t.Context(), tree.Root, "file.org")
	if err != nil || rs.Kind != tree.File || rs.Size != 50_000 {
		t.Errorf("%+v, %v", rs, err)
	}
	var listed []string
	for e := range n.List(t.Context(), tree.Root, 0) {
		listed = append(listed, e.Name)
	}
	if !slices.Equal(listed, []string{"example.org", "file.org"}) {
		t.Errorf("btns/ lists %q", listed)
	}
	for e := range b.List(t.Context(), tree.Root, 0) {
		t.Errorf("btfs/ lists %q", e.Name)
	}
	for _, name := range []string{".git", "autorun", "no name.org", ".hidden.org"} {
		if _, err := n.Lookup(t.Context(), tree.Root, name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	why := (*Error)(nil)
	if _, err := n.Lookup(t.Context(), tree.Root, "other.org"); !errors.As(err, &why) || !why.NoSource() || errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("a domain that has no link: %v", err)
	}
}

// Who reads files to their ends, one after the other, has the next ones read; who looks into
// them has not.
func TestReadAhead(t *testing.T) {
	store := btfstest.NewStore()
	var links []btfstest.Link
	for i := range 30 {
		l := store.Tree(store.Leaf(bytes.Repeat([]byte{byte(i)}, 200_000)), store.Leaf(bytes.Repeat([]byte{byte(i), 1}, 100_000)), store.Leaf([]byte{byte(i)}))
		l.Name = fmt.Sprintf("%02d", i)
		links = append(links, l)
	}
	root := store.Dir(links...).String()
	b := newBed(t, t.TempDir(), store, 1<<30)
	e, err := b.walk(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for range b.List(t.Context(), e.ID, 0) {
		break
	}
	head := func(i int) {
		f, err := b.walk(t.Context(), fmt.Sprintf("%s/%02d", root, i))
		if err != nil {
			t.Fatal(err)
		}
		c, err := b.Open(t.Context(), f.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	present := func(i int) int64 {
		f, err := b.walk(t.Context(), fmt.Sprintf("%s/%02d", root, i))
		if err != nil {
			t.Fatal(err)
		}
		return f.Present
	}
	for i := range 6 {
		head(i)
	}
	b.ahead.all.Wait()
	if n := present(9); n != 0 {
		t.Errorf("%d bytes were read ahead of who looks into files", n)
	}
	for i := 10; i < 14; i++ {
		b.read(t, fmt.Sprintf("%s/%02d", root, i))
	}
	b.ahead.all.Wait()
	if n := present(15); n != 400_001 {
		t.Errorf("%d bytes were read ahead of who reads one file after the other", n)
	}
}

// asking notes how blocks are asked for.
type asking struct {
	unixfs.Blocks
	mu    sync.Mutex
	roots map[block.CID]int
	dues  map[block.CID][]time.Time
	let   chan struct{} // what is due later than in a minute waits for it
}

func (a *asking) Block(ctx context.Context, c block.CID) ([]byte, error) {
	due, ok := source.Due(ctx)
	a.mu.Lock()
	a.roots[source.Root(ctx)]++
	if ok {
		a.dues[c] = append(a.dues[c], due)
	}
	a.mu.Unlock()
	if ok && time.Until(due) > time.Minute {
		select {
		case <-a.let:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return a.Blocks.Block(ctx, c)
}

// wait returns when a block was asked for by a due time.
func (a *asking) wait(c block.CID, due time.Time) {
	for {
		a.mu.Lock()
		asked := slices.Contains(a.dues[c], due)
		a.mu.Unlock()
		if asked {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// Whoever is asked for blocks hears of which object they are, and by when they are wanted;
// and if that is earlier than before.
func TestRootAndDue(t *testing.T) {
	store := btfstest.NewStore()
	part := store.Leaf(bytes.Repeat([]byte("x"), 200_000))
	other := store.Leaf(bytes.Repeat([]byte("y"), 200_000))
	link := store.Tree(part, other)
	link.Name = "file"
	root := store.Dir(link)
	a := &asking{Blocks: store, roots: map[block.CID]int{}, dues: map[block.CID][]time.Time{}, let: make(chan struct{})}
	b := newBed(t, t.TempDir(), a, 1<<30)
	e, err := b.walk(t.Context(), root.String()+"/file")
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Open(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.files.mu.Lock()
	f := (*file)(nil)
	for _, f = range b.files.byKey {
	}
	b.files.mu.Unlock()
	later, sooner := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	done := make(chan error, 2)
	all := extent.Extent{Len: f.object.Size}
	go func() { done <- f.Fetch(t.Context(), all, later) }()
	a.wait(other.CID, later)
	go func() { done <- f.Fetch(t.Context(), all, sooner) }()
	a.wait(other.CID, sooner)
	close(a.let)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := a.roots[root]; n == 0 || len(a.roots) != 1 {
		t.Errorf("asked for blocks of %v", a.roots)
	}
}

// Many may list a directory and look into it at once.
func TestTogether(t *testing.T) {
	all, store := btfstest.Fixtures(t)
	b := newBed(t, t.TempDir(), store, 1<<30)
	f := btfstest.Named(t, all, "dir-hamt")
	dir, err := b.walk(t.Context(), f.CID.String())
	if err != nil {
		t.Fatal(err)
	}
	var everybody sync.WaitGroup
	for range 8 {
		everybody.Go(func() {
			n := 0
			for _, err := range b.List(t.Context(), dir.ID, 0) {
				if n++; err != nil {
					t.Error(err)
				}
			}
			if n != len(f.Files) {
				t.Errorf("%d names", n)
			}
		})
		everybody.Go(func() {
			for _, file := range f.Files[:50] {
				if _, err := b.Lookup(t.Context(), dir.ID, file.Path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	everybody.Wait()
}
