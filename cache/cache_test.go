package cache

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/cache/extent"
)

func TestMain(m *testing.M) {
	inAnotherProcess()
	goleak.VerifyTestMain(m)
}

// world is a store, an object and the bytes that it should hold.
type world struct {
	t     testing.TB
	dir   string
	limit int64
	store *Store
	obj   *Object
	truth []byte
	lay   Layout
}

// newWorld makes an object of files whose edges fall inside units and blocks, with a
// pad between two of them.
func newWorld(t testing.TB, limit, unit int64, files ...int64) *world {
	w := makeWorld(t.TempDir(), limit, unit, files...)
	w.t = t
	w.open()
	return w
}

// makeWorld is newWorld, not opened yet.
func makeWorld(dir string, limit, unit int64, files ...int64) *world {
	w := &world{dir: dir, limit: limit, lay: Layout{Key: "ih-test", Unit: unit}}
	for i, n := range files {
		w.lay.Files = append(w.lay.Files, extent.Extent{Off: w.lay.Size, Len: n})
		w.lay.Size += n
		if i == 0 {
			w.lay.Size += 100 // a pad file: zeros, no body
		}
	}
	w.truth = make([]byte, w.lay.Size)
	r := rand.NewChaCha8([32]byte{7})
	for _, f := range w.lay.Files {
		r.Read(w.truth[f.Off:f.End()])
	}
	w.lay.Verify = func(u int, p, tag []byte) bool {
		e := extent.Unit(int64(u), unit, w.lay.Size)
		return sha1.Sum(p) == sha1.Sum(w.truth[e.Off:e.End()])
	}
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = Open(Config{Dir: w.dir, Limit: w.limit, OpenFiles: 4}); err != nil {
		w.t.Fatal(err)
	}
	if w.obj, err = w.store.Object(w.lay); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// crash ends the store as kill -9 would: nothing is written any more.
func (w *world) crash() {
	for _, b := range w.obj.bodies {
		w.store.pool.forget(b.file)
	}
	w.obj.journal.f.Close()
	w.store.lock.Close()
}

// fill writes and commits a unit.
func (w *world) fill(u int) {
	w.t.Helper()
	if err := w.obj.Begin(u); err != nil {
		w.t.Fatal(err)
	}
	e := w.obj.UnitExtent(u)
	if err := w.obj.WriteAt(w.truth[e.Off:e.End()], e.Off); err != nil {
		w.t.Fatal(err)
	}
	w.obj.Commit(u, w.tag(u))
}

// tag is what is kept with a unit, if anything is: its hash.
func (w *world) tag(u int) []byte {
	if w.lay.Tag == 0 {
		return nil
	}
	e := w.obj.UnitExtent(u)
	sum := sha1.Sum(w.truth[e.Off:e.End()])
	return sum[:]
}

// check compares every present unit with the truth.
func (w *world) check() (present int) {
	w.t.Helper()
	for u := range w.obj.Units() {
		e := w.obj.UnitExtent(u)
		p := make([]byte, e.Len)
		err := w.obj.ReadPresent(p, e.Off)
		if errors.Is(err, ErrAbsent) {
			continue
		}
		if err != nil {
			w.t.Fatalf("unit %d: %v", u, err)
		}
		if !bytes.Equal(p, w.truth[e.Off:e.End()]) {
			w.t.Fatalf("unit %d: wrong bytes", u)
		}
		present++
	}
	return present
}

// noSource is a Source that only counts.
type noSource struct {
	mu      sync.Mutex
	demands []Demand
	gone    int
}

func (s *noSource) Demand(_ ReaderID, d Demand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demands = append(s.demands, d)
}

func (s *noSource) Withdraw(ReaderID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone++
}

func (s *noSource) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.demands)
}

func TestReadWaitsForItsUnitsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1<<30, 16384, 40000, 100000)
		defer w.close()
		src := &noSource{}
		file := w.lay.Files[1]
		r := w.obj.NewReader(file, src)
		got := make([]byte, 20000)
		done := make(chan error, 1)
		go func() {
			n, err := r.ReadAt(context.Background(), got, 10)
			if err == nil && n != len(got) {
				err = io.ErrShortBuffer
			}
			done <- err
		}()
		synctest.Wait()
		f, l := extent.Extent{Off: file.Off + 10, Len: 20000}.Units(w.lay.Unit)
		if src.count() != 1 {
			t.Fatalf("%d demands for one miss", src.count())
		}
		w.fill(int(l)) // another unit: nobody wakes
		for u := int(f); u < int(l); u++ {
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("woke before unit %d: %v", u, err)
			default:
			}
			w.fill(u)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, w.truth[file.Off+10:file.Off+20010]) {
			t.Fatal("wrong bytes")
		}
		before := src.count()
		if n, err := r.ReadAt(context.Background(), got, 10); err != nil || n != len(got) {
			t.Fatal(n, err)
		}
		if d := src.count() - before; d > 1 {
			t.Errorf("%d demands for a hit", d)
		}
		r.Close()
		r.Close()
		if src.gone != 1 {
			t.Errorf("withdrawn %d times", src.gone)
		}
	})
}

func TestReadEndsByContextFailAndEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1<<30, 16384, 40000, 100000)
		defer w.close()
		r := w.obj.NewReader(w.lay.Files[0], &noSource{})
		why := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan error, 2)
		go func() { _, err := r.ReadAt(ctx, make([]byte, 10), 0); done <- err }()
		synctest.Wait()
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("cancelled read: %v", err)
		}
		if len(w.obj.waiters) != 0 {
			t.Error("a waiter is left")
		}
		go func() { _, err := r.ReadAt(context.Background(), make([]byte, 10), 0); done <- err }()
		synctest.Wait()
		w.obj.Fail(0, &CorruptError{"ih-test", 0})
		if err := <-done; !errors.As(err, new(*CorruptError)) {
			t.Errorf("failed read: %v", err)
		}
		w.fill(2)
		p := make([]byte, 100)
		if n, err := r.ReadAt(context.Background(), p, 39990); n != 10 || err != io.EOF {
			t.Errorf("read across the end: %d, %v", n, err)
		}
		if n, err := r.ReadAt(context.Background(), p, 40000); n != 0 || err != io.EOF {
			t.Errorf("read at the end: %d, %v", n, err)
		}
		if _, err := r.ReadAt(context.Background(), p, -1); err == nil {
			t.Error("negative offset accepted")
		}
	})
}

func TestCleanRestartKeepsEverything(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 40000, 1, 100000)
	for u := range w.obj.Units() {
		if u%3 != 0 {
			w.fill(u)
		}
	}
	used, _ := w.store.Usage()
	w.close()
	w.lay.Verify = func(int, []byte, []byte) bool { t.Error("hashed again after a clean stop"); return false }
	w.open()
	defer w.close()
	if again, _ := w.store.Usage(); again != used {
		t.Errorf("charged %d, before %d", again, used)
	}
	if n := w.check(); n != w.obj.Units()-(w.obj.Units()+2)/3 {
		t.Errorf("%d units present", n)
	}
}

func TestCrashHashesAgainAndFetchesNothing(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 40000, 100000)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	w.crash()
	w.open()
	if w.obj.Has(0) || !w.obj.Known(0) {
		t.Error("a unit of a killed session is trusted or forgotten")
	}
	if n := w.check(); n != w.obj.Units() {
		t.Errorf("%d of %d units after a crash", n, w.obj.Units())
	}
	w.close()
	// What was verified again stays so; a session between must not launder the rest.
	w.lay.Verify = func(int, []byte, []byte) bool { t.Error("hashed twice"); return false }
	w.open()
	w.check()
	w.close()
}

func TestUncheckedUnitsStaySuspectOverCleanSessions(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 100000)
	w.fill(0)
	w.fill(1)
	w.crash()
	// The power cut took the data of unit 1.
	path := filepath.Join(w.dir, "objects", "ih-test", "body", "0")
	if err := os.WriteFile(path, w.truth[:16384], 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.close() // nothing was read
	w.open()
	defer w.close()
	if n := w.check(); n != 1 {
		t.Errorf("%d units, want only the first", n)
	}
}

