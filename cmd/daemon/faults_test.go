package daemon_test

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs/fstest"
)

// processorTime is what a process has used, in hundredths of a second.
func processorTime(t testing.TB, p *proc) (ticks int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, s := range f[11:13] {
		n, _ := strconv.Atoi(s)
		ticks += n
	}
	return ticks
}

// With 64 descriptors, 200 complete files are open at a time while strangers call: whatever was
// opened is read, nothing spins, and one line says that it could be better.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	need(t, "prlimit", "--version")
	dir := filepath.Join(t.TempDir(), "many")
	const files = 200
	name := func(i int) string { return fmt.Sprintf("file %03d", i) }
	for i := range files {
		mustWrite(t, filepath.Join(dir, name(i)), 40_000)
	}
	p := mustTorrent(t, dir, metainfo.MakeConfig{PieceLength: 64 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := newFolders(t).mountBy(t, []string{"prlimit", "--nofile=64:64"}, append(peers(addr), p.torrent, "--log-level", "warn")...)
	m.await("few descriptors")
	for range 100 { // who calls and says nothing
		c, err := net.DialTimeout("tcp", m.listen, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 2 { // the second time all is there
		for i := range files {
			h, err := os.Open(m.path("many", name(i)))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if got, err := fstest.ReadAll(h.Name()); err != nil || got != string(mustRead(t, p.file(name(i)))) {
				t.Errorf("%s: %d bytes, %v", name(i), len(got), err)
			}
		}
	}
	before, began := processorTime(t, m.proc), time.Now()
	<-time.After(2 * time.Second)
	if used := processorTime(t, m.proc) - before; used > 100 {
		t.Errorf("%d hundredths of a second of work in %v of nothing", used, time.Since(began))
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid)); err != nil || len(fds) > 60 {
		t.Errorf("%d descriptors, %v", len(fds), err)
	} else {
		t.Logf("%d descriptors", len(fds))
	}
}

// disk mounts a small one for a cache.
func disk(t testing.TB, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" || !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Skip("only root can mount a disk that is full soon")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// watchUse looks every few milliseconds at the blocks below a folder, until stop, which returns
// the most that there were.
func watchUse(t testing.TB, dir string) (stop func() int64) {
	t.Helper()
	end, most := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		seen := int64(0)
		for {
			seen = max(seen, use(dir))
			select {
			case <-end:
				most <- seen
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 { close(end); return <-most }
}

// use is what du says.
func use(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && !d.IsDir() && unix.Lstat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}

// A torrent of 64 MiB is read to its end through a disk of 16 MiB, and through a limit of 8 MiB
// on a large one; there never is more than may be. Of a limit that is less than a piece, reads
// go through memory.
func TestSmallCaches(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 64<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	for _, c := range []struct {
		name, disk string
		flags      []string
		most       int64
	}{
		{"disk", "16m", nil, 16 << 20},
		{"limit", "", []string{"--cache-size", "8MiB"}, 8<<20 + 2*256<<10},
		{"less than a piece", "", []string{"--cache-size", "100KiB"}, 100<<10 + 2*256<<10},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolders(t)
			if c.disk != "" {
				f.cache = disk(t, c.disk)
			}
			m := f.mount(t, append(append(c.flags, peers(addr)...), p.torrent)...)
			stop := watchUse(t, f.cache)
			same(t, "sequential", m.path("film"), p.dir)
			same(t, "once", m.path("film"), p.dir)
			most := stop()
			t.Logf("at most %d KiB", most>>10)
			if most > c.most {
				t.Errorf("the cache took %d bytes, %d are allowed", most, c.most)
			}
			m.stop()
		})
	}
}

// The folder of the cache vanishes, or its disk is filled up by others, while it is in use: what
// is read is right, through memory if need be. (One that becomes read-only is a test of package
// cache: a disk on which files are open for writing cannot be made so from here.)
func TestCacheFolderFails(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 16<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	for name, fail := range map[string]func(f folders) error{
		"vanished": func(f folders) error {
			return errors.Join(os.RemoveAll(filepath.Join(f.cache, "objects")), os.RemoveAll(filepath.Join(f.cache, "session")))
		},
		"full": func(f folders) error {
			err := os.WriteFile(filepath.Join(f.cache, "others"), make([]byte, 64<<20), 0o600)
			if !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("filling: %w", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolders(t)
			f.cache = disk(t, "32m")
			m := f.mount(t, append(peers(addr), p.torrent, "--no-passthrough")...)
			same(t, "once", m.path("film"), p.dir)
			if err := fail(f); err != nil {
				t.Fatal(err)
			}
			same(t, "sequential", m.path("film"), p.dir)
			same(t, "small", m.path("film"), p.dir)
			m.signal(syscall.SIGTERM)
			m.ended(patience) // it may say that it could not save everything
		})
	}
}

// A cache folder that cannot be used is one line that says why and what to do.
func TestCacheFolderRefused(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	for name, c := range map[string]struct {
		prepare func(f *folders) error
		want    string
	}{
		"read-only": {func(f *folders) error {
			f.cache = disk(t, "1m")
			return unix.Mount("", f.cache, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}, "read-only file system; choose another with --cache-dir"},
		"full": {func(f *folders) error {
			f.cache = disk(t, "1m")
			_ = os.WriteFile(filepath.Join(f.cache, "others"), make([]byte, 2<<20), 0o600)
			return nil
		}, "no space left on device; choose another with --cache-dir"},
		"newer": {func(f *folders) error {
			return os.WriteFile(filepath.Join(f.cache, "session"), []byte(`{"format":1000,"session":5,"clean":true}`), 0o600)
		}, "a newer btmount has written it (format 1000, this one knows 2); choose another with --cache-dir"},
		"no folder": {func(f *folders) error {
			f.cache = filepath.Join(f.cache, "file", "folder")
			return os.WriteFile(filepath.Dir(f.cache), nil, 0o600)
		}, "not a directory; choose another with --cache-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolders(t)
			if err := c.prepare(&f); err != nil {
				t.Fatal(err)
			}
			f.refused(t, p, c.want)
		})
	}
	t.Run("in use", func(t *testing.T) {
		f := newFolders(t)
		m := f.mount(t, p.torrent, "--no-dht")
		g := newFolders(t)
		g.cache = f.cache
		g.refused(t, p, fmt.Sprintf("in use by process %d; stop it or choose another with --cache-dir", m.cmd.Process.Pid))
	})
}

// refused fails the test unless a mount ends with one line that has want in it.
func (f folders) refused(t *testing.T, p *payload, want string) {
	t.Helper()
	m := start(t, btmount, "mount", f.point, p.torrent, "--no-dht", "--cache-dir", f.cache, "--state-dir", f.state)
	m.ended(patience)
	if said := m.out.String(); m.cmd.ProcessState.ExitCode() != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, f.cache) || !strings.Contains(said, want) {
		t.Errorf("%v: %q, want %q", m.cmd.ProcessState, said, want)
	}
}
