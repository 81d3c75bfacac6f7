// Package btfstest is what tests of BTFS stand on: objects that a real node made, a way to
// build others that none would make, and a gateway and a node that behave as the real ones
// were measured to. It is for tests only.
package btfstest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/car"
)

// The fixtures are CARv1 exports of a go-btfs 4.1.0 node, and a manifest of what a reader
// must see.
//
//go:embed testdata
var testdata embed.FS

// Fixture is one object of the manifest.
type Fixture struct {
	Name  string
	CID   cid.Cid
	Files []File
	Whole bool // Files are all that there is
}

// File is what a reader must see at a path; "" is the object itself.
type File struct {
	Path    string
	Size    int64
	SHA256  string
	Content string // instead of SHA256, if not empty
	Symlink string
}

// Fixtures returns all of the manifest, with a store of all their blocks.
func Fixtures(t testing.TB) ([]Fixture, *Store) {
	t.Helper()
	text, err := testdata.ReadFile("testdata/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	type file struct {
		SHA256, Symlink string
		Size            int64
	}
	var manifest map[string]struct {
		file
		CID   string
		Count int
		Files map[string]file
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	s := NewStore()
	var all []Fixture
	for name, m := range manifest {
		f := Fixture{Name: strings.TrimSuffix(name, ".car"), CID: cid.MustParse(m.CID), Whole: true}
		for path, v := range m.Files {
			f.Files = append(f.Files, File{Path: path, Size: v.Size, SHA256: v.SHA256, Symlink: v.Symlink})
		}
		for i := range m.Count { // entry N holds the decimal N and a newline
			n := strconv.Itoa(i)
			path := "entry-with-a-rather-long-name-to-force-sharding-" + strings.Repeat("0", 5-len(n)) + n + ".txt"
			f.Files = append(f.Files, File{Path: path, Size: int64(len(n) + 1), Content: n + "\n"})
		}
		if len(f.Files) == 0 {
			f.Files = []File{{Size: m.Size, SHA256: m.SHA256}}
		}
		all = append(all, f)
	}
	for codec, blocks := range parsed() {
		for _, b := range blocks {
			s.Put(codec, b)
		}
	}
	if len(all) != 10 {
		t.Fatalf("%d fixtures", len(all))
	}
	return all, s
}

// Named returns one fixture.
func Named(t testing.TB, all []Fixture, name string) Fixture {
	t.Helper()
	for _, f := range all {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no fixture %s", name)
	return Fixture{}
}

// Store holds blocks in memory, and counts who asks.
type Store struct {
	mu     sync.Mutex
	blocks map[string][]byte        // by multihash: CIDs of one block differ
	made   map[string]func() []byte // in place of bytes
	asked  map[cid.Cid]int
	Before func(cid.Cid) // is called before a block is looked for
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{blocks: map[string][]byte{}, made: map[string]func() []byte{}, asked: map[cid.Cid]int{}}
}

// ErrAbsent is the answer of a store that does not have a block.
var ErrAbsent = errors.New("no such block in the store")

// Block returns a block.
func (s *Store) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	if s.Before != nil {
		s.Before(c)
	}
	if b, ok := block.Inline(c); ok {
		return b, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[c]++
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b, ok := s.blocks[string(c.Hash())]; ok {
		return b, nil
	}
	if again := s.made[string(c.Hash())]; again != nil {
		return again(), nil
	}
	return nil, ErrAbsent
}

// AskedFor returns which blocks were asked for since the last call of it or Asked.
func (s *Store) AskedFor() []cid.Cid {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Keys(s.asked))
	clear(s.asked)
	return all
}

// Asked returns how many blocks were asked for since the last call.
func (s *Store) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range s.asked {
		n += k
	}
	clear(s.asked)
	return n
}

// Put adds a block of a codec, and returns its CID: version 0 if it can have one.
func (s *Store) Put(codec uint64, b []byte) cid.Cid {
	p := cid.Prefix{Version: 1, Codec: codec, MhType: 0x12, MhLength: -1}
	if codec == cid.DagProtobuf {
		p.Version = 0
	}
	c, err := p.Sum(b)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[string(c.Hash())] = b
	return c
}

// Made adds a raw leaf whose bytes are not kept, but made again each time.
func (s *Store) Made(again func() []byte) Link {
	b := again()
	c := s.Put(cid.Raw, b)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocks, string(c.Hash()))
	s.made[string(c.Hash())] = again
	return Link{CID: c, Size: uint64(len(b)), Tsize: uint64(len(b))}
}

// File adds a file of so many bytes, which do not repeat, in leaves of 256 KiB and blocks
// of 174 links, as nodes do. Its bytes are not kept.
func (s *Store) File(size int64, seed byte) Link {
	const leaf, links = 256 << 10, 174
	var level []Link
	for off := int64(0); off < size; off += leaf {
		level = append(level, s.Made(func() []byte {
			b := make([]byte, min(leaf, size-off))
			key := [32]byte{seed}
			binary.LittleEndian.PutUint64(key[8:], uint64(off))
			if _, err := rand.NewChaCha8(key).Read(b); err != nil {
				panic(err) // never
			}
			return b
		}))
	}
	for len(level) > 1 {
		var above []Link
		for parts := range slices.Chunk(level, links) {
			above = append(above, s.Tree(parts...))
		}
		level = above
	}
	return level[0]
}

// Drop removes a block.
func (s *Store) Drop(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocks, string(c.Hash()))
}

// CIDs of everything that is there, as version 0.
func (s *Store) CIDs() (all []cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.blocks {
		all = append(all, cid.NewCidV0([]byte(h)))
	}
	return all
}

// parsed are the blocks of all fixtures, by codec.
var parsed = sync.OnceValue(func() map[uint64][][]byte {
	blocks := map[uint64][][]byte{}
	all, err := testdata.ReadDir("testdata")
	if err != nil {
		panic(err)
	}
	for _, e := range all {
		if !strings.HasSuffix(e.Name(), ".car") {
			continue
		}
		f, err := testdata.Open("testdata/" + e.Name())
		if err != nil {
			panic(err)
		}
		r, err := car.NewReader(f)
		for err == nil {
			var c cid.Cid
			var b []byte
			if c, b, err = r.Next(); err == nil {
				blocks[c.Prefix().Codec] = append(blocks[c.Prefix().Codec], b)
			}
		}
		if err != io.EOF {
			panic(e.Name() + ": " + err.Error())
		}
	}
	return blocks
})

// CAR returns a fixture as it was exported.
func CAR(t testing.TB, name string) []byte {
	t.Helper()
	b, err := testdata.ReadFile("testdata/" + name + ".car")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Is reports whether b is what the manifest says.
func (f File) Is(b []byte) bool {
	if f.Content != "" {
		return string(b) == f.Content
	}
	h := sha256.Sum256(b)
	return int64(len(b)) == f.Size && hex.EncodeToString(h[:]) == f.SHA256
}
