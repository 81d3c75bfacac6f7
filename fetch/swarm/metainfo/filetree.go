package metainfo

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// maxPathNames bounds the names of all paths together. A v1 list spends a
// bencoded value on each, but in a v2 tree a hundred thousand files can share
// one deep directory, and every File repeats its path.
const maxPathNames = 2_500_000

// treeWalk turns the file tree of BEP 52 into a list. It recurses; the scanner
// has bounded the depth to 100.
type treeWalk struct {
	in    *Info
	path  []string // of the directory at hand
	names int
	files []File
}

// parseTree reads a file tree; every file begins at a piece border.
func (in *Info) parseTree(v value) ([]File, error) {
	if v.kind() != 'd' {
		return nil, errors.New("file tree is missing or not a dict")
	}
	w := &treeWalk{in: in}
	if err := w.dir(v); err != nil {
		return nil, err
	}
	if len(w.files) == 0 {
		return nil, errors.New("file tree has no files")
	}
	return w.files, nil
}

func (w *treeWalk) dir(v value) error {
	var prev []byte
	for name, node := range v.pairs() {
		label := func() string { f := File{Path: append(w.path, string(name))}; return f.label() }
		switch {
		case len(name) == 0:
			return errors.New("file tree: a directory entry has an empty name")
		// The order of names is the order of pieces, so here, unlike elsewhere, a
		// dict that is not sorted has two meanings.
		case bytes.Compare(prev, name) >= 0:
			return fmt.Errorf("%s: file tree is not sorted", label())
		case node.kind() != 'd':
			return fmt.Errorf("%s: file tree entry is not a dict", label())
		}
		prev = name
		w.path = append(w.path, string(name))
		var err error
		if leaf, ok := leafOf(node); ok {
			err = w.file(leaf)
		} else {
			err = w.dir(node)
		}
		if err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	return nil
}

// leafOf returns the properties of a file: a dict whose only key is empty. With
// other keys beside it, dir refuses the empty name.
func leafOf(node value) (leaf value, ok bool) {
	n := 0
	for k, v := range node.pairs() {
		if n++; n > 1 {
			return value{}, false
		}
		leaf, ok = v, len(k) == 0
	}
	return leaf, ok
}

func (w *treeWalk) file(v value) error {
	if w.names += len(w.path); w.names > maxPathNames {
		return fmt.Errorf("file tree: more than %d names in all paths", maxPathNames)
	}
	f := File{Path: slices.Clone(w.path)}
	if v.kind() != 'd' {
		return fmt.Errorf("%s: file tree entry is not a dict", f.label())
	}
	if err := f.parse(v); err != nil {
		return err
	}
	if f.Pad {
		return fmt.Errorf("%s: pad file in a v2 file tree", f.label())
	}
	root, has := v.get("pieces root").bytes()
	switch {
	case f.Length > 0 && (!has || len(root) != 32):
		return fmt.Errorf("%s: pieces root is missing or not 32 bytes", f.label())
	case f.Length == 0 && has:
		return fmt.Errorf("%s: pieces root in an empty file", f.label())
	}
	copy(f.Root[:], root)
	return w.place(f)
}

// place gives f its offset and appends it.
func (w *treeWalk) place(f File) error {
	f.Offset = end(w.files)
	if f.Length > 0 {
		pl := w.in.PieceLength
		if f.Offset > math.MaxInt64-pl {
			return fmt.Errorf("%s: the lengths of all files overflow", f.label())
		}
		f.Offset = (f.Offset + pl - 1) / pl * pl
	}
	if f.Length > math.MaxInt64-f.Offset {
		return fmt.Errorf("%s: the lengths of all files overflow", f.label())
	}
	w.files = append(w.files, f)
	return nil
}

// addPads fills the gaps between the files of a tree, as a hybrid has them.
func (in *Info) addPads(tree []File) []File {
	files := make([]File, 0, len(tree))
	for _, f := range tree {
		at := end(files)
		if gap := f.Offset - at; gap > 0 {
			files = append(files, padFile(at, gap))
		}
		files = append(files, f)
	}
	return files
}

func padFile(at, length int64) File {
	return File{Path: []string{".pad", strconv.FormatInt(length, 10)}, Offset: at, Length: length, Pad: true}
}

// matchHybrid requires that the v1 list and the v2 tree are two descriptions of
// the same files, and copies the roots to in.Files. BEP 52 demands it: otherwise
// peers of the two swarms would exchange different content under one torrent.
func (in *Info) matchHybrid(tree []File) error {
	i := 0
	for n := range in.Files {
		f := &in.Files[n]
		if f.Pad {
			continue
		}
		if i == len(tree) {
			return fmt.Errorf("hybrid: %s is only in the v1 list", f.label())
		}
		if err := sameFile(f, &tree[i]); err != nil {
			return err
		}
		f.Root = tree[i].Root
		i++
	}
	if i < len(tree) {
		return fmt.Errorf("hybrid: %s is only in the v2 tree", tree[i].label())
	}
	return nil
}

func sameFile(v1, v2 *File) error {
	switch {
	case !slices.Equal(v1.Path, v2.Path):
		return fmt.Errorf("hybrid: v1 has %s where v2 has %s", v1.label(), v2.label())
	case v1.Length != v2.Length:
		return fmt.Errorf("hybrid: %s has %d bytes in v1 and %d in v2", v1.label(), v1.Length, v2.Length)
	case !slices.Equal(v1.Symlink, v2.Symlink):
		return fmt.Errorf("hybrid: %s is a different symlink in v1 and v2", v1.label())
	case v1.Length > 0 && v1.Offset != v2.Offset:
		return fmt.Errorf("hybrid: %s begins at %d in v1 and at %d in v2", v1.label(), v1.Offset, v2.Offset)
	}
	return nil
}
