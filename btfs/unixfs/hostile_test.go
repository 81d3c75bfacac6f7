package unixfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/crawl"
)

type (
	pb   = btfstest.PB
	link = btfstest.Link
)

// hostile is an object that somebody might publish to do harm, and what a reader that
// opens it, lists it and reads all of it is told. An empty reason is for what is odd, and
// read.
type hostile struct {
	name, reason string
	root         func(s *btfstest.Store) cid.Cid
}

func put(s *btfstest.Store, data pb, links ...link) cid.Cid {
	return s.Put(cid.DagProtobuf, btfstest.Encode(data, links...))
}

// shardData is the data of a HAMT shard whose places are set.
func shardData(fanout uint64, places ...int) pb {
	set := make([]byte, 32)
	for _, i := range places {
		set[31-i/8] |= 1 << (i % 8)
	}
	return pb{}.Num(1, 5).Bytes(2, set).Num(5, murmur64).Num(6, fanout)
}

// hashed builds a true HAMT over names, each an empty file.
func hashed(s *btfstest.Store, names []string, used int) cid.Cid {
	leaf := s.Leaf(nil)
	at := map[int][]string{}
	for _, n := range names {
		p := int(step(hashOf(n), used, 256))
		at[p] = append(at[p], n)
	}
	var links []link
	var places []int
	for p := range 256 {
		switch here := at[p]; len(here) {
		case 0:
			continue
		case 1:
			links = append(links, link{CID: leaf.CID, Name: fmt.Sprintf("%02X%s", p, here[0]), Tsize: leaf.Tsize})
		default:
			links = append(links, link{CID: hashed(s, here, used+8), Name: fmt.Sprintf("%02X", p)})
		}
		places = append(places, p)
	}
	return put(s, shardData(256, places...), links...)
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("file-%06d", i))
	}
	return names
}

// withMeta puts token metadata before a file.
func withMeta(s *btfstest.Store, text string, file link) cid.Cid {
	meta := s.Put(cid.DagProtobuf, btfstest.Encode(pb{}.Num(1, 6).Text(2, text).Num(3, uint64(len(text)))))
	data := pb{}.Num(1, 2).Num(3, uint64(len(text))+file.Size).Num(4, uint64(len(text))).Num(4, file.Size)
	return put(s, data, link{CID: meta}, file)
}

func rsTree(s *btfstest.Store, entries string) cid.Cid {
	shards := s.Tree(s.Leaf([]byte("abcde")), s.Leaf([]byte("fghij")), s.Leaf([]byte("klmno")))
	return withMeta(s, `{"NumData":2,"NumParity":1,"FileSize":10,"IsDir":true}#{"BaseNode":{"NodeType":1,"Links":[`+entries+`]}}`, shards)
}

func identity(b []byte) cid.Cid {
	h, err := multihash.Sum(b, multihash.IDENTITY, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.DagProtobuf, h)
}

