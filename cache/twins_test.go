package cache

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// thing is an object of the family, and the bytes that it should hold.
type thing struct {
	lay   Layout
	truth []byte
	obj   *Object

	mu      sync.RWMutex // held exclusively while it is closed or opened
	claimed []atomic.Bool
}

// family is a store with objects some of whose files are equal.
type family struct {
	t     testing.TB
	dir   string
	limit int64
	store *Store
	all   []*thing

	harmed bool // files were removed under it
}

const kin = 16 << 10 // their unit

// newThing makes an object of files, each of which begins with a unit as in a v2 torrent. Files
// of the same name are equal.
func newThing(key Key, unit int64, names string, sizes map[byte]int64) *thing {
	w := &thing{lay: Layout{Key: key, Unit: unit, Tag: sha1.Size}}
	for i := range len(names) {
		w.lay.Size = (w.lay.Size + unit - 1) / unit * unit
		w.lay.Files = append(w.lay.Files, extent.Extent{Off: w.lay.Size, Len: sizes[names[i]]})
		w.lay.Content = append(w.lay.Content, ContentID{names[i]})
		w.lay.Size += sizes[names[i]]
	}
	w.truth = make([]byte, w.lay.Size)
	for i, e := range w.lay.Files {
		rand.NewChaCha8([32]byte{names[i]}).Read(w.truth[e.Off:e.End()])
	}
	// As the tree of a torrent has it: the padding behind a file does not count, and the tag
	// says everything.
	w.lay.Verify = func(u int, p, tag []byte) bool {
		sum := sha1.Sum(p[:w.content(u)])
		return bytes.Equal(sum[:], tag)
	}
	w.claimed = make([]atomic.Bool, w.units())
	return w
}

func (w *thing) units() int { return int((w.lay.Size-1)/w.lay.Unit + 1) }

// content is how many bytes of a unit are no padding.
func (w *thing) content(u int) int64 {
	e := extent.Unit(int64(u), w.lay.Unit, w.lay.Size)
	for _, f := range w.lay.Files {
		if c := e.Clip(f); !c.Empty() {
			return c.Len
		}
	}
	return 0
}

func (w *thing) tag(u int) []byte {
	off := int64(u) * w.lay.Unit
	sum := sha1.Sum(w.truth[off : off+w.content(u)])
	return sum[:]
}

func (w *thing) bytes(u int) []byte {
	e := extent.Unit(int64(u), w.lay.Unit, w.lay.Size)
	return w.truth[e.Off:e.End()]
}

func newFamily(t testing.TB, limit int64, things ...*thing) *family {
	f := &family{t: t, dir: t.TempDir(), limit: limit, all: things}
	f.open()
	return f
}

func (f *family) open() {
	f.t.Helper()
	var err error
	if f.store, err = Open(Config{Dir: f.dir, Limit: f.limit, OpenFiles: 4, MinFree: -1}); err != nil {
		f.t.Fatal(err)
	}
}

