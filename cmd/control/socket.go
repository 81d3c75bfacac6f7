package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	socketName = "control.sock"
	lockName   = "control.lock"
	longest    = 107 // bytes of an address, without the 0 that ends it
)

// Socket is where a daemon is called.
type Socket struct {
	*net.UnixListener
	lock *os.File
	path string
}

// Listen makes the socket in a state folder, which must exist. ErrTaken: another process has it.
func Listen(dir string) (*Socket, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", dir, cause(err))
	}
	s := &Socket{lock: lock, path: filepath.Join(dir, socketName)}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner := make([]byte, 32)
		n, _ := lock.ReadAt(owner, 0)
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("control socket in %s: %w (process %s); give each mount a --state-dir of its own", dir, ErrTaken, strings.TrimSpace(string(owner[:n])))
		}
		return nil, fmt.Errorf("control socket in %s: lock: %w", dir, err)
	}
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt(fmt.Appendln(nil, os.Getpid()), 0) // only a hint for the message above
	}
	if err := s.listen(dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	return s, nil
}

// listen replaces what another daemon left: that one is dead, since we have the lock.
func (s *Socket) listen(dir string) error {
	if st, err := os.Lstat(s.path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return fmt.Errorf("%s is in the way and no socket; remove it", socketName)
		}
		if err := os.Remove(s.path); err != nil {
			return cause(err)
		}
	}
	err := through(dir, func(path string) (err error) {
		s.UnixListener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return bare(err)
	}
	s.SetUnlinkOnClose(false) // it may have been made under another name
	if err := os.Chmod(s.path, 0o600); err != nil {
		s.UnixListener.Close()
		return cause(err)
	}
	return nil
}

// Close removes the socket.
func (s *Socket) Close() error {
	err := s.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if rerr := os.Remove(s.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if lerr := s.lock.Close(); lerr != nil && !errors.Is(lerr, os.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	return err
}

// Accept takes calls of our own user, or root.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if ours(c) {
			return c, nil
		}
		c.Close()
	}
}

func ours(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) {
		who, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		ok = err == nil && (who.Uid == 0 || int(who.Uid) == os.Geteuid())
	})
	return ok
}

// through calls f with a path of the socket in dir that fits into an address.
func through(dir string, f func(path string) error) error {
	path := filepath.Join(dir, socketName)
	if len(path) <= longest {
		return f(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// dial calls the daemon of a state folder.
func dial(ctx context.Context, dir string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	err = through(dir, func(path string) error {
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// cause drops the path that an *fs.PathError repeats.
func cause(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// bare is the reason in an error of package net.
func bare(err error) error {
	if no := syscall.Errno(0); errors.As(err, &no) {
		return no
	}
	return cause(err)
}