func hashedBy(code uint64, length int) cid.Cid {
	h, err := multihash.Encode(make([]byte, length), code)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

func hostiles() []hostile {
	leaf := func(s *btfstest.Store) link { return s.Leaf([]byte("content")) }
	file := func(size uint64, sizes ...uint64) pb {
		p := pb{}.Num(1, 2).Num(3, size)
		for _, n := range sizes {
			p = p.Num(4, n)
		}
		return p
	}
	named := func(names ...string) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid {
			var all []link
			for _, n := range names {
				all = append(all, link{CID: leaf(s).CID, Name: n})
			}
			return s.Dir(all...)
		}
	}
	of := func(c cid.Cid) func(*btfstest.Store) cid.Cid { return func(*btfstest.Store) cid.Cid { return c } }
	raw := func(b string) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid { return s.Put(cid.DagProtobuf, []byte(b)) }
	}
	node := func(data pb) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid { return put(s, data) }
	}
	meta := func(text string) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid { return withMeta(s, text, leaf(s)) }
	}
	tree := func(entries string) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid { return rsTree(s, entries) }
	}
	hamt := func(data pb, names ...string) func(*btfstest.Store) cid.Cid {
		return func(s *btfstest.Store) cid.Cid {
			var all []link
			for _, n := range names {
				all = append(all, link{CID: leaf(s).CID, Name: n})
			}
			return put(s, data, all...)
		}
	}
	return []hostile{
		{"chain of 10,000", "more than 128 levels", func(s *btfstest.Store) cid.Cid {
			l := leaf(s)
			for range 10_000 {
				l = s.Tree(l)
			}
			return l.CID
		}},
		{"chain of 100", "", func(s *btfstest.Store) cid.Cid {
			l := leaf(s)
			for range 100 {
				l = s.Tree(l)
			}
			return l.CID
		}},
		{"40,000 links to nothing in each of 4 levels", "", func(s *btfstest.Store) cid.Cid {
			empty := link{CID: identity(btfstest.Encode(pb{}.Num(1, 2)))}
			l := leaf(s)
			for range 4 {
				parts := []link{l}
				for range 40_000 {
					parts = append(parts, empty)
				}
				l = s.Tree(parts...)
			}
			return l.CID
		}},
		{"more is promised than a leaf has", "it holds 7 bytes where 9 are promised", func(s *btfstest.Store) cid.Cid { return put(s, file(9, 9), leaf(s)) }},
		{"less is promised than a leaf has", "it holds 7 bytes where 5 are promised", func(s *btfstest.Store) cid.Cid { return put(s, file(5, 5), leaf(s)) }},
		{"a leaf lies about itself", "it says 9 bytes, and its parts say 1", node(file(9).Bytes(2, []byte("x")))},
		{"sizes of more than the file", "it says 9 bytes, and its parts say 7", func(s *btfstest.Store) cid.Cid { return put(s, file(9, 7), leaf(s)) }},
		{"fewer sizes than links", "2 links and 1 sizes", func(s *btfstest.Store) cid.Cid { return put(s, file(7, 7), leaf(s), leaf(s)) }},
		{"more sizes than links", "1 links and 2 sizes", func(s *btfstest.Store) cid.Cid { return put(s, file(14, 7, 7), leaf(s)) }},
		{"sizes without links", "0 links and 1 sizes", node(file(1<<50, 1<<50))},
		{"sizes that overflow", "overflows", func(s *btfstest.Store) cid.Cid {
			return put(s, file(14, math.MaxInt64, math.MaxInt64, 16), leaf(s), leaf(s), leaf(s))
		}},
		{"a size of 2^63", "no size of a file", node(file(1 << 63))},
		{"a blocksize of 2^64-1", "no size of a file", func(s *btfstest.Store) cid.Cid { return put(s, file(7, math.MaxUint64), leaf(s)) }},
		{"data in an inner block", "", func(s *btfstest.Store) cid.Cid { return put(s, file(9, 7).Text(2, "in"), leaf(s)) }},
		{"a directory in a file", "a directory in the middle of a file", func(s *btfstest.Store) cid.Cid { return put(s, file(7, 7), link{CID: s.Dir()}) }},
		{"metadata in a file", "a token metadata in the middle of a file", func(s *btfstest.Store) cid.Cid {
			m := put(s, pb{}.Num(1, 6).Text(2, "content"))
			return put(s, file(14, 7, 7), leaf(s), link{CID: m})
		}},
		{"metadata alone", "it is the metadata of a file", node(pb{}.Num(1, 6).Text(2, "x"))},
		{"70,000 links", "more than 65536 links", func(s *btfstest.Store) cid.Cid {
			all := make([]link, 70_000)
			for i := range all {
				all[i] = link{CID: identity(nil)}
			}
			return put(s, pb{}.Num(1, 1), all...)
		}},
		{"a block of 2 MiB and a byte", "larger than 2 MiB", func(s *btfstest.Store) cid.Cid { return s.Put(cid.Raw, make([]byte, block.MaxSize+1)) }},

		{"no dag-pb", "not dag-pb", raw("\xff\xff\xff")},
		{"an empty block", "no data", raw("")},
		{"a length beyond the end", "cut short", raw("\x0a\x7fx")},
		{"a varint of 11 bytes", "more than 64 bits", raw("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")},
		{"an unknown field of dag-pb", "field 3", raw("\x1a\x00")},
		{"data twice", "data twice", raw("\x0a\x02\x08\x01\x0a\x02\x08\x02")},
		{"a group", "wire type 3", raw("\x0b")},
		{"a link without CID", "no CID", func(s *btfstest.Store) cid.Cid {
			return s.Put(cid.DagProtobuf, pb{}.Bytes(2, nil).Bytes(1, pb{}.Num(1, 1)))
		}},
		{"a link with a broken CID", `"a" leads to what is no CID`, func(s *btfstest.Store) cid.Cid {
			return s.Put(cid.DagProtobuf, pb{}.Bytes(2, pb{}.Text(1, "\x12\x20x").Text(2, "a")).Bytes(1, pb{}.Num(1, 1)))
		}},
		{"no type", "no type", node(pb{}.Num(3, 0))},
		{"type 3", "UnixFS of metadata", node(pb{}.Num(1, 3))},
		{"type 77", "UnixFS of type 77", node(pb{}.Num(1, 77))},
		{"an mtime that is none", "mtime: no time", node(pb{}.Num(1, 2).Bytes(8, pb{}.Num(7, 1)))},
		{"set-id bits", "", node(pb{}.Num(1, 2).Num(7, 0o7777))},

		{"an empty name", "an empty name", named("a", "")},
		{"the name ..", `the name ".."`, named("..")},
		{"the name .", `the name "."`, named(".")},
		{"a name with a slash", "with a slash or NUL", named("../../etc/passwd")},
		{"a name with NUL", "with a slash or NUL", named("a\x00b")},
		{"one name twice", "", named("a", "a")},
		{"a symlink to nowhere", "a target of 0 bytes", node(pb{}.Num(1, 4))},
		{"a symlink of 5000", "a target of 5000 bytes", node(pb{}.Num(1, 4).Text(2, strings.Repeat("x", 5000)))},
		{"a symlink with NUL", "NUL in its target", node(pb{}.Num(1, 4).Text(2, "a\x00b"))},

		{"HAMT, fanout 0", "fanout of 0", hamt(shardData(0))},
		{"HAMT, fanout 7", "fanout of 7", hamt(shardData(7))},
		{"HAMT, fanout 2^31", "fanout of 2147483648", hamt(shardData(1 << 31))},
		{"HAMT, other hash", "hash 0x12", node(pb{}.Num(1, 5).Num(5, 0x12).Num(6, 256))},
		{"HAMT, more places than links", "1 links and 2 places", hamt(shardData(256, 1, 2), "01x")},
		{"HAMT, a link at another place", "not in its place", hamt(shardData(256, 1), "02x")},
		{"HAMT, a short link", "not in its place", hamt(shardData(256, 1), "1")},
		{"HAMT, a place that is no hex", "not in its place", hamt(shardData(256, 1), "zzx")},
		{"HAMT, places not in order", "not in its place", hamt(shardData(256, 1, 2), "02x", "01x")},
		{"HAMT, a name where its hash does not lead", "is not where its hash leads", hamt(shardData(256, 1), "01file-000001")},
		{"HAMT, an empty shard below", "an empty shard", func(s *btfstest.Store) cid.Cid {
			return put(s, shardData(256, 1), link{CID: put(s, shardData(256)), Name: "01"})
		}},
		{"HAMT, a file for a shard", "a file in the middle of a HAMT", func(s *btfstest.Store) cid.Cid { return put(s, shardData(256, 1), link{CID: leaf(s).CID, Name: "01"}) }},
		{"HAMT, another fanout below", "fanout of 512 below one of 256", func(s *btfstest.Store) cid.Cid {
			return put(s, shardData(256, 1), link{CID: put(s, shardData(512)), Name: "01"})
		}},
		{"HAMT, 256 times the same below, 7 levels", "twice in one HAMT", func(s *btfstest.Store) cid.Cid {
			c := put(s, shardData(256, 1), link{CID: leaf(s).CID, Name: "01x"})
			for range 7 {
				var links []link
				var places []int
				for i := range 256 {
					links, places = append(links, link{CID: c, Name: fmt.Sprintf("%02X", i)}), append(places, i)
				}
				c = put(s, shardData(256, places...), links...)
			}
			return c
		}},
		{"HAMT, deeper than its hash", "deeper than its hash", func(s *btfstest.Store) cid.Cid {
			c := put(s, shardData(256, 1), link{CID: leaf(s).CID, Name: "01x"})
			for range 9 {
				c = put(s, shardData(256, 1), link{CID: c, Name: "01"})
			}
			return c
		}},
		{"HAMT, true, 2,000 names", "", func(s *btfstest.Store) cid.Cid { return hashed(s, numbered(2000), 0) }},

		{"identity of 129 bytes", "an identity CID of 129 bytes", of(identity(make([]byte, 129)))},
		{"identity of a MiB", "an identity CID of 1048576 bytes", of(identity(make([]byte, 1<<20)))},
		{"a link to an identity of a MiB", "an identity CID of 1048576 bytes", func(s *btfstest.Store) cid.Cid {
			return put(s, file(1<<20, 1<<20), link{CID: identity(make([]byte, 1<<20))})
		}},
		{"identity", "", of(identity(btfstest.Encode(pb{}.Num(1, 2).Text(2, "small"))))},
		{"sha1", "hash sha1: only sha2-256", of(hashedBy(multihash.SHA1, 20))},
		{"blake3", "hash blake3: only sha2-256", of(hashedBy(multihash.BLAKE3, 32))},
		{"sha2-256 cut to 4 bytes", "a hash of 4 bytes", of(hashedBy(multihash.SHA2_256, 4))},
		{"codec git", "codec 0x78", of(cid.NewCidV1(cid.GitRaw, hashedBy(multihash.SHA2_256, 32).Hash()))},
		{"a link to sha1", "hash sha1", func(s *btfstest.Store) cid.Cid { return put(s, file(7, 7), link{CID: hashedBy(multihash.SHA1, 20)}) }},

		{"metadata that are no JSON", "token metadata: no JSON", meta("not json")},
		{"metadata that are a list", "token metadata: not of BTFS", meta("[1]#{}")},
		{"metadata of 200,000 names", "more than 131072 names", meta(strings.Repeat("{", 200_000))},
		{"metadata nested 100,000 deep", "token metadata: no JSON", meta(strings.Repeat("[", 100_000))},
		{"metadata that lie about their size", "it holds 2 bytes where 5 are promised", func(s *btfstest.Store) cid.Cid {
			m := put(s, pb{}.Num(1, 6).Text(2, "{}"))
			return put(s, file(12, 5, 7), link{CID: m}, leaf(s))
		}},
		{"more shards than links", "0 links where 30 shards", meta(`{"NumData":10,"NumParity":20,"FileSize":7}#{}`)},
		{"2^40 shards", "1099511627776 data and 1 parity", meta(`{"NumData":1099511627776,"NumParity":1,"FileSize":7}#{}`)},
		{"negative shards", "-1 data", meta(`{"NumData":-1,"NumParity":1,"FileSize":7}#{}`)},
		{"shards and a size that is negative", "-7 bytes in", func(s *btfstest.Store) cid.Cid {
			return withMeta(s, `{"NumData":1,"NumParity":1,"FileSize":-7}#{}`, s.Tree(leaf(s), leaf(s)))
		}},
		{"shards too small for the file", "9223372036854775807 bytes in 1 shards", func(s *btfstest.Store) cid.Cid {
			return withMeta(s, `{"NumData":1,"NumParity":1,"FileSize":9223372036854775807}#{}`, s.Tree(leaf(s), leaf(s)))
		}},
		{"shards of which all lie", "fewer than 1 of 2 shards could be had", func(s *btfstest.Store) cid.Cid {
			return withMeta(s, `{"NumData":1,"NumParity":1,"FileSize":5}#{}`, s.Tree(leaf(s), leaf(s)))
		}},
		{"a Reed-Solomon directory without tree", "missing or broken", meta(`{"NumData":1,"NumParity":1,"FileSize":7,"IsDir":true}`)},
		{"a Reed-Solomon file beyond the end", `"a" has 5 bytes at 6, of 10`, tree(`{"BaseNode":{"NodeType":2,"NodeName":"a","Siz":5,"StartOffset":6}}`)},
		{"a Reed-Solomon file whose end overflows", `at 9223372036854775807`, tree(`{"BaseNode":{"NodeType":2,"NodeName":"a","Siz":1,"StartOffset":9223372036854775807}}`)},
		{"a Reed-Solomon file of negative size", `"a" has -5 bytes`, tree(`{"BaseNode":{"NodeType":2,"NodeName":"a","Siz":-5}}`)},
		{"a Reed-Solomon name with a slash", "with a slash or NUL", tree(`{"BaseNode":{"NodeType":2,"NodeName":"../a"}}`)},
		{"a Reed-Solomon device", "is of type 9", tree(`{"BaseNode":{"NodeType":9,"NodeName":"a"}}`)},
		{"a Reed-Solomon symlink to nothing", "target of 0 bytes", tree(`{"BaseNode":{"NodeType":3,"NodeName":"a"}}`)},
		{"Reed-Solomon directories 200 deep", "more than 128 levels", tree(strings.Repeat(`{"BaseNode":{"NodeType":1,"NodeName":"d","Links":[`, 200) + strings.Repeat(`]}}`, 200))},
		{"Reed-Solomon files, good", "", tree(`{"BaseNode":{"NodeType":2,"NodeName":"a","Siz":5,"StartOffset":5}},{"BaseNode":{"NodeType":2,"NodeName":"b","Siz":10}}`)},
	}
}

