package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// Two or three objects that share files, in the hands of many at once; between the rounds they
// are closed, killed and harmed. What is read is right or absent, and the books are right. A
// million operations with BTMOUNT_SOAK=1.
func TestTwinsManyAtOnce(t *testing.T) {
	rounds, each := 30, 300
	if os.Getenv("BTMOUNT_SOAK") != "" {
		rounds, each = 300, 1000
	}
	f := newFamily(t, 150*kin, trio()...)
	m := &twinModel{family: f, rounds: rounds, each: each}
	m.run()
	t.Logf("%d operations; %d reads, of which %d hit, %d of what another brought; %d files lent; %d units moved to memory; %d copies of the folder were read", m.ops.Load(), m.reads.Load(), m.hits.Load(), m.gifts.Load(), m.lent.Load(), m.memory.Load(), m.copies)
	if m.hits.Load() < m.reads.Load()/20 || m.gifts.Load() == 0 || m.memory.Load() == 0 {
		t.Error("next to nothing was read")
	}
	if m.ops.Load() < int64(rounds*each*4) {
		t.Error("too few operations")
	}
}

// The same on a disk that is full most of the time, so that records are lost as well.
func TestTwinsOnFullDisk(t *testing.T) {
	f := &family{t: t, dir: tmpfs(t, "2m"), limit: 1 << 30, all: trio()}
	f.open()
	m := &twinModel{family: f, rounds: 12, each: 300, full: true}
	m.run()
	t.Logf("%d operations; %d reads, of which %d hit", m.ops.Load(), m.reads.Load(), m.hits.Load())
}

// ballast is thrown overboard while the cache is closed and opened, on a disk that is full.
func (m *twinModel) ballast(n int) {
	if path := filepath.Join(m.dir, "ballast"); m.full && os.WriteFile(path, make([]byte, n), 0o600) != nil {
		os.Remove(path)
	}
}

// The same while somebody removes and cuts the files of the cache.
func TestTwinsWhoseFilesAreHarmed(t *testing.T) {
	f := newFamily(t, 150*kin, trio()...)
	m := &twinModel{family: f, rounds: 20, each: 200, live: true}
	m.run()
	t.Logf("%d operations; %d reads, of which %d hit", m.ops.Load(), m.reads.Load(), m.hits.Load())
}

func trio() []*thing {
	sizes := map[byte]int64{'x': 1<<20 + 5000, 'y': 1<<20 + 3*kin, 'p': 40_000}
	return []*thing{newThing("ih-a", kin, "pxy", sizes), newThing("ih-b", kin, "x", sizes), newThing("ih-c", kin, "ypx", sizes)}
}

type twinModel struct {
	*family
	full, live              bool // disk; harm
	memory                  atomic.Int64
	rounds, each            int
	ops, reads, hits, gifts atomic.Int64
	lent                    atomic.Int64
	lending                 sync.Mutex // held while a file is lent
	out                     int        // how many are
	copies                  int
}

func (m *twinModel) run() {
	r := rand.New(rand.NewPCG(21, 22))
	for round := range m.rounds {
		for _, w := range m.all {
			if w.obj == nil && (r.IntN(4) > 0 || w == m.all[0]) {
				m.get(w)
			}
		}
		m.audit(fmt.Sprint("before round ", round))
		if m.live && round%2 == 0 {
			m.harm(r)
			m.harmed = true
		}
		m.ballast(256 << 10)
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() {
				u := &twinUser{m: m, r: rand.New(rand.NewPCG(uint64(round), uint64(k)))}
				for range m.each {
					u.step()
				}
				u.end()
			})
		}
		if r.IntN(4) == 0 {
			wg.Go(func() { m.lookAtCopy() })
		}
		wg.Wait()
		if m.t.Failed() {
			return
		}
		m.audit(fmt.Sprint("after round ", round))
		if r.IntN(6) == 0 {
			m.lookAtCopy()
		}
		m.ballast(0)
		switch r.IntN(5) {
		case 0, 1: // goes on with those that are open
			continue
		case 2:
			m.close()
		case 3:
			m.crash()
		case 4:
			m.crash()
			if !m.full {
				m.harm(r)
			}
		}
		if r.IntN(3) == 0 {
			os.RemoveAll(filepath.Join(m.dir, "objects", string(m.all[r.IntN(len(m.all))].lay.Key)))
		}
		m.open()
	}
	for _, w := range m.all {
		if w.obj == nil {
			m.get(w)
		}
		m.read(w)
	}
	m.store.SetLimit(1 << 30)
	for _, w := range m.all {
		m.drop(w)
	}
	m.audit("all is dropped")
	if m.used() != 0 || du(m.t, m.dir) != 0 && !m.harmed {
		m.t.Errorf("%d bytes are charged for nothing, %d on disk", m.used(), du(m.t, m.dir))
	}
	m.close()
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, m.dir) {
			m.t.Errorf("still open: %s", to)
		}
	}
}

