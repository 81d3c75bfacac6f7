package unixfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/btfstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// split makes names of a path.
func split(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// whole reads a file in steps of n bytes.
func whole(t *testing.T, o *Object, n int) []byte {
	t.Helper()
	var all []byte
	p := make([]byte, n)
	for {
		k, err := o.ReadAt(t.Context(), p, int64(len(all)))
		all = append(all, p[:k]...)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if k != n {
			t.Fatalf("%d of %d bytes and no EOF", k, n)
		}
	}
}

// holds compares what stands at a path with the manifest.
func holds(t *testing.T, blocks Blocks, root cid.Cid, f btfstest.File) {
	t.Helper()
	o, err := Walk(t.Context(), blocks, root, split(f.Path))
	if err != nil {
		t.Fatalf("%s: %v", f.Path, err)
	}
	if f.Symlink != "" {
		if o.Kind != Symlink || o.Target != f.Symlink || o.Size != int64(len(f.Symlink)) {
			t.Errorf("%s: %+v", f.Path, o)
		}
		return
	}
	b := whole(t, o, 100_000)
	h := sha256.Sum256(b)
	if o.Kind != File || o.Size != f.Size || int64(len(b)) != f.Size {
		t.Errorf("%s: a %s of %d bytes, %d read; want %d", f.Path, o.Kind, o.Size, len(b), f.Size)
	}
	if f.Content != "" && string(b) != f.Content || f.Content == "" && hex.EncodeToString(h[:]) != f.SHA256 {
		t.Errorf("%s: other bytes than the manifest says", f.Path)
	}
}

func TestFixtures(t *testing.T) {
	all, store := btfstest.Fixtures(t)
	for _, f := range all {
		t.Run(f.Name, func(t *testing.T) {
			for i, file := range f.Files {
				if i%100 == 0 || len(f.Files) < 100 { // a lookup in a HAMT of 3000 each
					holds(t, store, f.CID, file)
				}
			}
			root, err := Open(t.Context(), store, f.CID)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", root)
			if root.Kind == Dir {
				listed(t, store, root, "", f)
			}
		})
	}
}

// listed compares all names below o with the manifest.
func listed(t *testing.T, blocks Blocks, o *Object, at string, f btfstest.Fixture) {
	t.Helper()
	want := map[string]bool{}
	for _, file := range f.Files {
		if rest, ok := strings.CutPrefix(file.Path, at); ok {
			name, _, _ := strings.Cut(rest, "/")
			want[name] = true
		}
	}
	all, err := o.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range all {
		if !want[e.Name] || i > 0 && all[i-1].Name >= e.Name {
			t.Errorf("%s%s: not in the manifest, or not in order", at, e.Name)
		}
		delete(want, e.Name)
		if len(all) > 100 {
			continue
		}
		sub, err := o.Lookup(context.Background(), e.Name)
		if err != nil {
			t.Fatal(err)
		}
		if sub.Kind == Dir {
			listed(t, blocks, sub, at+e.Name+"/", f)
		}
	}
	if len(want) > 0 {
		t.Errorf("%s: %d names are missing", at, len(want))
	}
}
