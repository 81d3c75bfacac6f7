package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"strings"
	"syscall"
)

// xattrPrefix is of all attributes that a catalog can have. ls asks for a security
// label and an access list of each file. Told that a file has none, it asks again for
// the next one, which is most of what "ls -lR" costs; told that the filesystem does
// not know such things, it asks no more. That is why this package answers itself and
// does not use go-fuse's IgnoreSecurityLabels, which says "none".
const xattrPrefix = "user."

// Getxattr answers getxattr(2). Programs ask first with an empty buffer.
func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(name, xattrPrefix) {
		return 0, syscall.EOPNOTSUPP
	}
	attributer, ok := n.server.catalog.(Attributer)
	if !ok {
		return 0, syscall.ENODATA
	}
	value, err := attributer.Attribute(ctx, n.id, name)
	if errors.Is(err, iofs.ErrNotExist) {
		return 0, syscall.ENODATA
	}
	if err != nil {
		return 0, errno(err)
	}
	return give(dest, value)
}

// Listxattr answers listxattr(2): names, each with a NUL after it.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	attributer, ok := n.server.catalog.(Attributer)
	if !ok {
		return 0, 0
	}
	names, err := attributer.Attributes(ctx, n.id)
	if err != nil {
		return 0, errno(err)
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return give(dest, list)
}

// give copies value if there is room, and tells its size in any case.
func give(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}
