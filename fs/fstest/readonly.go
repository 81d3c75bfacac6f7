package fstest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// runReadOnly tries every system call that would change a filesystem. All of them must fail
// with EROFS, or with what the kernel says first where it never asks the filesystem, and the
// tree must be what it was.
func (m *mount) runReadOnly(t *testing.T) {
	file := m.path(m.big)
	before := lstat(t, file)
	for _, c := range m.changes(t) {
		t.Run(c.name, func(t *testing.T) {
			err := c.do()
			if err == unix.EROFS || slices.Contains(c.or, err) {
				return
			}
			t.Errorf("got %v, want %v", err, append(c.or, unix.EROFS))
		})
	}
	after := lstat(t, file)
	after.Atim, before.Atim = unix.Timespec{}, unix.Timespec{}
	if before != after {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(file), fresh)); !os.IsNotExist(err) {
		t.Errorf("%s: %v", fresh, err)
	}
}

// RunReadOnly is the part of [Run] that tries to change something.
func RunReadOnly(t *testing.T, root string, files []File) { newMount(t, root, files).runReadOnly(t) }

// fresh is a name that must never come to be.
const fresh = "new"

// change is a call that would change something. or is what it may say instead of EROFS.
type change struct {
	name string
	do   func() error
	or   []error
}

// readOnlyFD is what calls say to a descriptor that may not be written to: there is no other.
var readOnlyFD = []error{unix.EBADF}

