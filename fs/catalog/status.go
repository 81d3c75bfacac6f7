package catalog

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// status is a file of the .btmount directory.
type status struct {
	name string
	text func() []byte
}

// AddStatus adds a file to the .btmount directory. text is called at each open, by
// any goroutine; what it returns is what that reader sees. Status files stay.
func (c *Catalog) AddStatus(name string, text func() []byte) error {
	if tree.CleanName(name) != name {
		return fmt.Errorf("%q is no name for a status file", name)
	}
	c.mu.Lock()
	if slices.ContainsFunc(c.statuses, func(s status) bool { return s.name == name }) {
		c.mu.Unlock()
		return fmt.Errorf("there is a status file %q already", name)
	}
	c.statuses = append(c.statuses, status{name, text})
	watchers := c.watchersLocked()
	c.mu.Unlock()
	tell(watchers, statusDir, map[string]struct{}{name: {}})
	return nil
}

func (s *status) entry(id tree.ID) tree.Entry {
	return tree.Entry{
		ID: id, Ino: fixedInode(statusDirName + "/" + s.name), Name: s.name,
		Kind: tree.File, Live: true, ModTime: time.Now(),
	}
}

func (c *Catalog) lookupStatus(name string) (tree.Entry, error) {
	c.mu.RLock()
	i := slices.IndexFunc(c.statuses, func(s status) bool { return s.name == name })
	c.mu.RUnlock()
	if i < 0 {
		return tree.Entry{}, errAbsent
	}
	return c.fixed(firstStatus + tree.ID(i))
}

func (c *Catalog) openStatus(id tree.ID) (fs.Content, error) {
	c.mu.RLock()
	i := int(id) - int(firstStatus)
	if i < 0 || i >= len(c.statuses) {
		c.mu.RUnlock()
		return nil, errGone
	}
	s := c.statuses[i]
	c.mu.RUnlock()
	return text(s.text()), nil
}

// text is content that was made when the file was opened.
type text []byte

func (b text) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (text) Close() error { return nil }
