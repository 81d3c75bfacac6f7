package catalog

import (
	"crypto/sha256"
	"encoding/binary"
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

// number gives every node the inode number of its path: the start of
// SHA-256(identity, path).
func (t *thing) number(identity []byte) {
	t.inodes = make([]uint64, t.tree.Len())
	buf := append(make([]byte, 0, len(identity)+256), identity...)
	for i := range t.inodes {
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
