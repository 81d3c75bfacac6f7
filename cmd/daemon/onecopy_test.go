package daemon_test

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// bodies is what du shows of the files in a cache folder that hold content.
func bodies(t testing.TB, dir string) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Base(filepath.Dir(path)) != "body" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			n += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A file that two torrents have is fetched once and stored once: the second torrent, of which
// nobody has anything, is read from what the first one brought, before and after a restart and a
// kill, and when the first one is gone.
func TestOneCopy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]metainfo.MakeConfig{
		"v2":            {{PieceLength: 256 << 10, V2: true}, {PieceLength: 64 << 10, V2: true}},
		"hybrid":        {{PieceLength: 256 << 10, Hybrid: true}, {PieceLength: 128 << 10, Hybrid: true}},
		"hybrid and v2": {{PieceLength: 256 << 10, Hybrid: true}, {PieceLength: 1 << 20, V2: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 12<<20 + 77
			dir := t.TempDir()
			mustWrite(t, filepath.Join(dir, "one", "film"), size)
			mustWrite(t, filepath.Join(dir, "two", "a file before it"), 300_000)
			mustWrite(t, filepath.Join(dir, "two", "film"), size)
			one := mustTorrent(t, filepath.Join(dir, "one"), c[0])
			two := mustTorrent(t, filepath.Join(dir, "two"), c[1])
			addr, _ := seed(t, one, "--no-dht")
			f := newFolders(t)
			m := f.mount(t, one.torrent, two.torrent, "--no-dht", "--peer", addr)
			same(t, "sequential", m.path("one/film"), one.file("film"))
			before := bodies(t, f.cache)
			for _, way := range []string{"sequential", "random", "mmap"} {
				same(t, way, m.path("two/film"), two.file("film"))
			}
			after := bodies(t, f.cache)
			t.Logf("%d bytes on disk, and %d when both were read", before, after)
			if after > size+64<<10 {
				t.Errorf("%d bytes on disk for a file of %d", after, size)
			}
			m.kill()

			m = f.mount(t, two.torrent, "--no-dht") // nobody to fetch it from
			same(t, "sequential", m.path("two/film"), two.file("film"))
			m.stop()

			m = f.mount(t, two.torrent, one.torrent, "--no-dht")
			same(t, "random", m.path("one/film"), one.file("film"))
			same(t, "random", m.path("two/film"), two.file("film"))
			if n := bodies(t, f.cache); n > size+64<<10 {
				t.Errorf("%d bytes on disk after restarts", n)
			}
			m.stop()
		})
	}
}
