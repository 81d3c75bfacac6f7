package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// tmpfs mounts a small disk.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" || !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Skip("only root can mount a disk that is full soon")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// filler is a Source that brings what a read needs at once, as the swarm does: block by block.
type filler struct {
	w    *world
	once sync.Map
	wg   sync.WaitGroup
	errs chan error
}

func (f *filler) Demand(_ ReaderID, d Demand) {
	for _, e := range d.Needs {
		first, last := e.Units(f.w.lay.Unit)
		for u := int(first); u < int(last); u++ {
			f.wg.Go(func() {
				if err := f.bring(u); err != nil {
					select {
					case f.errs <- err:
					default:
					}
				}
			})
		}
	}
}

func (f *filler) Withdraw(ReaderID) {}

func (f *filler) bring(u int) error {
	if _, busy := f.once.LoadOrStore(u, true); busy {
		return nil
	}
	defer f.once.Delete(u)
	o := f.w.obj
	if o.Known(u) {
		return nil
	}
	if err := o.Begin(u); err != nil {
		return err
	}
	e := o.UnitExtent(u)
	for off := e.Off; off < e.End(); off += 16 << 10 {
		if err := o.WriteAt(f.w.truth[off:min(off+16<<10, e.End())], off); err != nil {
			o.Abandon(u)
			return err
		}
	}
	o.Commit(u, f.w.tag(u))
	return nil
}

// readAll reads a file as the kernel does and compares it.
func (w *world) readAll(f *filler, file int) {
	w.t.Helper()
	span := w.lay.Files[file]
	r := w.obj.NewReader(span, f)
	defer r.Close()
	p := make([]byte, 100_000)
	for off := int64(0); off < span.Len; off += int64(len(p)) {
		q := p[:min(int64(len(p)), span.Len-off)]
		if _, err := r.ReadAt(context.Background(), q, off); err != nil {
			select {
			case why := <-f.errs:
				w.t.Fatalf("at %d: %v; %v", off, err, why)
			default:
				w.t.Fatalf("at %d: %v", off, err)
			}
		}
		if !bytes.Equal(q, w.truth[span.Off+off:][:len(q)]) {
			w.t.Fatalf("at %d: wrong bytes", off)
		}
	}
	f.wg.Wait()
}

// Reading goes on, byte by byte right, on a disk that is smaller than the limit, under a limit
// smaller than a unit, and on a disk that takes nothing at all; and what fits is kept.
func TestDiskTakesNoMore(t *testing.T) {
	const unit = 256 << 10
	for name, c := range map[string]struct {
		limit  int64
		disk   string
		before func(t *testing.T, dir string)
		kept   int // units on disk in the end, at least
	}{
		"full disk":             {1 << 30, "6m", func(*testing.T, string) {}, 8},
		"limit below a unit":    {unit / 2, "64m", func(*testing.T, string) {}, 0},
		"limit of two units":    {2*unit + 8192, "64m", func(*testing.T, string) {}, 1},
		"full of others' files": {1 << 30, "4m", func(t *testing.T, dir string) { hog(t, dir) }, 0},
		"read-only":             {1 << 30, "8m", func(t *testing.T, dir string) { readOnly(t, dir) }, 0},
		"gone":                  {1 << 30, "64m", func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "objects")) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.limit, unit, 5000, 20<<20)
			w.close()
			w.dir = tmpfs(t, c.disk)
			w.open()
			c.before(t, w.dir)
			f := &filler{w: w, errs: make(chan error, 1)}
			for range 2 {
				w.readAll(f, 1)
				w.store.lookAtDisk()
				w.store.keepRoom()
			}
			onDisk := 0
			for u := range w.obj.Units() {
				if w.obj.Has(u) && w.obj.memory[u] == nil {
					onDisk++
				}
			}
			if onDisk < c.kept {
				t.Errorf("%d units are kept on disk, want %d", onDisk, c.kept)
			}
			used, _ := w.store.Usage()
			if used > c.limit {
				t.Errorf("%d bytes are charged of %d", used, c.limit)
			}
			if w.store.remembered > memoryLimit {
				t.Errorf("%d bytes in memory", w.store.remembered)
			}
			_ = w.store.Close() // not clean, where the disk is not
			if len(w.store.units) > 0 || w.store.remembered != 0 {
				t.Errorf("%d units stay in memory", len(w.store.units))
			}
		})
	}
}

