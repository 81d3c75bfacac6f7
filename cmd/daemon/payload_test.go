package daemon_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// payload is data on disk with its .torrent.
type payload struct {
	dir     string // the folder or file itself
	torrent string
	meta    *metainfo.Meta
	pieces  int64 // length of one
}

func (p *payload) name() string            { return filepath.Base(p.dir) }
func (p *payload) file(elem string) string { return filepath.Join(p.dir, elem) }
func (p *payload) parent() string          { return filepath.Dir(p.dir) }
func (p *payload) magnet() string {
	topics := ""
	if p.meta.Info.V1 {
		topics += fmt.Sprintf("xt=urn:btih:%s&", p.meta.Info.Hash)
	}
	if p.meta.Info.V2 {
		topics += fmt.Sprintf("xt=urn:btmh:1220%x&", p.meta.Info.HashV2)
	}
	return fmt.Sprintf("magnet:?%sdn=%s", topics, url.QueryEscape(p.name()))
}

var created = time.Date(2021, 5, 4, 3, 2, 1, 0, time.UTC)

// torrentOf writes a .torrent beside the data.
func torrentOf(dir string, c metainfo.MakeConfig) (*payload, error) {
	if c.Created.IsZero() {
		c.Created = created
	}
	meta, err := metainfo.Make(context.Background(), dir, c)
	if err != nil {
		return nil, err
	}
	p := &payload{dir: dir, torrent: dir + ".torrent", meta: meta, pieces: meta.Info.PieceLength}
	return p, os.WriteFile(p.torrent, meta.Encode(), 0o644)
}

func mustTorrent(t testing.TB, dir string, c metainfo.MakeConfig) *payload {
	t.Helper()
	p, err := torrentOf(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// write makes a file of random bytes that are the same every time.
func write(path string, n int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	key := sha256.Sum256([]byte(filepath.Base(path)))
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return os.WriteFile(path, b, 0o644)
}

func mustWrite(t testing.TB, path string, n int64) {
	t.Helper()
	if err := write(path, n); err != nil {
		t.Fatal(err)
	}
}

// single makes a torrent of one file of n bytes, in a folder of its own.
func single(t testing.TB, name string, n int64, c metainfo.MakeConfig) *payload {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	mustWrite(t, path, n)
	return mustTorrent(t, path, c)
}

// library is a folder with a file for every way of reading and a tree of 2,000
// small files (soak: 1 GiB in order, 20,000 files). It is made once, and nobody may
// write to it.
var library = sync.OnceValues(func() (*payload, error) {
	dir := filepath.Join(scratch, "v1", "library")
	sizes, small := map[string]int64{"sequential": 48, "random": 32, "mmap": 16, "tail-head": 16, "both-ends": 16}, 2000
	if soak {
		sizes, small = map[string]int64{"sequential": 1024, "random": 256, "mmap": 128, "tail-head": 128, "both-ends": 128}, 20_000
	}
	for name, mib := range sizes {
		if err := write(filepath.Join(dir, name), mib<<20+12345); err != nil {
			return nil, err
		}
	}
	for i := range small {
		if err := write(filepath.Join(dir, "tree", fmt.Sprintf("%02d", i%20), fmt.Sprintf("file %04d", i)), int64(i*7919%8192)); err != nil {
			return nil, err
		}
	}
	return torrentOf(dir, metainfo.MakeConfig{PieceLength: 256 << 10})
})

func theLibrary(t testing.TB) *payload {
	t.Helper()
	p, err := library()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// treeLibrary is a smaller one whose .torrent, of v2 alone or a hybrid, libtorrent
// made: pad files stand between the others, or gaps.
func treeLibrary(t testing.TB, hybrid bool) *payload {
	t.Helper()
	needLibtorrent(t)
	dir := filepath.Join(t.TempDir(), "library")
	for _, name := range []string{"sequential", "random", "mmap", "tail-head", "both-ends"} {
		mustWrite(t, filepath.Join(dir, name), 8<<20+12345)
	}
	for i := range 200 {
		mustWrite(t, filepath.Join(dir, "tree", fmt.Sprint(i%10), fmt.Sprintf("file %04d", i)), int64(i*7919%8192))
	}
	out := dir + ".torrent"
	args := []string{"testdata/lt.py", "--make", dir, "--torrent", out, "--piece", "131072"}
	if !hybrid {
		args = append(args, "--v2")
	}
	output(t, patience, python, args...)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metainfo.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if meta.Info.V1 != hybrid || !meta.Info.V2 {
		t.Fatalf("libtorrent made a torrent of v1 %v, v2 %v", meta.Info.V1, meta.Info.V2)
	}
	return &payload{dir: dir, torrent: out, meta: meta, pieces: meta.Info.PieceLength}
}

// sameTree fails the test unless two folders hold the same files.
func sameTree(t testing.TB, got, want string) {
	t.Helper()
	sums := func(root string) map[string][32]byte {
		out := map[string][32]byte{}
		err := filepath.WalkDir(root, func(p string, d iofs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			rel, _ := filepath.Rel(root, p)
			out[rel] = sha256.Sum256(b)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return out
	}
	g, w := sums(got), sums(want)
	if len(g) != len(w) {
		t.Errorf("%d files, want %d", len(g), len(w))
	}
	for name, sum := range w {
		if g[name] != sum {
			t.Errorf("%s: sha256 differs", name)
		}
	}
}

// spoil makes a copy of data with a wrong byte in every piece.
func spoil(t testing.TB, p *payload) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), p.name())
	err := filepath.WalkDir(p.dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := int64(0); i < int64(len(b)); i += min(p.pieces, 16<<10) {
			b[i] ^= 1
		}
		rel, _ := filepath.Rel(p.dir, path)
		out := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		return os.WriteFile(out, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(to)
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}
