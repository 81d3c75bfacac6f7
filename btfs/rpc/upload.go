package rpc

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// upload is a tree of files as multipart/form-data, the way go-btfs-files reads it: one
// part for each directory, symlink (its target) and file, parents first, all called file,
// with the path in the object as filename. It is made while it is read, on the goroutine
// that reads; one file is open at a time.
type upload struct {
	boundary string
	hidden   bool
	sent     func(n int)

	pending []item    // a stack: what comes next is last
	text    io.Reader // of the part's head or tail
	file    *os.File  // nil between files
	ended   bool

	content atomic.Int64
	err     atomic.Pointer[error]
}

// item is a name on disk and in the object.
type item struct{ place, name string }

func newUpload(place, name string, hidden bool, sent func(int)) (*upload, error) {
	if _, err := os.Lstat(place); err != nil {
		return nil, err
	}
	return &upload{boundary: rand.Text(), hidden: hidden, sent: sent, pending: []item{{place, name}}, text: strings.NewReader("")}, nil
}

func (u *upload) contentType() string { return "multipart/form-data; boundary=" + u.boundary }
func (u *upload) bytes() int64        { return u.content.Load() }

// failed is what went wrong on our side.
func (u *upload) failed() error {
	if e := u.err.Load(); e != nil {
		return *e
	}
	return nil
}

func (u *upload) close() {
	if u.file != nil {
		u.file.Close()
	}
}

func (u *upload) Read(p []byte) (int, error) {
	for {
		if n, err := u.text.Read(p); err == nil {
			return n, nil
		}
		if u.file != nil {
			n, err := u.file.Read(p)
			if n > 0 {
				u.content.Add(int64(n))
				if u.sent != nil {
					u.sent(n)
				}
				return n, nil
			}
			if err != nil && err != io.EOF {
				return 0, u.fail(err)
			}
			u.file.Close()
			u.file, u.text = nil, strings.NewReader("\r\n")
			continue
		}
		if u.ended {
			return 0, io.EOF
		}
		if err := u.next(); err != nil {
			return 0, u.fail(err)
		}
	}
}

func (u *upload) fail(err error) error {
	u.err.Store(&err)
	return err
}

// next begins the next part.
func (u *upload) next() error {
	if len(u.pending) == 0 {
		u.ended = true
		u.text = strings.NewReader("--" + u.boundary + "--\r\n")
		return nil
	}
	it := u.pending[len(u.pending)-1]
	u.pending = u.pending[:len(u.pending)-1]
	info, err := os.Lstat(it.place)
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		entries, err := os.ReadDir(it.place)
		if err != nil {
			return err
		}
		for i := len(entries) - 1; i >= 0; i-- {
			if name := entries[i].Name(); u.hidden || name[0] != '.' {
				u.pending = append(u.pending, item{filepath.Join(it.place, name), it.name + "/" + name})
			}
		}
		u.head(it, "application/x-directory", "\r\n")
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(it.place)
		if err != nil {
			return err
		}
		u.head(it, "application/symlink", target+"\r\n")
	case mode.IsRegular():
		if u.file, err = os.Open(it.place); err != nil {
			return err
		}
		u.head(it, "application/octet-stream", "")
	default:
		return &os.PathError{Op: "add", Path: it.place, Err: errSpecial}
	}
	return nil
}

func (u *upload) head(it item, kind, body string) {
	u.text = strings.NewReader(fmt.Sprintf("--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\nContent-Type: %s\r\n\r\n%s",
		u.boundary, url.QueryEscape(it.name), kind, body))
}
