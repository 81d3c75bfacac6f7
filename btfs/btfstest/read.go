package btfstest

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/ipfs/go-cid"
)

// ReadFile reads a file below a directory of the fixtures. It reads only what is good, so
// that tests of what writes do not stand on the reader that is tested elsewhere.
func ReadFile(ctx context.Context, s *Store, root cid.Cid, name string) ([]byte, error) {
	for part := range strings.SplitSeq(name, "/") {
		b, err := s.Block(ctx, root)
		if err != nil {
			return nil, err
		}
		next := cid.Undef
		for _, l := range fields(b, 2) {
			if string(fields(l, 2)[0]) == part {
				_, next, err = cid.CidFromBytes(fields(l, 1)[0])
			}
		}
		if root = next; !root.Defined() || err != nil {
			return nil, errors.Join(errors.New("no "+part), err)
		}
	}
	return readAll(ctx, s, root)
}

func readAll(ctx context.Context, s *Store, c cid.Cid) (all []byte, err error) {
	b, err := s.Block(ctx, c)
	if err != nil || c.Prefix().Codec == cid.Raw {
		return b, err
	}
	for _, d := range fields(fields(b, 1)[0], 2) {
		all = append(all, d...)
	}
	for _, l := range linksOf(b) {
		part, err := readAll(ctx, s, l)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// fields returns the fields of bytes with a number, of a good message.
func fields(b []byte, number uint64) (all [][]byte) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[n:])
		if b = b[n+m:]; key&7 != 2 {
			continue
		}
		if key>>3 == number {
			all = append(all, b[:v])
		}
		b = b[v:]
	}
	return all
}
