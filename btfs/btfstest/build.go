package btfstest

import (
	"encoding/binary"

	"github.com/ipfs/go-cid"
)

// PB builds protobuf messages, right ones and wrong ones.
type PB []byte

// Num appends a number.
func (p PB) Num(field, v uint64) PB {
	return binary.AppendUvarint(binary.AppendUvarint(p, field<<3), v)
}

// Bytes appends bytes.
func (p PB) Bytes(field uint64, b []byte) PB {
	p = binary.AppendUvarint(binary.AppendUvarint(p, field<<3|2), uint64(len(b)))
	return append(p, b...)
}

// Text appends a text.
func (p PB) Text(field uint64, s string) PB { return p.Bytes(field, []byte(s)) }

// Link is a link of a block to be built.
type Link struct {
	CID   cid.Cid
	Name  string
	Size  uint64 // content of a file below, for blocksizes
	Tsize uint64
}

// Encode puts dag-pb around UnixFS data and links.
func Encode(data PB, links ...Link) []byte {
	var p PB
	for _, l := range links {
		p = p.Bytes(2, PB{}.Bytes(1, l.CID.Bytes()).Text(2, l.Name).Num(3, l.Tsize))
	}
	return p.Bytes(1, data)
}

// Leaf adds a leaf of a file.
func (s *Store) Leaf(content []byte) Link {
	b := Encode(PB{}.Num(1, 2).Bytes(2, content).Num(3, uint64(len(content))))
	return Link{CID: s.Put(cid.DagProtobuf, b), Size: uint64(len(content)), Tsize: uint64(len(b))}
}

// Tree adds an inner block of a file over parts.
func (s *Store) Tree(parts ...Link) Link {
	data, sum, tsize := PB{}.Num(1, 2), uint64(0), uint64(0)
	for _, l := range parts {
		sum += l.Size
		tsize += l.Tsize
	}
	data = data.Num(3, sum)
	for _, l := range parts {
		data = data.Num(4, l.Size)
	}
	b := Encode(data, parts...)
	return Link{CID: s.Put(cid.DagProtobuf, b), Size: sum, Tsize: tsize + uint64(len(b))}
}

// Dir adds a directory in one block.
func (s *Store) Dir(links ...Link) cid.Cid {
	return s.Put(cid.DagProtobuf, Encode(PB{}.Num(1, 1), links...))
}