// Where the metadata has no hash of a unit, the journal keeps it: units are verified
// by it after a crash, and after the journal was written anew.
func TestTagsVerifyAfterACrash(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 40000, 100000)
	w.close()
	w.lay.Key, w.lay.Tag = "ih-tagged", sha1.Size
	w.lay.Verify = func(_ int, p, tag []byte) bool {
		sum := sha1.Sum(p)
		return bytes.Equal(sum[:], tag)
	}
	w.open()
	for range 40 { // evicted and fetched again: many records
		for u := range w.obj.Units() {
			w.fill(u)
			w.obj.drop(u, u+1)
		}
	}
	for u := range w.obj.Units() {
		w.fill(u)
	}
	for range 2 {
		w.crash()
		w.open()
		if n := w.check(); n != w.obj.Units() {
			t.Errorf("%d of %d units after a crash", n, w.obj.Units())
		}
	}
	st, err := os.Stat(filepath.Join(w.obj.dir, "units"))
	if err != nil || st.Size() > int64(headerSize+(3*w.obj.Units())*(recordHead+sha1.Size+4)) {
		t.Errorf("journal of %d bytes was not written anew, %v", st.Size(), err)
	}
	// A bit that flipped in the body is found by the tag.
	w.crash()
	f, err := os.OpenFile(filepath.Join(w.obj.dir, "body", "0"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{w.truth[5] ^ 1}, 5)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.open()
	defer w.close()
	if n := w.check(); n != w.obj.Units()-1 {
		t.Errorf("%d of %d units after a bit flipped", n, w.obj.Units())
	}
}

func TestTornJournalIsCut(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 100000)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	w.close()
	path := filepath.Join(w.dir, "objects", "ih-test", "units")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		if n := w.check(); n != max(0, cut-headerSize)/(recordHead+4) {
			t.Fatalf("cut at %d: %d units", cut, n)
		}
		w.close()
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		w.check() // never a wrong byte, whatever is left
		w.close()
	}
}

func TestTamperedBodyIsNeverServed(t *testing.T) {
	w := newWorld(t, 1<<30, 16384, 100000)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	path := filepath.Join(w.dir, "objects", "ih-test", "body", "0")
	if err := os.Truncate(path, 20000); err != nil {
		t.Fatal(err)
	}
	if n := w.check(); n != 1 {
		t.Errorf("%d units of a body cut after the first", n)
	}
	w.close()
}

func TestBudgetHoldsAndPunchedBlocksAreFree(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 10*unit+8192, unit, 5000, 30*unit+777, 3*unit)
	blocks := func() (n int64) {
		filepath.Walk(filepath.Join(w.dir, "objects"), func(_ string, i os.FileInfo, _ error) error {
			if i.Mode().IsRegular() && i.Name() != "units" {
				n += i.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return nil
		})
		return n
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		w.fill(r.IntN(w.obj.Units()))
		used, limit := w.store.Usage()
		if used > limit {
			t.Fatalf("charged %d of %d", used, limit)
		}
		if b := blocks(); b > used {
			t.Fatalf("%d bytes on disk, %d charged", b, used)
		}
	}
	if n := w.check(); n < 6 {
		t.Errorf("only %d units kept", n)
	}
	for u := range w.obj.Units() {
		w.obj.drop(u, u+1)
	}
	if b := blocks(); b != 0 {
		t.Errorf("%d bytes on disk with no unit present", b)
	}
	if used, _ := w.store.Usage(); used != 0 {
		t.Errorf("charged %d for nothing", used)
	}
	w.close()
}

func TestFullOfWorkInProgressIsAnError(t *testing.T) {
	w := newWorld(t, 40000, 16384, 200000)
	defer w.close()
	for u := range 2 {
		if err := w.obj.Begin(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.obj.Begin(2); !errors.Is(err, ErrFull) {
		t.Fatalf("err = %v", err)
	}
	w.obj.Abandon(0)
	if err := w.obj.Begin(2); err != nil {
		t.Fatal(err)
	}
}

func TestFolderOfAnotherDaemonIsRefused(t *testing.T) {
	w := newWorld(t, 1<<20, 16384, 1000)
	defer w.close()
	_, err := Open(Config{Dir: w.dir, Limit: 1})
	want := fmt.Sprintf("in use by process %d", os.Getpid())
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("err = %v", err)
	}
}

// A read that waits for one unit had counted on another, which is dropped: it asks for both then.
func TestDroppedUnderAWaitingRead(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 1<<20, unit, 4*unit)
	defer w.close()
	w.fill(0)
	asked := make(chan Demand, 10)
	r := w.obj.NewReader(extent.Extent{Len: 4 * unit}, sourceFunc(func(d Demand) { asked <- d }))
	defer r.Close()
	done := make(chan error, 1)
	p := make([]byte, 2*unit)
	go func() { _, err := r.ReadAt(t.Context(), p, 0); done <- err }()
	<-asked
	if freed := w.store.evict(1 << 40); freed > 0 {
		t.Errorf("%d bytes were evicted though a read waits for them", freed)
	}
	w.obj.drop(0, 1)
	for d := range asked { // one that takes the need back, and one that has it again
		if len(d.Needs) > 0 {
			break
		}
	}
	w.fill(1)
	w.fill(0)
	if err := <-done; err != nil || !bytes.Equal(p, w.truth[:2*unit]) {
		t.Error(err)
	}
}

