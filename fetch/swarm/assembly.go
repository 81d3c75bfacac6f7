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
	// accept takes a block. data is valid during the call only.
	accept(b int, data []byte, from *conn) (outcome, error)
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

// claim reports whether from may write block b; leaveLocked ends that.
func (a *blocks) claim(b int, from *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done || a.state[b] != blockFree || from.barred.Load() {
		return false
	}
	a.state[b] = blockWriting
	a.writing++
	return true
}

// write stores a block that was claimed. If the store panics the claim is given back, so
// that stop waits for nobody.
func (a *blocks) write(b int, data []byte) error {
	ok := false
	defer func() {
		if !ok {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.state[b] = blockFree
			a.leaveLocked()
		}
	}()
	err := a.store.WriteAt(data, a.off+int64(b)*wire.BlockSize)
	ok = true
	return err
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
	sums    []uint64 // fingerprint of each block, to find who lied
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
	a.early, a.sums = make([][]byte, n), make([]uint64, n)
	for b := range n {
		if zero(b) {
			a.state[b] = blockWritten // and read back, when its turn comes
		}
	}
	return a
}

func (a *pieceAssembly) accept(b int, data []byte, from *conn) (outcome, error) {
	if !a.claim(b, from) {
		return duplicate, nil
	}
	err := a.write(b, data)
	sum := maphash.Bytes(fingerprint, data)

	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.leaveLocked()
	if err != nil {
		a.state[b] = blockFree
		return failed, err
	}
	if from.barred.Load() {
		a.state[b] = blockFree // banned while it was written
		return duplicate, nil
	}
	a.state[b], a.from[b], a.sums[b] = blockWritten, from, sum
	if b != a.next || a.hashing {
		a.holdLocked(b, data)
		if a.hashing {
			return stored, nil
		}
	}
	return a.advanceLocked(b, data)
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

// advanceLocked hashes every block in order that is there. The lock is let go
// while hashing; a.hashing keeps others out of it.
func (a *pieceAssembly) advanceLocked(b int, data []byte) (outcome, error) {
	a.hashing = true
	defer func() { a.hashing = false }()
	for {
		if a.restart {
			a.restart, a.next = false, 0
			a.hash.Reset()
		}
		if a.next == len(a.state) || a.done {
			return a.finishLocked(), nil
		}
		n := a.next
		if a.state[n] != blockWritten {
			return stored, nil
		}
		chunk := a.early[n]
		if n == b {
			chunk = data
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
	if [sha1.Size]byte(a.hash.Sum(nil)) != a.want {
		return corrupt
	}
	a.store.Commit(a.index, nil)
	a.good = true
	return complete
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

// evidence is who brought which block of a piece, and what it looked like.
type evidence struct {
	from []*conn
	sums []uint64
}

func (a *pieceAssembly) evidence() evidence {
	a.mu.Lock()
	defer a.mu.Unlock()
	return evidence{from: a.from, sums: a.sums}
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
		if e.sums[b] != good.sums[b] {
			bad.from = append(bad.from, c)
		}
	}
	return bad.peers()
}
