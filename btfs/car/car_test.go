package car_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/car"
)

func TestFixtures(t *testing.T) {
	fixtures, _ := btfstest.Fixtures(t)
	for _, f := range fixtures {
		whole := btfstest.CAR(t, f.Name)
		n, err := read(whole)
		if err != nil || n < 1 {
			t.Errorf("%s: %d blocks, %v", f.Name, n, err)
		}
		r, err := car.NewReader(bytes.NewReader(whole))
		if err != nil || len(r.Roots()) != 1 || !r.Roots()[0].Equals(f.CID) {
			t.Errorf("%s: roots %v, %v", f.Name, r.Roots(), err)
		}
		// Cut anywhere, it does not seem to be whole.
		for _, at := range []int{0, 1, 30, 61, len(whole) / 2, len(whole) - 1} {
			if k, err := read(whole[:min(at, len(whole))]); err == nil && k == n {
				t.Errorf("%s cut at %d: all %d blocks", f.Name, at, k)
			}
		}
	}
}

// read reads all blocks.
func read(b []byte) (n int, err error) {
	r, err := car.NewReader(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	for {
		switch _, _, err := r.Next(); err {
		case nil:
			n++
		case io.EOF:
			return n, nil
		default:
			return n, err
		}
	}
}

func TestHostile(t *testing.T) {
	good := btfstest.CAR(t, "file-mode")
	head := good[:1+int(good[0])]
	length := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":                  {nil, "not a CAR"},
		"a web page":             {[]byte("<!doctype html><title>x</title>"), "not a CAR"},
		"CARv2":                  {join([]byte{0x0a, 0xa1, 0x67}, []byte("version"), []byte{2}), "its version is 2"},
		"a header of 2^60":       {join(length(1<<60), good[1:]), "at most 8192"},
		"a header of 2^63":       {bytes.Repeat([]byte{0xff}, 20), "at most 8192"},
		"more after the header":  {join([]byte{0x0b, 0xa1, 0x67}, []byte("version"), []byte{1, 0}), "follows its header"},
		"2^64 roots":             {join([]byte{0x0f, 0xa1, 0x65}, []byte("roots"), []byte{0x9b}, bytes.Repeat([]byte{0xff}, 8)), "no CBOR"},
		"a block of 3 MiB":       {join(head, length(3<<20), make([]byte, 3<<20)), "at most"},
		"a block of 0":           {join(head, length(0)), "0 bytes"},
		"a block of 2^63":        {join(head, bytes.Repeat([]byte{0xff}, 10)), "at most"},
		"a block beyond the end": {join(head, length(1000), []byte("x")), "unexpected EOF"},
		"no CID":                 {join(head, length(3), []byte("xyz")), "no CID"},
		"a flipped bit":          {flipped, "not those of the CID"},
	} {
		if _, err := read(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := read(flipped); !errors.Is(err, block.ErrWrongBytes) {
		t.Error(err)
	}
}

// Who has enough stops, and no more than that was taken from the stream but a buffer.
func TestStopsEarly(t *testing.T) {
	whole := btfstest.CAR(t, "file-balanced")
	rest := bytes.NewReader(whole)
	r, err := car.NewReader(rest)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if took := len(whole) - rest.Len(); took > 64<<10 {
		t.Errorf("%d bytes for one small block", took)
	}
}

// What comes out is verified, whatever goes in.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"file-mode", "file-mtime-mode"} {
		f.Add(btfstest.CAR(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := car.NewReader(bytes.NewReader(b))
		for err == nil {
			var c cid.Cid
			var data []byte
			if c, data, err = r.Next(); err == nil && block.Verify(c, data) != nil {
				t.Fatal("a block that is not its CID's")
			}
		}
	})
}
