package fstest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// runReadOnly tries every system call that would change a filesystem. All of them
// must fail with EROFS (or with what the kernel says first where it never asks the
// filesystem), and the tree must be what it was.
func (m *mount) runReadOnly(t *testing.T) {
	file := m.path(m.big)
	dir := filepath.Dir(file)
	fresh := filepath.Join(dir, "new")
	outside := t.TempDir()
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	open := func(p string, flags int) error {
		fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	times := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	before := lstat(t, file)
	for _, c := range []struct {
		name string
		err  error
		want []error // empty: EROFS
	}{
		{"open O_WRONLY", open(file, unix.O_WRONLY), nil},
		{"open O_RDWR", open(file, unix.O_RDWR), nil},
		{"open O_TRUNC", open(file, unix.O_RDONLY|unix.O_TRUNC), nil},
		{"open O_APPEND", open(file, unix.O_WRONLY|unix.O_APPEND), nil},
		{"open O_CREAT", open(fresh, unix.O_WRONLY|unix.O_CREAT), nil},
		{"open O_CREAT O_EXCL", open(fresh, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL), nil},
		{"open O_TMPFILE", open(dir, unix.O_RDWR|unix.O_TMPFILE), nil},
		{"creat", open(fresh, unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC), nil},
		{"mkdir", unix.Mkdir(fresh, 0o755), nil},
		{"mknod file", unix.Mknod(fresh, unix.S_IFREG|0o644, 0), nil},
		{"mknod fifo", unix.Mkfifo(fresh, 0o644), nil},
		{"unlink", unix.Unlink(file), nil},
		{"rmdir", unix.Rmdir(dir), []error{unix.EROFS, unix.EBUSY}},
		{"rename", unix.Rename(file, fresh), nil},
		{"rename directory", unix.Rename(dir, fresh), []error{unix.EROFS, unix.EBUSY, unix.EXDEV, unix.EINVAL}},
		{"renameat2 RENAME_NOREPLACE", unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, fresh, unix.RENAME_NOREPLACE), nil},
		{"rename away", unix.Rename(file, filepath.Join(outside, "x")), []error{unix.EXDEV, unix.EROFS}},
		{"link", unix.Link(file, fresh), nil},
		{"symlink", unix.Symlink("target", fresh), nil},
		{"chmod", unix.Chmod(file, 0o600), nil},
		{"fchmod", unix.Fchmod(fd, 0o600), nil},
		{"chown", unix.Chown(file, 1, 1), nil},
		{"lchown", unix.Lchown(file, 1, 1), nil},
		{"fchown", unix.Fchown(fd, 1, 1), nil},
		{"truncate", unix.Truncate(file, 0), nil},
		{"ftruncate", unix.Ftruncate(fd, 0), []error{unix.EINVAL, unix.EBADF}},
		{"utimes", unix.Utimes(file, []unix.Timeval{{}, {}}), nil},
		{"utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, file, times, 0), nil},
		{"setxattr", unix.Setxattr(file, "user.x", []byte("1"), 0), nil},
		{"lsetxattr", unix.Lsetxattr(file, "user.x", []byte("1"), 0), nil},
		{"fsetxattr", unix.Fsetxattr(fd, "user.x", []byte("1"), 0), nil},
		{"removexattr", unix.Removexattr(file, "user.x"), nil},
		{"fremovexattr", unix.Fremovexattr(fd, "user.x"), nil},
		{"fallocate", unix.Fallocate(fd, 0, 0, 1), []error{unix.EBADF, unix.EROFS}},
		{"write", write(fd), []error{unix.EBADF}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want == nil {
				want = []error{unix.EROFS}
			}
			for _, w := range want {
				if c.err == w {
					return
				}
			}
			t.Errorf("got %v, want %v", c.err, want)
		})
	}
	after := lstat(t, file)
	after.Atim, before.Atim = unix.Timespec{}, unix.Timespec{}
	if before != after {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, err := os.Lstat(fresh); !os.IsNotExist(err) {
		t.Errorf("%s: %v", fresh, err)
	}
}

func write(fd int) error {
	_, err := unix.Write(fd, []byte("x"))
	return err
}