// harm flips a bit, cuts a file or removes a link.
func (m *twinModel) harm(r *rand.Rand) {
	for _, w := range m.all {
		for i, e := range w.lay.Files {
			path := filepath.Join(m.dir, "objects", string(w.lay.Key), "body", strconv.Itoa(i))
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				continue
			}
			at := r.Int64N(e.Len)
			switch n := r.IntN(8); {
			case n == 0:
				err = file.Truncate(at)
			case n == 1:
				err = os.Remove(path)
			case n < 4 && !m.live: // what is not hashed again would be believed
				_, err = file.WriteAt([]byte{w.truth[e.Off+at] ^ 1}, at)
			}
			if err = errors.Join(err, file.Close()); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// lookAtCopy reads what kill -9 would have left now.
func (m *twinModel) lookAtCopy() {
	m.copies++
	to := m.t.TempDir()
	// Who copies while others write and remove does not find everything.
	if out, err := exec.Command("cp", "-a", "--sparse=always", m.dir+"/.", to).CombinedOutput(); err != nil && !strings.Contains(string(out), "No such file") {
		m.t.Errorf("cp: %v: %s", err, out)
	}
	c := &family{t: m.t, dir: to, limit: 1 << 30}
	for _, w := range m.all {
		c.all = append(c.all, &thing{lay: w.lay, truth: w.truth})
	}
	c.open()
	c.get(c.all...)
	for _, w := range c.all {
		for u := range w.units() {
			p := make([]byte, len(w.bytes(u)))
			if err := w.obj.ReadPresent(p, int64(u)*kin); err == nil && !bytes.Equal(p, w.bytes(u)) {
				m.t.Errorf("the copy has wrong bytes in unit %d of %s", u, w.lay.Key)
			}
		}
	}
	c.audit("copy")
	c.close()
	os.RemoveAll(to)
}

// twinUser is one of those who use the objects.
type twinUser struct {
	m    *twinModel
	r    *rand.Rand
	lent []func() // end what was lent
}

func (v *twinUser) end() {
	for _, f := range v.lent {
		f()
	}
	v.lent = nil
}

func (v *twinUser) step() {
	m := v.m
	m.ops.Add(1)
	w := m.all[v.r.IntN(len(m.all))]
	if v.r.IntN(60) == 0 {
		v.reopen(w)
		return
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.obj == nil {
		if v.r.IntN(5) == 0 {
			m.store.EvictFolder(w.lay.Key)
		}
		return
	}
	o := w.obj
	u := v.r.IntN(o.units)
	switch v.r.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		for range 1 + v.r.IntN(6) {
			v.bring(w, u)
			u = (u + 1) % o.units
		}
	case 6:
		if v.r.IntN(4) == 0 { // a whole file, which can be lent then
			first, last := w.lay.Files[v.r.IntN(len(w.lay.Files))].Units(kin)
			for u := int(first); u < int(last); u++ {
				v.bring(w, u)
			}
			v.lend(w)
		}
	case 7:
		m.store.evict(v.r.Int64N(5 * kin))
	case 8:
		// What is lent and turns out wrong is written over before everybody's eyes.
		m.lending.Lock()
		if m.out == 0 {
			o.drop(u, min(o.units, u+v.r.IntN(4)))
		}
		m.lending.Unlock()
	case 9:
		o.Guard(v, u, min(o.units, u+v.r.IntN(3)))
		defer o.Guard(v, 0, 0)
		m.store.evict(kin)
	case 10:
		v.lend(w)
	case 11:
		if v.r.IntN(4) == 0 {
			_ = o.Pin(extent.Extent{Off: int64(u) * kin, Len: v.r.Int64N(5 * kin)})
		} else {
			_ = o.Pin()
		}
	case 12:
		if v.r.IntN(10) == 0 {
			m.store.SetLimit((60 + v.r.Int64N(120)) * kin)
		}
	case 13:
		o.Recheck(u, min(o.units, u+3))
	case 14: // somebody waits, so that the unit may go to memory
		if wait := o.park(extent.Extent{Off: int64(u) * kin, Len: 1}); wait != nil {
			v.bring(w, u)
			o.unpark(wait)
		}
	case 15:
		if v.r.IntN(4) == 0 {
			m.store.Evict(v.r.Int64N(3 * kin))
		} else {
			o.Evict(extent.Extent{Off: int64(u) * kin, Len: 3 * kin})
		}
	default:
		v.read(w, u)
	}
}

// reopen closes an object, or opens it.
func (v *twinUser) reopen(w *thing) {
	if !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	var err error
	if w.obj == nil {
		w.obj, err = v.m.store.Object(w.lay)
	} else if len(w.obj.readers) == 0 {
		err = w.obj.Close()
		w.obj = nil
	}
	if err != nil && !(v.m.full && noSpace(err)) {
		v.m.t.Error(err)
	}
}

// bring fetches a unit from peers some of whom send wrong bytes, or gives up.
func (v *twinUser) bring(w *thing, u int) {
	o := w.obj
	if !w.claimed[u].CompareAndSwap(false, true) {
		return
	}
	defer w.claimed[u].Store(false)
	if o.Known(u) || o.Begin(u) != nil {
		return
	}
	e := o.UnitExtent(u)
	noise := bytes.Repeat([]byte("lies"), 1250)
	for off := e.Off; off < e.End(); off += 5000 {
		end := min(off+5000, e.End())
		if v.r.IntN(60) == 0 {
			o.Abandon(u)
			return
		}
		if v.r.IntN(20) == 0 && o.toMemory(u) { // if it is waited for
			v.m.memory.Add(1)
		}
		if v.r.IntN(5) == 0 {
			_ = o.WriteAt(noise[:end-off], off) // does not match its hash
		}
		if err := o.WriteAt(w.truth[off:end], off); v.m.full && noSpace(err) {
			o.Abandon(u)
			return
		} else if err != nil {
			v.m.t.Errorf("%s unit %d: %v", o.Key, u, err)
			o.Abandon(u)
			return
		}
	}
	o.Commit(u, w.tag(u))
}

func (v *twinUser) read(w *thing, u int) {
	off := int64(u)*kin + v.r.Int64N(100)
	p := make([]byte, min(1+v.r.Int64N(40_000), w.lay.Size-off))
	if len(p) == 0 {
		return
	}
	v.m.reads.Add(1)
	switch err := w.obj.ReadPresent(p, off); {
	case errors.Is(err, ErrAbsent):
	case err != nil:
		v.m.t.Errorf("%s at %d: %v", w.lay.Key, off, err)
	case !bytes.Equal(p, w.truth[off:][:len(p)]):
		v.m.t.Errorf("%s: wrong bytes at %d", w.lay.Key, off)
	default:
		v.m.hits.Add(1)
		if !w.claimed[u].Load() && w.obj.sharedBody(u) != nil && len(w.obj.sharedBody(u).share.mates()) > 1 {
			v.m.gifts.Add(1)
		}
	}
}

func (s *share) mates() []*body {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.twins
}

// lend reads a file as the kernel does, if it is all there, for a while; or ends that.
func (v *twinUser) lend(w *thing) {
	if len(v.lent) > 1 {
		v.lent[0]()
		v.lent = v.lent[1:]
	}
	span := w.lay.Files[v.r.IntN(len(w.lay.Files))]
	r := w.obj.NewReader(span, &noSource{})
	v.m.lending.Lock()
	fd, ok := r.Backing()
	if ok {
		v.m.out++
	}
	v.m.lending.Unlock()
	if !ok {
		r.Close()
		return
	}
	key := w.lay.Key
	check := func(when string) {
		p := make([]byte, span.Len)
		if n, err := unix.Pread(fd, p, 0); err != nil || !bytes.Equal(p[:n], w.truth[span.Off:span.End()]) {
			at := 0
			for at < n && p[at] == w.truth[span.Off:][at] {
				at++
			}
			v.m.t.Errorf("a file of %s that was handed out, %s: %d bytes, %v, wrong at %d (unit %d): %x, not %x", key, when, n, err, at, at/kin, p[at:min(at+8, len(p))], w.truth[int(span.Off)+at:][:8])
		}
	}
	check("at once")
	v.m.lent.Add(1)
	v.lent = append(v.lent, func() {
		w.mu.RLock() // it is open, since it has a reader
		defer w.mu.RUnlock()
		check("later")
		r.Close()
		v.m.lending.Lock()
		v.m.out--
		v.m.lending.Unlock()
	})
}
