package fs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
	"github.com/btmount/btmount/fs/tree"
)

// counting counts the names that are looked up one by one.
type counting struct {
	fs.Catalog
	n atomic.Int64
}

func (c *counting) Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	c.n.Add(1)
	return c.Catalog.Lookup(ctx, dir, name)
}

// Who lists names only gets names: nothing is kept of files that nobody looked at. Who looks at
// the files gets their attributes along with the names, but for a few.
func TestWalkers(t *testing.T) {
	const dirs, each = 100, 40
	var files []fstest.File
	for d := range dirs {
		for i := range each {
			files = append(files, fstest.File{Path: fmt.Sprintf("d%02d/%02d", d, i), Data: []byte{byte(i)}})
		}
	}
	walk := func(look bool) (asked, later int64) {
		c := &counting{Catalog: fstest.Memory(files...)}
		_, point := mount(t, c)
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread() // what is learned is of a thread; this one ends
			defer close(done)
			for d := range dirs {
				dir := filepath.Join(point, fmt.Sprintf("d%02d", d))
				list, err := os.ReadDir(dir)
				if err != nil || len(list) != each {
					t.Error(len(list), err)
				}
				for _, e := range list {
					if e.Type() != 0 {
						t.Errorf("%s is a %v", e.Name(), e.Type())
					}
					if !look {
						continue
					}
					if info, err := e.Info(); err != nil || info.Size() != 1 {
						t.Error(info, err)
					}
				}
			}
			asked = c.n.Load()
			if _, err := os.Lstat(filepath.Join(point, "d50/10")); err != nil {
				t.Error(err)
			}
			later = c.n.Load() - asked
		}()
		<-done
		return asked, later
	}
	if asked, later := walk(false); asked > dirs || later != 1 {
		t.Errorf("names only: %d lookups, then %d for a file", asked, later)
	}
	if asked, later := walk(true); asked > dirs+each || later != 0 {
		t.Errorf("with attributes: %d lookups, then %d for a file", asked, later)
	}
}
