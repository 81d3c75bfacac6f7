package swarm

import (
	"crypto/sha1"
	"hash"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/btmount/btmount/fetch/swarm/wire"
)

// assembly is one unit on its way. All methods are safe for concurrent use.
type assembly interface {
	number() int // of the unit
	bytes() int
	// accept takes the blocks of run, which follow each other from block b on, and notes in
	// what, of the same length, what became of each. The bytes are valid during the call only.
	accept(b int, run [][]byte, what []outcome, from *conn) error
	// stop ends the assembly: when it returns nobody writes any more. It reports
	// whether the unit had been committed.
	stop() (committed bool)
	// purge forgets the unproven blocks that peer brought and returns them.
	purge(peer *conn) (blocks []int)
	// here reports whether block b has arrived.
	here(b int) bool
	evidence() evidence
}

// blocks is what both kinds of assembly are made of. A block is claimed under the lock
// before it is written, so two copies of it never write at once, and nothing writes
// after the unit is done: a duplicate can not spoil what was verified.
type blocks struct {
	index int
	size  int
	off   int64 // of the unit in the torrent
	store Store

	mu      sync.Mutex
	state   []blockState
	from    []*conn // who brought each block
	writing int     // goroutines inside accept
	quiet   sync.Cond
	done    bool // nothing is taken any more
	good    bool // committed
}

// init makes room for all blocks and returns how many there are.
func (a *blocks) init(index, size int, off int64, store Store) (n int) {
	n = (size + wire.BlockSize - 1) / wire.BlockSize
	a.index, a.size, a.off, a.store = index, size, off, store
	a.state, a.from = make([]blockState, n), make([]*conn, n)
	a.quiet.L = &a.mu
	return n
}

func (a *blocks) number() int { return a.index }
func (a *blocks) bytes() int  { return a.size }

// claim takes as many blocks for from as it may write of the n that begin with b; 0 if it
// may not write b. leaveLocked ends that.
func (a *blocks) claim(b, n int, from *conn) (got int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done || from.barred.Load() {
		return 0
	}
	for got < n && a.state[b+got] == blockFree {
		a.state[b+got] = blockTaken
		got++
	}
	if got > 0 {
		a.writing++
	}
	return got
}

// claims calls take for those parts of a run that from may write. The others were here before.
func (a *blocks) claims(b int, run [][]byte, what []outcome, from *conn, take func(b int, run [][]byte, what []outcome) error) error {
	for len(run) > 0 {
		n := a.claim(b, len(run), from)
		if n == 0 {
			what[0], n = duplicate, 1
		} else if err := take(b, run[:n], what[:n]); err != nil {
			for i := range what[n:] {
				what[n+i] = duplicate
			}
			return err
		}
		b, run, what = b+n, run[n:], what[n:]
	}
	return nil
}

// write stores blocks that were claimed, in one call: a small write costs the filesystem more
// than twice the time for each byte, and leaves small folios, which are slow to read. If the
// store panics the claim is given back, so that stop waits for nobody.
func (a *blocks) write(b int, run [][]byte) error {
	ok := false
	defer func() {
		if !ok {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.freeLocked(b, len(run))
			a.leaveLocked()
		}
	}()
	err := a.store.WriteVec(run, a.off+int64(b)*wire.BlockSize)
	ok = true
	return err
}

func (a *blocks) freeLocked(b, n int) {
	for i := range n {
		a.state[b+i] = blockFree
	}
}

func (a *blocks) leaveLocked() {
	if a.writing--; a.writing == 0 {
		a.quiet.Broadcast()
	}
}

func (a *blocks) stop() (committed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = true
	for a.writing > 0 {
		a.quiet.Wait()
	}
	return a.good
}

func (a *blocks) here(b int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state[b] == blockHere
}

// pieceAssembly is one piece on its way, where v1 piece hashes rule. Blocks are hashed as they
// arrive, by the goroutine of the peer that brought them, while they are warm in its
// processor's cache, and written together with those beside them: a small write costs the
// filesystem twice the time for each byte of a long one, and leaves small folios in the page
// cache, which are slower to read for as long as they live. Only blocks that come before those
// beside them, or overtake others, are copied. The disk is not read again.
type pieceAssembly struct {
	blocks
	want [sha1.Size]byte

	// Guarded by mu.
	kept      [][]byte // blocks that are here, and not yet written or not yet hashed
	held      *atomic.Int64
	place     []place  // of each block that is here
	unwritten int      // blocks
	prints    []uint64 // fingerprint of each block, to find who lied; nil if nobody asks
	next      int      // first block not hashed
	hash      hash.Hash
	hashing   bool // one goroutine hashes at a time
	restart   bool // hash again from the first block
}

