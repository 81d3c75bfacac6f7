package fstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runReads reads the largest file in every way that Linux has.
func (m *mount) runReads(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *os.File, []byte){
		"pread":           testPread,
		"preadv":          testPreadv,
		"preadv2":         testPreadv2,
		"end of file":     testEnd,
		"io_uring":        testUring,
		"mmap":            testMmap,
		"mmap private":    testMmapPrivate,
		"mmap beyond end": testMmapBeyond,
		"fadvise":         testFadvise,
		"O_PATH":          testPath,
		"fd passing":      testPass,
		"file handle":     testHandle,
		"sendfile":        testSendfile,
		"copy_file_range": testCopyFileRange,
		"splice":          testSplice,
		"O_DIRECT":        testDirect,
		"SEEK_HOLE":       testSeekHole,
		"concurrent":      testConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(m.path(m.big))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			test(t, f, m.big.Data)
		})
	}
}

func testPread(t *testing.T, f *os.File, want []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 200<<10)
	for range 300 {
		off := r.Int64N(int64(len(want)))
		p := buf[:1+r.IntN(len(buf))]
		n, err := f.ReadAt(p, off)
		rest := want[off:]
		rest = rest[:min(len(rest), len(p))]
		if n != len(rest) || (n < len(p)) != (err == io.EOF) || !bytes.Equal(p[:n], rest) {
			t.Fatalf("%d bytes at %d: %d, %v", len(p), off, n, err)
		}
	}
}

func testEnd(t *testing.T, f *os.File, want []byte) {
	size := int64(len(want))
	buf := make([]byte, 8192)
	for _, c := range []struct {
		off int64
		n   int
	}{{size - 1, 1}, {size - 100, 100}, {size, 0}, {size + 1, 0}, {size + 1<<40, 0}, {max(0, size-8192), int(min(size, 8192))}} {
		if c.off < 0 {
			continue
		}
		n, err := unix.Pread(int(f.Fd()), buf, c.off)
		if err != nil || n != c.n || !bytes.Equal(buf[:n], want[min(c.off, size):min(c.off+int64(n), size)]) {
			t.Errorf("pread at %d of %d: %d, %v, want %d", c.off, size, n, err, c.n)
		}
	}
}

// testMmap faults the pages in by a system call. To touch them from Go would stop
// the world while the server, which may be this very process, has to answer.
func testMmap(t *testing.T, f *os.File, want []byte) {
	mem, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_POPULATE_READ); err != nil {
		if errors.Is(err, unix.EINVAL) {
			t.Skip("the kernel cannot populate a mapping")
		}
		t.Fatal(err)
	}
	if !bytes.Equal(mem, want) {
		t.Error("the mapping differs")
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != unix.EACCES {
		t.Errorf("writable mapping: %v", err)
	}
}

// testMmapPrivate writes to a mapping of its own; the file stays what it is.
func testMmapPrivate(t *testing.T, f *os.File, want []byte) {
	mem, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_POPULATE_WRITE); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem, want) {
		t.Error("the mapping differs")
	}
	clear(mem)
	testEnd(t, f, want)
}

