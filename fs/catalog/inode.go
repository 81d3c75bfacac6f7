package catalog

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/btmount/btmount/fs/tree"
)

// inode makes a number of the start of a hash. The top bit stays clear, which
// keeps it off 2^64-1 and off the numbers that go-fuse makes up itself; 0 and 1,
// nothing and the root, are stepped over.
func inode(hash []byte) uint64 {
	ino := binary.BigEndian.Uint64(hash) &^ (1 << 63)
	if ino < 2 {
		ino += 2
	}
	return ino
}

const (
	indexBits = 24
	others    = 1 << (indexBits - 1) // what is no file of its torrent is numbered from here on
)

// number gives every node its inode number: 39 bits of SHA-256(identity), and then the place of
// a file in its torrent, or of a directory in the tree. So who goes by inode numbers, as cp -r
// and tar do to be fast on disks, reads a torrent from its first piece to its last; by hashes
// of paths, as it was before, he jumped about in it. Of a torrent of more than eight million
// files the last ones have such hashes.
func (t *thing) number(identity []byte) {
	t.inodes = make([]uint64, t.tree.Len())
	hash := sha256.Sum256(identity)
	first := inode(hash[:]) >> indexBits << indexBits
	buf := append(make([]byte, 0, len(identity)+256), identity...)
	for i := range t.inodes {
		at := others + i
		if tag := t.tree.Node(i).Tag; tag != tree.NoTag {
			if at = tag; at >= others {
				at = 1 << indexBits
			}
		}
		if at < 1<<indexBits {
			t.inodes[i] = max(first+uint64(at), 2)
			continue
		}
		h := sha256.Sum256(t.tree.AppendPath(buf[:len(identity)], i))
		t.inodes[i] = inode(h[:])
	}
}

// claimLocked makes the numbers of t its own. Two paths with one number are not to
// be expected among less than billions of files; the later one then gets the next
// free number, which is the one thing here that depends on order.
func (c *Catalog) claimLocked(t *thing) {
	for i, ino := range t.inodes {
		for c.takenLocked(ino) {
			ino = inode(binary.BigEndian.AppendUint64(nil, ino+1))
		}
		t.inodes[i] = ino
		c.inodes[ino] = struct{}{}
	}
}

func (c *Catalog) takenLocked(ino uint64) bool {
	_, ok := c.inodes[ino]
	return ok || ino == torrentsIno || ino == statusIno
}
