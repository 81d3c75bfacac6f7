package swarm

import (
	"crypto/sha1"
	"hash"
	"hash/maphash"
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
		a.state[b+got] = blockWriting
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
	return a.state[b] == blockWritten
}

// pieceAssembly is one piece on its way, where v1 piece hashes rule. Blocks are written
// to the store and hashed as they arrive, by the goroutine of the peer that brought
// them, while they are warm in its processor's cache; only blocks that overtake others
// are copied. The disk is not read again.
type pieceAssembly struct {
	blocks
	want [sha1.Size]byte

	// Guarded by mu.
	early   [][]byte // blocks written before the hash came to them
	held    *atomic.Int64
	prints  []uint64 // fingerprint of each block, to find who lied; nil if nobody asks
	next    int      // first block not hashed
	hash    hash.Hash
	hashing bool // one goroutine hashes at a time
	restart bool // hash again from the first block
}

type blockState uint8

const (
	blockFree blockState = iota
	blockWriting
	blockWritten
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

// maxHeld bounds the bytes of early blocks of a whole client. Beyond it they are read back
// when their turn comes: a peer that withholds the first block of many large pieces costs
// reads from the page cache then, and no memory.
const maxHeld = 64 << 20

// newPieceAssembly counts the bytes that it keeps in memory in held.
// Blocks that zero tells of are zeros, as the store will say too.
func newPieceAssembly(index, size int, off int64, want [sha1.Size]byte, store Store, held *atomic.Int64, zero func(b int) bool) *pieceAssembly {
	a := &pieceAssembly{want: want, hash: sha1.New(), held: held}
	n := a.init(index, size, off, store)
	a.early = make([][]byte, n)
	for b := range n {
		if zero(b) {
			a.state[b] = blockWritten // and read back, when its turn comes
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

// take writes and hashes blocks that were claimed.
func (a *pieceAssembly) take(b int, run [][]byte, what []outcome, from *conn) error {
	err := a.write(b, run)
	if a.prints != nil {
		for i, block := range run { // claimed: nobody else writes or reads these
			a.prints[b+i] = maphash.Bytes(fingerprint, block)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.leaveLocked()
	all := stored
	if err != nil {
		all = failed
	} else if from.barred.Load() {
		all = duplicate // banned while it was written
	}
	for i := range run {
		what[i] = all
	}
	if all != stored {
		a.freeLocked(b, len(run))
		return err
	}
	for i := range run {
		a.state[b+i], a.from[b+i] = blockWritten, from
	}
	last := len(run) - 1
	if !a.hashing && b <= a.next && a.next <= b+last {
		what[last], err = a.advanceLocked(b, run)
		return err
	}
	for i, block := range run {
		a.holdLocked(b+i, block)
	}
	if !a.hashing {
		what[last], err = a.advanceLocked(b, nil)
	}
	return err
}

func (a *pieceAssembly) holdLocked(b int, data []byte) {
	if a.held.Add(int64(len(data))) > maxHeld {
		a.held.Add(-int64(len(data)))
		return
	}
	a.early[b] = append([]byte(nil), data...)
}

func (a *pieceAssembly) letGoLocked(b int) {
	a.held.Add(-int64(len(a.early[b])))
	a.early[b] = nil
}

func (a *pieceAssembly) stop() (committed bool) {
	committed = a.blocks.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := range a.early {
		a.letGoLocked(b)
	}
	return committed
}

// advanceLocked hashes every block in order that is there; run, from block b on, need not be
// read for that. The lock is let go while hashing; a.hashing keeps others out of it.
func (a *pieceAssembly) advanceLocked(b int, run [][]byte) (outcome, error) {
	a.hashing = true
	defer func() { a.hashing = false }()
	for {
		if a.restart {
			a.restart, a.next = false, 0
			a.hash.Reset()
			run = nil // another peer may have brought its blocks anew
		}
		if a.next == len(a.state) || a.done {
			return a.finishLocked(), nil
		}
		n := a.next
		if a.state[n] != blockWritten {
			return stored, nil
		}
		chunk := a.early[n]
		if n >= b && n < b+len(run) {
			chunk = run[n-b]
		}
		a.letGoLocked(n)
		if err := a.hashUnlocked(n, chunk); err != nil {
			a.state[n] = blockFree
			return failed, err
		}
		a.next++
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
	if a.done {
		return nil
	}
	for b, from := range a.from {
		if from == peer && a.state[b] == blockWritten {
			a.state[b], a.from[b] = blockFree, nil
			a.letGoLocked(b)
			blocks = append(blocks, b)
			a.restart = a.restart || b < a.next || a.hashing
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
