package cache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The journal of an object: a header, then records, little endian: unit, session,
// op, tag, CRC-32C of the header's checksum and what stands before. Without tags a
// record has 16 bytes.
const (
	journalMagic = "btmount units 1\n"
	taggedMagic  = "btmount units 2\n"
	headerSize   = len(journalMagic) + 8 + 8 + 4 // magic, unit length, object size, CRC-32C
	recordHead   = 12

	opPresent = 1
	opGone    = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	unit    uint32
	session uint32
	op      uint32
	tag     []byte
	place   uint32 // number in the journal, of a record that was read
}

// journal appends records; it is safe for concurrent use.
type journal struct {
	seed uint32 // checksum of the header: a record of another object never passes
	tag  int    // length of tags
	f    *os.File

	mu     sync.Mutex
	next   uint32 // number of the next record
	dirty  bool
	broken bool   // a record is missing
	buf    []byte // one record
}

func header(unit, size int64, tag int) []byte {
	h := append([]byte(journalMagic), make([]byte, 20)...)
	if tag > 0 {
		copy(h, taggedMagic)
		unit |= int64(tag) << 48 // units are shorter than 2^48
	}
	binary.LittleEndian.PutUint64(h[len(journalMagic):], uint64(unit))
	binary.LittleEndian.PutUint64(h[len(journalMagic)+8:], uint64(size))
	binary.LittleEndian.PutUint32(h[headerSize-4:], crc32.Checksum(h[:headerSize-4], castagnoli))
	return h
}

var errForeign = errors.New("journal is of another layout")

// openJournal opens or makes the journal at path, calls f for each intact record
// in order, and cuts a torn tail off. errForeign: the file belongs to another
// layout, the caller clears the object and calls again.
func openJournal(path string, unit, size int64, tag int, each func(record)) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	want := header(unit, size, tag)
	j := &journal{f: f, seed: binary.LittleEndian.Uint32(want[headerSize-4:]), tag: tag, buf: make([]byte, recordHead+tag+4)}
	end, err := j.load(want, each)
	if err == nil {
		err = f.Truncate(end)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) load(want []byte, each func(record)) (end int64, err error) {
	r := bufio.NewReaderSize(j.f, 64<<10)
	got := make([]byte, headerSize)
	switch _, err := io.ReadFull(r, got); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		_, err := j.f.WriteAt(want, 0) // new, or torn before its first record
		return int64(headerSize), err
	case err != nil:
		return 0, err
	case string(got) != string(want):
		return 0, errForeign
	}
	end = int64(headerSize)
	for {
		b := j.buf
		if _, err := io.ReadFull(r, b); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return end, nil
			}
			return 0, err
		}
		if j.sum(b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
			return end, nil
		}
		each(record{
			unit:    binary.LittleEndian.Uint32(b[0:]),
			session: binary.LittleEndian.Uint32(b[4:]),
			op:      binary.LittleEndian.Uint32(b[8:]),
			place:   j.next,
		})
		j.next++
		end += int64(len(b))
	}
}

// readJournal calls f for each intact record of a journal, with its tag until f returns, and
// changes nothing. The size is that of the object.
func readJournal(path string, f func(record)) (unit, size int64, tag int, err error) {
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, 0, 0, err
	}
	defer in.Close()
	r := bufio.NewReaderSize(in, 64<<10)
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, 0, 0, err
	}
	seed := binary.LittleEndian.Uint32(head[headerSize-4:])
	unit = int64(binary.LittleEndian.Uint64(head[len(journalMagic):]))
	size = int64(binary.LittleEndian.Uint64(head[len(journalMagic)+8:]))
	if string(head[:len(taggedMagic)]) == taggedMagic {
		tag = int(uint64(unit) >> 48)
		unit &= 1<<48 - 1
	}
	if unit <= 0 || size <= 0 || tag > 255 || string(head) != string(header(unit, size, tag)) {
		return 0, 0, 0, errForeign
	}
	b := make([]byte, recordHead+tag+4)
	for place := uint32(0); ; place++ {
		switch _, err := io.ReadFull(r, b); {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return unit, size, tag, nil
		case err != nil:
			return 0, 0, 0, err
		case crc32.Update(seed, castagnoli, b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]):
			return unit, size, tag, nil
		}
		f(record{
			unit:    binary.LittleEndian.Uint32(b[0:]),
			session: binary.LittleEndian.Uint32(b[4:]),
			op:      binary.LittleEndian.Uint32(b[8:]),
			tag:     b[recordHead : recordHead+tag],
			place:   place,
		})
	}
}

func (j *journal) sum(b []byte) uint32 { return crc32.Update(j.seed, castagnoli, b) }

// append writes records in one step and returns the number of the first.
func (j *journal) append(rs ...record) (place uint32, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	size := recordHead + j.tag + 4
	out := j.buf[:0]
	if n := len(rs) * size; n > cap(out) {
		out = make([]byte, 0, n)
	}
	for _, r := range rs {
		b := out[len(out) : len(out)+size]
		binary.LittleEndian.PutUint32(b[0:], r.unit)
		binary.LittleEndian.PutUint32(b[4:], r.session)
		binary.LittleEndian.PutUint32(b[8:], r.op)
		clear(b[recordHead:])
		copy(b[recordHead:size-4], r.tag)
		binary.LittleEndian.PutUint32(b[size-4:], j.sum(b[:size-4]))
		out = out[:len(out)+size]
	}
	j.dirty = true
	if _, err := j.f.WriteAt(out, j.end()); err != nil {
		// What was torn is overwritten by the next record. Until then, and for good if it is
		// one that takes a unit back, the journal can not be believed.
		j.broken = true
		return 0, fmt.Errorf("journal %s: %w", j.f.Name(), err)
	}
	j.next += uint32(len(rs))
	return j.next - uint32(len(rs)), nil
}

// end is where the next record goes.
func (j *journal) end() int64 {
	return int64(headerSize) + int64(j.next)*int64(recordHead+j.tag+4)
}

// isBroken reports whether a record could not be written.
func (j *journal) isBroken() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// tagAt reads the tag of a record.
func (j *journal) tagAt(place uint32) ([]byte, error) {
	tag := make([]byte, j.tag)
	_, err := j.f.ReadAt(tag, int64(headerSize)+int64(place)*int64(recordHead+j.tag+4)+recordHead)
	return tag, err
}

// isDirty reports whether records were written since the last sync.
func (j *journal) isDirty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dirty
}

func (j *journal) sync() error {
	j.mu.Lock()
	dirty := j.dirty
	j.dirty = false
	j.mu.Unlock()
	if !dirty {
		return nil
	}
	return unix.Fdatasync(int(j.f.Fd()))
}

func (j *journal) close() error { return j.f.Close() }
