package unixfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
)

// Limits on one block. A link of a real one has 40 bytes or more, so 2 MiB hold fewer.
const (
	maxLinks  = 1 << 16
	maxTarget = 4095 // of a symlink, as everywhere in Linux
)

// Type is what a block of UnixFS says that it is.
type Type uint64

// The types; TokenMeta is BTFS's own.
const (
	TypeRaw Type = iota
	TypeDirectory
	TypeFile
	TypeMetadata
	TypeSymlink
	TypeHAMT
	TypeTokenMeta
)

func (t Type) String() string {
	names := [...]string{"raw", "directory", "file", "metadata", "symlink", "HAMT shard", "token metadata"}
	if t < Type(len(names)) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint64(t))
}

// Link leads from a block to another. Most links of a large block are never followed, so
// what they lead to is read when it is asked for.
type Link struct {
	hash []byte
	Name string
	Size uint64 // of all blocks below, each as often as it is met; nobody checks it
}

// CID is where the link leads; it is not defined if that is no CID.
func (l *Link) CID() cid.Cid {
	c, err := cid.Cast(l.hash)
	if err != nil {
		return cid.Undef
	}
	return c
}

// Node is one block, read. Its Data point into the block.
type Node struct {
	Type     Type
	Raw      bool // a block of bytes alone, without UnixFS around them
	Data     []byte
	Links    []Link
	Sizes    []int64     // of a file: content of each link
	Size     int64       // of a file: content of Data and of all links
	Mode     fs.FileMode // permissions, 0 if they were not kept
	ModTime  time.Time   // zero if it was not kept
	Fanout   uint64      // of a HAMT shard
	HashType uint64
}

// Decode reads a block that was verified. What comes back is consistent in itself: a
// file has one size for each link, and their sum; what children say is checked when
// they come.
func Decode(c cid.Cid, b []byte) (*Node, error) {
	if len(b) > block.MaxSize {
		return nil, block.ErrTooLarge
	}
	if c.Prefix().Codec == cid.Raw {
		return &Node{Type: TypeRaw, Raw: true, Data: b, Size: int64(len(b))}, nil
	}
	data, links, err := decodePB(b)
	if err != nil {
		return nil, fmt.Errorf("not dag-pb: %w", err)
	}
	n, err := decodeUnixFS(data)
	if err != nil {
		return nil, fmt.Errorf("not UnixFS: %w", err)
	}
	n.Links = links
	return n, n.check()
}

// decodePB reads the dag-pb around the data: PBNode{Data = 1, Links = 2}.
func decodePB(b []byte) (data []byte, links []Link, err error) {
	m, seen := message{b}, false
	for {
		f, ok, err := m.next()
		switch {
		case err != nil:
			return nil, nil, err
		case !ok && !seen:
			return nil, nil, errors.New("no data")
		case !ok:
			return data, links, nil
		case f.number > 2:
			return nil, nil, fmt.Errorf("field %d", f.number) // the spec has none, and hashes would hide in it
		case f.wire != wireBytes:
			return nil, nil, f.want(wireBytes, fmt.Sprintf("field %d", f.number))
		case f.number == 1 && seen:
			return nil, nil, errors.New("data twice")
		case f.number == 1:
			data, seen = f.bytes, true
		case len(links) == maxLinks:
			return nil, nil, fmt.Errorf("more than %d links", maxLinks)
		default:
			l, err := decodeLink(f.bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("link %d: %w", len(links), err)
			}
			links = append(links, l)
		}
	}
}

// decodeLink reads PBLink{Hash = 1, Name = 2, Tsize = 3}. A CID that is none, or of a kind
// that we refuse, is no error yet: it may stand beside a hundred others.
func decodeLink(b []byte) (l Link, err error) {
	m := message{b}
	for {
		f, ok, err := m.next()
		if err == nil && ok {
			switch f.number {
			case 1:
				l.hash, err = f.bytes, f.want(wireBytes, "Hash")
			case 2:
				if err = f.want(wireBytes, "Name"); err == nil {
					l.Name = string(f.bytes)
				}
			case 3:
				l.Size, err = f.value, f.want(wireVarint, "Tsize")
			default:
				err = fmt.Errorf("field %d", f.number)
			}
		}
		switch {
		case err != nil:
			return l, err
		case !ok && len(l.hash) == 0:
			return l, errors.New("no CID")
		case !ok:
			return l, nil
		}
	}
}

