package unixfs

import (
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/btfstest"
)

// seeds are small blocks of all kinds, true and hostile.
func seeds(f *testing.F) {
	_, s := btfstest.Fixtures(f)
	h := btfstest.NewStore()
	for _, c := range hostiles() {
		if c.reason != "" && len(c.name) < 40 {
			c.root(h)
		}
	}
	for _, from := range []*btfstest.Store{s, h} {
		for i, c := range from.CIDs() {
			if b, err := from.Block(f.Context(), c); err == nil && len(b) < 2000 && i < 200 {
				f.Add(b)
			}
		}
	}
}

// Whatever is decoded is consistent, and small beside its block.
func FuzzDecode(f *testing.F) {
	seeds(f)
	c := btfstest.NewStore().Put(cid.DagProtobuf, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Decode(c, b)
		if err != nil {
			return
		}
		sum := int64(len(n.Data))
		for _, s := range n.Sizes {
			sum += s
		}
		switch n.Type {
		case TypeRaw, TypeFile, TypeTokenMeta:
			if n.Size != sum || len(n.Sizes) != len(n.Links) || sum < 0 {
				t.Fatalf("%+v", n)
			}
		case TypeHAMT:
			for _, l := range n.Links {
				if at(&l, n.digits()) >= int(n.Fanout) {
					t.Fatalf("%+v", n)
				}
			}
		}
		if n.Mode&^0o777 != 0 || len(n.Links) > maxLinks || len(n.Data) > len(b) {
			t.Fatalf("%+v", n)
		}
	})
}

// A block can be the root of an object whose others are all missing: nothing that it says
// may lead further than to them.
func FuzzOpen(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := btfstest.NewStore()
		o, err := Open(t.Context(), s, s.Put(cid.DagProtobuf, b))
		if err == nil {
			_ = all(t, o, 0)
		}
	})
}

func FuzzTokenMeta(f *testing.F) {
	f.Add(`{"price":11.2,"ChunkSize":262144}#{}`)
	f.Add(`{"NumData":2,"NumParity":1,"FileSize":10,"IsDir":true}#{"BaseNode":{"NodeType":1,"Links":[{"BaseNode":{"NodeType":2,"NodeName":"a","Siz":5,"StartOffset":5}},{"BaseNode":{"NodeType":3,"NodeName":"l"},"Data":"a"}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		s := btfstest.NewStore()
		shards := s.Tree(s.Leaf([]byte("abcde")), s.Leaf([]byte("fghij")), s.Leaf([]byte("klmno")))
		if o, err := Open(t.Context(), s, withMeta(s, text, shards)); err == nil {
			_ = all(t, o, 0)
		}
	})
}