// get opens objects.
func (f *family) get(things ...*thing) {
	f.t.Helper()
	for _, w := range things {
		var err error
		if w.obj, err = f.store.Object(w.lay); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *family) put(things ...*thing) {
	f.t.Helper()
	for _, w := range things {
		if err := w.obj.Close(); err != nil {
			f.t.Fatal(err)
		}
		w.obj = nil
	}
}

func (f *family) close() {
	f.t.Helper()
	if err := f.store.Close(); err != nil {
		f.t.Fatal(err)
	}
	for _, w := range f.all {
		w.obj = nil
	}
}

// crash ends the store as kill -9 would.
func (f *family) crash() {
	for _, w := range f.all {
		if w.obj == nil {
			continue
		}
		for _, b := range w.obj.bodies {
			f.store.pool.forget(b.file)
		}
		w.obj.journal.f.Close()
		w.obj = nil
	}
	f.store.lock.Close()
}

func (f *family) fill(w *thing, units ...int) {
	f.t.Helper()
	for _, u := range units {
		if err := w.obj.Begin(u); err != nil {
			f.t.Fatal(err)
		}
		if err := w.obj.WriteAt(w.bytes(u), int64(u)*kin); err != nil {
			f.t.Fatal(err)
		}
		w.obj.Commit(u, w.tag(u))
	}
}

// read returns which units are there, all of them right.
func (f *family) read(w *thing) (there []int) {
	f.t.Helper()
	for u := range w.units() {
		p := make([]byte, len(w.bytes(u)))
		err := w.obj.ReadPresent(p, int64(u)*w.lay.Unit)
		if errors.Is(err, ErrAbsent) {
			continue
		}
		if err != nil {
			f.t.Fatalf("%s unit %d: %v", w.lay.Key, u, err)
		}
		if !bytes.Equal(p, w.bytes(u)) {
			f.t.Fatalf("%s unit %d: wrong bytes", w.lay.Key, u)
		}
		there = append(there, u)
	}
	return there
}

// du is what the bodies take, those with several names once, without journals.
func du(t testing.TB, dir string) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Base(filepath.Dir(p)) != "body" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			n += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// audit looks at the books while nobody does anything.
func (f *family) audit(when string) {
	f.t.Helper()
	if f.harmed {
		return // a file that was removed is charged until it is missed
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	want := int64(0)
	for _, o := range s.objects {
		for u := range o.units {
			if b := o.sharedBody(u); b != nil && b.share.twins[0] != b {
				continue
			}
			if o.knownLocked(u) || o.fillsLocked(u) {
				want += o.cost(u)
			}
		}
	}
	links := map[inode]linkedFile{}
	for name, d := range s.dormant {
		want += d.bytes
		for i, bytes := range d.links {
			l := links[i]
			l.dormant++
			l.bytes = bytes
			links[i] = l
		}
		_ = name
	}
	for _, sh := range s.shares {
		if l, ok := links[sh.inode]; ok {
			l.open++
			links[sh.inode] = l
		}
		for _, t := range sh.twins[1:] {
			a := sh.twins[0]
			for k := range t.last() - t.first {
				if a.obj.knownLocked(a.first+k) != t.obj.knownLocked(t.first+k) {
					f.t.Fatalf("%s: unit %d of a file is in %s and not in %s, or the other way", when, k, a.obj.Key, t.obj.Key)
				}
			}
		}
	}
	for i, l := range links {
		l.bytes = s.links[i].bytes
		want += l.charge()
	}
	if s.used != want {
		f.t.Fatalf("%s: %d bytes are charged, not %d", when, s.used, want)
	}
	// A file in many pieces has a block that says where they are.
	if n := du(f.t, f.dir); n > s.used+int64(len(f.all))*3*blockSize {
		f.t.Fatalf("%s: %d bytes on disk, %d charged", when, n, s.used)
	}
}

func (f *family) used() int64 { n, _ := f.store.Usage(); return n }

func (f *family) drop(w *thing) { w.obj.drop(0, w.obj.units) }

var kinSizes = map[byte]int64{'x': 1<<20 + 5000, 'y': 2 << 20, 's': leastShared - 1, 'p': 40_000, 'q': 1<<20 + 77}

func couple(t *testing.T, a, b string) (f *family, one, two *thing) {
	one, two = newThing("ih-one", kin, a, kinSizes), newThing("ih-two", kin, b, kinSizes)
	return newFamily(t, 1<<30, one, two), one, two
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// What is shared and what is not, with the second object opened while the first is open, after
// it was closed, and after a restart.
func TestWhatIsShared(t *testing.T) {
	for name, c := range map[string]struct {
		one, two string
		change   func(f *family, one, two *thing)
		shared   bool
	}{
		"equal files":                 {one: "x", two: "x", shared: true},
		"at other places":             {one: "x", two: "pxy", shared: true},
		"others":                      {one: "x", two: "y"},
		"too short":                   {one: "s", two: "s"},
		"no name":                     {one: "x", two: "x", change: func(_ *family, one, two *thing) { two.lay.Content[0] = ContentID{} }},
		"nobody names anything":       {one: "x", two: "x", change: func(_ *family, one, two *thing) { two.lay.Content = nil }},
		"the list has another length": {one: "x", two: "x", change: func(_ *family, one, two *thing) { two.lay.Content = append(two.lay.Content, ContentID{}) }},
		"other units": {one: "x", two: "x", change: func(_ *family, one, two *thing) {
			*two = *newThing("ih-two", 2*kin, "x", kinSizes)
		}},
		"nobody verifies": {one: "x", two: "x", change: func(_ *family, one, two *thing) { two.lay.Verify = nil }},
		"not at a unit": {one: "x", two: "x", change: func(_ *family, one, two *thing) {
			two.lay.Files[0].Off, two.lay.Size = 4096, two.lay.Size+4096
		}},
		"another file in the last unit": {one: "x", two: "x", change: func(_ *family, one, two *thing) {
			two.lay.Files = append(two.lay.Files, extent.Extent{Off: two.lay.Size, Len: 1})
			two.lay.Content = append(two.lay.Content, ContentID{})
			two.lay.Size++
		}},
		"no hard links":      {one: "x", two: "x", change: func(f *family, _, _ *thing) { refuse(f, unix.EPERM) }},
		"another filesystem": {one: "x", two: "x", change: func(f *family, _, _ *thing) { refuse(f, unix.EXDEV) }},
		"too many links":     {one: "x", two: "x", change: func(f *family, _, _ *thing) { refuse(f, unix.EMLINK) }},
		"not supported":      {one: "x", two: "x", change: func(f *family, _, _ *thing) { refuse(f, unix.EOPNOTSUPP) }},
	} {
		for _, when := range []string{"open", "closed", "restarted", "killed"} {
			t.Run(name+", "+when, func(t *testing.T) {
				f, one, two := couple(t, c.one, c.two)
				f.get(one)
				f.fill(one, upTo(one.obj.units)...)
				switch when {
				case "closed":
					f.put(one)
				case "restarted":
					f.close()
					f.open()
				case "killed":
					f.crash()
					f.open()
				}
				if c.change != nil {
					c.change(f, one, two)
				}
				before := du(t, f.dir)
				f.get(two)
				n := 0
				for i, e := range two.lay.Files {
					if c.shared && two.lay.Content[i] == one.lay.Content[0] {
						first, last := e.Units(two.lay.Unit)
						n = int(last - first)
					}
				}
				if got := f.count(two); got != n {
					t.Errorf("%d units are there, want %d", got, n)
				}
				f.audit("opened")
				if after := du(t, f.dir); after != before {
					t.Errorf("%d bytes on disk, before %d", after, before)
				}
				if one.obj == nil {
					f.get(one)
				}
				if got := f.read(one); len(got) != one.obj.units {
					t.Errorf("of the first %d units are left", len(got))
				}
				f.close()
			})
		}
	}
}

// count returns how many units are there; what the layout was made wrong for is not compared.
func (f *family) count(w *thing) (n int) {
	for u := range w.obj.units {
		if w.obj.Known(u) {
			n++
		}
	}
	if n > 0 {
		return len(f.read(w))
	}
	return n
}

func refuse(f *family, err error) { f.store.link = func(string, string) error { return err } }

// What one brings the other has at once, and a read that waits for it wakes; the budget pays
// once; what one gives up stays if the other needs it.
func TestTwins(t *testing.T) {
	f, one, two := couple(t, "px", "x")
	defer f.close()
	f.get(one, two)
	const off = 3 // x begins there in the first
	w := two.obj.park(extent.Extent{Off: 5 * kin, Len: 2 * kin})
	f.fill(one, off+5)
	select {
	case <-w.done:
		t.Error("woke too early")
	default:
	}
	f.fill(one, off+6)
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	if got := f.read(two); !slices.Equal(got, []int{5, 6}) {
		t.Errorf("the twin has %v", got)
	}
	if f.used() != 2*kin || du(t, f.dir) != 2*kin {
		t.Errorf("%d bytes charged, %d on disk", f.used(), du(t, f.dir))
	}
	// Each reason to stay counts for both.
	for name, stay := range map[string]func() func(){
		"pinned": func() func() {
			_ = two.obj.Pin(extent.Extent{Off: 5 * kin, Len: 1})
			return func() { _ = two.obj.Pin() }
		},
		"guarded": func() func() { two.obj.Guard(&w, 5, 6); return func() { two.obj.Guard(&w, 0, 0) } },
		"waited for": func() func() {
			w := two.obj.park(extent.Extent{Off: 4 * kin, Len: 2 * kin})
			return func() { two.obj.unpark(w) }
		},
		"written": func() func() { _ = two.obj.Begin(5); return func() { two.obj.Abandon(5) } },
	} {
		end := stay()
		f.store.evict(1 << 40)
		if got := f.read(one); !slices.Equal(got, []int{off + 5}) {
			t.Errorf("%s: %v are left", name, got)
		}
		if got := f.read(two); !slices.Equal(got, []int{5}) {
			t.Errorf("%s: %v are left in the twin", name, got)
		}
		end()
	}
	r := two.obj.NewReader(two.lay.Files[0], &noSource{})
	if e := one.obj.Evict(extent.Extent{Len: one.lay.Size}); e.Freed != 0 || e.InUse != kin {
		t.Errorf("of a file that is open in the twin: %+v", e)
	}
	r.Close()
	f.audit("in between")
	if e := one.obj.Evict(extent.Extent{Len: one.lay.Size}); e.Freed != kin || e.InUse != 0 {
		t.Errorf("%+v", e)
	}
	if len(f.read(one))+len(f.read(two)) > 0 || f.used() != 0 || du(t, f.dir) != 0 {
		t.Errorf("%d bytes charged, %d on disk", f.used(), du(t, f.dir))
	}
	f.audit("in the end")
}

// The wrong bytes that a peer sent to one never reach readers of the other.
func TestTwinsFillAtOnce(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	defer f.close()
	f.get(one, two)
	bad := make([]byte, kin)
	begin := func(w *thing) {
		if err := w.obj.Begin(2); err != nil {
			t.Fatal(err)
		}
	}
	begin(one)
	begin(two)
	if f.used() != 2*kin {
		t.Errorf("%d bytes are charged while two write", f.used())
	}
	write := func(w *thing, p []byte) {
		if err := w.obj.WriteAt(p, 2*kin); err != nil {
			t.Fatal(err)
		}
	}
	write(one, one.bytes(2))
	write(two, bad) // over it
	one.obj.Commit(2, one.tag(2))
	if f.used() != kin {
		t.Errorf("%d bytes are charged", f.used())
	}
	if got := f.read(one); len(got) > 0 {
		t.Errorf("%v are there", got)
	}
	begin(one)
	write(one, one.bytes(2))
	one.obj.Commit(2, one.tag(2))
	write(two, bad) // it has not heard yet
	if len(f.read(one)) != 1 || len(f.read(two)) != 1 {
		t.Error("a unit that was verified is gone")
	}
	two.obj.Abandon(2)
	if len(f.read(one)) != 1 || len(f.read(two)) != 1 {
		t.Error("a unit that was verified is gone, because another gave up")
	}
	f.audit("in the end")
}

// A twin that is closed while another writes what it brought makes no difference.
func TestTwinGoesWhileTheOtherWrites(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	defer f.close()
	f.get(one, two)
	f.fill(one, 2)
	if err := two.obj.Begin(2); err != nil { // it looked before, and has not heard
		t.Fatal(err)
	}
	f.put(one)
	if err := two.obj.WriteAt(make([]byte, kin), 2*kin); err != nil { // somebody lies
		t.Fatal(err)
	}
	if got := f.read(two); !slices.Equal(got, []int{2}) {
		t.Errorf("%v are there", got)
	}
	f.get(one)
	if err := two.obj.WriteAt(two.bytes(2), 2*kin); err != nil {
		t.Fatal(err)
	}
	two.obj.Commit(2, two.tag(2))
	for _, w := range f.all {
		if got := f.read(w); !slices.Equal(got, []int{2}) {
			t.Errorf("%v are in %s", got, w.lay.Key)
		}
	}
	f.audit("in the end")
}

// Who finishes a unit that another finished before him, and that nobody has hashed, does not
// vouch for it: what he wrote was left out.
func TestTwinsFinishOneAfterTheOther(t *testing.T) {
	for _, alone := range []bool{false, true} {
		f, one, two := couple(t, "x", "x")
		f.get(one, two)
		for _, w := range f.all {
			if err := w.obj.Begin(2); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range [][]byte{one.bytes(2), make([]byte, kin)} {
			if err := two.obj.WriteAt(p, 2*kin); err != nil {
				t.Fatal(err)
			}
		}
		one.obj.Commit(2, one.tag(2))
		if alone {
			f.put(one)
		}
		if err := two.obj.WriteAt(two.bytes(2), 2*kin); err != nil {
			t.Fatal(err)
		}
		two.obj.Commit(2, two.tag(2))
		if got := f.read(two); len(got) > 0 {
			t.Errorf("%v are there", got)
		}
		f.audit("in the end")
		f.close()
	}
}

// Who is removed, or loses its file to somebody else, leaves the other what it has.
func TestOneOfTwoGoes(t *testing.T) {
	for _, first := range []int{0, 1} {
		for name, remove := range map[string]func(f *family, w *thing){
			"evicted": func(f *family, w *thing) { f.put(w); f.store.EvictFolder(w.lay.Key) },
			"deleted": func(f *family, w *thing) { f.put(w); os.RemoveAll(filepath.Join(f.dir, "objects", string(w.lay.Key))) },
			"no file": func(f *family, w *thing) {
				f.put(w)
				os.Remove(filepath.Join(f.dir, "objects", string(w.lay.Key), "body", "0"))
			},
			"restarts": func(f *family, w *thing) { f.close(); f.open(); f.store.EvictFolder(w.lay.Key); f.get(f.other(w)) },
			"killed":   func(f *family, w *thing) { f.crash(); f.open(); f.store.EvictFolder(w.lay.Key); f.get(f.other(w)) },
		} {
			t.Run(fmt.Sprint(name, first), func(t *testing.T) {
				f, one, two := couple(t, "x", "x")
				f.get(one, two)
				f.fill(one, upTo(20)...)
				f.fill(two, 30)
				goes := f.all[first]
				stays := f.other(goes)
				remove(f, goes)
				want := append(upTo(20), 30)
				if got := f.read(stays); !slices.Equal(got, want) {
					t.Errorf("%v are left", got)
				}
				f.fill(stays, 40)
				f.audit("one is gone")
				f.get(goes)
				if got := f.read(goes); !slices.Equal(got, append(want, 40)) {
					t.Errorf("opened again it has %v", got)
				}
				f.audit("it is back")
				f.put(stays)
				f.drop(goes)
				f.audit("dropped")
				f.get(stays)
				if got := f.read(stays); len(got) > 0 {
					t.Errorf("%v are left of what was dropped", got)
				}
				if f.used() != 0 || du(t, f.dir) != 0 {
					t.Errorf("%d bytes charged, %d on disk", f.used(), du(t, f.dir))
				}
				f.close()
			})
		}
	}
}

func (f *family) other(w *thing) *thing {
	if f.all[0] == w {
		return f.all[1]
	}
	return f.all[0]
}

// What was punched through one link is not served through another, whose journal does not know.
func TestHoleBehindTheBack(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	f.get(one, two)
	f.fill(one, upTo(10)...)
	f.put(two)
	one.obj.drop(3, 6)
	f.put(one)
	if f.store.EvictFolder("ih-one") == 0 { // one link is left, and a clean mark
		t.Error("nothing to evict")
	}
	f.close()
	f.open()
	f.get(two)
	if got, want := f.read(two), []int{0, 1, 2, 6, 7, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("%v are there, want %v", got, want)
	}
	f.audit("in the end")
	f.close()
}

// Who is alone with its file again knows all of it, and hashes nothing more.
func TestAloneAgain(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	f.get(one, two)
	f.fill(one, upTo(10)...)
	f.put(two)
	one.obj.drop(3, 6)
	f.put(one)
	f.store.EvictFolder("ih-one")
	f.get(two)
	if p := make([]byte, kin); two.obj.ReadPresent(p, 0) != nil || !bytes.Equal(p, two.bytes(0)) {
		t.Error("the first unit is gone")
	}
	hashed, verify := 0, two.lay.Verify
	two.lay.Verify = func(u int, p, tag []byte) bool { hashed++; return verify(u, p, tag) }
	for range 2 {
		f.close()
		f.open()
		f.get(two)
		if got, want := f.read(two), []int{0, 1, 2, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("%v are there, want %v", got, want)
		}
	}
	if hashed != 6 {
		t.Errorf("%d units were hashed, want those that nobody read before, once", hashed)
	}
	f.close()
}

// A file whose reader outlived its daemon is lent to whoever shares it.
func TestTwinOfWhatIsStillRead(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	f.get(one, two)
	f.fill(one, upTo(one.obj.units)...)
	r := one.obj.NewReader(one.lay.Files[0], &noSource{})
	fd, ok := r.Backing()
	if !ok {
		t.Fatal("not lent")
	}
	f.store.evict(1 << 40)
	if len(f.read(two)) != two.obj.units {
		t.Error("what the kernel reads was taken from the twin")
	}
	kernel, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kernel)
	f.crash()
	f.open()
	f.get(two)
	if n := len(f.read(two)); n > 0 {
		t.Errorf("%d units of a file are used that somebody reads", n)
	}
	f.fill(two, 0, 1)
	f.drop(two)
	p := make([]byte, one.lay.Size)
	if _, err := unix.Pread(kernel, p, 0); err != nil || !bytes.Equal(p, one.truth) {
		t.Error("holes were punched under who reads", err)
	}
	f.close()
}

// A hit in a file that is shared costs what any hit costs.
func TestHitOfTwinsAllocatesNothing(t *testing.T) {
	f, one, two := couple(t, "x", "x")
	defer f.close()
	f.get(one, two)
	f.fill(one, upTo(one.obj.units)...)
	p := make([]byte, 100_000)
	if n := testing.AllocsPerRun(100, func() {
		if err := two.obj.ReadPresent(p, 5000); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzContents: any bytes where the list of a folder was, and damage to one that was whole. What
// is read was written; and nothing passes in another folder.
func FuzzContents(f *testing.F) {
	whole := content{ContentID{1}, 3, 4, true}.append(content{ContentID{2}, 5, 6, false}.append(nil, "ih-one"), "ih-one")
	f.Add(whole, uint16(0), byte(0))
	f.Add(whole, uint16(50), byte(1))
	f.Add(whole[:len(whole)-3], uint16(0), byte(0))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		for n, c := range parseContents(b, "ih-one") {
			if n != c.file || !bytes.Contains(b, content{c.id, c.file, c.first, false}.append(nil, "ih-one")) && !bytes.Contains(b, content{c.id, c.file, c.first, true}.append(nil, "ih-one")) {
				t.Errorf("%d: %+v", n, c)
			}
		}
		mine := content{ContentID{9}, uint32(at), 7, flip&1 == 0}
		list := mine.append(slices.Clone(b[:len(b)/contentSize*contentSize]), "ih-two")
		if got := parseContents(list, "ih-two")[mine.file]; got != mine {
			t.Errorf("%+v is read as %+v", mine, got)
		}
		if len(parseContents(list[len(list)-contentSize:], "ih-one")) > 0 {
			t.Error("a record passes in another folder")
		}
		if i := len(list) - contentSize + int(at)%contentSize; flip != 0 {
			list[i] ^= flip
			if len(parseContents(list[len(list)-contentSize:], "ih-two")) > 0 {
				t.Errorf("damage at %d is not noticed", i)
			}
		}
	})
}

// Lists and journals of others that are not what they should be lead to nothing that is wrong.
func TestListsOfSomebodyElse(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string) error{
		"not there": func(t *testing.T, dir string) error { return os.Remove(filepath.Join(dir, contentsFile)) },
		"empty": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, contentsFile), nil, 0o600)
		},
		"noise": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, contentsFile), bytes.Repeat([]byte("noise"), 1000), 0o600)
		},
		"a folder": func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, contentsFile)), os.Mkdir(filepath.Join(dir, contentsFile), 0o700))
		},
		"a link": func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, contentsFile)), os.Symlink("/etc/passwd", filepath.Join(dir, contentsFile)))
		},
		"of a file that is not there": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, contentsFile), content{ContentID{'x'}, 1 << 31, 0, false}.append(nil, "ih-one"), 0o600)
		},
		"of other units": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, contentsFile), content{ContentID{'x'}, 0, 1 << 31, false}.append(nil, "ih-one"), 0o600)
		},
		"no journal":   func(t *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "units")) },
		"a short body": func(t *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "body", "0"), 1<<20) },
		"a body that is a link": func(t *testing.T, dir string) error {
			path := filepath.Join(dir, "body", "0")
			return errors.Join(os.Rename(path, path+"+"), os.Symlink(path+"+", path))
		},
		"a body of something else": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "body", "0"), make([]byte, 1<<20+5000), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, one, two := couple(t, "x", "x")
			f.get(one)
			f.fill(one, upTo(one.obj.units)...)
			f.close()
			if err := harm(t, filepath.Join(f.dir, "objects", "ih-one")); err != nil {
				t.Fatal(err)
			}
			f.open()
			f.get(two)
			if got := f.read(two); len(got) > 0 {
				t.Errorf("%d units are shared", len(got))
			}
			f.fill(two, 1, 2)
			f.close()
		})
	}
}