// decodeUnixFS reads the message Data of UnixFS 1.5, and what BTFS changed in it.
func decodeUnixFS(b []byte) (*Node, error) {
	n := &Node{Type: math.MaxUint64, Size: -1}
	m := message{b}
	for {
		f, ok, err := m.next()
		if err == nil && ok {
			err = n.set(&f)
		}
		switch {
		case err != nil:
			return nil, err
		case !ok && n.Type == math.MaxUint64:
			return nil, errors.New("no type")
		case !ok:
			return n, nil
		}
	}
}

func (n *Node) set(f *field) (err error) {
	switch f.number {
	case 1:
		n.Type, err = Type(f.value), f.want(wireVarint, "Type")
	case 2:
		n.Data, err = f.bytes, f.want(wireBytes, "Data")
	case 3:
		if err = f.want(wireVarint, "filesize"); err == nil {
			n.Size, err = size(f.value, "filesize")
		}
	case 4:
		err = n.addSizes(f)
	case 5:
		n.HashType, err = f.value, f.want(wireVarint, "hashType")
	case 6:
		n.Fanout, err = f.value, f.want(wireVarint, "fanout")
	case 7: // set-id and sticky bits of a stranger mean nothing here
		n.Mode, err = fs.FileMode(f.value&0o777), f.want(wireVarint, "mode")
	case 8:
		n.ModTime, err = modTime(f)
	}
	return err // other fields are of later versions
}

func size(v uint64, name string) (int64, error) {
	if v > math.MaxInt64 {
		return 0, fmt.Errorf("%s %d is no size of a file", name, v)
	}
	return int64(v), nil
}

// addSizes reads blocksizes, of which each is a field, or all are one (packed).
func (n *Node) addSizes(f *field) error {
	if f.wire == wireVarint {
		return n.addSize(f.value)
	}
	if err := f.want(wireBytes, "blocksizes"); err != nil {
		return err
	}
	for m := (message{f.bytes}); len(m.b) > 0; {
		v, err := m.varint()
		if err == nil {
			err = n.addSize(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) addSize(v uint64) error {
	s, err := size(v, "a blocksize")
	if err == nil && len(n.Sizes) == maxLinks {
		err = fmt.Errorf("more than %d blocksizes", maxLinks)
	}
	n.Sizes = append(n.Sizes, s)
	return err
}

// modTime reads both forms: BTFS writes seconds, everybody else UnixTime{seconds = 1,
// fractional nanoseconds = 2}.
func modTime(f *field) (time.Time, error) {
	if f.wire == wireVarint {
		return time.Unix(int64(f.value), 0).UTC(), nil
	}
	if err := f.want(wireBytes, "mtime"); err != nil {
		return time.Time{}, err
	}
	var sec, nsec int64
	for m := (message{f.bytes}); ; {
		f, ok, err := m.next()
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("mtime: %w", err)
		case !ok:
			return time.Unix(sec, nsec).UTC(), nil
		case f.number == 1 && f.wire == wireVarint:
			sec = int64(f.value)
		case f.number == 2 && f.wire == wire32 && f.value < 1e9:
			nsec = int64(f.value)
		default:
			return time.Time{}, errors.New("mtime: no time")
		}
	}
}

// check holds a node against what its type promises.
func (n *Node) check() error {
	switch n.Type {
	case TypeRaw, TypeFile, TypeTokenMeta:
		return n.checkFile()
	case TypeSymlink:
		if len(n.Data) == 0 || len(n.Data) > maxTarget || len(n.Links) > 0 {
			return fmt.Errorf("a symlink with a target of %d bytes and %d links", len(n.Data), len(n.Links))
		}
	case TypeHAMT:
		return n.checkShard()
	case TypeDirectory:
	default:
		return fmt.Errorf("UnixFS of %s: files, directories and symlinks are read", n.Type)
	}
	return nil
}

func (n *Node) checkFile() error {
	if len(n.Sizes) != len(n.Links) {
		return fmt.Errorf("%d links and %d sizes", len(n.Links), len(n.Sizes))
	}
	sum := int64(len(n.Data))
	for _, s := range n.Sizes {
		if sum > math.MaxInt64-s {
			return errors.New("sizes whose sum overflows")
		}
		sum += s
	}
	if n.Size >= 0 && n.Size != sum {
		return fmt.Errorf("it says %d bytes, and its parts say %d", n.Size, sum)
	}
	n.Size = sum
	return nil
}
