package utp

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// path is one direction of a simulated network.
type path struct {
	delay, jitter time.Duration
	loss, twice   float64
	rate          float64 // bytes/s; 0 has no limit
	queue         int     // bytes in front of it; 0 has no limit
	free          time.Duration
	sent, dropped int
	longest       time.Duration
}

type event struct {
	at   time.Duration
	n    int
	to   int
	data []byte
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { o := *e; x := o[len(o)-1]; *e = o[:len(o)-1]; return x }

// sim is two machines and the network between them. Side 0 dials.
type sim struct {
	t     testing.TB
	now   time.Duration
	m     [2]*machine
	paths [2]path // from 0 to 1, and back
	rnd   *rand.Rand
	queue events
	n     int
	data  [2][]byte // what each has still to write
	got   [2][]byte // what each has read
	slow  [2]bool   // does not read
	shut  [2]bool   // closes when all is written
	cut   bool      // nothing arrives any more
	step  func()
}

const skew = 3e9 // µs by which the clocks of the two differ: it wraps around

func newSim(t testing.TB, there, back path) *sim {
	s := &sim{t: t, now: time.Hour, paths: [2]path{there, back}, rnd: rand.New(rand.NewPCG(1, 2))}
	s.m[0] = dialer(s.now, 7, 65530, payload4, nil)
	return s
}

func (s *sim) flush(side int) {
	m := s.m[side]
	m.output(s.now)
	from := 0
	for _, to := range m.out.ends {
		s.send(side, bytes.Clone(m.out.data[from:to]))
		from = to
	}
	m.out = burst{}
}

func (s *sim) send(side int, b []byte) {
	p := &s.paths[side]
	p.sent++
	if s.rnd.Float64() < p.loss || s.cut {
		p.dropped++
		return
	}
	at := s.now
	if p.rate > 0 {
		start := max(s.now, p.free)
		if p.queue > 0 && (start-s.now).Seconds()*p.rate > float64(p.queue) {
			p.dropped++
			return
		}
		p.longest = max(p.longest, start-s.now)
		p.free = start + time.Duration(float64(len(b)+28)/p.rate*1e9)
		at = p.free
	}
	for again := true; again; again = s.rnd.Float64() < p.twice {
		s.n++
		heap.Push(&s.queue, event{at + p.delay + time.Duration(s.rnd.Int64N(int64(p.jitter)+1)), s.n, 1 - side, b})
	}
}

// work lets the programs on both sides write and read.
func (s *sim) work() {
	buf := make([]byte, 64<<10)
	for side, m := range s.m {
		if m == nil {
			continue
		}
		if m.state == open {
			s.data[side] = s.data[side][m.write(s.data[side]):]
		}
		for !s.slow[side] {
			n := m.read(buf)
			if n == 0 {
				break
			}
			s.got[side] = append(s.got[side], buf[:n]...)
		}
		if s.shut[side] && len(s.data[side]) == 0 && m.state == open {
			m.shut(s.now)
		}
		s.flush(side)
	}
	if s.step != nil {
		s.step()
	}
}

// run goes on until done, or nothing happens any more, or the time is over.
func (s *sim) run(limit time.Duration, done func() bool) {
	end := s.now + limit
	s.work()
	for !done() {
		next := end
		if len(s.queue) > 0 {
			next = min(next, s.queue[0].at)
		}
		for _, m := range s.m {
			if m != nil {
				if at := m.next(); at != 0 {
					next = min(next, at)
				}
			}
		}
		if next >= end {
			s.now = end
			return
		}
		s.now = max(s.now, next)
		for len(s.queue) > 0 && s.queue[0].at <= s.now {
			s.arrive(heap.Pop(&s.queue).(event))
		}
		s.work()
	}
}

func (s *sim) arrive(e event) {
	p, ok := parse(e.data)
	if !ok {
		s.t.Fatalf("sent what can not be read: %x", e.data)
	}
	if e.to == 1 { // as if the clock of 0 were another
		p.stamp += uint32(skew)
	} else if p.diff != 0 {
		p.diff -= uint32(skew)
	}
	m := s.m[e.to]
	if m == nil {
		if p.kind != kindSyn {
			return
		}
		s.m[1] = answerer(s.now, &p, 65000, payload4, nil)
		return
	}
	m.input(s.now, s.now, &p)
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// What is written on one side is read on the other, whatever the network does.
func TestSimulated(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name  string
		there path
		size  int
		least float64 // bytes/s
	}{
		{"loopback", path{delay: 50 * time.Microsecond}, 20 * mb, 50e6},
		{"50ms 2MB/s", path{delay: 25 * time.Millisecond, rate: 2e6, queue: 600e3}, 20 * mb, 1.75e6},
		{"50ms 2MB/s short queue", path{delay: 25 * time.Millisecond, rate: 2e6, queue: 50e3}, 20 * mb, 1.2e6},
		{"200ms", path{delay: 100 * time.Millisecond, rate: 2e6, queue: 600e3}, 20 * mb, 1.5e6},
		{"200ms 10MB/s", path{delay: 100 * time.Millisecond, rate: 10e6, queue: 3e6}, 60 * mb, 4e6},
		{"loss 1%", path{delay: 25 * time.Millisecond, rate: 2e6, loss: 0.01}, 5 * mb, 150e3},
		{"loss 5%", path{delay: 25 * time.Millisecond, rate: 2e6, loss: 0.05}, 2 * mb, 50e3},
		{"loss 30%", path{delay: 5 * time.Millisecond, loss: 0.3}, mb / 4, 2e3},
		{"reordering", path{delay: 20 * time.Millisecond, jitter: 10 * time.Millisecond}, 5 * mb, 100e3},
		{"everything", path{delay: 20 * time.Millisecond, jitter: 15 * time.Millisecond, loss: 0.02, twice: 0.05}, 2 * mb, 50e3},
	} {
		t.Run(c.name, func(t *testing.T) {
			back := c.there
			s := newSim(t, c.there, back)
			want := noise(c.size)
			s.data = [2][]byte{want[:c.size/2], want}
			began := s.now
			s.run(time.Hour, func() bool { return len(s.got[0]) == c.size && len(s.got[1]) == c.size/2 })
			if !bytes.Equal(s.got[0], want) || !bytes.Equal(s.got[1], want[:c.size/2]) {
				t.Fatalf("%d and %d bytes came, or wrong ones; of %d and %d (%v, %v)", len(s.got[0]), len(s.got[1]), c.size, c.size/2, s.m[0].err, s.m[1].err)
			}
			rate := float64(c.size) / (s.now - began).Seconds()
			p := s.paths[1]
			t.Logf("%.0f kB/s, %d packets, %d dropped (%.1f %% more than needed), longest queue %v", rate/1e3, p.sent, p.dropped,
				100*(float64(p.sent)/(float64(c.size)/payload4)-1), p.longest)
			if rate < c.least {
				t.Errorf("%.0f bytes/s, want %.0f", rate, c.least)
			}
			if c.there.rate > 0 && c.there.queue > 500e3 && p.longest > 350*time.Millisecond {
				t.Errorf("a queue of %v", p.longest)
			}
			for side, m := range s.m {
				if m.aheadBy != 0 || len(m.ahead) != 0 || m.held() != 0 {
					t.Errorf("side %d still holds %d bytes", side, m.held())
				}
			}
		})
	}
}

// Close sends what was written; then both are over, and the other side reads to the end.
func TestClose(t *testing.T) {
	for _, loss := range []float64{0, 0.2} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			p := path{delay: 10 * time.Millisecond, loss: loss}
			s := newSim(t, p, p)
			s.data[0] = noise(100_000)
			want := s.data[0]
			s.shut[0] = true
			s.run(time.Minute, func() bool { return s.m[1] != nil && s.m[1].eof })
			s.work()
			if !bytes.Equal(s.got[1], want) || !errors.Is(s.m[1].readErr(), io.EOF) {
				t.Fatalf("%d bytes, %v", len(s.got[1]), s.m[1].readErr())
			}
			s.shut[1] = true
			s.run(time.Minute, func() bool { return s.m[0].state == over && s.m[1].state == over })
			if s.m[0].state != over || s.m[1].state != over || s.m[0].next() != 0 {
				t.Errorf("%v %v", s.m[0].state, s.m[1].state)
			}
			if !errors.Is(s.m[0].readErr(), net.ErrClosed) {
				t.Error(s.m[0].readErr())
			}
		})
	}
}

