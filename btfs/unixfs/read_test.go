package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/reedsolomon"

	"github.com/btmount/btmount/btfs/btfstest"
)

func open(t testing.TB, s Blocks, c cid.Cid) *Object {
	t.Helper()
	o, err := Open(t.Context(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// A read at any place brings the blocks on the way and the leaves that hold it.
func TestRandomAccess(t *testing.T) {
	fixtures, s := btfstest.Fixtures(t)
	for _, f := range fixtures {
		if f.Name[:4] != "file" || f.Files[0].Size < 1000 {
			continue
		}
		o := open(t, s, f.CID)
		all := whole(t, o, int(o.Size))
		s.Asked()
		r := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			off, n := r.Int64N(o.Size), 1+r.IntN(64<<10)
			p := make([]byte, n)
			k, err := o.ReadAt(t.Context(), p, off)
			want := all[off:min(int(off)+n, len(all))]
			if !bytes.Equal(p[:k], want) || (err == io.EOF) != (k < n) {
				t.Fatalf("%s: %d at %d: %d, %v", f.Name, n, off, k, err)
			}
			if n := s.Asked(); n > 2 {
				t.Errorf("%s: %d blocks for one read", f.Name, n)
			}
		}
		for _, off := range []int64{o.Size, o.Size + 1} {
			if n, err := o.ReadAt(t.Context(), make([]byte, 1), off); n != 0 || err != io.EOF {
				t.Error(n, err)
			}
		}
		if _, err := o.ReadAt(t.Context(), make([]byte, 1), -1); err == nil {
			t.Error("a negative offset")
		}
	}
}

// A trickle tree has leaves beside inner blocks; any shape is read.
func TestAnyShape(t *testing.T) {
	s, r := btfstest.NewStore(), rand.New(rand.NewPCG(3, 4))
	content := noise(20_000)
	var grow func(b []byte, levels int) btfstest.Link
	grow = func(b []byte, levels int) btfstest.Link {
		if levels == 0 || len(b) < 2 || r.IntN(4) == 0 {
			if r.IntN(2) == 0 {
				return btfstest.Link{CID: s.Put(cid.Raw, b), Size: uint64(len(b))}
			}
			return s.Leaf(b)
		}
		var parts []btfstest.Link
		for len(b) > 0 {
			n := 1 + r.IntN(len(b))
			parts, b = append(parts, grow(b[:n], levels-1)), b[n:]
		}
		return s.Tree(parts...)
	}
	for range 50 {
		o := open(t, s, grow(content, 6).CID)
		if !bytes.Equal(whole(t, o, 1+r.IntN(5000)), content) {
			t.Fatal("other bytes")
		}
	}
}

// drop makes shards of a Reed-Solomon file vanish, of the file and of the directory.
func TestRepair(t *testing.T) {
	for name, path := range map[string]string{"file-reed-solomon": "", "dir-reed-solomon": "x/second.bin"} {
		for _, missing := range [][]int{{0}, {9}, {0, 3, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 12, 13, 14, 29}} {
			fixtures, s := btfstest.Fixtures(t)
			f := btfstest.Named(t, fixtures, name)
			shards := links(t, s, links(t, s, f.CID)[1].CID())
			for _, i := range missing {
				s.Drop(shards[i].CID())
			}
			t.Run(fmt.Sprint(name, missing), func(t *testing.T) {
				for _, file := range f.Files {
					if file.Path == path {
						holds(t, s, f.CID, file)
					}
				}
			})
		}
	}
}

func links(t *testing.T, s *btfstest.Store, c cid.Cid) []Link {
	t.Helper()
	n, err := load(t.Context(), s, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n.Links
}

// As long as all data shards are there, no parity is asked for; with too few of both the
// error names the block that is missing.
func TestRepairOnlyIfNeeded(t *testing.T) {
	fixtures, s := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-reed-solomon")
	shards := links(t, s, links(t, s, f.CID)[1].CID())
	o := open(t, s, f.CID)
	s.Asked()
	whole(t, o, int(o.Size))
	if n := s.Asked(); n != 10 {
		t.Errorf("%d blocks, not the 10 data shards", n)
	}
	for i := range 21 {
		s.Drop(shards[i].CID())
	}
	o = open(t, s, f.CID)
	_, err := o.ReadAt(t.Context(), make([]byte, 10), 75_000)
	if !errors.Is(err, btfstest.ErrAbsent) || !strings.Contains(err.Error(), "shard 1: at offset 70000") || !strings.Contains(err.Error(), "fewer than 10 of 30") {
		t.Error(err)
	}
}

// coded builds a Reed-Solomon file of two data shards and one of parity, each of four
// leaves.
func coded(t *testing.T, s *btfstest.Store, content []byte, spoil func([][]byte)) (root cid.Cid, shards []btfstest.Link) {
	t.Helper()
	e, err := reedsolomon.New(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := e.Split(bytes.Clone(content))
	if err == nil {
		err = e.Encode(parts)
	}
	if err != nil {
		t.Fatal(err)
	}
	spoil(parts)
	for _, p := range parts {
		var leaves []btfstest.Link
		for len(p) > 0 {
			n := min(1000, len(p))
			leaves, p = append(leaves, s.Leaf(p[:n])), p[n:]
		}
		shards = append(shards, s.Tree(leaves...))
	}
	text := fmt.Sprintf(`{"NumData":2,"NumParity":1,"FileSize":%d,"ChunkSize":1000}#{}`, len(content))
	return withMeta(s, text, s.Tree(shards...)), shards
}

// What parity gives is held against the CID of the leaf that is missing: parity that was
// made wrong gives no wrong bytes.
func TestRepairIsVerified(t *testing.T) {
	content := noise(7001)
	for _, wrong := range []bool{false, true} {
		s := btfstest.NewStore()
		root, shards := coded(t, s, content, func(parts [][]byte) {
			if wrong {
				parts[2][1500] ^= 1
			}
		})
		s.Drop(links(t, s, shards[0].CID)[1].CID())
		o := open(t, s, root)
		p := make([]byte, len(content))
		_, err := o.ReadAt(t.Context(), p, 0)
		if !wrong && (err != nil || !bytes.Equal(p, content)) {
			t.Error(err, "or other bytes")
		}
		if lie := (*LieError)(nil); wrong && (!errors.As(err, &lie) || lie.Off != 1000) {
			t.Error(err)
		}
	}
	s := btfstest.NewStore() // a whole shard is gone, with its inner block
	root, shards := coded(t, s, content, func([][]byte) {})
	s.Drop(shards[1].CID)
	if !bytes.Equal(whole(t, open(t, s, root), 999), content) {
		t.Error("other bytes")
	}
}

// slow answers after a round trip.
type slow struct {
	*btfstest.Store
	rtt time.Duration
}

func (s slow) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	select {
	case <-time.After(s.rtt):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Store.Block(ctx, c)
}

// A listing costs round trips by its levels and its width, not by its shards.
func TestListingIsParallel(t *testing.T) {
	_, s := btfstest.Fixtures(t)
	root := hashed(s, numbered(10_000), 0)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, s, root)
		s.Asked()
		start := time.Now()
		o.dir.(*hamt).blocks = slow{s, 50 * time.Millisecond}
		all, err := o.List(t.Context())
		if err != nil || len(all) != 10_000 {
			t.Fatal(len(all), err)
		}
		shards, took := s.Asked(), time.Since(start)
		if floor := time.Duration(shards) * 50 * time.Millisecond / width; took > floor*3/2 {
			t.Errorf("%d shards took %v, %d at a time %v", shards, took, width, floor)
		}
	})
}

// A read that is interrupted ends, and so do those who worked for it.
func TestReadIsInterrupted(t *testing.T) {
	fixtures, s := btfstest.Fixtures(t)
	for _, name := range []string{"file-balanced", "file-reed-solomon"} {
		synctest.Test(t, func(t *testing.T) {
			o := open(t, slow{s, time.Minute}, btfstest.Named(t, fixtures, name).CID)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err := o.ReadAt(ctx, make([]byte, 600_000), 0)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Error(err, time.Since(start))
			}
		})
	}
}

