package fstest

import (
	"io"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Point returns an empty directory to mount on, and skips the test where there is
// no FUSE. In CI it fails instead: a suite that skips itself proves nothing.
func Point(t testing.TB) string {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("/dev/fuse: %v", err)
		}
		t.Skipf("/dev/fuse: %v", err)
	}
	unix.Close(fd)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Run holds the directory root of a mounted filesystem against files: they and
// their directories must be there, nothing else, and nothing can be changed. files
// needs a file of a megabyte or so and one in a directory to be worth its while.
func Run(t *testing.T, root string, files []File) {
	m := newMount(t, root, files)
	t.Run("names", m.testNames)
	t.Run("stat", m.testStat)
	t.Run("stat is stable", m.testStable)
	t.Run("content", m.testContent)
	t.Run("readdir", m.testReaddir)
	t.Run("seekdir", m.testSeekdir)
	t.Run("symlinks", m.testSymlinks)
	t.Run("statfs", m.testStatfs)
	t.Run("absent names", m.testAbsent)
	t.Run("xattr errors", m.testXattrErrors)
	m.runReads(t)
	m.runReadOnly(t)
}

// RunDirectories is the part of [Run] that lists directories and moves about in them.
func RunDirectories(t *testing.T, root string, files []File) {
	m := &mount{root: root, files: files}
	t.Run("readdir", m.testReaddir)
	t.Run("seekdir", m.testSeekdir)
}

type mount struct {
	root  string
	files []File
	big   *File
}

func newMount(t *testing.T, root string, files []File) *mount {
	m := &mount{root: root, files: files}
	for i := range files {
		if f := &files[i]; f.Symlink == "" && f.Open == nil && (m.big == nil || len(f.Data) > len(m.big.Data)) {
			m.big = f
		}
	}
	if m.big == nil {
		t.Fatal("no file to test with")
	}
	return m
}

func (m *mount) path(f *File) string { return filepath.Join(m.root, f.Path) }

// dirs returns the names that each directory must hold, by its path.
func (m *mount) dirs() map[string][]string {
	dirs := map[string][]string{".": nil}
	for _, f := range m.files {
		for p := f.Path; p != "."; p = path.Dir(p) {
			d := path.Dir(p)
			if len(dirs[d]) < 1000 && slices.Contains(dirs[d], path.Base(p)) {
				break
			}
			dirs[d] = append(dirs[d], path.Base(p))
		}
	}
	for d := range dirs {
		slices.Sort(dirs[d])
		dirs[d] = slices.Compact(dirs[d])
	}
	return dirs
}

