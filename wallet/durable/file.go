package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// ErrLoose says that others may read or change a file or folder that must be private.
var ErrLoose = errors.New("others may read or change it")

// Folder makes a folder of mode 0700 if it is not there, and refuses one that others may
// enter or that is somebody else's (ErrLoose).
func Folder(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err == nil {
		return syncFolder(filepath.Dir(path))
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: not a folder", path)
	}
	return private(path, st, "700")
}

// private refuses what is not the user's alone.
func private(path string, st os.FileInfo, mode string) error {
	if p := st.Mode().Perm(); p&0o077 != 0 {
		return fmt.Errorf("%s: %w: its mode is %04o; chmod %s it", path, ErrLoose, p, mode)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w: it belongs to user %d", path, ErrLoose, sys.Uid)
	}
	return nil
}

// ReadSecret reads a file of at most limit bytes that only its owner may read. It follows
// no symlink, and looks at the file that it opened, so that nobody can change it between.
func ReadSecret(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s: it is a symlink; give the file itself", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", path)
	}
	if err := private(path, st, "600"); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: over %d bytes", path, limit)
	}
	return text, err
}

// WriteFile writes a file of mode 0600, whole or not at all. When it returns, the disk has
// it. It fails with os.ErrExist if the file is there already, unless replace.
func WriteFile(path string, text []byte, replace bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if err != nil || !replace {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if replace {
		err = os.Rename(f.Name(), path)
	} else {
		err = os.Link(f.Name(), path) // fails if it is there, which a rename does not
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
