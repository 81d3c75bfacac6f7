package cache

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// fickle is a disk that forgets, when its power is cut, what was written and not synced: each
// such write is kept, lost or torn at a sector, whatever came before or after it. Names,
// sizes and holes are kept at once, as by a filesystem that journals metadata only. It is a
// FUSE filesystem over a folder; the cache runs on it in another process.
type fickle struct {
	server *fuse.Server
	dir    string // what a program sees

	mu      sync.Mutex
	durable map[uint64][]byte // by inode
	pending map[uint64][]write
	writes  int
	enough  int           // writes, after which
	reached chan struct{} // is closed
}

type write struct {
	off int64
	p   []byte
}

func newFickle(t *testing.T, dir, point string, enough int) *fickle {
	t.Helper()
	f := &fickle{dir: dir, durable: map[uint64][]byte{}, pending: map[uint64][]write{}, enough: enough, reached: make(chan struct{})}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	// What is there is durable.
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		f.durable[f.ino(p)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	root := &gofuse.LoopbackRoot{Path: dir, Dev: uint64(st.Dev)}
	if f.server, err = gofuse.Mount(point, &fickleNode{&gofuse.LoopbackNode{RootData: root}, f}, &gofuse.Options{MountOptions: fuse.MountOptions{DirectMount: true, DisableSplice: true}}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fickle) ino(path string) uint64 {
	var st syscall.Stat_t
	_ = syscall.Lstat(path, &st)
	return st.Ino
}

func (f *fickle) write(ino uint64, p []byte, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[ino] = append(f.pending[ino], write{off, append([]byte(nil), p...)})
	if f.writes++; f.writes == f.enough {
		close(f.reached)
	}
}

func (f *fickle) sync(ino uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.pending[ino] {
		f.putLocked(ino, w.p, w.off)
	}
	delete(f.pending, ino)
}

func (f *fickle) putLocked(ino uint64, p []byte, off int64) {
	b := f.durable[ino]
	if n := int(off) + len(p); n > len(b) {
		b = append(b, make([]byte, n-len(b))...)
	}
	copy(b[off:], p)
	f.durable[ino] = b
}

// hole zeros [from, to), or cuts the file at from if to is negative.
func (f *fickle) hole(ino uint64, from, to int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.durable[ino]
	switch {
	case from >= int64(len(b)):
	case to < 0:
		f.durable[ino] = b[:from]
	default:
		clear(b[from:min(to, int64(len(b)))])
	}
}

// cut ends the power; what is left of the disk is put into the folder to.
func (f *fickle) cut(t *testing.T, r *rand.Rand, to string) (lost int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for ino, ws := range f.pending {
		for _, w := range ws {
			switch r.IntN(4) {
			case 0:
				f.putLocked(ino, w.p, w.off)
			case 1:
				f.putLocked(ino, w.p[:r.IntN(len(w.p)+1)/512*512], w.off)
				lost++
			default:
				lost++
			}
		}
	}
	err := filepath.WalkDir(f.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(f.dir, p)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b := append([]byte(nil), f.durable[f.ino(p)]...)
		b = append(b, make([]byte, max(0, info.Size()-int64(len(b))))...)
		return os.WriteFile(filepath.Join(to, rel), b[:info.Size()], info.Mode())
	})
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

type fickleNode struct {
	*gofuse.LoopbackNode
	disk *fickle
}

func (n *fickleNode) WrapChild(_ context.Context, child gofuse.InodeEmbedder) gofuse.InodeEmbedder {
	return &fickleNode{child.(*gofuse.LoopbackNode), n.disk}
}

func (n *fickleNode) inode() uint64 { return n.disk.ino(filepath.Join(n.disk.dir, n.Path(nil))) }

func (n *fickleNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	node, h, f, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return node, &fickleFile{h.(*gofuse.LoopbackFile), n.disk, n.disk.ino(filepath.Join(n.disk.dir, n.Path(nil), name))}, f, 0
}

func (n *fickleNode) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &fickleFile{h.(*gofuse.LoopbackFile), n.disk, n.inode()}, f, 0
}

func (n *fickleNode) Setattr(ctx context.Context, h gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	ino := n.inode()
	if f, ok := h.(*fickleFile); ok {
		h, ino = f.LoopbackFile, f.ino
	}
	errno := n.LoopbackNode.Setattr(ctx, h, in, out)
	if size, ok := in.GetSize(); ok && errno == 0 {
		n.disk.hole(ino, int64(size), -1)
	}
	return errno
}

type fickleFile struct {
	*gofuse.LoopbackFile
	disk *fickle
	ino  uint64
}

func (h *fickleFile) PassthroughFd() (int, bool) { return 0, false }

func (h *fickleFile) Write(ctx context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	n, errno := h.LoopbackFile.Write(ctx, p, off)
	h.disk.write(h.ino, p[:n], off)
	return n, errno
}

func (h *fickleFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	h.disk.sync(h.ino)
	return 0 // it is not this power that is cut
}

func (h *fickleFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	errno := h.LoopbackFile.Allocate(ctx, off, size, mode)
	if errno == 0 {
		h.disk.hole(h.ino, int64(off), int64(off+size))
	}
	return errno
}

const powerCutDir = "BTMOUNT_TEST_POWERCUT"

// cutWorld is what runs on the fickle disk: units of several blocks that share some.
func cutWorld(dir string) *world {
	return makeWorld(dir, 40*10_000, 10_000, 5000, 300_000, 250_000)
}

// useFickle fills, reads and evicts until the process is killed.
func useFickle(dir string) error {
	w := cutWorld(dir)
	var err error
	if w.store, err = Open(Config{Dir: dir, Limit: w.limit, SyncEvery: 5 * time.Millisecond}); err != nil {
		return err
	}
	go func() { _ = w.store.Run(context.Background()) }() // ends with the process
	if w.obj, err = w.store.Object(w.lay); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	p := make([]byte, w.lay.Unit)
	for {
		u := r.IntN(w.obj.Units())
		e := w.obj.UnitExtent(u)
		switch r.IntN(8) {
		case 0:
			w.obj.drop(u, min(u+3, w.obj.Units()))
			continue
		case 1, 2:
			_ = w.obj.ReadPresent(p[:e.Len], e.Off)
			continue
		case 3:
			if r.IntN(10) == 0 {
				if err := w.obj.Close(); err != nil {
					return err
				}
				if w.obj, err = w.store.Object(w.lay); err != nil {
					return err
				}
			}
		}
		if w.obj.Known(u) {
			continue
		}
		if err := w.obj.Begin(u); err != nil {
			return err
		}
		for off := e.Off; off < e.End(); off += 4000 {
			if err := w.obj.WriteAt(w.truth[off:min(off+4000, e.End())], off); err != nil {
				return err
			}
		}
		w.obj.Commit(u, nil)
	}
}

// Power cuts at random moments never lead to a wrong byte, and what was synced stays.
func TestPowerCuts(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if os.Getenv("BTMOUNT_SOAK") != "" {
		rounds = 50
	}
	r := rand.New(rand.NewPCG(5, 6))
	now := t.TempDir()
	var lost, killed, survived int
	for round := range rounds {
		point, next := t.TempDir(), t.TempDir()
		disk := newFickle(t, now, point, 50+r.IntN(600))
		cmd := exec.Command(self, "-test.run=^$")
		cmd.Env = append(os.Environ(), powerCutDir+"="+point)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-disk.reached:
			_ = cmd.Process.Kill()
			<-ended
		case err := <-ended:
			t.Fatalf("the cache ended by itself: %v", err)
		}
		if err := disk.server.Unmount(); err != nil {
			t.Fatal(err)
		}
		lost += disk.cut(t, r, next)
		for dir, n := range map[string]*int{now: &killed, next: &survived} {
			w := cutWorld(dir)
			w.t = t
			w.open()
			*n += w.check()
			if dir == now {
				w.close()
			} else if round%3 == 0 {
				w.close() // a clean session between two cuts launders nothing
			} else {
				w.crash()
			}
		}
		now = next
	}
	t.Logf("%d power cuts lost %d writes; of %d units that a kill would have left %d were there", rounds, lost, killed, survived)
	if survived < killed/2 {
		t.Errorf("of %d units only %d were synced", killed, survived)
	}
}

// inAnotherProcess runs what a test wants done in a process of its own.
func inAnotherProcess() {
	if dir := os.Getenv(powerCutDir); dir != "" {
		fmt.Fprintln(os.Stderr, "the cache ends: "+strconv.Quote(useFickle(dir).Error()))
		os.Exit(1)
	}
}