// testMmapBeyond maps more than there is. The rest of the last page is zeros; of what lies
// beyond it a program gets SIGBUS, and a system call EFAULT.
func testMmapBeyond(t *testing.T, f *os.File, want []byte) {
	page := os.Getpagesize()
	whole := (len(want) + page - 1) / page * page
	mem, err := unix.Mmap(int(f.Fd()), 0, whole+2*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	last := mem[whole-page : whole]
	if err := unix.Madvise(last, unix.MADV_POPULATE_READ); err != nil {
		t.Fatal(err)
	}
	if n := len(want) - (whole - page); !bytes.Equal(last[:n], want[len(want)-n:]) || !bytes.Equal(last[n:], make([]byte, page-n)) {
		t.Error("the last page is not the end of the file and zeros")
	}
	if err := unix.Madvise(mem[whole:whole+page], unix.MADV_POPULATE_READ); err != unix.EFAULT {
		t.Errorf("populating beyond the end: %v", err)
	}
	if _, err := scratch(t).Write(mem[whole : whole+1]); !errors.Is(err, unix.EFAULT) {
		t.Errorf("writing from beyond the end: %v", err)
	}
}

// pieces are buffers of odd lengths, n bytes in all.
func pieces(n int) (all [][]byte) {
	for size := 1; n > 0; size = min(2*size+1, 40_000) {
		all = append(all, make([]byte, min(size, n)))
		n -= len(all[len(all)-1])
	}
	return all
}

func testPreadv(t *testing.T, f *os.File, want []byte) {
	for _, off := range []int{0, 1, len(want) / 2, len(want) - 1000} {
		iov := pieces(300_000)
		n, err := unix.Preadv(int(f.Fd()), iov, int64(off))
		rest := want[off:min(len(want), off+300_000)]
		if err != nil || n != len(rest) || !bytes.Equal(bytes.Join(iov, nil)[:n], rest) {
			t.Errorf("at %d: %d, %v, want %d", off, n, err, len(rest))
		}
	}
}

// testPreadv2 reads without waiting, which may get less, or nothing, but nothing wrong; and
// with the flags that only ask for speed.
func testPreadv2(t *testing.T, f *os.File, want []byte) {
	for name, flags := range map[string]int{"none": 0, "RWF_NOWAIT": unix.RWF_NOWAIT, "RWF_HIPRI": unix.RWF_HIPRI} {
		for off := 0; off < len(want); off += 500_000 {
			buf := make([]byte, 100_000)
			n, err := unix.Preadv2(int(f.Fd()), [][]byte{buf}, int64(off), flags)
			rest := want[off:min(len(want), off+len(buf))]
			if flags == unix.RWF_NOWAIT && (err == unix.EAGAIN || err == unix.EOPNOTSUPP || err == nil && n <= len(rest)) {
				rest = rest[:max(n, 0)]
			} else if err != nil || n != len(rest) {
				t.Errorf("%s at %d: %d, %v", name, off, n, err)
				continue
			}
			if !bytes.Equal(buf[:max(n, 0)], rest) {
				t.Errorf("%s at %d: wrong bytes", name, off)
			}
		}
	}
}

// testFadvise: advice changes no byte, and the page cache can be dropped and filled.
func testFadvise(t *testing.T, f *os.File, want []byte) {
	for _, advice := range []int{unix.FADV_SEQUENTIAL, unix.FADV_RANDOM, unix.FADV_WILLNEED, unix.FADV_NOREUSE, unix.FADV_DONTNEED, unix.FADV_NORMAL} {
		if err := unix.Fadvise(int(f.Fd()), 0, int64(len(want)), advice); err != nil {
			t.Errorf("fadvise %d: %v", advice, err)
		}
		testEnd(t, f, want)
	}
	if _, _, errno := unix.Syscall(unix.SYS_READAHEAD, f.Fd(), 0, uintptr(len(want))); errno != 0 {
		t.Errorf("readahead: %v", errno)
	}
	testEnd(t, f, want)
}

// testPath opens a file by descriptors that only name something.
func testPath(t *testing.T, f *os.File, want []byte) {
	dir := openAs(t, filepath.Dir(f.Name()), unix.O_PATH|unix.O_DIRECTORY)
	name := openAs(t, f.Name(), unix.O_PATH|unix.O_NOFOLLOW)
	var st unix.Stat_t
	if err := unix.Fstat(name, &st); err != nil || st.Size != int64(len(want)) {
		t.Errorf("fstat: %d, %v", st.Size, err)
	}
	if _, err := unix.Pread(name, make([]byte, 1), 0); err != unix.EBADF {
		t.Errorf("read of a descriptor that only names a file: %v", err)
	}
	for how, open := range map[string]func() (int, error){
		"openat": func() (int, error) {
			return unix.Openat(dir, filepath.Base(f.Name()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		},
		"openat2": func() (int, error) {
			return unix.Openat2(dir, filepath.Base(f.Name()), &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV})
		},
		"/proc/self/fd": func() (int, error) {
			return unix.Open(fmt.Sprintf("/proc/self/fd/%d", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		},
	} {
		fd, err := open()
		if err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		opened := os.NewFile(uintptr(fd), how)
		testEnd(t, opened, want)
		opened.Close()
	}
}

// testPass sends an open file through a socket; what arrives reads on when the first is closed.
func testPass(t *testing.T, f *os.File, want []byte) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	own := openAs(t, f.Name(), unix.O_RDONLY)
	err = unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(own), nil, 0)
	unix.Close(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	passed := os.NewFile(uintptr(fds[0]), f.Name())
	defer passed.Close()
	testPread(t, passed, want)
}

// testHandle opens a file by its handle, as a server of NFS does. The handle of a file that the
// kernel knows leads to it; there is no promise for others (ESTALE): that would take the
// protocol's support for export, which go-fuse has only for nodes that stay. So NFS works until
// the kernel forgets a file, which is too little to rely on.
func testHandle(t *testing.T, f *os.File, want []byte) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, f.Name(), 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := openAs(t, filepath.Dir(f.Name()), unix.O_RDONLY|unix.O_DIRECTORY)
	fd, err := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY|unix.O_CLOEXEC)
	switch {
	case err == unix.ESTALE || err == unix.EPERM && os.Geteuid() != 0:
		return
	case err != nil:
		t.Fatal(err)
	}
	opened := os.NewFile(uintptr(fd), "by handle")
	defer opened.Close()
	testEnd(t, opened, want)
}

func scratch(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// copies runs move until it moves nothing, and holds what arrived against want.
func copies(t *testing.T, want []byte, move func(out *os.File, n int) (int, error)) {
	t.Helper()
	out := scratch(t)
	for total := 0; total < len(want); {
		n, err := move(out, len(want)-total)
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	got, err := os.ReadFile(out.Name())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d, %v", len(got), len(want), err)
	}
}

func testSendfile(t *testing.T, f *os.File, want []byte) {
	copies(t, want, func(out *os.File, n int) (int, error) {
		return unix.Sendfile(int(out.Fd()), int(f.Fd()), nil, n)
	})
}

func testCopyFileRange(t *testing.T, f *os.File, want []byte) {
	copies(t, want, func(out *os.File, n int) (int, error) {
		moved, err := unix.CopyFileRange(int(f.Fd()), nil, int(out.Fd()), nil, n, 0)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return unix.Sendfile(int(out.Fd()), int(f.Fd()), nil, n) // what cp does then
		}
		return moved, err
	})
}

func testSplice(t *testing.T, f *os.File, want []byte) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	copies(t, want, func(out *os.File, n int) (int, error) {
		moved, err := unix.Splice(int(f.Fd()), nil, p[1], nil, min(n, 32<<10), 0)
		if err != nil || moved == 0 {
			return 0, err
		}
		back, err := unix.Splice(p[0], nil, int(out.Fd()), nil, int(moved), 0)
		return int(back), err
	})
}

