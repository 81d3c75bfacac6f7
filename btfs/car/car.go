// Package car reads CARv1, the form in which gateways send many blocks, block by block
// while it arrives: nothing is kept, each block is verified against its own CID before it
// is handed out, and whoever has enough stops reading.
//
// The format is a header in CBOR, then for each block its length, its CID and its bytes.
// go-car would read it, and CARv2, indexes and selectors, with the whole of IPLD below it;
// this is a hundred lines that cannot take more memory than one block.
package car

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
)

const (
	maxHeader = 8 << 10
	maxCID    = 8 + block.MaxIdentity
)

// Reader reads the blocks of one CAR.
type Reader struct {
	r     *bufio.Reader
	roots []cid.Cid
	off   int64 // where the next block begins
}

// NewReader reads the header of a CARv1.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{r: bufio.NewReaderSize(r, 32<<10)}
	n, err := c.length(maxHeader)
	if err != nil {
		return nil, fmt.Errorf("not a CAR: %w", unexpected(err))
	}
	head, err := c.take(n)
	if err != nil {
		return nil, fmt.Errorf("not a CAR: its header: %w", unexpected(err))
	}
	if c.roots, err = header(head); err != nil {
		return nil, fmt.Errorf("not a CAR: %w", err)
	}
	return c, nil
}

// Roots are those that the header names: nobody has verified anything about them.
func (c *Reader) Roots() []cid.Cid { return c.roots }

// Next returns the next block, verified, or io.EOF after the last.
func (c *Reader) Next() (cid.Cid, []byte, error) {
	at := c.off
	n, err := c.length(maxCID + block.MaxSize)
	if err == io.EOF {
		return cid.Undef, nil, io.EOF
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("CAR: block at byte %d: %w", at, err)
	}
	b, err := c.take(n)
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("CAR: block at byte %d: %w", at, unexpected(err))
	}
	// A CID that names a long hash would be copied before it is checked.
	used, id, err := cid.CidFromBytes(b[:min(len(b), maxCID)])
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("CAR: block at byte %d: no CID: %w", at, err)
	}
	if err := block.Verify(id, b[used:]); err != nil {
		return cid.Undef, nil, fmt.Errorf("CAR: block %s at byte %d: %w", id, at, err)
	}
	return id, b[used:], nil
}

// length reads a varint that is not 0 and at most limit.
func (c *Reader) length(limit uint64) (int, error) {
	var n uint64
	for i := 0; ; i++ {
		b, err := c.r.ReadByte()
		if err != nil {
			if i > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		c.off++
		n |= uint64(b&0x7f) << (7 * i)
		if n > limit || i > 3 {
			return 0, fmt.Errorf("it says %d bytes or more: at most %d", n, limit)
		}
		if b < 0x80 {
			break
		}
	}
	if n == 0 {
		return 0, errors.New("it says 0 bytes")
	}
	return int(n), nil
}

func (c *Reader) take(n int) ([]byte, error) {
	var b bytes.Buffer // it grows with what arrives, and not with what was said
	b.Grow(min(n, 64<<10))
	got, err := io.CopyN(&b, c.r, int64(n))
	c.off += got
	return b.Bytes(), err
}

// unexpected makes of an end in the middle what it is.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// header reads {"roots": [CID…], "version": 1} in CBOR.
func header(b []byte) (roots []cid.Cid, err error) {
	d := cbor{b}
	pairs, err := d.head(cborMap)
	if err != nil {
		return nil, err
	}
	version := uint64(0)
	for range pairs {
		key, err := d.bytes(cborText)
		if err != nil {
			return nil, err
		}
		switch string(key) {
		case "version":
			version, err = d.head(cborUint)
		case "roots":
			roots, err = d.roots()
		default:
			err = fmt.Errorf("its header has a key %.20q", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if version != 1 {
		return nil, fmt.Errorf("its version is %d, and only 1 is read", version)
	}
	if len(d.b) > 0 {
		return nil, errors.New("something follows its header")
	}
	return roots, nil
}

// Major types of CBOR.
const (
	cborUint  = 0
	cborBytes = 2
	cborText  = 3
	cborList  = 4
	cborMap   = 5
	cborTag   = 6
	tagCID    = 42
)

var errCBOR = errors.New("its header is no CBOR of a CAR")

type cbor struct{ b []byte }

// head reads the head of one item of the major type that is expected.
func (d *cbor) head(major byte) (uint64, error) {
	if len(d.b) == 0 || d.b[0]>>5 != major {
		return 0, errCBOR
	}
	low := d.b[0] & 0x1f
	d.b = d.b[1:]
	if low < 24 {
		return uint64(low), nil
	}
	n := 1 << (low - 24)
	if low > 27 || len(d.b) < n {
		return 0, errCBOR
	}
	var wide [8]byte
	copy(wide[8-n:], d.b[:n])
	d.b = d.b[n:]
	return binary.BigEndian.Uint64(wide[:]), nil
}

func (d *cbor) bytes(major byte) ([]byte, error) {
	n, err := d.head(major)
	if err != nil || n > uint64(len(d.b)) {
		return nil, errCBOR
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out, nil
}

func (d *cbor) roots() (out []cid.Cid, err error) {
	n, err := d.head(cborList)
	if err != nil {
		return nil, err
	}
	for range n {
		if tag, err := d.head(cborTag); err != nil || tag != tagCID {
			return nil, errCBOR
		}
		b, err := d.bytes(cborBytes)
		if err != nil || len(b) == 0 || b[0] != 0 {
			return nil, errCBOR
		}
		c, err := cid.Cast(b[1:])
		if err != nil {
			return nil, fmt.Errorf("a root of it: %w", err)
		}
		out = append(out, c)
	}
	return out, nil
}
