package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// mount mounts c for the length of the test.
func mount(t *testing.T, c *Catalog) string {
	t.Helper()
	s, err := fs.Mount(fs.Config{Catalog: c, Mountpoint: fstest.Point(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Unmount(ctx); err != nil {
			t.Error(err)
		}
	})
	return s.Mountpoint()
}

func TestMounted(t *testing.T) {
	c := New()
	files := append(show(), fstest.File{Path: "big", Data: make([]byte, 1<<20)})
	add(t, c, "A Show", newTorrent(1, files...))
	point := mount(t, c)
	root := filepath.Join(point, "torrents", "A Show")
	fstest.Run(t, root, files)
	fstest.CheckXattrs(t, filepath.Join(root, "run"), map[string]string{
		"user.btmount.infohash": fmt.Sprintf("%x", newTorrent(1).identity), "user.btmount.tag": "2",
	})
	fstest.CheckXattrs(t, root, map[string]string{
		"user.btmount.infohash": fmt.Sprintf("%x", newTorrent(1).identity), "user.btmount.tag": "-1",
	})
	fstest.CheckXattrs(t, point, nil)
}

// eventually waits until ok, by asking again each time the kernel may have been
// told: a change reaches it a moment after the catalog has it.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); !ok(); {
		select {
		case <-limit.C:
			t.Fatalf("%s: not after %v", what, time.Since(start))
		case <-tick.C:
		}
	}
}

func exists(parts ...string) bool {
	_, err := os.Lstat(filepath.Join(parts...))
	return err == nil
}

// What is added, replaced and removed shows at once, although the kernel keeps names
// and their absence for an hour.
func TestLiveChanges(t *testing.T) {
	c := New()
	dir := filepath.Join(mount(t, c), "torrents")
	if exists(dir, "a") || exists(dir, "a.resolving") {
		t.Fatal("it is there before it was added") // and the kernel remembers that it is not
	}
	h, err := c.AddResolving("a", newTorrent(1).identity, func() []byte { return []byte("no peers\n") })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a magnet appears", func() bool { return exists(dir, "a.resolving") })
	if got, err := fstest.ReadAll(filepath.Join(dir, "a.resolving", "reason")); got != "no peers\n" || err != nil {
		t.Errorf("reason %q, %v", got, err)
	}
	for round := range 5 { // the same inode numbers come back each time
		if err := c.Replace(h, "a", newTorrent(1, show()...)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the torrent takes its place", func() bool { return exists(dir, "a", "run") && !exists(dir, "a.resolving") })
		got, err := os.ReadFile(filepath.Join(dir, "a", "Season 1", "e1.mkv"))
		if string(got) != "one" || err != nil {
			t.Errorf("round %d: %q, %v", round, got, err)
		}
	}
	open, err := os.Open(filepath.Join(dir, "a", "run"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := c.Remove(h); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return !exists(dir, "a") })
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
	buf := make([]byte, 10)
	if n, err := unix.Pread(int(open.Fd()), buf, 0); err != nil || string(buf[:n]) != "#!" {
		t.Errorf("an open file that was removed: %q, %v", buf[:n], err)
	}
	if st, err := open.Stat(); err != nil || st.Size() != 2 {
		t.Errorf("stat of an open file that was removed: %v, %v", st, err)
	}
}

func TestBlocksAndSpaceTellWhatIsThere(t *testing.T) {
	c := New()
	m := newTorrent(1, fstest.File{Path: "half", Data: make([]byte, 1<<20)})
	m.present = func(int) (int64, bool) { return 512 << 10, false }
	add(t, c, "x", m)
	point := mount(t, c)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(point, "torrents/x/half"), &st); err != nil || st.Size != 1<<20 || st.Blocks != 1024 {
		t.Errorf("%+v, %v", st, err)
	}
	var df unix.Statfs_t
	if err := unix.Statfs(point, &df); err != nil || df.Blocks != 256 || df.Bfree != 128 || df.Files != 1 {
		t.Errorf("%+v, %v", df, err)
	}
}

func TestStatusFiles(t *testing.T) {
	c := New()
	point := mount(t, c)
	file := filepath.Join(point, ".btmount", "count")
	if exists(file) {
		t.Fatal("there before it was added")
	}
	count := 0
	if err := c.AddStatus("count", func() []byte { count++; return fmt.Append(nil, count) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a status file appears", func() bool { return exists(file) })
	for want := range 3 {
		if got, err := fstest.ReadAll(file); err != nil || got != fmt.Sprint(want+1) {
			t.Errorf("%q, %v, want %d", got, err, want+1)
		}
	}
}