func testDirect(t *testing.T, f *os.File, want []byte) {
	fd, err := unix.Open(f.Name(), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("O_DIRECT: %v", err)
	}
	defer unix.Close(fd)
	const page = 4096
	raw := make([]byte, 64<<10+page)
	skip := page - int(uintptr(unsafe.Pointer(&raw[0]))%page)
	buf := raw[skip : skip+64<<10]
	for off := 0; off < len(want); off += len(buf) {
		n, err := unix.Pread(fd, buf, int64(off))
		if end := min(len(want), off+len(buf)); err != nil || !bytes.Equal(buf[:max(n, 0)], want[off:end]) {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
	}
}

// testSeekHole: a file whose bytes are not on disk yet has no holes.
func testSeekHole(t *testing.T, f *os.File, want []byte) {
	size := int64(len(want))
	if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || at != size {
		t.Errorf("first hole at %d, %v, want %d", at, err, size)
	}
	if at, err := unix.Seek(int(f.Fd()), 1, unix.SEEK_DATA); err != nil || at != 1 {
		t.Errorf("data at %d, %v, want 1", at, err)
	}
	if _, err := unix.Seek(int(f.Fd()), size, unix.SEEK_DATA); err != unix.ENXIO {
		t.Errorf("data after the end: %v", err)
	}
}

func testConcurrent(t *testing.T, f *os.File, want []byte) {
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			own := f
			if i%2 == 0 {
				var err error
				if own, err = os.Open(f.Name()); err != nil {
					t.Error(err)
					return
				}
				defer own.Close()
			}
			got := make([]byte, len(want))
			for off := i * 1000 % len(want); off < len(want); off += 60_000 {
				n, err := own.ReadAt(got[off:min(len(want), off+50_000)], int64(off))
				if err != nil || !bytes.Equal(got[off:off+n], want[off:off+n]) {
					t.Errorf("reader %d at %d: %d, %v", i, off, n, err)
					return
				}
			}
		})
	}
	readers.Wait()
}