// place is where a block is that has arrived.
type place uint8

const (
	inMemory place = iota
	onItsWay       // some goroutine writes it
	inStore
)

// together is how many blocks are written at once, as a rule: the longest aligned groups of them
// that fit in a run.
const together = maxRun

type blockState uint8

const (
	blockFree  blockState = iota
	blockTaken            // by a goroutine that is inside accept
	blockHere
)

// outcome is what became of a block.
type outcome uint8

const (
	stored    outcome = iota
	duplicate         // had it already, or the piece is over
	complete          // the last block, and the piece is good
	corrupt           // the last block, and the piece is bad
	failed            // the store did not take it
	lie               // proven to be wrong
)

// fingerprint is a seed of this process: nobody can aim at a collision.
var fingerprint = maphash.MakeSeed()

// maxHeld bounds the bytes of blocks that a whole client keeps. Beyond it they are written when
// they come, and read back when their turn comes: a peer that withholds the first block of many
// large pieces costs small writes and reads from the page cache then, and no memory.
const maxHeld = 64 << 20

// spareBlocks are buffers of blocks that are kept no more.
var spareBlocks = sync.Pool{New: func() any { return new([wire.BlockSize]byte) }}

// newPieceAssembly counts the bytes that it keeps in memory in held.
// Blocks that zero tells of are zeros, as the store will say too.
func newPieceAssembly(index, size int, off int64, want [sha1.Size]byte, store Store, held *atomic.Int64, zero func(b int) bool) *pieceAssembly {
	a := &pieceAssembly{want: want, hash: sha1.New(), held: held}
	n := a.init(index, size, off, store)
	a.kept, a.place, a.unwritten = make([][]byte, n), make([]place, n), n
	for b := range n {
		if zero(b) {
			a.state[b], a.place[b] = blockHere, inStore // and read back, when its turn comes
			a.unwritten--
		}
	}
	return a
}

// suspected has the blocks compared with those of a copy that failed. It is called before the
// first block comes.
func (a *pieceAssembly) suspected() { a.prints = make([]uint64, len(a.state)) }

func (a *pieceAssembly) accept(b int, run [][]byte, what []outcome, from *conn) error {
	return a.claims(b, run, what, from, func(b int, run [][]byte, what []outcome) error { return a.take(b, run, what, from) })
}

