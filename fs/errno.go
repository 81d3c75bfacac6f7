package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"syscall"
)

// errUnmounting is the cause of every context of a server that goes away.
var errUnmounting = errors.New("unmounting")

// The shapes by which causes from other packages are known: this package imports
// neither the cache nor the fetcher.
type (
	corrupter interface{ Corrupt() bool }  // the bytes that can be had are wrong
	sourcer   interface{ NoSource() bool } // nobody is known to have the bytes
)

// errno is what a system call fails with because of err. It is the only such
// table. Whoever gets EIO from it for a cause of its own logs err once.
func errno(err error) syscall.Errno {
	var corrupt corrupter
	var source sourcer
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &corrupt) && corrupt.Corrupt():
		return syscall.EIO
	case errors.As(err, &source) && source.NoSource():
		return syscall.ENODATA
	case errors.Is(err, errUnmounting):
		return syscall.ENODEV
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.As(err, &number) && number != 0 && number != syscall.ENOSYS:
		return number
	case errors.Is(err, iofs.ErrNotExist):
		return syscall.ENOENT
	}
	return syscall.EIO
}

// contentErrno is errno for a file that is open: its name is known to exist and
// nothing but the reader's own context can interrupt it, whatever a cache's files
// or a library inside say. cause is why that context ended, nil if it did not.
func contentErrno(err, cause error) syscall.Errno {
	switch number := errno(err); number {
	case syscall.EINTR:
		if cause == nil { // EINTR without a signal would make readers try for ever
			return syscall.EIO
		}
		return errno(cause)
	case syscall.ENOENT, syscall.EAGAIN, syscall.EBADF:
		return syscall.EIO
	default:
		return number
	}
}
