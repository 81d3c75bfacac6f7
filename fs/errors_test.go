package fs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
	"github.com/btmount/btmount/fs/tree"
)

func isErrno(err error, want unix.Errno) bool { return errors.Is(err, want) }

// What is wrong with a mountpoint is told in one line that names the reason and the cure.
func TestMountpointErrors(t *testing.T) {
	dir := fstest.Point(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ point, want, cure string }{
		{"", "no directory is given", "name an empty one"},
		{filepath.Join(dir, "missing"), "no such directory", "mkdir -p"},
		{filepath.Join(dir, "missing", "too"), "no such directory", "mkdir -p"},
		{file, "not a directory", "choose an empty directory"},
		{filepath.Join(file, "below"), "not a directory", "choose another directory"},
		{loop, "too many", "choose another directory"},
		{dir, `not empty (there is "`, "choose an empty directory"},
		{"/proc", "not empty", "choose an empty directory"},
	} {
		_, err := fs.Mount(fs.Config{Catalog: fstest.Memory(), Mountpoint: c.point})
		if err == nil {
			t.Fatalf("%q was mounted", c.point)
		}
		line := err.Error()
		if !strings.Contains(line, c.want) || !strings.Contains(line, c.cure) || !strings.Contains(line, c.point) || strings.Contains(line, "\n") {
			t.Errorf("%q: %s", c.point, line)
		}
	}
	if err := fs.Detach(context.Background(), "/proc"); err == nil || !strings.Contains(err.Error(), "not a btmount") {
		t.Errorf("Detach of /proc: %v", err)
	}
}

func TestMountpointBehindSymlink(t *testing.T) {
	dir := fstest.Point(t)
	real, link := filepath.Join(dir, "real dir"), filepath.Join(dir, "link")
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real dir", link); err != nil {
		t.Fatal(err)
	}
	s, err := fs.Mount(fs.Config{Catalog: fstest.Memory(), Mountpoint: link})
	if err != nil {
		t.Fatal(err)
	}
	defer unmount(t, s)
	if s.Mountpoint() != real {
		t.Errorf("mounted on %s", s.Mountpoint())
	}
	if ours, err := fs.Mounted(link); !ours || err != nil {
		t.Errorf("Mounted(link) = %v, %v", ours, err)
	}
}

// causes are errors as other packages make them.
type corruptError struct{}

func (corruptError) Error() string { return "piece 3 is wrong" }
func (corruptError) Corrupt() bool { return true }

type seedless struct{}

func (seedless) Error() string  { return "no seeders" }
func (seedless) NoSource() bool { return true }

// TestErrnoOfReads sees the errno table from outside, through the kernel.
func TestErrnoOfReads(t *testing.T) {
	var files []fstest.File
	cases := []struct {
		err  error
		want unix.Errno
	}{
		{corruptError{}, unix.EIO},
		{fmt.Errorf("reading: %w", seedless{}), unix.ENODATA},
		{fmt.Errorf("reading: %w", context.DeadlineExceeded), unix.ETIMEDOUT},
		{context.Canceled, unix.EIO}, // nobody interrupted this reader
		{&os.PathError{Op: "open", Path: "cache", Err: unix.ENOENT}, unix.EIO},
		{&os.PathError{Op: "write", Path: "cache", Err: unix.ENOSPC}, unix.ENOSPC},
		{unix.ENOSYS, unix.EIO},
		{errors.New("something else"), unix.EIO},
	}
	for i, c := range cases {
		files = append(files, fstest.File{Path: fmt.Sprint(i), Size: 100, Open: func(context.Context) (fs.Content, error) {
			return &fstest.Content{ReadAtFunc: func(context.Context, []byte, int64) (int, error) { return 0, c.err }}, nil
		}})
	}
	_, point := mount(t, fstest.Memory(files...), func(c *fs.Config) { c.Logger = nil })
	for i, c := range cases {
		if _, err := fstest.ReadAll(filepath.Join(point, fmt.Sprint(i))); !isErrno(err, c.want) {
			t.Errorf("%v: %v, want %v", c.err, err, c.want)
		}
	}
}

func TestXattrs(t *testing.T) {
	c := fstest.Memory(fstest.File{Path: "a", Data: []byte("x")})
	values := map[string]string{"user.btmount.cid": "bafy", "user.btmount.long": strings.Repeat("v", 2000)}
	c.AttributesFunc = func(context.Context, tree.ID) ([]string, error) {
		return []string{"user.btmount.cid", "user.btmount.long"}, nil
	}
	c.AttributeFunc = func(_ context.Context, _ tree.ID, name string) ([]byte, error) {
		if v, ok := values[name]; ok {
			return []byte(v), nil
		}
		return nil, os.ErrNotExist
	}
	_, point := mount(t, c)
	fstest.CheckXattrs(t, filepath.Join(point, "a"), values)
	fstest.CheckXattrs(t, point, values)
}

// An empty filesystem is not full.
func TestStatfsOfNothing(t *testing.T) {
	_, point := mount(t, &fstest.Fake{})
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil || st.Blocks == 0 || st.Bavail != st.Blocks {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestPid(t *testing.T) {
	pids := make(chan int, 10)
	file := fstest.File{Path: "f", Size: 1, Open: func(ctx context.Context) (fs.Content, error) {
		pids <- fs.Pid(ctx)
		return fstest.Bytes("x"), nil
	}}
	_, point := mount(t, fstest.Memory(file))
	if _, err := fstest.ReadAll(filepath.Join(point, "f")); err != nil {
		t.Fatal(err)
	}
	if pid := <-pids; pid <= 0 {
		t.Errorf("pid %d", pid)
	}
	if pid := fs.Pid(context.Background()); pid != 0 {
		t.Errorf("pid %d of nobody", pid)
	}
}
