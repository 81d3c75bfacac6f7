package webseed

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Config says what to serve from where.
type Config struct {
	URL    string
	Script bool // the server answers for pieces (BEP 17), not for files (BEP 19)
	Info   *metainfo.Info
	Agent  string // User-Agent
	Logger *slog.Logger
	// Do sends a request, follows redirects, and refuses what may not be asked.
	Do func(*http.Request) (*http.Response, error)
}

// Queue is how many requests may wait.
const Queue = 1024

const (
	workers = 3 // requests of HTTP at a time
	maxSpan = 8 << 20
	linger  = time.Second // a body waits so long for who asks for the next block
)

// block is what one request asks for, in the byte space of the torrent.
type block struct{ off, size int64 }

func (b block) end() int64 { return b.off + b.size }

// span is the range that a worker streams: [at, end).
type span struct{ at, end int64 }

type seed struct {
	cfg     *Config
	conn    net.Conn
	sending sync.Mutex

	mu      sync.Mutex
	change  sync.Cond
	queue   []block // asked and not begun
	spans   map[*span]bool
	waiting int // workers that have nothing to do
	over    bool
	err     error
	last    span         // that ended, or was begun, last: its length and where it ends
	gone    map[int]bool // files that are not there
	served  bool
}

var errFlood = errors.New("more requests than were announced")

// Serve answers the requests that come over conn until ctx or the connection ends, or
// the server fails. It closes conn.
func Serve(ctx context.Context, conn net.Conn, cfg Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &seed{cfg: &cfg, conn: conn, spans: map[*span]bool{}, gone: map[int]bool{}}
	s.change.L = &s.mu
	var group sync.WaitGroup
	end := func(err error) {
		s.mu.Lock()
		if !s.over {
			s.over, s.err = true, err
		}
		s.mu.Unlock()
		s.change.Broadcast()
		cancel(err)
		conn.Close()
	}
	defer context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })()
	for range workers {
		group.Go(func() { // ends with s.over
			if err := fault.Catch(cfg.Logger, "a web seed", func() error { return s.work(ctx) }); err != nil {
				end(err)
			}
		})
	}
	group.Go(func() { // ends with the connection
		hello := wire.AppendFlag(wire.AppendFlag(nil, pp.HaveAll), pp.Unchoke)
		if err := s.send(hello); err != nil {
			end(err)
		}
	})
	end(s.listen())
	group.Wait()
	return s.err
}

func (s *seed) send(b []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	_, err := s.conn.Write(b)
	return err
}

// listen takes messages until the connection ends.
func (s *seed) listen() error {
	r := wire.NewReader(s.conn)
	for {
		m, err := r.Read()
		if err != nil {
			return err
		}
		if m.Keepalive || m.Type != pp.Request && m.Type != pp.Cancel {
			continue
		}
		b := block{int64(m.Index)*s.cfg.Info.PieceLength + int64(m.Begin), int64(m.Length)}
		if b.size <= 0 || b.size > wire.BlockSize || b.end() > s.cfg.Info.Length {
			return errors.New("asks for what does not exist")
		}
		if m.Type == pp.Request {
			if !s.push(b) {
				return errFlood
			}
			continue
		}
		if s.pull(b) {
			// Not by this goroutine, which must not wait for who waits for it.
			s.push(block{b.off, -b.size})
		}
	}
}

func (s *seed) push(b block) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 2*Queue {
		return false
	}
	s.queue = append(s.queue, b)
	s.change.Broadcast()
	return true
}

// pull takes a request back.
func (s *seed) pull(b block) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, b)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// take waits for the first request that nobody else is about to answer.
func (s *seed) take() (block, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	defer func() { s.waiting-- }()
	for !s.over {
		if i := slices.IndexFunc(s.queue, s.foreignLocked); i >= 0 {
			b := s.queue[i]
			s.queue = slices.Delete(s.queue, i, i+1)
			return b, true
		}
		s.change.Wait()
	}
	return block{}, false
}

// foreignLocked reports whether no span has the block ahead of it.
func (s *seed) foreignLocked(b block) bool {
	for sp := range s.spans {
		if b.size > 0 && b.off >= sp.at && b.end() <= sp.end {
			return false
		}
	}
	return true
}