func (m *mount) changes(t *testing.T) []change {
	file := m.path(m.big)
	dir := filepath.Dir(file)
	there := filepath.Join(dir, fresh)
	outside := t.TempDir()
	fd, dirfd, other := openAs(t, file, unix.O_RDONLY), openAs(t, dir, unix.O_RDONLY), openAs(t, filepath.Join(outside, "other"), unix.O_RDWR|unix.O_CREAT)
	if _, err := unix.Write(other, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	open := func(p string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0o644)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	rename := func(from, to string, flags uint) func() error {
		return func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags) }
	}
	times := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	nothing := []error{nil}                               // once remounted: the kernel sees that it changes nothing
	above := []error{unix.EBUSY, unix.EXDEV, unix.EINVAL} // what the kernel says of a mountpoint
	return []change{
		{"open O_WRONLY", open(file, unix.O_WRONLY), nil},
		{"open O_RDWR", open(file, unix.O_RDWR), nil},
		{"open O_TRUNC", open(file, unix.O_RDONLY|unix.O_TRUNC), nil},
		{"open O_WRONLY O_TRUNC", open(file, unix.O_WRONLY|unix.O_TRUNC), nil},
		{"open O_APPEND", open(file, unix.O_WRONLY|unix.O_APPEND), nil},
		{"open O_WRONLY O_DIRECT", open(file, unix.O_WRONLY|unix.O_DIRECT), nil},
		{"open O_CREAT", open(there, unix.O_WRONLY|unix.O_CREAT), nil},
		{"open O_CREAT O_RDONLY", open(there, unix.O_RDONLY|unix.O_CREAT), nil},
		{"open O_CREAT of a file", open(file, unix.O_RDWR|unix.O_CREAT), nil},
		{"open O_CREAT O_EXCL", open(there, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL), nil},
		{"open O_TMPFILE", open(dir, unix.O_RDWR|unix.O_TMPFILE), []error{unix.EOPNOTSUPP}},
		{"creat", open(there, unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC), nil},
		{"openat O_CREAT", func() error {
			_, err := unix.Openat(dirfd, fresh, unix.O_CREAT|unix.O_WRONLY, 0o644)
			return err
		}, nil},
		{"mkdir", func() error { return unix.Mkdir(there, 0o755) }, nil},
		{"mkdirat", func() error { return unix.Mkdirat(dirfd, fresh, 0o755) }, nil},
		{"mknod file", func() error { return unix.Mknod(there, unix.S_IFREG|0o644, 0) }, nil},
		{"mknod socket", func() error { return unix.Mknod(there, unix.S_IFSOCK|0o644, 0) }, nil},
		{"mknod device", func() error { return unix.Mknod(there, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) }, []error{unix.EPERM}}, // not root
		{"mkfifo", func() error { return unix.Mkfifo(there, 0o644) }, nil},
		{"bind", func() error { return bind(dirfd) }, nil},
		{"symlink", func() error { return unix.Symlink("target", there) }, nil},
		{"link", func() error { return unix.Link(file, there) }, nil},
		{"linkat AT_EMPTY_PATH", func() error { return unix.Linkat(fd, "", dirfd, fresh, unix.AT_EMPTY_PATH) }, []error{unix.ENOENT}}, // not root
		{"unlink", func() error { return unix.Unlink(file) }, nil},
		{"unlinkat", func() error { return unix.Unlinkat(dirfd, filepath.Base(file), 0) }, nil},
		{"rmdir", func() error { return unix.Rmdir(dir) }, above},
		{"rename", rename(file, there, 0), nil},
		{"rename onto itself", rename(file, file, 0), nothing},
		{"rename directory", rename(dir, there, 0), above},
		{"rename away", rename(file, filepath.Join(outside, "x"), 0), []error{unix.EXDEV}},
		{"rename into", rename(filepath.Join(outside, "other"), there, 0), []error{unix.EXDEV}},
		{"renameat2 RENAME_NOREPLACE", rename(file, there, unix.RENAME_NOREPLACE), nil},
		{"renameat2 RENAME_EXCHANGE", rename(file, file, unix.RENAME_EXCHANGE), nothing},
		{"renameat2 RENAME_WHITEOUT", rename(file, there, unix.RENAME_WHITEOUT), []error{unix.EINVAL}},
		{"chmod", func() error { return unix.Chmod(file, 0o600) }, nil},
		{"fchmod", func() error { return unix.Fchmod(fd, 0o600) }, nil},
		{"fchmodat", func() error { return unix.Fchmodat(dirfd, filepath.Base(file), 0o600, 0) }, nil},
		{"chown", func() error { return unix.Chown(file, 1, 1) }, nil},
		{"lchown", func() error { return unix.Lchown(file, 1, 1) }, nil},
		{"fchown", func() error { return unix.Fchown(fd, 1, 1) }, nil},
		{"fchownat AT_EMPTY_PATH", func() error { return unix.Fchownat(fd, "", 1, 1, unix.AT_EMPTY_PATH) }, nil},
		{"truncate", func() error { return unix.Truncate(file, 0) }, nil},
		{"truncate to more", func() error { return unix.Truncate(file, 1<<40) }, nil},
		{"ftruncate", func() error { return unix.Ftruncate(fd, 0) }, []error{unix.EINVAL, unix.EBADF}},
		{"fallocate", func() error { return unix.Fallocate(fd, 0, 0, 1) }, readOnlyFD},
		{"fallocate FALLOC_FL_PUNCH_HOLE", func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}, readOnlyFD},
		{"utimes", func() error { return unix.Utimes(file, []unix.Timeval{{}, {}}) }, nil},
		{"utimensat", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, file, times, 0) }, nil},
		{"utimensat UTIME_NOW", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{now, now}, 0) }, nil},
		{"utimensat AT_SYMLINK_NOFOLLOW", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, file, times, unix.AT_SYMLINK_NOFOLLOW) }, nil},
		{"setxattr", func() error { return unix.Setxattr(file, "user.x", []byte("1"), 0) }, nil},
		{"setxattr of ours", func() error { return unix.Setxattr(file, "user.btmount.progress", []byte("1"), unix.XATTR_REPLACE) }, nil},
		{"setxattr security", func() error { return unix.Setxattr(file, "security.x", []byte("1"), 0) }, []error{unix.EPERM}},
		{"lsetxattr", func() error { return unix.Lsetxattr(file, "user.x", []byte("1"), 0) }, nil},
		{"fsetxattr", func() error { return unix.Fsetxattr(fd, "user.x", []byte("1"), 0) }, nil},
		{"removexattr", func() error { return unix.Removexattr(file, "user.x") }, nil},
		{"lremovexattr", func() error { return unix.Lremovexattr(file, "user.x") }, nil},
		{"fremovexattr", func() error { return unix.Fremovexattr(fd, "user.x") }, nil},
		{"ioctl FS_IOC_SETFLAGS", func() error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x10) }, []error{unix.ENOTTY, unix.EOPNOTSUPP}},
		{"ioctl FICLONE", func() error { return unix.IoctlFileClone(fd, other) }, []error{unix.EBADF, unix.EXDEV, unix.EOPNOTSUPP}},
		{"copy_file_range into", func() error {
			var from, to int64
			_, err := unix.CopyFileRange(other, &from, fd, &to, 1, 0)
			return err
		}, readOnlyFD},
		{"sendfile into", func() error {
			var from int64
			_, err := unix.Sendfile(fd, other, &from, 1)
			return err
		}, readOnlyFD},
		{"write", func() error { _, err := unix.Write(fd, []byte("x")); return err }, readOnlyFD},
		{"pwrite", func() error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err }, readOnlyFD},
		{"pwritev2", func() error { _, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, unix.RWF_APPEND); return err }, readOnlyFD},
		{"mmap PROT_WRITE", func() error { _, err := unix.Mmap(fd, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); return err }, []error{unix.EACCES}},
		{"mprotect PROT_WRITE", func() error {
			mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			defer unix.Munmap(mem)
			return unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE)
		}, []error{unix.EACCES}},
	}
}

func openAs(t *testing.T, p string, flags int) int {
	t.Helper()
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatalf("open %s: %v", p, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// bind makes a socket in a directory, by a name that is short enough for its address.
func bind(dirfd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, fresh)})
}
