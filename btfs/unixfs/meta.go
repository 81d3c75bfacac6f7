package unixfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
)

// Limits on metadata.
const (
	maxMeta  = 8 << 20
	maxNames = 1 << 17 // of a Reed-Solomon directory
)

// tokenMeta is what BTFS writes before a file: {"price":…,"NumData":…}#{…}, where the
// second part is the tree of a Reed-Solomon directory.
type tokenMeta struct {
	text      string // the first part
	NumData   int
	NumParity int
	FileSize  int64
	IsDir     bool
	ChunkSize int64
	tree      rsEntry
}

// metadata reads the token metadata of a root, if it has some: it has two links then,
// without names, of which the first leads to them. To know that, the first block below a
// root of two links has to be brought; it is a leaf of 256 KiB at most.
func metadata(ctx context.Context, blocks Blocks, c cid.Cid, n *Node) (m tokenMeta, ok bool, err error) {
	if n.Type != TypeFile && n.Type != TypeDirectory || len(n.Links) != 2 || n.Links[0].Name != "" || n.Links[1].Name != "" {
		return m, false, nil
	}
	first := n.Links[0].CID()
	if !first.Defined() || first.Prefix().Codec == cid.Raw || n.Type == TypeFile && n.Sizes[0] > maxMeta {
		return m, false, nil
	}
	head, err := load(ctx, blocks, first, 0)
	if err != nil || head.Type != TypeTokenMeta {
		return m, false, err
	}
	if n.Type == TypeFile && n.Sizes[0] != head.Size {
		return m, false, &LieError{first, 0, fmt.Errorf("it holds %d bytes where %d are promised", head.Size, n.Sizes[0])}
	}
	text, err := readAll(ctx, &dag{blocks: blocks, cid: first, root: head, length: head.Size, meta: true}, maxMeta)
	if err == nil {
		if perr := m.parse(text); perr != nil {
			err = &LieError{first, -1, fmt.Errorf("token metadata: %w", perr)}
		}
	}
	return m, err == nil, err
}

func (m *tokenMeta) parse(text []byte) error {
	if bytes.Count(text, []byte("{")) > maxNames { // each may become a name
		return fmt.Errorf("more than %d names", maxNames)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return errors.New("no JSON")
	}
	if err := json.Unmarshal(raw, m); err != nil {
		return errors.New("not of BTFS")
	}
	m.text = string(raw)
	if !m.IsDir {
		return nil
	}
	rest, found := bytes.CutPrefix(text[d.InputOffset():], []byte("#"))
	if !found || json.Unmarshal(rest, &m.tree) != nil {
		return errors.New("the tree of the directory is missing or broken")
	}
	return nil
}

// object is what stands behind the metadata of root n.
func (m *tokenMeta) object(ctx context.Context, blocks Blocks, c cid.Cid, n *Node) (*Object, error) {
	second := n.Links[1].CID()
	file, err := load(ctx, blocks, second, 0)
	if err != nil {
		return nil, err
	}
	var o *Object
	switch {
	case m.NumData != 0 || m.NumParity != 0:
		o, err = m.reedSolomon(blocks, second, file)
	case n.Type == TypeFile && file.Size != n.Sizes[1]:
		err = &LieError{second, 0, fmt.Errorf("it holds %d bytes where %d are promised", file.Size, n.Sizes[1])}
	default:
		if o, err = plain(blocks, second, file); err == nil {
			o.Format += ", with token metadata"
		}
	}
	if err != nil {
		return nil, err
	}
	o.CID, o.Meta = c, m.text
	if o.Mode == 0 {
		o.Mode = n.Mode
	}
	if o.ModTime.IsZero() {
		o.ModTime = n.ModTime
	}
	return o, nil
}

// rsEntry is a node in the tree of a Reed-Solomon directory.
type rsEntry struct {
	BaseNode struct {
		NodeType    int
		NodeName    string
		Siz         int64
		StartOffset int64
		Links       []rsEntry
	}
	Data string // of a symlink
}

// Node types in it.
const (
	rsDirectory = 1
	rsFile      = 2
	rsSymlink   = 3
)

// check holds a tree against the content in which its files lie.
func (e *rsEntry) check(size int64, levels int) error {
	b := &e.BaseNode
	switch b.NodeType {
	case rsFile:
		if b.Siz < 0 || b.StartOffset < 0 || b.Siz > size || b.StartOffset > size-b.Siz {
			return fmt.Errorf("%.40q has %d bytes at %d, of %d in all", b.NodeName, b.Siz, b.StartOffset, size)
		}
	case rsSymlink:
		if e.Data == "" || len(e.Data) > maxTarget || strings.ContainsRune(e.Data, 0) {
			return fmt.Errorf("%.40q is a symlink with a target of %d bytes", b.NodeName, len(e.Data))
		}
	case rsDirectory:
		if levels > maxDepth {
			return fmt.Errorf("more than %d levels of directories", maxDepth)
		}
		for i := range b.Links {
			if err := goodName(b.Links[i].BaseNode.NodeName); err != nil {
				return err
			}
			if err := b.Links[i].check(size, levels+1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%.40q is of type %d", b.NodeName, b.NodeType)
	}
	return nil
}

// rsDir is a directory of which all files lie in one content.
type rsDir struct {
	all  content
	tree *rsEntry
}

func (d *rsDir) list(context.Context) ([]Entry, error) {
	var all []Entry
	for i := range d.tree.BaseNode.Links {
		o := d.object(&d.tree.BaseNode.Links[i])
		all = append(all, Entry{Name: d.tree.BaseNode.Links[i].BaseNode.NodeName, Kind: o.Kind, Size: o.Size})
	}
	sortEntries(all)
	return all, nil
}

func (d *rsDir) lookup(_ context.Context, name string) (*Object, error) {
	for i := range d.tree.BaseNode.Links {
		if e := &d.tree.BaseNode.Links[i]; e.BaseNode.NodeName == name {
			return d.object(e), nil
		}
	}
	return nil, ErrNotFound
}

func (d *rsDir) object(e *rsEntry) *Object {
	switch b := &e.BaseNode; b.NodeType {
	case rsDirectory:
		return &Object{Kind: Dir, Format: "in a Reed-Solomon directory", dir: &rsDir{d.all, e}}
	case rsSymlink:
		return &Object{Kind: Symlink, Format: "in a Reed-Solomon directory", Size: int64(len(e.Data)), Target: e.Data}
	default:
		return &Object{Kind: File, Format: "in a Reed-Solomon directory", Size: b.Siz, content: &section{d.all, b.StartOffset, b.Siz}}
	}
}
