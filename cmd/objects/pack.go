package objects

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
)

// pack keeps small blocks on disk, many in one unit of one cache object: the roots of all
// that was looked at, directories, inner nodes, files of one block. Without it a restart
// would have to ask for them before anything of the cache could be read, and a file of
// five bytes would cost four inodes and 16 KiB.
//
// Units are filled one after the other in a ring, and evicted like any others. A unit has a
// table at its head, so that opening the pack reads 16 KiB of each:
//
//	number of blocks (4 bytes, big endian), then of each: SHA-256, offset, length (32, 4, 4)
//
// Whatever is read is held against its CID again. The unit that is being filled is in
// memory until it is full or the mount ends; a crash loses no more than that.
type pack struct {
	blocks unixfs.Blocks // who is asked for what is not here
	store  *cache.Store
	log    *slog.Logger

	opening sync.Mutex // held while the object is opened, or a unit is written

	mu     sync.Mutex // guards what follows
	object *cache.Object
	failed bool // it cannot be opened
	index  map[digest]place
	held   map[int][]digest // by unit
	fresh  []byte           // the unit that is being filled
	listed []digest         // in it
	next   int              // the unit that fresh will be
}

type digest = [sha256.Size]byte

// place is where a block stands: in a unit, or in the one being filled if unit is -1.
type place struct{ unit, off, length int32 }

const (
	packUnit  = 512 << 10 // so a usual leaf fits: the first of two has to be looked at, it may be metadata
	packUnits = 1 << 15   // 16 GiB, of which the cache keeps what it has room for
	packTable = 16 << 10
	packEntry = sha256.Size + 8
	packMost  = (packTable - 4) / packEntry // blocks
	maxPacked = packUnit - packTable
)

const packKey cache.Key = "blocks"

func newPack(cfg Config) *pack {
	return &pack{blocks: cfg.Blocks, store: cfg.Cache, log: cfg.Log, index: map[digest]place{}, held: map[int][]digest{}}
}

// reading marks contexts of reads whose leaves go into the cache of their file.
type readingKey struct{}

func leavesElsewhere(ctx context.Context) context.Context {
	return context.WithValue(ctx, readingKey{}, true)
}

// Block implements unixfs.Blocks.
func (p *pack) Block(ctx context.Context, c block.CID) ([]byte, error) {
	d, ok := block.Digest(c)
	if !ok {
		return p.blocks.Block(ctx, c)
	}
	if b := p.get(c, d); b != nil {
		return b, nil
	}
	b, err := p.blocks.Block(ctx, c)
	if err == nil && len(b) <= maxPacked && (block.Leads(c, b) || ctx.Value(readingKey{}) == nil) {
		p.put(d, b)
	}
	return b, err
}