// all opens an object, lists what is below it and reads the ends of every file.
func all(t *testing.T, o *Object, levels int) error {
	if o.Kind == Dir {
		entries, err := o.List(t.Context())
		for i, e := range entries {
			if err != nil || i == 10 {
				break
			}
			sub, err := o.Lookup(t.Context(), e.Name)
			if err != nil {
				return err
			}
			if err := all(t, sub, levels+1); err != nil {
				return err
			}
		}
		return err
	}
	p := make([]byte, 1<<20)
	for _, off := range []int64{0, max(0, o.Size-int64(len(p)))} {
		if o.Kind == File && o.Size > 0 {
			if n, err := o.ReadAt(t.Context(), p, off); n < int(min(o.Size, int64(len(p)))) {
				return err
			}
		}
	}
	if o.Mode&^0o777 != 0 {
		t.Errorf("mode %v", o.Mode)
	}
	return nil
}

// Whatever somebody publishes is refused with one line that names the block, within five
// seconds and 128 MiB.
func TestHostileObjects(t *testing.T) {
	for _, h := range hostiles() {
		t.Run(h.name, func(t *testing.T) {
			s := btfstest.NewStore()
			root := h.root(s)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			o, err := Open(t.Context(), s, root)
			if err == nil {
				err = all(t, o, 0)
			}
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 128<<20 || took > 5*time.Second {
				t.Errorf("%v, %d MiB", took, grown>>20)
			}
			switch {
			case h.reason == "" && err != nil:
				t.Error(err)
			case h.reason != "" && (err == nil || !strings.Contains(err.Error(), h.reason) || !strings.Contains(err.Error(), "block ") || strings.Contains(err.Error(), "\n")):
				t.Errorf("%v, want %q", err, h.reason)
			}
		})
	}
}

