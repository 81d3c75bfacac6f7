package fs_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// noise returns bytes that are different everywhere.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// library is a tree that has one of everything.
func library() []fstest.File {
	files := []fstest.File{
		{Path: "big.bin", Data: noise(3<<20 + 1234)},
		{Path: "empty"},
		{Path: "one byte", Data: []byte("x")},
		{Path: "bin/run.sh", Data: []byte("#!/bin/sh\n"), Exec: true},
		{Path: "page", Data: noise(4096)},
		{Path: "sub/dir/deep/ünïcode 日本.txt", Data: []byte("text")},
		{Path: "sub/link", Symlink: "bin/run.sh"},
		{Path: "sub/dir/up", Symlink: "big.bin"},
		{Path: "to dir", Symlink: "sub/dir"},
	}
	for i := range 2_000 {
		files = append(files, fstest.File{Path: fmt.Sprintf("many/file %05d", i), Data: []byte{byte(i)}})
	}
	return files
}

// mount mounts a catalog for the length of a test, and holds Unmount against its
// promise at the end.
func mount(t testing.TB, c fs.Catalog, configure ...func(*fs.Config)) (*fs.Server, string) {
	t.Helper()
	cfg := fs.Config{Catalog: c, Mountpoint: fstest.Point(t), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	for _, f := range configure {
		f(&cfg)
	}
	s, err := fs.Mount(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, s) })
	return s, s.Mountpoint()
}

func unmount(t testing.TB, s *fs.Server) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Unmount(ctx); err != nil {
		t.Errorf("after %v: %v", time.Since(start), err)
		return
	}
	s.Wait()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("unmount took %v", took)
	}
	if ours, err := fs.Mounted(s.Mountpoint()); ours || err != nil {
		t.Errorf("still mounted: %v, %v", ours, err)
	}
}

func TestFilesystem(t *testing.T) {
	files := library()
	c := fstest.Memory(files...)
	t.Run("catalog", func(t *testing.T) { fstest.RunCatalog(t, c, "", files) })
	_, point := mount(t, c)
	t.Run("mount", func(t *testing.T) { fstest.Run(t, point, files) })
}

// The same mount from elsewhere, by others: shared, and not.
func TestPlaces(t *testing.T) {
	files := library()[:9]
	for name, shared := range map[string]bool{"own": false, "allow_other": true} {
		t.Run(name, func(t *testing.T) {
			_, point := mount(t, fstest.Memory(files...), func(c *fs.Config) { c.AllowOther = shared })
			// Others have to come as far as the mount.
			for p := filepath.Dir(point); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
				if err := os.Chmod(p, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			fstest.RunPlaces(t, point, files, shared)
		})
	}
}

// A directory of 100,000 names: one of which the kernel keeps the listing, because it does
// not change, and the root, which does.
func TestLargeDirectory(t *testing.T) {
	for name, dir := range map[string]string{"settled": "many/", "root": ""} {
		t.Run(name, func(t *testing.T) {
			var files []fstest.File
			for i := range 100_000 {
				files = append(files, fstest.File{Path: fmt.Sprintf("%sfile %06d", dir, i*7919%100_000)})
			}
			_, point := mount(t, fstest.Memory(files...))
			began := time.Now()
			if names, err := os.ReadDir(filepath.Join(point, dir)); len(names) != len(files) || err != nil {
				t.Fatalf("%d names, %v", len(names), err)
			}
			t.Logf("listed after %v", time.Since(began))
			fstest.RunDirectories(t, point, files)
		})
	}
}