// Nobody answers: the three packets of a call, then the end, within six seconds.
func TestNobodyThere(t *testing.T) {
	s := newSim(t, path{loss: 1}, path{})
	began := s.now
	s.run(time.Minute, func() bool { return s.m[0].state == over })
	if took := s.now - began; took > 6*time.Second || s.paths[0].sent != synTries {
		t.Errorf("%v, %d packets", took, s.paths[0].sent)
	}
	if err := s.m[0].err; !errors.Is(err, errTimeout) {
		t.Error(err)
	}
}

// The line goes dead: both ends find out in a minute.
func TestLineCut(t *testing.T) {
	p := path{delay: 10 * time.Millisecond}
	s := newSim(t, p, p)
	s.data[0] = noise(10 << 20)
	s.run(time.Minute, func() bool { return len(s.got[1]) > 1<<20 })
	s.cut = true
	began := s.now
	s.run(2*time.Minute, func() bool { return s.m[0].state == over })
	if took := s.now - began; took > time.Minute || !errors.Is(s.m[0].err, errTimeout) {
		t.Errorf("%v, %v", took, s.m[0].err)
	}
}

// Who does not read is sent no more than the window, and goes on when it reads again.
func TestWindow(t *testing.T) {
	p := path{delay: 10 * time.Millisecond, loss: 0.01}
	s := newSim(t, p, p)
	want := noise(3 * maxMemory)
	s.data[0] = want
	s.slow[1] = true
	s.run(time.Minute, func() bool { return false })
	if held := s.m[1].held(); held > maxMemory || held < maxMemory/2 {
		t.Fatalf("%d bytes held", held)
	}
	s.slow[1] = false
	s.run(time.Minute, func() bool { return len(s.got[1]) == len(want) })
	if !bytes.Equal(s.got[1], want) {
		t.Fatalf("%d bytes of %d; %v %v", len(s.got[1]), len(want), s.m[0].err, s.m[1].err)
	}
}