// 30 levels of two links to the same block are a file of 2^30 leaves: all of it can be
// read at any place, and it costs its levels.
func TestWideObject(t *testing.T) {
	s := btfstest.NewStore()
	l := s.Leaf([]byte(strings.Repeat("0123456789abcdef", 1<<14)))
	for range 30 {
		l = s.Tree(l, l)
	}
	o, err := Open(t.Context(), s, l.CID)
	if err != nil || o.Size != 1<<48 {
		t.Fatal(o, err)
	}
	s.Asked()
	p := make([]byte, 64<<10)
	if n, err := o.ReadAt(t.Context(), p, 1<<47+1234*16); n != len(p) || err != nil || string(p[:16]) != "0123456789abcdef" {
		t.Error(n, err)
	}
	if n := s.Asked(); n > 30 {
		t.Errorf("%d blocks for one read", n)
	}
}

// Leaves of a byte are read, but not a quarter of a million at a time.
func TestTinyLeaves(t *testing.T) {
	s := btfstest.NewStore()
	one := s.Leaf([]byte("x"))
	var level []link
	for range 4 {
		var parts []link
		for range 40_000 {
			parts = append(parts, one)
		}
		level = append(level, s.Tree(parts...))
	}
	o, err := Open(t.Context(), s, s.Tree(level...).CID)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.ReadAt(t.Context(), make([]byte, 4096), 39_000); n != 4096 || err != nil {
		t.Error(n, err)
	}
	if _, err := o.ReadAt(t.Context(), make([]byte, 1<<20), 0); err != io.EOF && !errors.As(err, new(*crawl.TooManyError)) {
		t.Error(err)
	}
}
