package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cache/extent"
)

// Many do at once whatever can be done with a cache; between rounds it is closed, killed, its
// files are harmed after a kill, and it is opened again. What is read is right or absent,
// and the books are right in the end. A million operations with BTMOUNT_SOAK=1.
func TestManyAtOnce(t *testing.T) {
	rounds, each := 24, 600
	if os.Getenv("BTMOUNT_SOAK") != "" {
		rounds, each = 240, 1100
	}
	const workers, unit = 4, 10_000
	w := newWorld(t, 25*unit, unit, 5000, 300_000, 12_345, 1, 100_000)
	var ops, reads, hits atomic.Int64
	r := rand.New(rand.NewPCG(11, 12))
	for round := range rounds {
		var wg sync.WaitGroup
		claimed := make([]atomic.Bool, w.obj.Units()) // one writer each, as in the swarm
		for k := range workers {
			wg.Go(func() {
				m := &modeller{w: w, r: rand.New(rand.NewPCG(uint64(round), uint64(k))), claimed: claimed}
				defer m.end()
				for range each {
					m.step()
				}
				ops.Add(m.ops)
				reads.Add(m.reads)
				hits.Add(m.hits)
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		if used, _ := w.store.Usage(); used > w.store.limit+4*unit+8192 { // a limit that was lowered, with all in use
			t.Errorf("round %d: %d bytes charged of %d", round, used, w.store.limit)
		}
		switch r.IntN(4) {
		case 0:
			w.close()
		case 1:
			if err := w.obj.Close(); err != nil {
				t.Fatal(err)
			}
			w.close()
		case 2:
			w.crash()
		case 3:
			w.crash()
			for _, b := range w.obj.bodies { // a bit flips, a file is cut or goes
				f, err := os.OpenFile(b.path, os.O_RDWR, 0)
				if err != nil {
					continue
				}
				at := r.Int64N(b.span.Len)
				switch r.IntN(6) {
				case 0:
					err = f.Truncate(at)
				case 1:
					err = os.Remove(b.path)
				case 2, 3:
					_, err = f.WriteAt([]byte{w.truth[b.span.Off+at] ^ 1}, at)
				}
				if err = errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.open()
	}
	w.check()
	w.store.SetLimit(1 << 30)
	for u := range w.obj.Units() {
		w.obj.drop(u, u+1)
	}
	if used, _ := w.store.Usage(); used != 0 {
		t.Errorf("%d bytes are charged for nothing", used)
	}
	w.close()
	t.Logf("%d operations; %d reads, of which %d hit", ops.Load(), reads.Load(), hits.Load())
	if hits.Load() < reads.Load()/20 {
		t.Error("next to nothing was read")
	}
}

// modeller is one of those who use the cache.
type modeller struct {
	w                *world
	r                *rand.Rand
	claimed          []atomic.Bool
	lent             []*Reader
	ops, reads, hits int64
}

func (m *modeller) end() {
	for _, r := range m.lent {
		r.Close()
	}
	m.w.obj.Guard(m, 0, 0)
}

func (m *modeller) step() {
	o := m.w.obj
	u := m.r.IntN(o.Units())
	m.ops++
	switch m.r.IntN(16) {
	case 0, 1, 2, 3, 4:
		m.bring(u)
	case 5:
		m.w.store.evict(m.r.Int64N(5 * o.Unit))
	case 6:
		o.drop(u, min(o.Units(), u+m.r.IntN(4)))
	case 7:
		o.Guard(m, u, min(o.Units(), u+m.r.IntN(3)))
	case 8:
		m.lend()
	case 9:
		if m.r.IntN(4) == 0 {
			_ = o.Pin(extent.Extent{Off: int64(u) * o.Unit, Len: m.r.Int64N(5 * o.Unit)})
		} else {
			_ = o.Pin()
		}
	case 10:
		if m.r.IntN(10) == 0 {
			m.w.store.SetLimit((10 + m.r.Int64N(20)) * o.Unit)
		}
	default:
		m.read(u)
	}
}

// bring fetches a unit, or gives up in the middle.
func (m *modeller) bring(u int) {
	o := m.w.obj
	if !m.claimed[u].CompareAndSwap(false, true) {
		return
	}
	defer m.claimed[u].Store(false)
	if o.Known(u) || o.Begin(u) != nil {
		return
	}
	e := o.UnitExtent(u)
	for off := e.Off; off < e.End(); off += 3000 {
		if m.r.IntN(40) == 0 {
			o.Abandon(u)
			return
		}
		if err := o.WriteAt(m.w.truth[off:min(off+3000, e.End())], off); err != nil {
			m.w.t.Errorf("unit %d: %v", u, err)
			o.Abandon(u)
			return
		}
	}
	o.Commit(u, nil)
}

func (m *modeller) read(u int) {
	off := int64(u)*m.w.lay.Unit + m.r.Int64N(100)
	p := make([]byte, min(1+m.r.Int64N(15_000), m.w.lay.Size-off))
	if len(p) == 0 {
		return
	}
	m.reads++
	switch err := m.w.obj.ReadPresent(p, off); {
	case errors.Is(err, ErrAbsent):
	case err != nil:
		m.w.t.Errorf("at %d: %v", off, err)
	case !bytes.Equal(p, m.w.truth[off:][:len(p)]):
		m.w.t.Errorf("wrong bytes at %d", off)
	default:
		m.hits++
	}
}

// lend reads a file as the kernel does, if it is all there, for a while; or ends that.
func (m *modeller) lend() {
	if len(m.lent) > 2 {
		m.lent[0].Close()
		m.lent = m.lent[1:]
	}
	span := m.w.lay.Files[m.r.IntN(len(m.w.lay.Files))]
	r := m.w.obj.NewReader(span, &noSource{})
	fd, ok := r.Backing()
	if !ok {
		r.Close()
		return
	}
	p := make([]byte, span.Len)
	if n, err := unix.Pread(fd, p, 0); err != nil || !bytes.Equal(p[:n], m.w.truth[span.Off:span.End()]) {
		m.w.t.Errorf("a file that was handed out: %d bytes, %v, wrong", n, err)
	}
	m.reads++
	m.hits++
	m.lent = append(m.lent, r)
}
