package fstest

import (
	"context"
	"errors"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// RunCatalog holds a catalog against what package fs expects of any: it walks
// everything below the directory at, without a mount. files, if not nil, are what
// must be there, no more and no less.
func RunCatalog(t *testing.T, c fs.Catalog, at string, files []File) {
	ctx := context.Background()
	dir := tree.Root
	for name := range strings.SplitSeq(at, "/") {
		if name == "" {
			continue
		}
		e, err := c.Lookup(ctx, dir, name)
		if err != nil {
			t.Fatalf("Lookup(%q): %v", name, err)
		}
		dir = e.ID
	}
	w := &walk{t: t, c: c, ctx: ctx, inos: map[uint64]string{}, seen: map[string]tree.Entry{}}
	w.dir(dir, "")
	if files == nil {
		return
	}
	for i := range files {
		w.file(&files[i])
	}
	for p := range w.seen {
		if !slices.ContainsFunc(files, func(f File) bool { return f.Path == p }) {
			t.Errorf("%q should not be there", p)
		}
	}
}

type walk struct {
	t    *testing.T
	c    fs.Catalog
	ctx  context.Context
	inos map[uint64]string
	seen map[string]tree.Entry // files and symlinks
}

func (w *walk) dir(id tree.ID, at string) {
	t := w.t
	entries := w.list(id, 0)
	if !slices.IsSortedFunc(entries, func(a, b tree.Entry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Logf("%q is not sorted by name", at)
	}
	for i, e := range entries {
		p := path.Join(at, e.Name)
		if tree.CleanName(e.Name) != e.Name {
			t.Errorf("%q breaks the name rules", p)
		}
		if e.ID == 0 || e.Ino < 2 || e.Ino == ^uint64(0) {
			t.Errorf("%q has id %d and inode number %d", p, e.ID, e.Ino)
		}
		if other, ok := w.inos[e.Ino]; ok {
			t.Errorf("%q and %q have one inode number", p, other)
		}
		w.inos[e.Ino] = p
		if got, err := w.c.Lookup(w.ctx, id, e.Name); err != nil || got.ID != e.ID {
			t.Errorf("Lookup(%q) = %d, %v, want %d", p, got.ID, err, e.ID)
		}
		if got, err := w.c.Stat(w.ctx, e.ID); err != nil || got.Ino != e.Ino || got.Kind != e.Kind || got.Size != e.Size {
			t.Errorf("Stat(%q) = %+v, %v, want %+v", p, got, err, e)
		}
		if i%97 == 1 {
			if rest := w.list(id, i); len(rest) != len(entries)-i || rest[0].ID != e.ID {
				t.Errorf("List(%q) from %d yields %d entries", at, i, len(rest))
			}
		}
		if e.Kind == tree.Dir {
			w.dir(e.ID, p)
		} else {
			w.seen[p] = e
		}
	}
	if rest := w.list(id, len(entries)); len(rest) != 0 {
		t.Errorf("List(%q) goes on after its end", at)
	}
	if _, err := w.c.Lookup(w.ctx, id, "no such name"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("Lookup of a name that is not there: %v", err)
	}
}

func (w *walk) list(id tree.ID, from int) []tree.Entry {
	var entries []tree.Entry
	for e, err := range w.c.List(w.ctx, id, from) {
		if err != nil {
			w.t.Fatalf("List: %v", err)
		}
		entries = append(entries, e)
	}
	return entries
}

func (w *walk) file(f *File) {
	t := w.t
	e, ok := w.seen[f.Path]
	if !ok {
		t.Errorf("%q is missing", f.Path)
		return
	}
	if f.Symlink != "" {
		if e.Kind != tree.Symlink || path.Join(path.Dir(f.Path), e.Target) != path.Clean(f.Symlink) {
			t.Errorf("%q points to %q, want %q", f.Path, e.Target, f.Symlink)
		}
		return
	}
	if e.Kind != tree.File || e.Size != f.size() || e.Exec != f.Exec || e.Present > e.Size {
		t.Errorf("%q is %+v, want size %d, exec %v", f.Path, e, f.size(), f.Exec)
	}
	if f.Open != nil {
		return
	}
	content, err := w.c.Open(w.ctx, e.ID)
	if err != nil {
		t.Errorf("Open(%q): %v", f.Path, err)
		return
	}
	defer content.Close()
	got := make([]byte, len(f.Data))
	if n, err := content.ReadAt(w.ctx, got, 0); n != len(got) || string(got) != string(f.Data) {
		t.Errorf("%q: %d bytes, %v, equal %v", f.Path, n, err, string(got) == string(f.Data))
	}
}
