package swarm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Files is a Store of complete files where they lie: for who seeds. Nothing is ever
// written to them.
type Files struct {
	units int
	root  string
	parts []filePart

	mu   sync.Mutex
	open map[int]*os.File // by part; a few at a time
	last []int            // parts in the order opened
}

type filePart struct {
	path string
	span extent.Extent
}

// maxOpenFiles bounds the descriptors of one Files.
const maxOpenFiles = 64

var errReadOnly = errors.New("files that are seeded are never written")

// NewFiles returns the Store of a torrent whose files lie at path, complete: the
// file itself, or the directory. Sizes are checked, contents are believed.
func NewFiles(meta *metainfo.Meta, path string) (*Files, error) {
	info := meta.Info
	f := &Files{units: newGrid(meta).units(), root: path, open: map[int]*os.File{}}
	for _, file := range info.Files {
		if file.Pad || file.Length == 0 || file.Symlink != nil {
			continue
		}
		p := path
		if !info.Single {
			p = filepath.Join(append([]string{path}, file.Path...)...)
		}
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if st.Size() != file.Length {
			return nil, fmt.Errorf("%s: has %d bytes, the torrent says %d; make the torrent again", p, st.Size(), file.Length)
		}
		f.parts = append(f.parts, filePart{p, extent.Extent{Off: file.Offset, Len: file.Length}})
	}
	return f, nil
}

// The methods that fill a store are never called on a complete one.

func (f *Files) Begin(int) error                  { return errReadOnly }
func (f *Files) Abandon(int)                      {}
func (f *Files) WriteVec([][]byte, int64) error   { return errReadOnly }
func (f *Files) ReadBack(p []byte, o int64) error { return f.ReadPresent(p, o) }
func (f *Files) Commit(int, []byte)               {}
func (f *Files) Fail(int, error)                  {}

// Has implements Store: everything is there.
func (f *Files) Has(int) bool { return true }

// Known implements Store.
func (f *Files) Known(int) bool { return true }

// Each implements Store.
func (f *Files) Each(each func(int)) {
	for u := range f.units {
		each(u)
	}
}

// ReadPresent implements Store. What no file holds (pad files) is zeros.
func (f *Files) ReadPresent(p []byte, off int64) error {
	e := extent.Extent{Off: off, Len: int64(len(p))}
	clear(p)
	for i := sort.Search(len(f.parts), func(i int) bool { return f.parts[i].span.End() > off }); i < len(f.parts); i++ {
		part := e.Clip(f.parts[i].span)
		if part.Empty() {
			break
		}
		if err := f.readPart(i, p[part.Off-off:part.End()-off], part.Off-f.parts[i].span.Off); err != nil {
			return err
		}
	}
	return nil
}

// readPart reads from one file, once more if its descriptor was closed to make
// room for another between the look-up and the read.
func (f *Files) readPart(i int, p []byte, off int64) error {
	for range 3 {
		file, err := f.file(i)
		if err != nil {
			return err
		}
		n, err := file.ReadAt(p, off)
		if n == len(p) {
			return nil
		}
		if !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return os.ErrClosed
}

func (f *Files) file(i int) (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if file := f.open[i]; file != nil {
		return file, nil
	}
	file, err := os.Open(f.parts[i].path)
	if err != nil {
		return nil, err
	}
	if len(f.last) >= maxOpenFiles {
		// An *os.File closes its descriptor only after reads under way have ended.
		f.open[f.last[0]].Close()
		delete(f.open, f.last[0])
		f.last = f.last[1:]
	}
	f.open[i] = file
	f.last = append(f.last, i)
	return file, nil
}

// Close closes the descriptors.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs error
	for _, file := range f.open {
		errs = errors.Join(errs, file.Close())
	}
	clear(f.open)
	return errs
}
