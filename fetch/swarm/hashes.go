package swarm

import (
	"errors"
	"fmt"
	"time"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/picker"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// How units are verified where the v2 tree rules:
//
// The leaves of a wanted unit are asked of two peers (of one, for read-ahead) in the
// message before the one that asks for its blocks, in spans of spanLeaves, proven up
// to the piece layer, or to the root if that is not known: so a magnet's first read
// needs no round trip more. A hash answer passes the blocks that stand in the peer's
// queue, so it is here when they are. Each block is then judged by itself. There are
// clients that say nothing at all: while a read waits, one more is asked each quarter
// of a second, who has answered before comes first, and the silent are left alone.
//
// Who has not hashed his data rejects such requests: libtorrent in seed_mode, until it
// has sent the piece. If nobody is left to ask, the whole piece is fetched and hashed
// up to its node of the piece layer: right, and its units are all committed; wrong,
// and what v1 does about it is done (judge.go), after the leaves were asked for once
// more, now that the piece has been sent.
//
// What was asked of whom is noted with the connection; answers that nobody asked for
// are counted and end it, and so does a proof that does not fit.

// hashing is what is known of the trees of a torrent. Run owns it.
type hashing struct {
	t      *Torrent
	grid   *grid
	trees  []*merkle.Tree // of the grid's files
	byRoot map[merkle.Hash]int
	spans  map[spanKey]*span
	open   map[*span]struct{} // wanted and not known
	whole  map[int]*want      // pieces that are fetched as a whole, by nobody's wish
	server hashServer
}

// spanKey names nodes of one layer of a file: a power of two of them.
type spanKey struct {
	file        int
	base, index uint32
}

// span is a request that is wanted, on its way, or answered.
type span struct {
	spanKey
	req     merkle.Request
	first   int           // pieces of the torrent that it is about: [first, last)
	last    int           //
	leaves  []merkle.Hash // of the leaf layer, once known
	asked   map[*conn]time.Time
	refused map[*conn]bool
	since   time.Time // when it was asked for first
	retry   time.Time // when those who refused are asked again
}

// speaksV2 reports whether hash messages may be sent: the handshake had the v2 hash.
// libtorrent hangs up on who sends them otherwise.
func (c *conn) speaksV2() bool {
	short := c.t.short.Load()
	return short != nil && *short == c.hash.name
}

// hashPeer is what a connection has to do with hashes.
type hashPeer struct {
	name     metainfo.InfoHash // of the torrent, in the handshake
	asked    map[merkle.Request]*span
	heard    time.Time // its last answer, or when it was asked first
	rejects  int       // of leaves, in a row
	silences int       // requests without an answer, in a row
	proved   bool      // it has answered one with hashes
	noLeaves time.Time // leaves are not asked of it before
	strays   int       // answers to nothing
	jobs     int       // requests of it that wait for data to be hashed
	summed   int64     // bytes hashed for it in this second
	answers  int       // answers to it in this second
}

const (
	spanLeaves   = 64   // 1 MiB: an answer of 2 KiB
	maxSpans     = 2048 // kept, 4 MiB
	maxHashAsks  = 32   // on their way from one peer
	maxStrays    = 64
	hashPatience = time.Second            // and twice the time of a block
	hashMore     = 250 * time.Millisecond // of waiting, for each one more that is asked if a read waits
	hashMost     = 6
	// A peer that rejects so many leaf requests in a row has not hashed its data: it is
	// left alone for a while.
	leafRejects = 4
	leafPause   = 10 * time.Second
	// A peer that leaves so many in a row unanswered does not know what they are.
	leafSilences = 2
	silentPause  = time.Minute
	hashRetry    = 5 * time.Second
	busyFor      = 2 * time.Second // a peer with maxHashAsks that has not answered for so long is none
)

func newHashing(t *Torrent, g *grid, layers map[[32]byte][]byte) *hashing {
	h := &hashing{t: t, grid: g, byRoot: map[merkle.Hash]int{}, spans: map[spanKey]*span{}, open: map[*span]struct{}{}, whole: map[int]*want{}}
	for i, f := range g.file {
		h.trees = append(h.trees, merkle.NewTree(f.Root, f.Length, g.info.PieceLength, layers[f.Root]))
		h.byRoot[f.Root] = i // equal roots are equal files: any will do
	}
	h.server.h = h
	return h
}

// place returns the file of a unit and its first block there.
func (h *hashing) place(u int) (file int, block int64) {
	file = h.grid.fileOf(h.grid.piece(u))
	return file, (int64(u)*h.grid.unit - h.grid.file[file].Offset) / wire.BlockSize
}

// leaves returns the proven leaves of a unit, nil if they are not known.
func (h *hashing) leaves(u int) []merkle.Hash {
	file, block := h.place(u)
	tree := h.trees[file]
	if tree.Piece == 0 { // the piece layer, or the root, is the leaf layer
		if leaf, ok := tree.PieceNode(int(block)); ok {
			return []merkle.Hash{leaf}
		}
		return nil
	}
	r := tree.LeafRequest(block, h.spanLength())
	s := h.spans[spanKey{file, 0, r.Index}]
	if s == nil || s.leaves == nil {
		return nil
	}
	at := block - int64(s.req.Index)
	n := int64(h.grid.size(u)+wire.BlockSize-1) / wire.BlockSize
	return s.leaves[at : at+n]
}

// spanLength is spanLeaves, or what one unit has.
func (h *hashing) spanLength() int { return max(spanLeaves, int(h.grid.unit/wire.BlockSize)) }

// need notes that a unit is wanted whose hashes are not known.
func (h *hashing) need(u int) {
	if h.grid.size(u) == 0 || h.leaves(u) != nil {
		return
	}
	file, block := h.place(u)
	tree := h.trees[file]
	if piece := int(block >> tree.Piece); !tree.Complete() {
		if _, ok := tree.PieceNode(piece); !ok {
			h.want(file, tree.LayerRequest(piece))
		}
	}
	if tree.Piece > 0 {
		h.want(file, tree.LeafRequest(block, h.spanLength()))
	}
}

func (h *hashing) want(file int, r merkle.Request) {
	key := spanKey{file, r.Base, r.Index}
	s := h.spans[key]
	if s == nil {
		if len(h.spans) >= maxSpans {
			h.forget()
		}
		f, per := h.grid.file[file], int64(1)<<h.trees[file].Piece
		first, n := int64(r.Index)<<r.Base/per, max(1, int64(r.Length)<<r.Base/per)
		s = &span{spanKey: key, req: r, first: f.first + int(first), asked: map[*conn]time.Time{}, refused: map[*conn]bool{}}
		s.last = min(s.first+int(n), f.first+h.trees[file].Pieces())
		h.spans[key] = s
	}
	h.open[s] = struct{}{}
}

// forget drops half of the spans that nobody waits for, whichever.
func (h *hashing) forget() {
	for key, s := range h.spans {
		if _, open := h.open[s]; !open {
			delete(h.spans, key)
		}
		if len(h.spans) <= maxSpans/2 {
			return
		}
	}
}

// wanted returns a piece of a span that someone wants a unit of, and whether someone
// waits for it; ok=false: nobody wants any.
func (h *hashing) wanted(s *span) (piece int, urgent, ok bool) {
	for p := s.first; p < s.last; p++ {
		first, last := h.grid.of(p)
		if s.req.Base == 0 && int64(1)<<h.trees[s.file].Piece > int64(s.req.Length) {
			// A part of one piece.
			at := int64(h.grid.file[s.file].Offset) + int64(s.req.Index)*wire.BlockSize
			first = int(at / h.grid.unit)
			last = min(last, first+int(int64(s.req.Length)*wire.BlockSize/h.grid.unit))
		}
		for u := first; u < last; u++ {
			if pick := h.t.picks.Find(u); pick != nil {
				if !ok {
					piece, ok = p, true
				}
				if pick.Class == picker.Urgent {
					return p, true, true
				}
			}
		}
	}
	return piece, false, ok
}

// ask sends the requests that are due. It is called when something was wanted, and
// with each tick.
func (h *hashing) ask() {
	now := h.t.clock
	for s := range h.open {
		piece, urgent, ok := h.wanted(s)
		if !ok {
			delete(h.open, s)
			continue
		}
		most := 1
		if urgent {
			most = 2
			if !s.since.IsZero() { // two that ignore it would cost the read their whole patience
				most = min(most+int(now.Sub(s.since)/hashMore), hashMost)
			}
		}
		active := 0
		for c, at := range s.asked {
			if now.Sub(at) > hashPatience+2*c.view.Pipe.Finish(at, wire.BlockSize).Sub(at) {
				delete(s.asked, c) // it may answer yet
				s.refused[c] = true
				if c.hash.silences++; c.hash.silences >= leafSilences {
					c.hash.noLeaves = now.Add(silentPause)
				}
			} else {
				active++
			}
		}
		nobody := false
		for active < most {
			c, none := h.who(s, piece)
			if c == nil {
				nobody = none
				break
			}
			h.send(c, s)
			active++
		}
		if active > 0 {
			continue
		}
		if nobody && s.req.Base == 0 {
			h.wholeOf(s)
		}
		if now.After(s.retry) { // who had nothing may have it now
			s.retry = now.Add(hashRetry)
			clear(s.refused)
		}
	}
}

// who returns the peer that would answer first; none: those who have the piece will
// not give its hashes, or can not.
func (h *hashing) who(s *span, piece int) (best *conn, none bool) {
	some, busy := false, false
	for c := range h.t.conns {
		if c.closed || !c.has(piece) {
			continue
		}
		some = true
		switch {
		case !c.speaksV2() || s.refused[c] || s.req.Base == 0 && h.t.clock.Before(c.hash.noLeaves):
			continue
		case !s.asked[c].IsZero():
			continue
		case len(c.hash.asked) >= maxHashAsks:
			busy = busy || h.t.clock.Sub(c.hash.heard) < busyFor
			continue
		}
		if best == nil || c.hash.proved && !best.hash.proved || c.hash.proved == best.hash.proved &&
			c.view.Pipe.Finish(h.t.clock, wire.BlockSize).Before(best.view.Pipe.Finish(h.t.clock, wire.BlockSize)) {
			best = c
		}
	}
	return best, some && !busy
}

func (h *hashing) send(c *conn, s *span) {
	if c.hash.asked == nil {
		c.hash.asked = map[merkle.Request]*span{}
	}
	if len(c.hash.asked) == 0 {
		c.hash.heard = h.t.clock
	}
	c.hash.asked[s.req] = s
	s.asked[c] = h.t.clock
	if s.since.IsZero() {
		s.since = h.t.clock
	}
	c.write(wire.AppendHashes(nil, pp.HashRequest, s.req))
}

// part forgets a peer that left.
func (h *hashing) part(c *conn) {
	for _, s := range c.hash.asked {
		delete(s.asked, c)
	}
	c.hash.asked = nil
	for s := range h.open {
		delete(s.refused, c)
	}
}

var (
	errHashes = errors.New("sends hashes that nobody asked for")
	errProof  = errors.New("sends hashes that do not lead to what the metadata has")
)

// solicited returns what c was asked with r, once.
func (h *hashing) solicited(c *conn, r merkle.Request) (*span, error) {
	s := c.hash.asked[r]
	if s == nil {
		if c.hash.strays++; c.hash.strays > maxStrays {
			return nil, errHashes
		}
		return nil, nil
	}
	c.hash.heard = h.t.clock
	c.hash.silences = 0
	delete(c.hash.asked, r)
	delete(s.asked, c)
	return s, nil
}

// got handles an answer.
func (h *hashing) got(c *conn, r merkle.Request, payload []byte) error {
	s, err := h.solicited(c, r)
	if s == nil {
		return err
	}
	if len(payload) != 32*r.Hashes() {
		return fmt.Errorf("%w: %d bytes for %d", errProof, len(payload), r.Hashes())
	}
	hashes := make([]merkle.Hash, r.Hashes())
	for i := range hashes {
		hashes[i] = merkle.Hash(payload[32*i:])
	}
	if !h.trees[s.file].Check(r, hashes) {
		return errProof
	}
	c.hash.proved = true
	if r.Base == 0 {
		c.hash.rejects, c.hash.noLeaves = 0, time.Time{}
	}
	h.learn(s, hashes[:r.Length])
	return nil
}

// rejected handles a refusal.
func (h *hashing) rejected(c *conn, r merkle.Request) error {
	s, err := h.solicited(c, r)
	if s == nil {
		return err
	}
	s.refused[c] = true
	if r.Base == 0 {
		if c.hash.rejects++; c.hash.rejects >= leafRejects {
			c.hash.rejects = 0
			c.hash.noLeaves = h.t.clock.Add(leafPause)
		}
	}
	h.ask()
	return nil
}

// learn takes proven hashes to the units and pieces that wait for them.
func (h *hashing) learn(s *span, nodes []merkle.Hash) {
	delete(h.open, s)
	tree := h.trees[s.file]
	if int(s.req.Base) == tree.Piece {
		tree.Learn(nodes, int64(s.req.Index))
	} else if s.leaves == nil {
		s.leaves = nodes
	}
	for p := s.first; p < s.last; p++ {
		h.prove(p)
		if h.whole[p] != nil {
			first, _ := h.grid.of(p)
			h.tryWhole(first)
		}
	}
}

// prove gives the units of a piece that are on their way the leaves that are known.
func (h *hashing) prove(piece int) {
	t := h.t
	first, last := h.grid.of(piece)
	if f := t.failures[piece]; f != nil {
		for u := first; u < last; u++ {
			if h.grid.size(u) > 0 {
				h.judge(f, u, h.leaves(u))
			}
		}
	}
	all := true
	for u := first; u < last; u++ {
		if h.grid.size(u) == 0 {
			continue
		}
		leaves := h.leaves(u)
		all = all && leaves != nil
		if a, ok := t.flying.find(u).(*unitAssembly); ok && leaves != nil {
			h.settle(a, leaves)
		}
	}
	if all && h.whole[piece] != nil {
		h.dropWhole(piece) // each unit can be had alone
	}
}

// settle proves a unit that is on its way.
func (h *hashing) settle(a *unitAssembly, leaves []merkle.Hash) {
	t := h.t
	liars, done := a.prove(leaves)
	for c, blocks := range liars {
		t.tossed.Add(int64(len(blocks)) * wire.BlockSize)
		t.picks.Missing(a.index, blocks)
		t.lied(c, a.index)
	}
	if done {
		t.landed(a.index)
	}
	if len(liars) > 0 {
		t.fresh = true
	}
}

// wholeOf has the pieces of a span fetched whole of which something is wanted.
func (h *hashing) wholeOf(s *span) {
	for p := s.first; p < s.last; p++ {
		first, last := h.grid.of(p)
		for u := first; u < last; u++ {
			if h.t.picks.Find(u) != nil {
				h.fetchWhole(p)
				break
			}
		}
	}
}

// fetchWhole wants all units of a piece, as soon as the one that is wanted first.
func (h *hashing) fetchWhole(piece int) {
	t := h.t
	first, last := h.grid.of(piece)
	w := h.whole[piece]
	fresh := w == nil
	if fresh {
		w = &want{first: first, last: last, done: make(chan error, 1)}
	}
	due, class := time.Time{}, picker.Background
	for u := first; u < last; u++ {
		for _, other := range t.wants[u] {
			if other != w {
				class = max(class, other.class)
				if due.IsZero() || other.due.Before(due) {
					due = other.due
				}
			}
		}
	}
	if !fresh && w.due.Equal(due) && w.class == class {
		return
	}
	w.due, w.class = due, class
	h.whole[piece] = w
	for u := first; u < last; u++ {
		switch {
		case h.grid.size(u) == 0 || t.store.Known(u):
			continue
		case fresh:
			w.missing++
			t.wants[u] = append(t.wants[u], w)
		}
		t.pick(u)
	}
	t.fresh = true
	h.tryWhole(first)
}

// hurry brings a piece that is fetched whole in line with a new want.
func (h *hashing) hurry(u int) {
	if p := h.grid.piece(u); h.whole[p] != nil {
		h.fetchWhole(p)
	}
}

// dropWhole gives up what nobody wished for.
func (h *hashing) dropWhole(piece int) {
	if w := h.whole[piece]; w != nil {
		delete(h.whole, piece)
		h.t.unwantPieces(w)
	}
}

// unwanted is called when a want of a unit ended.
func (h *hashing) unwanted(u int) {
	piece := h.grid.piece(u)
	w := h.whole[piece]
	if w == nil {
		return
	}
	for v := w.first; v < w.last; v++ {
		for _, other := range h.t.wants[v] {
			if other != w {
				return
			}
		}
	}
	h.dropWhole(piece)
}

// tryWhole looks whether all of the piece of unit u is here, and hashes it up to the
// piece layer. The blocks were hashed when they came; units that are in the store
// already are read back, which is rare enough to be done by Run.
func (h *hashing) tryWhole(u int) {
	t, piece := h.t, h.grid.piece(u)
	if h.whole[piece] == nil || !h.grid.all(u, func(v int) bool {
		if a, ok := t.flying.find(v).(*unitAssembly); ok {
			return a.whole() != nil
		}
		return t.store.Has(v)
	}) {
		return
	}
	file, block := h.place(piece * h.grid.per)
	tree := h.trees[file]
	node, ok := tree.PieceNode(int(block >> tree.Piece))
	if !ok {
		return // the piece layer is on its way
	}
	first, last := h.grid.of(piece)
	var leaves []merkle.Hash
	var units []*unitAssembly
	for u := first; u < last && h.grid.size(u) > 0; u++ {
		if a, ok := t.flying.find(u).(*unitAssembly); ok {
			units = append(units, a)
			leaves = append(leaves, a.whole()...)
			continue
		}
		p := make([]byte, h.grid.size(u))
		if err := t.store.ReadPresent(p, int64(u)*h.grid.unit); err != nil {
			return // evicted just now: it is fetched again when it is wanted
		}
		leaves = append(leaves, merkle.SumBlocks(p)...)
	}
	if merkle.Root(leaves, 0, tree.Piece) != node {
		t.spoiledWhole(piece, units)
		return
	}
	if f := t.failures[piece]; f != nil {
		at := 0
		for u := first; u < last && h.grid.size(u) > 0; u++ {
			n := (h.grid.size(u) + wire.BlockSize - 1) / wire.BlockSize
			h.judge(f, u, leaves[at:at+n])
			at += n
		}
		delete(t.failures, piece)
	}
	delete(h.whole, piece) // its want ends with the units
	for _, a := range units {
		if _, done := a.prove(a.whole()); done {
			t.landed(a.index)
		}
	}
}

// judge bans who sent blocks of a unit, in attempts that failed, that differ from the
// proven ones.
func (h *hashing) judge(f *failure, u int, leaves []merkle.Hash) {
	if leaves == nil {
		return
	}
	first, _ := h.grid.of(h.grid.piece(u))
	at := (u - first) * int(h.grid.unit/wire.BlockSize)
	for _, ev := range f.evidence {
		for b, leaf := range leaves {
			if c := ev.from[at+b]; c != nil && ev.prints[at+b] != short(leaf) {
				h.t.lied(c, u)
			}
		}
	}
}
