package unixfs

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"

	"github.com/btmount/btmount/btfs/crawl"
)

// Limits of a HAMT. BTFS makes them with a fanout of 256.
const (
	minFanout  = 8
	maxFanout  = 1024
	murmur64   = 0x22 // the code of the only hash that is in use: murmur3, 64 bits
	maxEntries = 1 << 19
	maxShards  = 1 << 17
)

// hamt is a directory in many blocks. A name stands where the bits of its hash lead; a
// link of a shard begins with its place in hex, and what follows is the name, or nothing
// if the link leads to a shard below.
type hamt struct {
	blocks Blocks
	cid    cid.Cid
	root   *Node
}

// shard is one block of it, in the crawl of a listing.
type shard struct {
	cid    cid.Cid
	node   *Node
	prefix uint64 // the bits of a hash that led here
	used   int    // how many
	fanout uint64
}

// checkShard holds a shard against itself.
func (n *Node) checkShard() error {
	switch {
	case n.HashType != murmur64:
		return fmt.Errorf("a HAMT with hash 0x%x: only murmur3 is in use", n.HashType)
	case n.Fanout < minFanout || n.Fanout > maxFanout || bits.OnesCount64(n.Fanout) != 1:
		return fmt.Errorf("a HAMT with a fanout of %d: a power of two from %d to %d is usual", n.Fanout, minFanout, maxFanout)
	}
	digits := n.digits()
	set := n.bitfield()
	if count := ones(set); count != len(n.Links) {
		return fmt.Errorf("a HAMT with %d links and %d places for them", len(n.Links), count)
	}
	last := -1
	for _, l := range n.Links {
		at, err := place(l.Name, digits)
		if err != nil || at <= last || at >= int(n.Fanout) || !isSet(set, at) {
			return fmt.Errorf("a HAMT whose link %.40q is not in its place", l.Name)
		}
		last = at
	}
	return nil
}

// digits is how many of hex a place has.
func (n *Node) digits() int { return len(strconv.FormatUint(n.Fanout-1, 16)) }

// bitfield is a big-endian number without leading zeros.
func (n *Node) bitfield() []byte { return n.Data }

func ones(set []byte) (count int) {
	for _, b := range set {
		count += bits.OnesCount8(b)
	}
	return count
}

func isSet(set []byte, i int) bool {
	at := len(set) - 1 - i/8
	return at >= 0 && set[at]>>(i%8)&1 == 1
}

func place(name string, digits int) (int, error) {
	if len(name) < digits {
		return 0, errors.New("too short")
	}
	n, err := strconv.ParseUint(name[:digits], 16, 16)
	return int(n), err
}

// hashOf is the hash by which a name is placed. Its bits are used from the highest.
func hashOf(name string) uint64 { return murmur3.Sum64([]byte(name)) }

// step returns the next bits of a hash.
func step(hash uint64, used int, fanout uint64) uint64 {
	return hash << used >> (64 - bits.TrailingZeros64(fanout))
}

// enter holds a shard that came against its place in the tree.
func (s *shard) enter(n *Node) error {
	width := bits.TrailingZeros64(s.fanout)
	switch {
	case n.Type != TypeHAMT:
		return fmt.Errorf("a %s in the middle of a HAMT", n.Type)
	case n.Fanout != s.fanout:
		return fmt.Errorf("a HAMT with a fanout of %d below one of %d", n.Fanout, s.fanout)
	case s.used > 0 && len(n.Links) == 0:
		return errors.New("an empty shard of a HAMT")
	case s.used+width > 64:
		return errors.New("a HAMT deeper than its hash")
	}
	return nil
}

func (h *hamt) start() shard { return shard{cid: h.cid, node: h.root, fanout: h.root.Fanout} }

// below returns the shard at a link.
func (s *shard) below(l *Link, at int) shard {
	width := bits.TrailingZeros64(s.fanout)
	return shard{cid: l.CID(), prefix: s.prefix<<width | uint64(at), used: s.used + width, fanout: s.fanout}
}

// load brings a shard, unless it is the root.
func (h *hamt) load(ctx context.Context, s *shard) (*Node, error) {
	n := s.node
	if n == nil {
		var err error
		if n, err = load(ctx, h.blocks, s.cid, -1); err != nil {
			return nil, err
		}
	}
	if err := s.enter(n); err != nil {
		return nil, &LieError{s.cid, -1, err}
	}
	return n, nil
}

func (h *hamt) lookup(ctx context.Context, name string) (*Object, error) {
	if goodName(name) != nil {
		return nil, ErrNotFound
	}
	hash, s := hashOf(name), h.start()
next:
	for {
		n, err := h.load(ctx, &s)
		if err != nil {
			return nil, err
		}
		digits, want := n.digits(), int(step(hash, s.used, s.fanout))
		for i := range n.Links {
			l := &n.Links[i]
			if at, _ := place(l.Name, digits); at != want {
				continue
			}
			switch l.Name[digits:] {
			case name:
				return Open(ctx, h.blocks, l.CID())
			case "":
				s = s.below(l, at(l, digits))
				continue next
			}
			break
		}
		return nil, ErrNotFound
	}
}

func at(l *Link, digits int) int {
	n, _ := place(l.Name, digits) // checkShard read it
	return n
}

// list visits all shards, many at a time.
func (h *hamt) list(ctx context.Context) ([]Entry, error) {
	var mu sync.Mutex
	var all []Entry
	seen := map[cid.Cid]bool{}
	err := crawl.Run(ctx, crawl.Limits{Width: shards, Pending: limits.Pending}, []shard{h.start()}, func(ctx context.Context, s shard, push func(...shard)) error {
		n, err := h.load(ctx, &s)
		if err != nil {
			return err
		}
		entries, shards, err := s.split(n)
		if err != nil {
			return &LieError{s.cid, -1, err}
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, entries...)
		for _, sub := range shards {
			// Two places of one shard would need two hashes of each name in it.
			if seen[sub.cid] {
				return &LieError{sub.cid, -1, errors.New("a shard that is twice in one HAMT")}
			}
			seen[sub.cid] = true
		}
		if len(all) > maxEntries || len(seen) > maxShards {
			return &LieError{h.cid, -1, fmt.Errorf("a HAMT of more than %d names or %d shards", maxEntries, maxShards)}
		}
		push(shards...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortEntries(all)
	return all, nil
}

// split parts the links of a shard, and holds each name against its hash.
func (s *shard) split(n *Node) (entries []Entry, shards []shard, err error) {
	digits, width := n.digits(), bits.TrailingZeros64(s.fanout)
	for i := range n.Links {
		l := &n.Links[i]
		sub := s.below(l, at(l, digits))
		name := l.Name[digits:]
		if name == "" {
			shards = append(shards, sub)
			continue
		}
		if err := goodName(name); err != nil {
			return nil, nil, err
		}
		if hashOf(name)>>(64-s.used-width) != sub.prefix {
			return nil, nil, fmt.Errorf("a HAMT in which %.40q is not where its hash leads", name)
		}
		entries = append(entries, Entry{Name: name, CID: l.CID(), Size: about(l.Size)})
	}
	return entries, shards, nil
}
