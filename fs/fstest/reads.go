package fstest

import (
	"bytes"
	"errors"
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
		"end of file":     testEnd,
		"mmap":            testMmap,
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
