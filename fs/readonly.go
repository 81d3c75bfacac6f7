package fs

import (
	"context"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// With the option "ro" the kernel refuses all of this by itself. But root can take the option
// away (mount -o remount,rw), and then go-fuse says, of what a node does not implement, that
// it was done (rm, rmdir) or is not supported.

var (
	_ gofuse.NodeCreater       = (*dirNode)(nil)
	_ gofuse.NodeMkdirer       = (*dirNode)(nil)
	_ gofuse.NodeMknoder       = (*dirNode)(nil)
	_ gofuse.NodeSymlinker     = (*dirNode)(nil)
	_ gofuse.NodeLinker        = (*dirNode)(nil)
	_ gofuse.NodeUnlinker      = (*dirNode)(nil)
	_ gofuse.NodeRmdirer       = (*dirNode)(nil)
	_ gofuse.NodeRenamer       = (*dirNode)(nil)
	_ gofuse.NodeSetattrer     = (*node)(nil)
	_ gofuse.NodeSetxattrer    = (*node)(nil)
	_ gofuse.NodeRemovexattrer = (*node)(nil)
)

// Create refuses.
func (*dirNode) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

// Mkdir refuses.
func (*dirNode) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Mknod refuses.
func (*dirNode) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Symlink refuses.
func (*dirNode) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Link refuses.
func (*dirNode) Link(context.Context, gofuse.InodeEmbedder, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Unlink refuses.
func (*dirNode) Unlink(context.Context, string) syscall.Errno { return syscall.EROFS }

// Rmdir refuses.
func (*dirNode) Rmdir(context.Context, string) syscall.Errno { return syscall.EROFS }

// Rename refuses.
func (*dirNode) Rename(context.Context, string, gofuse.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EROFS
}

// Setattr refuses: chmod, chown, truncate and utimes.
func (*node) Setattr(context.Context, gofuse.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

// Setxattr refuses.
func (*node) Setxattr(context.Context, string, []byte, uint32) syscall.Errno { return syscall.EROFS }

// Removexattr refuses.
func (*node) Removexattr(context.Context, string) syscall.Errno { return syscall.EROFS }