// hog fills a disk.
func hog(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, err = f.Write(make([]byte, 4096)); err == nil; _, err = f.Write(make([]byte, 4096)) {
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func readOnly(t *testing.T, dir string) {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		// Files are open for writing: what would be new there can not be.
		for _, d := range []string{"objects/ih-test"} {
			if err := unix.Mount(filepath.Join(dir, d), filepath.Join(dir, d), "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, d), unix.MNT_DETACH) })
			if err := unix.Mount("", filepath.Join(dir, d), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A disk keeps as much free as was asked for, whatever the limit says.
func TestMinFree(t *testing.T) {
	const unit = 64 << 10
	dir := tmpfs(t, "16m")
	w := newWorld(t, 1<<30, unit, 5000, 20<<20)
	w.close()
	w.dir = dir
	var err error
	if w.store, err = Open(Config{Dir: dir, Limit: 1 << 30, MinFree: 10 << 20}); err != nil {
		t.Fatal(err)
	}
	if w.obj, err = w.store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Frsize
	}
	w.store.lookAtDisk()
	for u := range w.obj.Units() {
		w.fill(u)
	}
	if n := free(); n < 10<<20-unit {
		t.Errorf("%d bytes are free", n)
	}
	if n, _ := w.obj.Count(); n < 60 { // of 6 MiB
		t.Errorf("%d units are kept", n)
	}
	// Somebody else needs the disk.
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w.store.lookAtDisk()
	w.store.keepRoom()
	if n := free(); n < 10<<20 {
		t.Errorf("%d bytes are free after others took some", n)
	}
	w.check()
	w.close()
}

// Bodies that somebody removes, empties or cuts while units are being written never lead to
// a wrong byte, in this session or the next.
func TestBodiesChangeUnderWriters(t *testing.T) {
	const unit = 64 << 10
	for name, harm := range map[string]func(path string) error{
		"removed": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 150_000) },
		"mode":    func(path string) error { return os.Chmod(path, 0) },
	} {
		for _, opened := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, 1<<30, unit, 5000, 10*unit)
				half := func(u int) {
					e := w.obj.UnitExtent(u)
					if err := w.obj.WriteAt(w.truth[e.Off:e.Off+e.Len/2], e.Off); err != nil {
						t.Fatal(err)
					}
				}
				rest := func(u int) {
					e := w.obj.UnitExtent(u)
					if err := w.obj.WriteAt(w.truth[e.Off+e.Len/2:e.End()], e.Off+e.Len/2); err != nil {
						t.Fatal(err)
					}
					w.obj.Commit(u, nil)
				}
				for u := range 4 {
					w.fill(u)
				}
				if err := w.obj.Begin(5); err != nil {
					t.Fatal(err)
				}
				half(5)
				if !opened { // as when the pool needs the descriptor
					if err := w.obj.sync(); err != nil {
						t.Fatal(err)
					}
					w.store.pool.forget(w.obj.bodies[1].file)
				}
				if err := harm(w.obj.bodies[1].path); err != nil {
					t.Fatal(err)
				}
				rest(5)
				w.fill(7)
				w.check()
				reader := w.obj.NewReader(w.lay.Files[1], &noSource{})
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				p := make([]byte, 1000)
				for off := int64(0); off < w.lay.Files[1].Len; off += 10_000 {
					if n, err := reader.ReadAt(ctx, p, off); err == nil && !bytes.Equal(p[:n], w.truth[w.lay.Files[1].Off+off:][:n]) {
						t.Fatalf("wrong bytes at %d", off)
					}
				}
				reader.Close()
				if err := w.obj.Close(); err != nil { // and opened again in this session
					t.Fatal(err)
				}
				var err error
				if w.obj, err = w.store.Object(w.lay); err != nil {
					t.Fatal(err)
				}
				w.check()
				w.close()
				w.open()
				w.check()
				w.close()
			})
		}
	}
}

// With VerifyAlways a bit that flips on disk is found at the next read, and fetched again.
func TestVerifyAlways(t *testing.T) {
	const unit = 64 << 10
	w := newWorld(t, 1<<30, unit, 5000, 10*unit)
	w.close()
	var err error
	if w.store, err = Open(Config{Dir: w.dir, Limit: 1 << 30, VerifyAlways: true}); err != nil {
		t.Fatal(err)
	}
	if w.obj, err = w.store.Object(w.lay); err != nil {
		t.Fatal(err)
	}
	f := &filler{w: w, errs: make(chan error, 1)}
	w.readAll(f, 1)
	span := w.lay.Files[1]
	body, err := os.OpenFile(w.obj.bodies[1].path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	for off := int64(77); off < span.Len; off += 3 * unit {
		if _, err := body.WriteAt([]byte{w.truth[span.Off+off] ^ 4}, off); err != nil {
			t.Fatal(err)
		}
	}
	r := w.obj.NewReader(extent.Extent{Off: span.Off, Len: span.Len}, f)
	if _, ok := r.Backing(); ok {
		t.Error("handed out to be read without us")
	}
	r.Close()
	w.readAll(f, 1)
	w.close()
}

// A body that somebody removed before it was written in this session is missed as well.
func TestBodyIsRemovedAfterARestart(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 200_000)
	for u := range 5 {
		w.fill(u)
	}
	w.close()
	w.open()
	if err := os.Remove(w.obj.bodies[0].path); err != nil {
		t.Fatal(err)
	}
	w.fill(7)
	if n := w.check(); n != 1 {
		t.Errorf("%d units are there", n)
	}
	w.close()
}
