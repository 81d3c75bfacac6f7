package daemon_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A reader is this test binary again, in a process of its own. It is told which
// file to read, how, and which file must hold the same bytes.

// play is the main function of a reader.
func play(role string, args []string) int {
	var err error
	switch role {
	case "compare":
		err = compare(args[0], args[1], args[2], args[3:])
	case "time":
		began := time.Now()
		err = head(args[0])
		fmt.Printf("%d %v\n", time.Since(began).Milliseconds(), errno(err))
		return 0
	case "flood":
		err = flood(args[0], args[1:])
	case "mixed":
		ops, _ := strconv.Atoi(args[2])
		self, _ := strconv.Atoi(args[3])
		err = mixed(args[0], args[1], ops, self)
	default:
		err = errors.New("no such role")
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// reader starts a reader.
func reader(t testing.TB, role string, args ...string) *proc {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := command(t, exe, args...)
	p.cmd.Env = append(os.Environ(), "BTMOUNT_TEST_ROLE="+role)
	return p.start()
}

// same fails the test unless a file of a mount, read in some way, holds the bytes
// of the original.
func same(t testing.TB, way, mounted, original string) {
	t.Helper()
	began := time.Now()
	readers := make([]*proc, 1)
	if way == "random" {
		readers = make([]*proc, 8)
	}
	for i := range readers {
		readers[i] = reader(t, "compare", way, mounted, original, strconv.Itoa(i), strconv.Itoa(len(readers)))
	}
	for _, p := range readers {
		p.ended(4 * patience)
		if !p.cmd.ProcessState.Success() {
			t.Errorf("%s of %s: %v: %s", way, filepath.Base(mounted), p.cmd.ProcessState, p.out)
			return
		}
	}
	t.Logf("%-10s %-10s equal after %v", way, filepath.Base(mounted), time.Since(began).Round(time.Millisecond))
}

func errno(err error) string {
	var no syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case !errors.As(err, &no):
		return err.Error()
	case no == syscall.ETIMEDOUT:
		return "ETIMEDOUT"
	case no == syscall.ENODATA:
		return "ENODATA"
	case no == syscall.EIO:
		return "EIO"
	case no == syscall.ENOTCONN:
		return "ENOTCONN"
	}
	return "errno " + strconv.Itoa(int(no)) + " (" + no.Error() + ")"
}

func head(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadFull(f, make([]byte, 1))
	return err
}

// compare reads a file in one of the ways in which programs read. part is the
// number of this reader and how many there are, for those that share the work.
func compare(way, mounted, original string, part []string) error {
	want, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	self, all := 0, 1
	if len(part) == 2 {
		if _, err := fmt.Sscan(part[0]+" "+part[1], &self, &all); err != nil {
			return err
		}
	}
	switch way {
	case "sequential":
		return sequential(mounted, want)
	case "random":
		return random(mounted, want, (300+all-1)/all, 64<<10, self)
	case "once":
		return random(mounted, want, 1, 64<<10, self)
	case "across": // 64 KiB, as much of one piece as of the next
		return parts(mounted, want, 64<<10, slices.Values([]int{1<<20 - 32<<10}))
	case "small": // 1,000 of a page
		return random(mounted, want, 1000, 4096, self)
	case "mmap":
		return mapped(mounted, want)
	case "tail-head":
		tail := max(0, len(want)-100_000)
		return errors.Join(span(mounted, want, tail, len(want), nil), span(mounted, want, 0, tail, nil))
	case "both-ends":
		return bothEnds(mounted, want)
	}
	return errors.New("no such way")
}

func sequential(mounted string, want []byte) error {
	f, err := os.Open(mounted)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, io.MultiReader(f), make([]byte, 128<<10)); err != nil {
		return err
	}
	if sum := sha256.Sum256(want); !bytes.Equal(h.Sum(nil), sum[:]) {
		return errors.New("sha256 differs")
	}
	return nil
}

// span reads [from, to) in large reads; back=true from the end.
func span(mounted string, want []byte, from, to int, back *bool) error {
	f, err := os.Open(mounted)
	if err != nil {
		return err
	}
	defer f.Close()
	const step = 100_000 // no multiple of anything
	buf := make([]byte, step)
	for done := 0; done < to-from; done += step {
		n := min(step, to-from-done)
		at := from + done
		if back != nil && *back {
			at = to - done - n
		}
		if _, err := f.ReadAt(buf[:n], int64(at)); err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], want[at:at+n]) {
			return fmt.Errorf("bytes differ in %d at %d", n, at)
		}
	}
	return nil
}

func bothEnds(mounted string, want []byte) error {
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		back := i == 1
		wg.Go(func() { errs[i] = span(mounted, want, 0, len(want), &back) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func random(mounted string, want []byte, reads, size, seed int) error {
	r := rand.New(rand.NewPCG(1, uint64(seed)))
	return parts(mounted, want, size, func(yield func(int) bool) {
		for range reads {
			if !yield(r.IntN(len(want) - size)) {
				return
			}
		}
	})
}

// parts reads size bytes at each offset.
func parts(mounted string, want []byte, size int, offsets iter.Seq[int]) error {
	f, err := os.Open(mounted)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, size)
	for at := range offsets {
		if _, err := f.ReadAt(buf, int64(at)); err != nil {
			return err
		}
		if !bytes.Equal(buf, want[at:at+size]) {
			return fmt.Errorf("bytes differ in %d at %d", size, at)
		}
	}
	return nil
}

// withMap calls f with a file and a mapping of its n bytes.
func withMap(path string, n int, f func(file *os.File, m []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	m, err := syscall.Mmap(int(file.Fd()), 0, n, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	return errors.Join(f(file, m), syscall.Munmap(m))
}

func mapped(mounted string, want []byte) error {
	return withMap(mounted, len(want), func(_ *os.File, m []byte) error {
		if !bytes.Equal(m, want) {
			return errors.New("bytes differ")
		}
		return nil
	})
}

// flood reads with many descriptors until it is killed or the mount goes away; any
// wrong byte ends it with an error.
func flood(readers string, files []string) error {
	n, err := strconv.Atoi(readers)
	if err != nil {
		return err
	}
	want, err := os.ReadFile(files[1])
	if err != nil {
		return err
	}
	fmt.Println("reading")
	wrong := make(chan error, n)
	for i := range n {
		go func() { wrong <- readAround(files[0], want, uint64(i)) }()
	}
	for range n {
		if err := <-wrong; err != nil {
			return err
		}
	}
	return nil
}

// readAround reads here and there. A mount that is gone is no error.
func readAround(mounted string, want []byte, seed uint64) error {
	f, err := os.Open(mounted)
	if err != nil {
		return nil
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(2, seed))
	buf := make([]byte, 64<<10)
	for {
		at := r.IntN(len(want) - len(buf))
		if _, err := f.ReadAt(buf, int64(at)); err != nil {
			return nil
		}
		if !bytes.Equal(buf, want[at:at+len(buf)]) {
			return fmt.Errorf("wrong bytes at %d", at)
		}
	}
}