func (m *mount) testNames(t *testing.T) {
	want := m.dirs()
	err := filepath.WalkDir(m.root, func(p string, d iofs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(m.root, p)
		entries, err := os.ReadDir(p)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		slices.Sort(got)
		if !slices.Equal(got, want[rel]) {
			t.Errorf("%q holds %d names, want %d: %.200q", rel, len(got), len(want[rel]), got)
		}
		delete(want, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for d := range want {
		t.Errorf("directory %q is missing", d)
	}
}

func lstat(t testing.TB, p string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Fatalf("lstat %s: %v", p, err)
	}
	return st
}

func (m *mount) testStat(t *testing.T) {
	inos := map[uint64]string{}
	err := filepath.WalkDir(m.root, func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, p)
		if other, ok := inos[st.Ino]; ok {
			t.Errorf("%s and %s have one inode number", p, other)
		}
		inos[st.Ino] = p
		if st.Nlink < 1 || st.Blksize != 4096 || st.Mode&0o7222 != 0 && !isLink(&st) {
			t.Errorf("%s: nlink %d, blksize %d, mode %o", p, st.Nlink, st.Blksize, st.Mode)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o777 != 0o555 {
			t.Errorf("%s: mode %o", p, st.Mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.files {
		m.checkFile(t, &m.files[i])
	}
}

func isLink(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

func (m *mount) checkFile(t *testing.T, f *File) {
	st := lstat(t, m.path(f))
	if f.Symlink != "" {
		if !isLink(&st) {
			t.Errorf("%s is no symlink: mode %o", f.Path, st.Mode)
		}
		return
	}
	mode := uint32(unix.S_IFREG | 0o444)
	if f.Exec {
		mode = unix.S_IFREG | 0o555
	}
	if st.Mode != mode || st.Size != f.size() || st.Blocks > (st.Size+511)/512 {
		t.Errorf("%s: mode %o, size %d, blocks %d; want mode %o, size %d", f.Path, st.Mode, st.Size, st.Blocks, mode, f.size())
	}
}

func (m *mount) testStable(t *testing.T) {
	before := lstat(t, m.path(m.big))
	if err := unix.Access(m.path(m.big), unix.R_OK); err != nil {
		t.Error(err)
	}
	after := lstat(t, m.path(m.big))
	if before.Ino != after.Ino || before.Size != after.Size || before.Mtim != after.Mtim || before.Ctim != after.Ctim {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if time.Unix(before.Mtim.Unix()).IsZero() || before.Mtim.Sec <= 0 {
		t.Errorf("modified at %v", before.Mtim)
	}
}

func (m *mount) testContent(t *testing.T) {
	for i := range m.files {
		f := &m.files[i]
		if f.Symlink != "" || f.Open != nil || i > 1000 && i%20 != 0 { // one of many is like the others
			continue
		}
		got, err := os.ReadFile(m.path(f))
		if err != nil || string(got) != string(f.Data) {
			t.Errorf("%s: %v, %d bytes, want %d", f.Path, err, len(got), len(f.Data))
		}
	}
}

func (m *mount) testSymlinks(t *testing.T) {
	for i := range m.files {
		f := &m.files[i]
		if f.Symlink == "" {
			continue
		}
		got, err := filepath.EvalSymlinks(m.path(f))
		want, _ := filepath.EvalSymlinks(filepath.Join(m.root, f.Symlink))
		if err != nil || got != want {
			t.Errorf("%s means %q, %v, want %q", f.Path, got, err, want)
		}
		target, err := os.Readlink(m.path(f))
		st := lstat(t, m.path(f))
		if err != nil || filepath.IsAbs(target) || st.Size != int64(len(target)) {
			t.Errorf("%s -> %q, %v, size %d", f.Path, target, err, st.Size)
		}
	}
}

func (m *mount) testStatfs(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.root, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Bsize != 4096 || st.Namelen != 255 {
		t.Errorf("%+v", st)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		t.Error("not mounted read-only")
	}
}

func (m *mount) testAbsent(t *testing.T) {
	for _, name := range []string{"no such name", strings.Repeat("x", 255), "x\nx", m.big.Path + "~2"} {
		for range 2 { // the second answer is the kernel's own
			if _, err := os.Lstat(filepath.Join(m.root, name)); !os.IsNotExist(err) {
				t.Errorf("%.40q: %v", name, err)
			}
		}
	}
	if _, err := os.Lstat(filepath.Join(m.root, strings.Repeat("x", 256))); err == nil {
		t.Error("a name of 256 bytes exists")
	}
	if _, err := os.Lstat(filepath.Join(m.path(m.big), "x")); err == nil {
		t.Error("a file has children")
	}
}

func (m *mount) testXattrErrors(t *testing.T) {
	buf := make([]byte, 64)
	for name, want := range map[string]error{
		"user.no.such":             unix.ENODATA,
		"security.selinux":         unix.EOPNOTSUPP, // so that ls asks once and not for each file
		"security.capability":      unix.EOPNOTSUPP,
		"system.posix_acl_access":  unix.EOPNOTSUPP,
		"system.posix_acl_default": unix.EOPNOTSUPP,
	} {
		if _, err := unix.Lgetxattr(m.path(m.big), name, buf); err != want {
			t.Errorf("getxattr %s: %v, want %v", name, err, want)
		}
	}
	if _, err := unix.Llistxattr(m.path(m.big), nil); err != nil {
		t.Errorf("listxattr: %v", err)
	}
}

// CheckXattrs holds the extended attributes of a path against want, sizes and too
// small buffers included.
func CheckXattrs(t *testing.T, p string, want map[string]string) {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		t.Fatalf("listxattr: %v", err)
	}
	if got := strings.Count(string(buf[:n]), "\x00"); got != len(want) {
		t.Errorf("names %q, want %d", buf[:n], len(want))
	}
	if len(want) > 0 {
		if size, err := unix.Llistxattr(p, nil); err != nil || size != n {
			t.Errorf("size of the list is %d, %v, want %d", size, err, n)
		}
		if _, err := unix.Llistxattr(p, buf[:1]); err != unix.ERANGE {
			t.Errorf("list into one byte: %v", err)
		}
	}
	for name, value := range want {
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil || string(buf[:n]) != value {
			t.Errorf("%s = %q, %v, want %q", name, buf[:max(n, 0)], err, value)
		}
		if size, err := unix.Lgetxattr(p, name, nil); err != nil || size != len(value) {
			t.Errorf("size of %s is %d, %v", name, size, err)
		}
		if len(value) > 1 {
			if _, err := unix.Lgetxattr(p, name, buf[:1]); err != unix.ERANGE {
				t.Errorf("%s into one byte: %v", name, err)
			}
		}
	}
}

// ReadAll reads a file to its end by read(2), which is how a file without a size
// has to be read.
func ReadAll(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}