func TestConcurrentReads(t *testing.T) {
	fixtures, s := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-reed-solomon")
	want := whole(t, open(t, s, f.CID), 700_000)
	s.Drop(links(t, s, links(t, s, f.CID)[1].CID())[4].CID())
	o := open(t, s, f.CID)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := make([]byte, 90_000)
			for off := i * 1000; off+len(p) < len(want); off += 50_000 {
				if _, err := o.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
					t.Error(off, err)
				}
			}
		})
	}
	all.Wait()
}

func TestTimes(t *testing.T) {
	s := btfstest.NewStore()
	for want, data := range map[string]pb{
		"2001-02-03T04:05:06Z":           pb{}.Num(1, 2).Num(8, 981173106), // BTFS
		"2001-02-03T04:05:06.000000007Z": append(pb{}.Num(1, 2), "\x42\x0b\x08\xf2\x86\xee\xd3\x03\x15\x07\x00\x00\x00"...),
		"1969-12-31T23:59:59Z":           pb{}.Num(1, 2).Bytes(8, pb{}.Num(1, 1<<64-1)),
		"0001-01-01T00:00:00Z":           pb{}.Num(1, 2),
	} {
		o := open(t, s, put(s, data))
		if got := o.ModTime.Format(time.RFC3339Nano); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A path leads through directories of all kinds, never through a symlink, and what is not
// there is told apart from what could not be had.
func TestWalk(t *testing.T) {
	fixtures, s := btfstest.Fixtures(t)
	tree := btfstest.Named(t, fixtures, "tree").CID
	for path, want := range map[string]string{
		"sub/link/x": "/sub/link: it is a symlink to \"../a.txt\", which is not followed",
		"a.txt/x":    "/a.txt: it is a file and no directory",
		"sub/gone":   "/sub/gone: no such name in this directory",
		"..":         "no such name", "sub/../a.txt": "no such name",
	} {
		_, err := Walk(t.Context(), s, tree, split(path))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	hamt := btfstest.Named(t, fixtures, "dir-hamt").CID
	if _, err := Walk(t.Context(), s, hamt, []string{"gone"}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	s.Drop(links(t, s, tree)[0].CID())
	if _, err := Walk(t.Context(), s, tree, []string{"a.txt"}); err == nil || errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// An object that was encrypted is bytes.
func TestOpaque(t *testing.T) {
	s := btfstest.NewStore()
	secret := noise(500)
	o := open(t, s, s.Leaf(secret).CID)
	if o.Kind != File || !bytes.Equal(whole(t, o, 100), secret) {
		t.Error("not the bytes")
	}
}

func BenchmarkReadAt(b *testing.B) {
	s := btfstest.NewStore()
	var parts []btfstest.Link
	for range 174 {
		parts = append(parts, s.Leaf(make([]byte, 256<<10)))
	}
	o := open(b, s, s.Tree(parts...).CID)
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.ReadAt(b.Context(), p, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}