// take keeps or writes blocks that were claimed, and hashes what has its turn. The order matters:
// a block is in r, kept, or in the store from the time that it is here.
func (a *pieceAssembly) take(b int, run [][]byte, what []outcome, from *conn) (err error) {
	if a.prints != nil {
		for i, block := range run { // claimed: nobody else writes or reads these
			a.prints[b+i] = maphash.Bytes(fingerprint, block)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.leaveLocked()
	if from.barred.Load() { // since they were claimed
		a.freeLocked(b, len(run))
		for i := range run {
			what[i] = duplicate
		}
		return nil
	}
	for i := range run {
		what[i] = stored
		a.state[b+i], a.from[b+i], a.place[b+i] = blockHere, from, inMemory
	}
	r := running{b, run, from}
	ok := false // nor is it if the store panics
	defer func() {
		for n := b; !ok && n < b+len(run); n++ {
			what[n-b] = failed
			if a.chunkLocked(n, r) != nil && a.place[n] != onItsWay {
				a.dropLocked(n)
			}
		}
	}()
	if err := a.storeLocked(r); err != nil {
		return err
	}
	ok = true
	if !a.hashing {
		what[len(run)-1], err = a.advanceLocked(r)
	}
	for n := max(b, a.next); n < b+len(run) && !a.done; n++ { // written, and not yet hashed
		a.keepLocked(n, r)
	}
	return err
}

// running is a run that is being taken: blocks from block b on. Some may be taken back
// meanwhile, when their peer is banned, and brought anew by another.
type running struct {
	b    int
	run  [][]byte
	from *conn
}

// chunkLocked returns what is in memory of block n, in r or kept.
func (a *pieceAssembly) chunkLocked(n int, r running) []byte {
	if n >= r.b && n < r.b+len(r.run) && a.state[n] == blockHere && a.from[n] == r.from {
		return r.run[n-r.b]
	}
	return a.kept[n]
}

// storeLocked writes the groups that a run completes, and keeps the rest of it. What there is no
// memory for is written as well. The lock is let go while writing.
func (a *pieceAssembly) storeLocked(r running) error {
	last := r.b + len(r.run)
	for at, to := r.b, 0; at < last; at = to {
		first := at / together * together
		end := min(first+together, len(a.state))
		to = min(end, last)
		if slices.ContainsFunc(a.state[first:end], func(s blockState) bool { return s != blockHere }) {
			for first, end = at, at; end < to; end++ {
				a.keepLocked(end, r)
			}
			if !slices.ContainsFunc(a.kept[first:end], func(p []byte) bool { return p == nil }) {
				continue
			}
		}
		if err := a.writeLocked(first, end, r); err != nil {
			return err
		}
	}
	return nil
}

// writeLocked writes the blocks of [first, end) that are in memory. Those that somebody else has
// in a run of his own, he writes.
func (a *pieceAssembly) writeLocked(first, end int, r running) error {
	var few [together][]byte
	for n := first; n < end; n++ {
		parts, at := few[:0], n
		for ; n < end && a.state[n] == blockHere && a.place[n] == inMemory; n++ {
			p := a.chunkLocked(n, r)
			if p == nil {
				break
			}
			parts = append(parts, p)
			a.place[n] = onItsWay
		}
		if len(parts) > 0 {
			if err := a.writeUnlocked(at, parts); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeUnlocked writes blocks from block at on with the lock let go. Nobody takes a block back
// that is on its way.
func (a *pieceAssembly) writeUnlocked(at int, parts [][]byte) error {
	where := inMemory
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		for n := at; n < at+len(parts); n++ {
			if a.place[n] = where; where == inStore {
				a.unwritten--
				a.letGoLocked(n)
			}
		}
		a.quiet.Broadcast()
	}()
	err := a.store.WriteVec(parts, a.off+int64(at)*wire.BlockSize)
	if err == nil {
		where = inStore
	}
	return err
}

// keepLocked keeps a copy of a block of r, if it is still its, and there is memory for it.
func (a *pieceAssembly) keepLocked(n int, r running) {
	block := a.chunkLocked(n, r)
	if block == nil || a.kept[n] != nil {
		return
	}
	if a.held.Add(int64(len(block))) > maxHeld {
		a.held.Add(-int64(len(block)))
		return
	}
	p := spareBlocks.Get().(*[wire.BlockSize]byte)
	a.kept[n] = p[:copy(p[:], block)]
}

// letGoLocked lets go of a block that is written and hashed.
func (a *pieceAssembly) letGoLocked(n int) {
	if p := a.kept[n]; p != nil && n < a.next && a.place[n] == inStore {
		a.forgetLocked(n)
		spareBlocks.Put((*[wire.BlockSize]byte)(p[:wire.BlockSize]))
	}
}

// forgetLocked lets go of a block that somebody may still be hashing.
func (a *pieceAssembly) forgetLocked(n int) {
	a.held.Add(-int64(len(a.kept[n])))
	a.kept[n] = nil
}

// dropLocked takes out a block that is not on its way.
func (a *pieceAssembly) dropLocked(n int) {
	if a.state[n] == blockHere && a.place[n] == inStore {
		a.unwritten++
	}
	a.state[n], a.from[n], a.place[n] = blockFree, nil, inMemory
	a.forgetLocked(n)
}

func (a *pieceAssembly) stop() (committed bool) {
	committed = a.blocks.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range a.kept {
		a.forgetLocked(n)
	}
	return committed
}

// advanceLocked hashes every block in order that is there; those of r need not be read for that.
// The lock is let go while hashing; a.hashing keeps others out of it.
func (a *pieceAssembly) advanceLocked(r running) (outcome, error) {
	a.hashing = true
	defer func() { a.hashing = false }()
	for {
		if a.restart {
			a.restart, a.next = false, 0
			a.hash.Reset()
		}
		if a.done || a.next == len(a.state) && a.unwritten == 0 {
			return a.finishLocked(), nil
		}
		n := a.next
		if n == len(a.state) || a.state[n] != blockHere {
			return stored, nil
		}
		chunk := a.chunkLocked(n, r)
		if chunk == nil && a.place[n] != inStore {
			return stored, nil // who has it goes on from here
		}
		if err := a.hashUnlocked(n, chunk); err != nil {
			a.dropLocked(n)
			return failed, err
		}
		a.next++
		a.letGoLocked(n)
	}
}

// hashUnlocked hashes block n with the lock let go; chunk is nil if it was hashed before,
// and is hashed again because another block was bad.
func (a *pieceAssembly) hashUnlocked(n int, chunk []byte) (err error) {
	a.mu.Unlock()
	defer a.mu.Lock() // also when the store panics: who called unlocks it
	if chunk == nil {
		chunk = make([]byte, min(wire.BlockSize, a.size-n*wire.BlockSize))
		err = a.store.ReadBack(chunk, a.off+int64(n)*wire.BlockSize)
	}
	a.hash.Write(chunk)
	return err
}

// finishLocked compares the hash. A good piece is committed here, under the lock,
// so that stop can tell for certain whether it was.
func (a *pieceAssembly) finishLocked() outcome {
	if a.done {
		return stored // stopped meanwhile: nobody waits for the outcome
	}
	a.done = true
	if sum := [sha1.Size]byte(a.hash.Sum(nil)); sum != a.want {
		a.printLocked(sum)
		return corrupt
	}
	a.store.Commit(a.index, nil)
	a.good = true
	return complete
}

// printLocked takes the fingerprints of a bad piece, which are computed for no good one: they
// cost a tenth of its hash. sum is that of what came: what the store has lost of it since names
// no liar. The lock is let go meanwhile; who called is still counted in writing.
func (a *pieceAssembly) printLocked(sum [sha1.Size]byte) {
	if a.prints != nil {
		return
	}
	a.mu.Unlock()
	defer a.mu.Lock()
	prints, h := make([]uint64, len(a.state)), sha1.New()
	block := make([]byte, wire.BlockSize)
	for b := range prints {
		block = block[:min(wire.BlockSize, a.size-b*wire.BlockSize)]
		if a.store.ReadBack(block, a.off+int64(b)*wire.BlockSize) != nil {
			return
		}
		h.Write(block)
		prints[b] = maphash.Bytes(fingerprint, block)
	}
	if [sha1.Size]byte(h.Sum(nil)) == sum {
		a.prints = prints // nobody asks for them before they are told that the piece is bad
	}
}

func (a *pieceAssembly) purge(peer *conn) (blocks []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := 0; n < len(a.from) && !a.done; n++ {
		for a.from[n] == peer && a.place[n] == onItsWay {
			a.quiet.Wait()
		}
		if a.from[n] == peer && a.state[n] == blockHere && !a.done {
			a.dropLocked(n)
			blocks = append(blocks, n)
			a.restart = a.restart || n < a.next || a.hashing
		}
	}
	if a.restart && !a.hashing {
		a.restart, a.next = false, 0
		a.hash.Reset()
	}
	return blocks
}

// evidence is who brought which block of a piece, and what it looked like, if that is known.
type evidence struct {
	from   []*conn
	prints []uint64
}

func (a *pieceAssembly) evidence() evidence {
	a.mu.Lock()
	defer a.mu.Unlock()
	return evidence{from: a.from, prints: a.prints}
}

// peers returns the distinct peers that brought blocks.
func (e evidence) peers() (out []*conn) {
	seen := map[*conn]bool{}
	for _, c := range e.from {
		if c != nil && !seen[c] {
			seen[c] = true
			out = append(out, c)
		}
	}
	return out
}

// liars returns who brought blocks that differ from those of the good piece.
func (e evidence) liars(good evidence) (out []*conn) {
	bad := evidence{}
	for b, c := range e.from {
		if e.prints != nil && good.prints != nil && e.prints[b] != good.prints[b] {
			bad.from = append(bad.from, c)
		}
	}
	return bad.peers()
}