// next waits for a request within a span. Who waits for another worker goes first.
func (s *seed) next(sp *span) (block, bool) {
	expired := false
	timer := time.AfterFunc(linger, func() {
		s.mu.Lock()
		expired = true
		s.mu.Unlock()
		s.change.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over && sp.at < sp.end {
		best := -1
		for i, b := range s.queue {
			if b.size > 0 && b.off >= sp.at && b.end() <= sp.end && (best < 0 || b.off < s.queue[best].off) {
				best = i
			}
		}
		if best >= 0 {
			b := s.queue[best]
			if b.off-sp.at > maxSkip {
				return block{}, false
			}
			s.queue = slices.Delete(s.queue, best, best+1)
			return b, true
		}
		if expired || s.waiting == 0 && len(s.queue) > 0 {
			return block{}, false
		}
		s.change.Wait()
	}
	return block{}, false
}

// begin reserves a span for a block and what stands behind it in the queue.
func (s *seed) begin(b block, fileEnd int64) *span {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := b.end()
	for _, q := range s.queue {
		if q.off == end && q.size > 0 && q.end() <= fileEnd && end-b.off < maxSpan {
			end = q.end()
		}
	}
	if b.off == s.last.end && s.last.end > s.last.at {
		end = max(end, min(b.off+min(2*(s.last.end-s.last.at), maxSpan), fileEnd))
	}
	sp := &span{b.off, end}
	for other := range s.spans { // what another one brings is not asked twice
		if other.at < sp.end && other.at >= b.end() {
			sp.end = other.at
		}
	}
	s.spans[sp], s.last = true, *sp
	return sp
}

func (s *seed) finish(sp *span) {
	s.mu.Lock()
	delete(s.spans, sp)
	s.mu.Unlock()
	s.change.Broadcast() // what it would have brought
}

// move notes how far a span has come.
func (s *seed) move(sp *span, at int64) {
	s.mu.Lock()
	sp.at = at
	s.mu.Unlock()
}

// work answers requests until the end; an error ends the seed.
func (s *seed) work(ctx context.Context) error {
	buf := make([]byte, 0, 13+wire.BlockSize)
	for {
		b, ok := s.take()
		if !ok {
			return nil
		}
		if b.size < 0 {
			if err := s.reject(block{b.off, -b.size}); err != nil {
				return err
			}
			continue
		}
		ps := parts(s.cfg.Info, b.off, b.size)
		var err error
		if s.cfg.Script {
			err = s.stream(ctx, b, -1, buf)
		} else if f := &s.cfg.Info.Files[ps[0].file]; len(ps) == 1 && !f.Pad {
			err = s.stream(ctx, b, ps[0].file, buf)
		} else {
			err = s.piecemeal(ctx, b, ps, buf)
		}
		if err != nil {
			return err
		}
	}
}

func (s *seed) missing(file int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[file]
}

// open asks for n bytes at off of a file; of the torrent if the server is a script.
func (s *seed) open(ctx context.Context, file int, off, n int64) (*body, error) {
	if s.cfg.Script {
		return getPiece(ctx, s.cfg, off, n)
	}
	if s.missing(file) {
		return nil, errGone
	}
	return get(ctx, s.cfg, fileURL(s.cfg.URL, s.cfg.Info, file), off, n, s.cfg.Info.Files[file].Length)
}

// stream brings a block of one file, or of a script's piece, and those behind it as long
// as they are wanted.
func (s *seed) stream(ctx context.Context, b block, file int, buf []byte) error {
	info := s.cfg.Info
	start, end := int64(0), min((b.off/info.PieceLength+1)*info.PieceLength, info.Length)
	if !s.cfg.Script {
		start, end = info.Files[file].Offset, info.Files[file].Offset+info.Files[file].Length
	}
	sp := s.begin(b, end)
	defer s.finish(sp)
	r, err := s.open(ctx, file, b.off-start, sp.end-sp.at)
	if err != nil {
		return s.refuse(b, file, err)
	}
	defer r.stop()
	for at := b.off; ; {
		if _, err := io.CopyN(io.Discard, r, b.off-at); err != nil {
			return short(err)
		}
		if buf, err = s.answer(b, r, buf); err != nil {
			return err
		}
		at = b.end()
		s.move(sp, at)
		var ok bool
		if b, ok = s.next(sp); !ok {
			return nil
		}
	}
}

// piecemeal brings a block that lies in several files, or in none.
func (s *seed) piecemeal(ctx context.Context, b block, ps []part, buf []byte) error {
	var all []io.Reader
	for _, p := range ps {
		if s.cfg.Info.Files[p.file].Pad {
			all = append(all, io.LimitReader(zeros{}, p.n))
			continue
		}
		r, err := s.open(ctx, p.file, p.off, p.n)
		if err != nil {
			return s.refuse(b, p.file, err)
		}
		defer r.stop()
		all = append(all, r)
	}
	_, err := s.answer(b, io.MultiReader(all...), buf)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// short turns the end of a body into an error.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *seed) answer(b block, r io.Reader, buf []byte) ([]byte, error) {
	piece, begin := s.wire(b)
	buf = wire.AppendPieceHeader(buf[:0], piece, begin, int(b.size))
	head := len(buf)
	buf = append(buf, make([]byte, b.size)...)
	if _, err := io.ReadFull(r, buf[head:]); err != nil {
		return buf, short(err)
	}
	s.mu.Lock()
	s.served = true
	s.mu.Unlock()
	return buf, s.send(buf)
}

func (s *seed) wire(b block) (piece, begin int) {
	return int(b.off / s.cfg.Info.PieceLength), int(b.off % s.cfg.Info.PieceLength)
}

func (s *seed) reject(b block) error {
	piece, begin := s.wire(b)
	return s.send(wire.AppendRange(nil, pp.Reject, piece, begin, int(b.size)))
}

// refuse handles that a file could not be opened: if it is not there the others may be.
func (s *seed) refuse(b block, file int, err error) error {
	if !errors.Is(err, errGone) {
		return err
	}
	s.mu.Lock()
	first := !s.gone[file]
	s.gone[file] = true
	all := len(s.gone) == s.files()
	has := s.pieces()
	s.mu.Unlock()
	if all {
		return err
	}
	if first {
		n := s.cfg.Info.NumPieces()
		if err := s.send(wire.AppendBitfield(nil, n, func(p int) bool { return has[p] })); err != nil {
			return err
		}
	}
	return s.reject(b)
}

// files counts those with content.
func (s *seed) files() (n int) {
	for i := range s.cfg.Info.Files {
		if f := &s.cfg.Info.Files[i]; !f.Pad && f.Length > 0 {
			n++
		}
	}
	return n
}

// pieces returns which pieces no missing file is part of.
func (s *seed) pieces() []bool {
	info := s.cfg.Info
	has := make([]bool, info.NumPieces())
	for p := range has {
		has[p] = true
	}
	for i := range s.gone {
		f := &info.Files[i]
		for p := f.Offset / info.PieceLength; p*info.PieceLength < f.Offset+f.Length; p++ {
			has[p] = false
		}
	}
	return has
}