func (p *pack) get(c block.CID, d digest) []byte {
	o := p.open()
	p.mu.Lock()
	at, ok := p.index[d]
	if ok && at.unit < 0 {
		b := append([]byte(nil), p.fresh[at.off:at.off+at.length]...)
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	if !ok {
		return nil
	}
	b := make([]byte, at.length)
	err := o.ReadPresent(b, int64(at.unit)*packUnit+int64(at.off))
	if err == nil && sha256.Sum256(b) == d {
		return b
	}
	p.mu.Lock() // evicted, or the disk got it wrong
	if p.index[d] == at {
		delete(p.index, d)
	}
	p.mu.Unlock()
	return nil
}

// open opens the object at the first use, and returns it; nil: there is none.
func (p *pack) open() *cache.Object {
	p.mu.Lock()
	o, failed := p.object, p.failed
	p.mu.Unlock()
	if o != nil || failed {
		return o
	}
	p.opening.Lock()
	defer p.opening.Unlock()
	p.mu.Lock()
	o, failed = p.object, p.failed
	p.mu.Unlock()
	if o != nil || failed {
		return o
	}
	o, err := p.store.Object(cache.Layout{
		Key: packKey, Unit: packUnit, Size: packUnit * packUnits, Files: []extent.Extent{{Len: packUnit * packUnits}},
		Tag: sha256.Size, Verify: verifyTag,
	})
	if err != nil {
		p.log.Warn("blocks of BTFS are not kept on disk", "err", err)
		p.mu.Lock()
		p.failed = true
		p.mu.Unlock()
		return nil
	}
	p.load(o)
	p.mu.Lock()
	p.object = o
	p.mu.Unlock()
	return o
}

// load reads the tables of all units; opening is held.
func (p *pack) load(o *cache.Object) {
	table := make([]byte, packTable)
	last := -1
	for u := range packUnits {
		if !o.Known(u) || o.ReadPresent(table, int64(u)*packUnit) != nil {
			continue
		}
		last = u
		n := int(min(binary.BigEndian.Uint32(table), packMost))
		p.mu.Lock()
		for i := range n {
			e := table[4+i*packEntry:]
			at := place{int32(u), int32(binary.BigEndian.Uint32(e[32:])), int32(binary.BigEndian.Uint32(e[36:]))}
			if at.off < packTable || at.length < 0 || at.off > packUnit-at.length {
				break // not ours
			}
			p.noteLocked(digest(e[:32]), at)
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.next = (last + 1) % packUnits
	p.mu.Unlock()
}

func (p *pack) noteLocked(d digest, at place) {
	p.index[d] = at
	p.held[int(at.unit)] = append(p.held[int(at.unit)], d)
}

func verifyTag(_ int, p, tag []byte) bool {
	sum := sha256.Sum256(p)
	return string(sum[:]) == string(tag)
}

// put keeps a block.
func (p *pack) put(d digest, b []byte) {
	if p.open() == nil {
		return
	}
	p.mu.Lock()
	if _, twice := p.index[d]; twice {
		p.mu.Unlock()
		return
	}
	full := p.fresh != nil && (len(p.fresh)+len(b) > packUnit || len(p.listed) == packMost)
	p.mu.Unlock()
	if full {
		p.flush()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fresh == nil {
		p.fresh = make([]byte, packTable, packUnit)
	}
	if _, twice := p.index[d]; twice || len(p.fresh)+len(b) > packUnit || len(p.listed) == packMost {
		return // another was faster: it comes again when it is wanted again
	}
	p.index[d] = place{-1, int32(len(p.fresh)), int32(len(b))}
	p.fresh = append(p.fresh, b...)
	p.listed = append(p.listed, d)
}

// flush writes the unit that is being filled.
func (p *pack) flush() {
	p.opening.Lock()
	defer p.opening.Unlock()
	p.mu.Lock()
	o, u, fresh, listed := p.object, p.next, p.fresh, p.listed
	if o == nil || len(listed) == 0 {
		p.mu.Unlock()
		return
	}
	whole := make([]byte, packUnit) // fresh goes on being read meanwhile
	copy(whole, fresh)
	binary.BigEndian.PutUint32(whole, uint32(len(listed)))
	for i, d := range listed {
		at, e := p.index[d], whole[4+i*packEntry:]
		copy(e, d[:])
		binary.BigEndian.PutUint32(e[32:], uint32(at.off))
		binary.BigEndian.PutUint32(e[36:], uint32(at.length))
	}
	p.mu.Unlock()
	kept := p.write(o, u, whole)

	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.held[u] { // what was in the unit before
		if p.index[d].unit == int32(u) {
			delete(p.index, d)
		}
	}
	delete(p.held, u)
	for _, d := range p.listed {
		at := p.index[d]
		if delete(p.index, d); kept && at.off+at.length <= int32(len(fresh)) {
			at.unit = int32(u)
			p.noteLocked(d, at)
		}
	}
	p.fresh, p.listed = nil, nil
	if kept {
		p.next = (u + 1) % packUnits
	}
}

// write puts a unit into the cache.
func (p *pack) write(o *cache.Object, u int, whole []byte) bool {
	err := o.Begin(u)
	if err == nil {
		if err = o.WriteAt(whole, int64(u)*packUnit); err == nil {
			tag := sha256.Sum256(whole)
			o.Commit(u, tag[:])
			return true
		}
		o.Abandon(u)
	}
	p.log.Debug("blocks are not kept", "err", err)
	return false
}
