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

// The journal of an object: a header, then records of 16 bytes, little endian:
// unit, session, op, CRC-32C of the header's checksum and the first 12 bytes.
const (
	journalMagic = "btmount units 1\n"
	headerSize   = len(journalMagic) + 8 + 8 + 4 // magic, unit length, object size, CRC-32C
	recordSize   = 16

	opPresent = 1
	opGone    = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	unit    uint32
	session uint32
	op      uint32
}

// journal appends records; it is safe for concurrent use.
type journal struct {
	seed uint32 // checksum of the header: a record of another object never passes

	mu    sync.Mutex
	f     *os.File
	dirty bool
	buf   [recordSize]byte
}

func header(unit, size int64) []byte {
	h := append([]byte(journalMagic), make([]byte, 20)...)
	binary.LittleEndian.PutUint64(h[len(journalMagic):], uint64(unit))
	binary.LittleEndian.PutUint64(h[len(journalMagic)+8:], uint64(size))
	binary.LittleEndian.PutUint32(h[headerSize-4:], crc32.Checksum(h[:headerSize-4], castagnoli))
	return h
}

var errForeign = errors.New("journal is of another layout")

// openJournal opens or makes the journal at path, calls f for each intact record
// in order, and cuts a torn tail off. errForeign: the file belongs to another
// layout, the caller clears the object and calls again.
func openJournal(path string, unit, size int64, each func(record)) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	want := header(unit, size)
	j := &journal{f: f, seed: binary.LittleEndian.Uint32(want[headerSize-4:])}
	end, err := j.load(want, each)
	if err == nil {
		if err = f.Truncate(end); err == nil {
			_, err = f.Seek(end, io.SeekStart)
		}
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
		var b [recordSize]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return end, nil
			}
			return 0, err
		}
		if j.sum(b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
			return end, nil
		}
		each(record{
			unit:    binary.LittleEndian.Uint32(b[0:]),
			session: binary.LittleEndian.Uint32(b[4:]),
			op:      binary.LittleEndian.Uint32(b[8:]),
		})
		end += recordSize
	}
}

func (j *journal) sum(b []byte) uint32 { return crc32.Update(j.seed, castagnoli, b) }

func (j *journal) append(r record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.buf[:]
	binary.LittleEndian.PutUint32(b[0:], r.unit)
	binary.LittleEndian.PutUint32(b[4:], r.session)
	binary.LittleEndian.PutUint32(b[8:], r.op)
	binary.LittleEndian.PutUint32(b[12:], j.sum(b[:12]))
	j.dirty = true
	if _, err := j.f.Write(b); err != nil {
		return fmt.Errorf("journal %s: %w", j.f.Name(), err)
	}
	return nil
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
