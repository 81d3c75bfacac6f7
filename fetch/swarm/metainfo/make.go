package metainfo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// MakeConfig says what goes into a new .torrent besides the files.
type MakeConfig struct {
	Name        string // empty: the last element of the path
	PieceLength int64  // 0: chosen so that there are about 1000 to 2000 pieces
	Hybrid      bool   // also a v2 file tree (BEP 52), with pads in the v1 list
	V2          bool   // a v2 file tree alone; it wins over Hybrid
	Private     bool
	Trackers    [][]string
	WebSeeds    []string
	Comment     string
	CreatedBy   string
	Created     time.Time
	// Progress, if set, is told after each piece how many bytes are hashed. Calls
	// do not overlap.
	Progress func(done, total int64)
}

// Make hashes the file or directory at path into a .torrent.
//
// Files come in the order of their names, byte by byte and directory by
// directory, as BEP 52 has it. Symlinks below path are recorded by what they
// finally lead to; one that leads outside, or nowhere, is an error, as is
// everything else that a torrent cannot hold: devices, sockets, and directories
// without content, which would be missing from every copy. Only path itself is
// followed if it is a symlink.
func Make(ctx context.Context, path string, c MakeConfig) (*Meta, error) {
	c.Hybrid = c.Hybrid || c.V2 // the tree, and files that begin at the edge of a piece
	m := &maker{c: c}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := m.walk(ctx, path); err != nil {
		return nil, err
	}
	if err := m.choose(); err != nil {
		return nil, err
	}
	m.layOut()
	if err := m.hash(ctx); err != nil {
		return nil, err
	}
	// Nothing that our own firewall would refuse leaves here.
	meta := &Meta{Trackers: c.Trackers, WebSeeds: c.WebSeeds, Created: c.Created, CreatedBy: c.CreatedBy, Comment: c.Comment}
	var err error
	if meta.Info, err = ParseInfo(m.encodeInfo()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	meta.PieceLayers = m.layers()
	return Parse(meta.Encode())
}

// check refuses addresses that Parse would silently strip: their author is here
// and can mend them.
func (c *MakeConfig) check() error {
	for _, tier := range c.Trackers {
		for _, s := range tier {
			if trackerURL(s) != s {
				return fmt.Errorf("tracker %s: must be an http, https or udp URL", quote([]byte(s)))
			}
		}
	}
	for _, s := range c.WebSeeds {
		if webURL(s) != s {
			return fmt.Errorf("web seed %s: must be an http or https URL", quote([]byte(s)))
		}
	}
	return nil
}

// source is a file on disk and its place in the torrent.
type source struct {
	File
	disk string // empty for pads and symlinks
	root []byte // v2: its tree's nodes at the piece layer, or the root alone
}

type maker struct {
	c      MakeConfig
	base   string // symlinks resolved
	single bool
	files  []source // sorted; pads only with a v2 tree, after layOut
	total  int64    // content, without pads
	length int64    // byte space
	pieces []byte
}

func (m *maker) walk(ctx context.Context, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if m.base, err = filepath.EvalSymlinks(abs); err != nil {
		return err
	}
	if m.c.Name == "" {
		m.c.Name = filepath.Base(abs)
	}
	if m.c.Name == "." || m.c.Name == ".." || strings.ContainsAny(m.c.Name, "/\x00") {
		return fmt.Errorf("name %s: not a file name", quote([]byte(m.c.Name)))
	}
	st, err := os.Stat(m.base)
	if err != nil {
		return err
	}
	if m.single = !st.IsDir(); m.single {
		err = m.add(m.base, []string{m.c.Name}, st)
	} else {
		err = m.dir(ctx, m.base, nil)
	}
	if err == nil && m.total == 0 {
		err = fmt.Errorf("%s: all files are empty: a torrent needs content", path)
	}
	return err
}

func (m *maker) dir(ctx context.Context, disk string, names []string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	entries, err := os.ReadDir(disk) // sorted
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: the directory is empty: a torrent holds only files", disk)
	}
	for _, e := range entries {
		below := append(names[:len(names):len(names)], e.Name())
		next := filepath.Join(disk, e.Name())
		if e.IsDir() {
			err = m.dir(ctx, next, below)
		} else {
			var st fs.FileInfo
			if st, err = e.Info(); err == nil {
				err = m.add(next, below, st)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) add(disk string, names []string, st fs.FileInfo) error {
	f := source{File: File{Path: names}}
	switch st.Mode().Type() {
	case 0:
		f.disk, f.Length, f.Exec = disk, st.Size(), st.Mode()&0o111 != 0
		m.total += f.Length
	case fs.ModeSymlink:
		var err error
		if f.Symlink, err = m.target(disk); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s: neither a file, a directory nor a symlink", disk)
	}
	m.files = append(m.files, f)
	return nil
}

// target is what a symlink finally leads to, as names from the root. The final
// target instead of the written one: "a/../b" through another symlink means
// something else to readers that only look at names.
func (m *maker) target(link string) ([]string, error) {
	to, err := filepath.EvalSymlinks(link)
	if err != nil {
		return nil, fmt.Errorf("%s: symlink leads nowhere: %w", link, errors.Unwrap(err))
	}
	rel, err := filepath.Rel(m.base, to)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return nil, fmt.Errorf("%s: symlink leads outside the torrent, to %s", link, to)
	}
	return strings.Split(rel, "/"), nil
}

// choose settles the piece length.
func (m *maker) choose() error {
	pl := m.c.PieceLength
	switch {
	case pl == 0:
		for pl = minPieceLength; pl < 16<<20 && m.total/pl > 2000; pl *= 2 {
		}
		m.c.PieceLength = pl
	case pl < minPieceLength || pl > maxPieceLength:
		return fmt.Errorf("piece length %d: must be 16 KiB to 64 MiB", pl)
	case m.c.Hybrid && bits.OnesCount64(uint64(pl)) != 1:
		return fmt.Errorf("piece length %d: must be a power of two in a v2 torrent", pl)
	}
	return nil
}

// layOut gives files their offsets; in a v2 tree each one with content begins at
// a piece border, after a pad.
func (m *maker) layOut() {
	pl := m.c.PieceLength
	placed := make([]source, 0, len(m.files))
	for _, f := range m.files {
		if gap := -m.length & (pl - 1); m.c.Hybrid && f.Length > 0 && gap > 0 {
			placed = append(placed, source{File: padFile(m.length, gap)})
			m.length += gap
		}
		f.Offset = m.length
		m.length += f.Length
		placed = append(placed, f)
	}
	m.files = placed
}

func (m *maker) encodeInfo() []byte {
	b := []byte{'d'}
	if m.single && m.files[0].Exec && !m.c.V2 {
		b = appendStr(appendStr(b, "attr"), "x")
	}
	if m.c.Hybrid {
		b = appendStr(b, "file tree")
		b = appendTree(b, m.files, 0)
	}
	switch {
	case m.c.V2: // the tree says it all
	case m.single:
		b = appendInt(appendStr(b, "length"), m.length)
	default:
		b = append(appendStr(b, "files"), 'l')
		for i := range m.files {
			f := &m.files[i]
			b = f.appendProps(append(b, 'd'))
			b = appendList(appendStr(b, "path"), f.Path)
			b = append(f.appendTarget(b), 'e')
		}
		b = append(b, 'e')
	}
	if m.c.Hybrid {
		b = appendInt(appendStr(b, "meta version"), 2)
	}
	b = appendStr(appendStr(b, "name"), m.c.Name)
	b = appendInt(appendStr(b, "piece length"), m.c.PieceLength)
	if !m.c.V2 {
		b = appendStr(appendStr(b, "pieces"), string(m.pieces))
	}
	if m.c.Private {
		b = appendInt(appendStr(b, "private"), 1)
	}
	return append(b, 'e')
}

// appendTree writes the directory that the sorted files share at depth.
func appendTree(b []byte, files []source, depth int) []byte {
	b = append(b, 'd')
	for len(files) > 0 {
		f := &files[0]
		if f.Pad {
			files = files[1:]
			continue
		}
		b = appendStr(b, f.Path[depth])
		if len(f.Path) == depth+1 {
			b = f.appendProps(append(appendStr(append(b, 'd'), ""), 'd'))
			if f.Length > 0 {
				b = appendStr(appendStr(b, "pieces root"), string(f.Root[:]))
			}
			b = append(f.appendTarget(b), 'e', 'e')
			files = files[1:]
			continue
		}
		n := 1
		for n < len(files) && (files[n].Pad || files[n].Path[depth] == f.Path[depth]) {
			n++
		}
		b = appendTree(b, files[:n], depth+1)
		files = files[n:]
	}
	return append(b, 'e')
}

// appendProps writes attr and length, the first keys of both versions' files.
func (f *source) appendProps(b []byte) []byte {
	switch {
	case f.Pad:
		b = appendStr(appendStr(b, "attr"), "p")
	case f.Symlink != nil:
		b = appendStr(appendStr(b, "attr"), "l")
	case f.Exec:
		b = appendStr(appendStr(b, "attr"), "x")
	}
	return appendInt(appendStr(b, "length"), f.Length)
}

func (f *source) appendTarget(b []byte) []byte {
	if f.Symlink == nil {
		return b
	}
	return appendList(appendStr(b, "symlink path"), f.Symlink)
}
