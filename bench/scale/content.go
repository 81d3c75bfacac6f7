package main

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

const blockSize = 16 << 10

// content is a torrent whose bytes are computed: every 16 KiB begin with their number and
// that of the torrent, and go on with the same noise.
type content struct {
	number int
	piece  int64
	length int64
	same   bool // all pieces are alike
}

var noise = func() []byte {
	b := make([]byte, blockSize)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}()

// block writes block n to p, which has 16 KiB or less.
func (c *content) block(p []byte, n int64) {
	copy(p, noise)
	if c.same {
		n %= c.piece / blockSize
	}
	if len(p) >= 16 {
		binary.LittleEndian.PutUint64(p, uint64(n))
		binary.LittleEndian.PutUint64(p[8:], uint64(c.number))
	}
}

// read fills p with the bytes from off on.
func (c *content) read(p []byte, off int64) {
	var b [blockSize]byte
	for len(p) > 0 {
		c.block(b[:], off/blockSize)
		n := copy(p, b[off%blockSize:])
		p, off = p[n:], off+int64(n)
	}
}

// torrent encodes a .torrent. With true hashes it can be fetched; without, hashes are
// noise, which is cheaper to make. files lengths are equal but for the last.
func (c *content) torrent(name string, files int, hashed bool) []byte {
	pieces := int((c.length + c.piece - 1) / c.piece)
	hashes := make([]byte, 20*pieces)
	if hashed {
		buf := make([]byte, c.piece)
		for p := range pieces {
			if c.same && p > 0 && int64(p+1)*c.piece <= c.length {
				copy(hashes[20*p:], hashes[:20])
				continue
			}
			part := buf[:min(c.piece, c.length-int64(p)*c.piece)]
			c.read(part, int64(p)*c.piece)
			sum := sha1.Sum(part)
			copy(hashes[20*p:], sum[:])
		}
	} else {
		seed := [32]byte{9}
		binary.LittleEndian.PutUint64(seed[1:], uint64(c.number))
		_, _ = rand.NewChaCha8(seed).Read(hashes)
	}
	b := fmt.Appendf(nil, "d8:announce29:http://127.0.0.1:9/announce-x13:creation datei%de4:infod", 1600000000+c.number)
	if files == 1 {
		b = fmt.Appendf(b, "6:lengthi%de", c.length)
	} else {
		b = append(b, "5:filesl"...)
		each, left := c.length/int64(files), c.length
		for f := range files {
			n := each
			if f == files-1 {
				n = left
			}
			left -= n
			dir, file := fmt.Sprintf("part %02d", f/100), fmt.Sprintf("a file of some length %05d.bin", f)
			b = fmt.Appendf(b, "d6:lengthi%de4:pathl%d:%s%d:%see", n, len(dir), dir, len(file), file)
		}
		b = append(b, 'e')
	}
	b = fmt.Appendf(b, "4:name%d:%s12:piece lengthi%de6:pieces%d:", len(name), name, c.piece, len(hashes))
	return append(append(b, hashes...), "ee"...)
}

// meta parses what torrent made.
func (c *content) meta(name string, files int, hashed bool) (*metainfo.Meta, error) {
	return metainfo.Parse(c.torrent(name, files, hashed))
}

// source is a swarm.Store that has everything.
type source struct{ c *content }

func (s source) Begin(int) error                { return fmt.Errorf("complete") }
func (s source) Abandon(int)                    {}
func (s source) WriteVec([][]byte, int64) error { return fmt.Errorf("complete") }
func (s source) ReadBack([]byte, int64) error   { return fmt.Errorf("complete") }
func (s source) Commit(int, []byte)             {}
func (s source) Fail(int, error)                {}
func (s source) Has(int) bool                   { return true }
func (s source) Known(int) bool                 { return true }
func (s source) Each(f func(int)) {
	for u := range int((s.c.length + s.c.piece - 1) / s.c.piece) {
		f(u)
	}
}
func (s source) ReadPresent(p []byte, off int64) error { s.c.read(p, off); return nil }
