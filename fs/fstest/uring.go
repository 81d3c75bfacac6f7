package fstest

import (
	"bytes"
	"encoding/binary"
	"os"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What io_uring(7) needs here: one ring, READ, and waiting for all.
const (
	uringDepth    = 32
	uringOpRead   = 22
	uringGetEvent = 1

	uringOffSQ, uringOffCQ, uringOffSQEs = 0, 0x8000000, 0x10000000
)

type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32

	resv [3]uint32
	sq   struct {
		head, tail, mask, entries, flags, dropped, array, resv1 uint32
		user                                                    uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, resv1 uint32
		user                                                    uint64
	}
}

type uringSQE struct {
	op, flags       uint8
	prio            uint16
	fd              int32
	off, addr       uint64
	length, rwFlags uint32
	user            uint64
	_               [3]uint64
}

// testUring reads by io_uring, up to 32 reads at a time, of which the kernel may finish any first.
func testUring(t *testing.T, f *os.File, want []byte) {
	var p uringParams
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringDepth, uintptr(unsafe.Pointer(&p)), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		if os.Getenv("CI") == "true" {
			t.Fatalf("io_uring: %v", errno)
		}
		t.Skipf("this kernel, or who started us, does not allow io_uring: %v", errno)
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	ring := int(r)
	defer unix.Close(ring)
	area := func(at int64, size uint32) []byte {
		mem, err := unix.Mmap(ring, at, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(mem) })
		return mem
	}
	sq := area(uringOffSQ, p.sq.array+4*p.sqEntries)
	cq := area(uringOffCQ, p.cq.cqes+16*p.cqEntries)
	sqes := unsafe.Slice((*uringSQE)(unsafe.Pointer(&area(uringOffSQEs, 64*p.sqEntries)[0])), p.sqEntries)
	word := func(mem []byte, at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&mem[at])) }

	const size = 50_000 // no multiple of a page
	got := make([]byte, len(want))
	offs := make([]int, 0, len(want)/size+1)
	for off := 0; off < len(want); off += size {
		offs = append(offs, off)
	}
	for len(offs) > 0 {
		n := min(len(offs), uringDepth)
		tail := *word(sq, p.sq.tail)
		for i, off := range offs[:n] {
			part := got[off:min(len(got), off+size)]
			slot := (tail + uint32(i)) & *word(sq, p.sq.mask)
			sqes[slot] = uringSQE{
				op: uringOpRead, fd: int32(f.Fd()), off: uint64(off), user: uint64(off),
				addr: uint64(uintptr(unsafe.Pointer(&part[0]))), length: uint32(len(part)),
			}
			*word(sq, p.sq.array+4*slot) = slot
		}
		atomic.StoreUint32(word(sq, p.sq.tail), tail+uint32(n))
		for submit, left := n, n; left > 0; {
			taken, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(ring), uintptr(submit), uintptr(left), uringGetEvent, 0, 0)
			if errno == 0 {
				submit -= int(taken)
			} else if errno != unix.EINTR {
				t.Fatal(errno)
			}
			head := *word(cq, p.cq.head)
			for end := atomic.LoadUint32(word(cq, p.cq.tail)); head != end; head++ {
				e := cq[p.cq.cqes+16*(head&*word(cq, p.cq.mask)):]
				off, res := int(binary.NativeEndian.Uint64(e)), int32(binary.NativeEndian.Uint32(e[8:]))
				if int(res) != min(size, len(want)-off) {
					t.Errorf("at %d: %d", off, res)
				}
				left--
			}
			atomic.StoreUint32(word(cq, p.cq.head), head)
		}
		offs = offs[n:]
	}
	if !bytes.Equal(got, want) {
		t.Error("wrong bytes")
	}
}
