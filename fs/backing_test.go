package fs_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// backed is the content of a file that lies in f, once complete says so.
type backed struct {
	fstest.Bytes
	f        *os.File
	complete *atomic.Bool
	closed   chan struct{}
}

func (b *backed) Backing() (int, bool) { return int(b.f.Fd()), b.complete.Load() }

func (b *backed) Close() error { b.closed <- struct{}{}; return nil }

// backedFile is a file of a catalog, and what its contents share.
func backedFile(t *testing.T, f *os.File, data []byte) (fstest.File, *backed) {
	b := &backed{fstest.Bytes(data), f, new(atomic.Bool), make(chan struct{}, 100)}
	return fstest.File{Path: "film", Size: int64(len(data)), Open: func(context.Context) (fs.Content, error) {
		return &backed{b.Bytes, f, b.complete, b.closed}, nil
	}}, b
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func readsAs(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

// A complete file is read without us from the first open on that finds nobody who reads it
// through us, also by mmap; whoever had it open before goes on.
func TestCompleteFileIsReadByTheKernel(t *testing.T) {
	data := noise(3<<20 + 77)
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, b := backedFile(t, openFile(t, path), data)
	s, point := mount(t, fstest.Memory(file))
	film := filepath.Join(point, "film")

	early := openFile(t, film)
	readsAs(t, early, data[:]) // through us
	if s.Reads() == 0 {
		t.Fatal("a file that is not complete is not read through us")
	}
	b.complete.Store(true)
	beside := openFile(t, film) // the kernel would refuse it if it were read by itself
	readsAs(t, beside, data)
	early.Close()
	beside.Close()
	<-b.closed
	<-b.closed

	before := s.Reads()
	f, g := openFile(t, film), openFile(t, film)
	readsAs(t, f, data)
	m, err := unix.Mmap(int(g.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m, data) {
		t.Error("mmap shows other bytes")
	}
	if n := s.Reads() - before; n != 0 {
		t.Errorf("%d READs of a complete file", n)
	}
	// Something took bytes of it away: who opens it now waits for them, past the page cache.
	b.complete.Store(false)
	late := openFile(t, film)
	readsAs(t, late, data)
	if s.Reads() == before {
		t.Error("a file that is no longer complete is still read by the kernel")
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{f, g} {
		f.Close()
		<-b.closed
	}
	later := openFile(t, film) // late, at least, is still there
	readsAs(t, later, data)
	for _, f := range []*os.File{late, later} {
		f.Close()
		<-b.closed
	}
	again := openFile(t, film) // nobody is left who reads it by itself
	readsAs(t, again, data)
}

// readahead(2) of a file that the kernel reads by itself comes to us. That does not mean that
// the kernel declined it: later ones are read past us as before.
func TestReadaheadOfCompleteFile(t *testing.T) {
	data := noise(400_000)
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, b := backedFile(t, openFile(t, path), data)
	b.complete.Store(true)
	s, point := mount(t, fstest.Memory(file))
	f := openFile(t, filepath.Join(point, "film"))
	if err := unix.Fadvise(int(f.Fd()), 0, int64(len(data)), unix.FADV_WILLNEED); err != nil {
		t.Fatal(err)
	}
	readsAs(t, f, data)
	f.Close()
	<-b.closed // not before the READs are answered
	before := s.Reads()
	if before == 0 {
		t.Skip("this kernel reads ahead by itself")
	}
	g := openFile(t, filepath.Join(point, "film"))
	if err := unix.Fadvise(int(g.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil { // what came shall not help
		t.Fatal(err)
	}
	readsAs(t, g, data)
	if n := s.Reads() - before; n != 0 {
		t.Errorf("%d READs of a complete file", n)
	}
}

// A kernel that does not take a file is offered none any more, and everything is read
// through us, with what is open at the same time too.
func TestKernelDeclines(t *testing.T) {
	data := noise(1 << 20)
	file, b := backedFile(t, openFile(t, "/dev/null"), data) // no regular file: it is declined
	b.complete.Store(true)
	s, point := mount(t, fstest.Memory(file))
	film := filepath.Join(point, "film")
	f := openFile(t, film)
	g := openFile(t, film)
	readsAs(t, f, data)
	readsAs(t, g, data)
	readsAs(t, openFile(t, film), data)
	if s.Reads() == 0 {
		t.Error("no READ, and no bytes")
	}
}

// With NoPassthrough nothing is offered.
func TestNoPassthrough(t *testing.T) {
	data := noise(1 << 20)
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, b := backedFile(t, openFile(t, path), data)
	b.complete.Store(true)
	s, point := mount(t, fstest.Memory(file), func(c *fs.Config) { c.NoPassthrough = true })
	readsAs(t, openFile(t, filepath.Join(point, "film")), data)
	if s.Reads() == 0 {
		t.Error("read past us")
	}
}