// sourceFunc is a Source that only tells.
type sourceFunc func(Demand)

func (f sourceFunc) Demand(_ ReaderID, d Demand) { f(d) }
func (f sourceFunc) Withdraw(ReaderID)           {}

// The folder of a daemon that stops is waited for.
func TestFolderOfOneThatLeaves(t *testing.T) {
	w := newWorld(t, 1<<20, 16384, 1000)
	w.fill(0)
	w.store.Leave()
	type opened struct {
		s   *Store
		err error
	}
	next := make(chan opened, 1)
	go func() {
		s, err := Open(Config{Dir: w.dir, Limit: 1 << 20})
		next <- opened{s, err}
	}()
	select {
	case o := <-next:
		t.Fatal("opened, or refused, before it is free: ", o.err)
	case <-time.After(waitForAny + 10*waitTick):
	}
	w.close()
	o := <-next
	if o.err != nil {
		t.Fatal(o.err)
	}
	if err := o.s.Close(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(w.dir, "lock")); err != nil || string(b) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("the lock says %q, %v", b, err)
	}
}

// TestModel does random work against an oracle: what is read is the truth, through
// evictions, clean restarts and crashes.
func TestModel(t *testing.T) {
	const unit = 4096 * 4
	w := newWorld(t, 12*unit, unit, 3*unit+11, 9000, 20*unit, 1, 4097)
	r := rand.New(rand.NewPCG(3, 4))
	ops := 30000
	if testing.Short() {
		ops = 3000
	}
	hits := 0
	for op := range ops {
		switch u := r.IntN(w.obj.Units()); r.IntN(200) {
		case 0:
			w.close()
			w.open()
		case 1:
			w.crash()
			w.open()
		default:
			off := r.Int64N(w.lay.Size)
			p := make([]byte, min(r.Int64N(3*unit)+1, w.lay.Size-off))
			switch err := w.obj.ReadPresent(p, off); {
			case err == nil:
				hits++
				if !bytes.Equal(p, w.truth[off:off+int64(len(p))]) {
					t.Fatalf("op %d: wrong bytes at %d", op, off)
				}
			case errors.Is(err, ErrAbsent):
				w.fill(u)
			default:
				t.Fatal(err)
			}
		}
	}
	if hits < ops/100 {
		t.Errorf("only %d hits", hits)
	}
	w.close()
}

// TestReadersAgainstEviction reads while everything is evicted all the time.
func TestReadersAgainstEviction(t *testing.T) {
	const unit = 16384
	w := newWorld(t, 12*unit, unit, 64*unit)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	filler := &fillSource{w: w, ch: make(chan int, 1000)}
	var wg sync.WaitGroup
	wg.Go(filler.run)
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			rd := w.obj.NewReader(w.lay.Files[0], filler)
			defer rd.Close()
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for range 300 {
				off := r.Int64N(63 * unit)
				p := make([]byte, r.Int64N(unit)+1)
				n, err := rd.ReadAt(ctx, p, off)
				if err != nil && err != io.EOF {
					t.Error(err)
					return
				}
				if !bytes.Equal(p[:n], w.truth[off:off+int64(n)]) {
					t.Errorf("wrong bytes at %d", off)
				}
			}
		})
	}
	readers.Wait()
	close(filler.ch)
	wg.Wait()
	w.close()
}

// fillSource fills what readers need.
type fillSource struct {
	w  *world
	ch chan int
}

func (s *fillSource) Demand(_ ReaderID, d Demand) {
	for _, e := range d.Needs {
		f, l := e.Units(s.w.lay.Unit)
		for u := f; u < l; u++ {
			s.ch <- int(u)
		}
	}
}
func (s *fillSource) Withdraw(ReaderID) {}
func (s *fillSource) run() {
	for u := range s.ch {
		if !s.w.obj.Has(u) {
			s.w.fill(u)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	w := newWorld(b, 1<<30, 1<<20, 64<<20)
	for u := range w.obj.Units() {
		w.fill(u)
	}
	r := w.obj.NewReader(w.lay.Files[0], &noSource{})
	p := make([]byte, 128<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.ReadAt(context.Background(), p, int64(i%400)*128<<10); err != nil {
			b.Fatal(err)
		}
	}
	w.close()
}