// A single packet that is lost at the end of what was sent is not waited for half a
// second.
func TestLastPacketLost(t *testing.T) {
	p := path{delay: 10 * time.Millisecond}
	s := newSim(t, p, p)
	s.data[0] = noise(100)
	s.run(time.Minute, func() bool { return len(s.got[1]) == 100 })
	s.run(time.Second, func() bool { return len(s.m[0].sent) == 0 })
	s.cut = true
	s.data[0] = noise(17)
	s.work()
	s.cut = false
	began := s.now
	s.run(time.Minute, func() bool { return len(s.got[1]) == 117 })
	if took := s.now - began; took > 200*time.Millisecond {
		t.Error(took)
	}
}

// The other side has gone and come back without memory: its RESET ends the connection.
// A RESET of somebody who guesses does not.
func TestReset(t *testing.T) {
	p := path{delay: 10 * time.Millisecond}
	s := newSim(t, p, p)
	s.data[0] = noise(1000)
	s.run(time.Minute, func() bool { return len(s.got[1]) == 1000 })
	m := s.m[1]
	m.input(s.now, s.now, &packet{kind: kindReset, conn: m.recvID, ack: m.seq + 7})
	m.input(s.now, s.now, &packet{kind: kindReset, conn: m.recvID, ack: m.seq - 500})
	if m.state != open {
		t.Fatal("a guess ended it")
	}
	m.input(s.now, s.now, &packet{kind: kindReset, conn: m.recvID, ack: m.seq - 1})
	if m.state != over || !errors.Is(m.readErr(), errReset) {
		t.Error(m.state, m.readErr())
	}
}
