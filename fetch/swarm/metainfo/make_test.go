package metainfo

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// sampleTree is a directory with everything a torrent can hold: files below, at
// and above piece borders, empty ones, nested ones, names that sort trickily,
// an executable and symlinks.
func sampleTree(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "sample")
	r := rand.New(rand.NewPCG(1, 2))
	for name, size := range map[string]int{
		"a": 1, "a.txt": 16384, "a-b/c": 16385, "a0": 100_000, "d/e/f": 32768, "d/e/empty": 0,
		"d/g": 300_001, "z/ü": 5, "z/zz": 0, "big": 1_000_000,
	} {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"d/link": "../a.txt", "dir": "d/e", "chain": "d/link"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestMakeRoundTrip(t *testing.T) {
	root := sampleTree(t)
	want := []string{
		"a 1 x", "a-b/c 16385", "a.txt 16384", "a0 100000", "big 1000000", "chain -> a.txt", "d/e/empty 0", "d/e/f 32768",
		"d/g 300001", "d/link -> a.txt", "dir -> d/e", "z/zz 0", "z/ü 5",
	}
	for _, kind := range []struct{ v1, v2 bool }{{true, false}, {true, true}, {false, true}} {
		var last int64
		m, err := Make(t.Context(), root, MakeConfig{
			Hybrid: kind.v1 && kind.v2, V2: !kind.v1, Private: true, Trackers: [][]string{{"http://h/a", "udp://h:1"}, {"https://h/b"}}, WebSeeds: []string{"http://w/"},
			Comment: "c", CreatedBy: "me", Created: time.Unix(1e9, 0),
			Progress: func(done, total int64) {
				if done <= last || done > total {
					t.Errorf("progress %d of %d after %d", done, total, last)
				}
				last = done
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := shown(m.Info); !slices.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		if last != m.Info.Length || m.Info.Name != "sample" || !m.Info.Private || m.Info.V1 != kind.v1 || m.Info.V2 != kind.v2 || kind.v2 != (len(m.PieceLayers) > 0) || m.ByTree() != kind.v2 {
			t.Errorf("done %d, %+v", last, m.Info)
		}
		checkInvariants(t, m)
		again, err := Parse(m.Encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v: round trip differs: %v", kind, err)
		}
		again.PieceLayers = nil
		if again.ByTree() == kind.v1 {
			t.Errorf("%+v: without piece layers the tree rules: %v", kind, again.ByTree())
		}
	}
}

func TestMakeSingle(t *testing.T) {
	path := filepath.Join(sampleTree(t), "a")
	m, err := Make(t.Context(), path, MakeConfig{Hybrid: true, Name: "renamed"})
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(m.Info); !slices.Equal(got, []string{"renamed 1 x"}) || !m.Info.Single {
		t.Errorf("%q, %+v", got, m.Info)
	}
}

func TestMakeRefuses(t *testing.T) {
	dir := func(fill func(root string) error) string {
		root := filepath.Join(t.TempDir(), "r")
		if err := errors.Join(os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(root, "a"), []byte("x"), 0o644), fill(root)); err != nil {
			t.Fatal(err)
		}
		return root
	}
	nothing := func(string) error { return nil }
	link := func(to string) func(string) error {
		return func(root string) error { return os.Symlink(to, filepath.Join(root, "l")) }
	}
	for _, c := range []struct {
		name, path, reason string
		conf               MakeConfig
	}{
		{"missing", filepath.Join(t.TempDir(), "x"), "no such file", MakeConfig{}},
		{"empty directory", t.TempDir(), "the directory is empty", MakeConfig{}},
		{"empty directory inside", dir(func(r string) error { return os.Mkdir(filepath.Join(r, "e"), 0o755) }), "r/e: the directory is empty", MakeConfig{}},
		{"empty file", dir(func(r string) error { return os.Truncate(filepath.Join(r, "a"), 0) }), "all files are empty", MakeConfig{}},
		{"link outside", dir(link("/etc/passwd")), "leads outside", MakeConfig{}},
		{"link up", dir(link("../..")), "leads outside", MakeConfig{}},
		{"link to the root", dir(link(".")), "leads outside", MakeConfig{}},
		{"link to nothing", dir(link("gone")), "leads nowhere", MakeConfig{}},
		{"link to itself", dir(link("l")), "leads nowhere", MakeConfig{}},
		{"socket", dir(func(r string) error {
			l, err := net.Listen("unix", filepath.Join(r, "s"))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}), "neither a file", MakeConfig{}},
		{"piece length", dir(nothing), "piece length 1: must be", MakeConfig{PieceLength: 1}},
		{"odd hybrid", dir(nothing), "power of two", MakeConfig{PieceLength: 20000, Hybrid: true}},
		{"name", dir(nothing), "not a file name", MakeConfig{Name: "../x"}},
		{"tracker", dir(nothing), "tracker", MakeConfig{Trackers: [][]string{{"ws://x"}}}},
		{"web seed", dir(nothing), "web seed", MakeConfig{WebSeeds: []string{"ftp://x/"}}},
	} {
		_, err := Make(t.Context(), c.path, c.conf)
		if err == nil || !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.reason)
		}
	}
}

func TestMakeCancelled(t *testing.T) {
	root := sampleTree(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	_, err := Make(ctx, root, MakeConfig{Progress: func(done, total int64) { cancel(stop) }})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
}

func TestMakeChoosesPieceLength(t *testing.T) {
	for _, c := range []struct{ total, want int64 }{
		{1, 16 << 10}, {30 << 20, 16 << 10}, {1 << 30, 1 << 20}, {4 << 30, 4 << 20}, {1 << 40, 16 << 20},
	} {
		m := &maker{total: c.total}
		if err := m.choose(); err != nil || m.c.PieceLength != c.want {
			t.Errorf("%d bytes: %d, want %d", c.total, m.c.PieceLength, c.want)
		}
	}
}
