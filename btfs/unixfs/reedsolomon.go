package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/reedsolomon"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/crawl"
)

// Limits and times of repair.
const (
	maxShardsRS  = 256 // of bytes; with more the code is another one
	repairChunk  = 256 << 10
	repairMemory = 16 << 20
	retryShard   = time.Minute     // a shard that could not be had is asked for again after it
	leafTimeout  = 2 * time.Second // to find out what a repaired part has to be
)

// joined is the content of a Reed-Solomon file: its data shards end to end.
type joined struct {
	blocks  Blocks
	links   []Link // a tree of blocks for each shard, data first
	data    int
	each    int64 // bytes of a shard
	length  int64
	chunk   int64 // what is repaired at a time: a leaf of a shard
	encoder reedsolomon.Encoder

	mu   sync.Mutex
	gone map[int]time.Time // shards that could not be had, and when
	bare map[int]bool      // shards whose inner blocks could not be had either
	last struct {          // what was repaired last
		shard int
		at    int64
		bytes []byte
	}
}

// reedSolomon is the file or directory whose shards are the links of n.
func (m *tokenMeta) reedSolomon(blocks Blocks, c cid.Cid, n *Node) (*Object, error) {
	lie := func(format string, args ...any) error { return &LieError{c, -1, fmt.Errorf(format, args...)} }
	total := m.NumData + m.NumParity
	switch {
	case m.NumData < 1 || m.NumParity < 0 || m.NumData > maxShardsRS || m.NumParity > maxShardsRS || total > maxShardsRS:
		return nil, lie("%d data and %d parity shards", m.NumData, m.NumParity)
	case n.Type != TypeFile || len(n.Links) != total || len(n.Data) > 0:
		return nil, lie("a %s with %d links where %d shards are promised", n.Type, len(n.Links), total)
	}
	// BTFS counts in the sizes of shards the blocks, and not the bytes in them: these
	// follow from the size of the file.
	each := m.FileSize / int64(m.NumData)
	if m.FileSize%int64(m.NumData) > 0 {
		each++
	}
	for _, s := range n.Sizes {
		if m.FileSize < 0 || s != n.Sizes[0] || s < each {
			return nil, lie("%d bytes in %d shards, and one of them has %d", m.FileSize, m.NumData, s)
		}
	}
	encoder, err := reedsolomon.New(m.NumData, m.NumParity)
	if err != nil {
		return nil, lie("%v", err)
	}
	chunk := m.ChunkSize
	if chunk < 1 || chunk > repairMemory/int64(total) {
		chunk = min(repairChunk, repairMemory/int64(total))
	}
	j := &joined{
		blocks: blocks, links: n.Links, data: m.NumData, each: each, length: m.FileSize, chunk: chunk, encoder: encoder,
		gone: map[int]time.Time{}, bare: map[int]bool{},
	}
	o := &Object{Kind: File, Size: m.FileSize, Mode: n.Mode, ModTime: n.ModTime, content: j}
	o.Format = fmt.Sprintf("Reed-Solomon file, %d data and %d parity shards", m.NumData, m.NumParity)
	if m.IsDir {
		if m.tree.BaseNode.NodeType != rsDirectory {
			return nil, lie("a Reed-Solomon directory whose tree is none")
		}
		if err := m.tree.check(m.FileSize, 0); err != nil {
			return nil, lie("%w", err)
		}
		o.Kind, o.Size, o.content, o.dir = Dir, 0, nil, &rsDir{j, &m.tree}
		o.Format = fmt.Sprintf("Reed-Solomon directory, %d data and %d parity shards", m.NumData, m.NumParity)
	}
	return o, nil
}

func (j *joined) size() int64 { return j.length }

// slice is what of a read stands in one shard.
type slice struct {
	shard int
	p     []byte
	off   int64 // in the shard
}

func (j *joined) readAt(ctx context.Context, p []byte, off int64) error {
	var all []slice
	for len(p) > 0 {
		s := slice{shard: int(off / j.each), off: off % j.each}
		n := min(int64(len(p)), j.each-s.off)
		s.p, p, off = p[:n], p[n:], off+n
		all = append(all, s)
	}
	return crawl.Run(ctx, limits, all, func(ctx context.Context, s slice, _ func(...slice)) error { return j.readShard(ctx, s) })
}

func (j *joined) shard(i int) *dag {
	return &dag{blocks: j.blocks, cid: j.links[i].CID(), length: j.each, at: int64(i) * j.each}
}

// readShard reads a shard, or repairs the part of it that is wanted.
func (j *joined) readShard(ctx context.Context, s slice) error {
	cause := errors.New("it could not be had a moment ago")
	if !j.isGone(s.shard) {
		if cause = j.shard(s.shard).readAt(ctx, s.p, s.off); cause == nil || ctx.Err() != nil {
			return cause
		}
		j.lost(s.shard)
	}
	for len(s.p) > 0 {
		start := s.off / j.chunk * j.chunk
		b, err := j.repair(ctx, s.shard, start)
		if err != nil {
			return fmt.Errorf("shard %d: %w; repair: %w", s.shard, cause, err)
		}
		n := copy(s.p, b[s.off-start:])
		s.p, s.off = s.p[n:], s.off+int64(n)
	}
	return nil
}

func (j *joined) isGone(i int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, ok := j.gone[i]
	return ok && time.Since(at) < retryShard
}

func (j *joined) lost(i int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gone[i] = time.Now()
}

// repair computes one chunk of a shard from the same chunk of as many others as there
// are data shards: bytes of a code depend on bytes at the same place only.
func (j *joined) repair(ctx context.Context, i int, at int64) ([]byte, error) {
	j.mu.Lock()
	last := j.last
	j.mu.Unlock()
	if last.bytes != nil && last.shard == i && last.at == at {
		return last.bytes, nil
	}
	parts, err := j.others(ctx, i, at, min(j.chunk, j.each-at))
	if err != nil {
		return nil, err
	}
	wanted := make([]bool, len(parts))
	wanted[i] = true
	if err := j.encoder.ReconstructSome(parts, wanted); err != nil {
		return nil, err
	}
	if err := j.verify(ctx, i, at, parts); err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last.shard, j.last.at, j.last.bytes = i, at, parts[i]
	return parts[i], nil
}

// others brings a chunk of as many other shards as are needed: of those that are there,
// data shards first, since they are what is read anyway.
func (j *joined) others(ctx context.Context, i int, at, n int64) ([][]byte, error) {
	var order, late []int
	for k := range j.links {
		switch {
		case k == i:
		case j.isGone(k):
			late = append(late, k)
		default:
			order = append(order, k)
		}
	}
	order = append(order, late...)
	if len(order) < j.data {
		return nil, errors.New("there is no parity")
	}
	var mu sync.Mutex
	parts, next := make([][]byte, len(j.links)), j.data
	err := crawl.Run(ctx, limits, order[:j.data], func(ctx context.Context, k int, push func(...int)) error {
		p := make([]byte, n)
		err := j.shard(k).readAt(ctx, p, at)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			parts[k] = p
		case ctx.Err() != nil:
			return err
		case next == len(order):
			return fmt.Errorf("fewer than %d of %d shards could be had; the last: %w", j.data, len(j.links), err)
		default:
			j.lost(k)
			push(order[next])
			next++
		}
		return nil
	})
	return parts, err
}

// verify holds what was repaired against the CID of the leaf that it was. Where that is
// not known, since the inner blocks of the shard are gone too, it was still computed from
// verified blocks alone.
func (j *joined) verify(ctx context.Context, i int, at int64, parts [][]byte) error {
	c, ok := j.leaf(ctx, i, at, int64(len(parts[i])))
	if !ok || block.Verify(c, parts[i]) == nil {
		return nil
	}
	for _, tail := range j.tails(ctx, i, at, parts) {
		for _, t := range []Type{TypeFile, TypeRaw} {
			if block.Verify(c, encodeLeaf(t, parts[i], tail)) == nil {
				return nil
			}
		}
	}
	return &LieError{c, int64(i)*j.each + at, errors.New("what its parity gives is not what its CID says")}
}

// tails are what leaves may have after their bytes: shards were made within moments of
// each other, and their leaves may say when.
func (j *joined) tails(ctx context.Context, i int, at int64, parts [][]byte) [][]byte {
	all := [][]byte{nil}
	for k, p := range parts {
		if p == nil || k == i {
			continue
		}
		c, ok := j.leaf(ctx, k, at, int64(len(p)))
		if !ok {
			continue
		}
		b, err := j.blocks.Block(ctx, c)
		if tail := leafTail(b); err == nil && !slices.ContainsFunc(all, func(t []byte) bool { return bytes.Equal(t, tail) }) {
			all = append(all, tail)
		}
	}
	return all
}

// leaf finds the CID of the leaf that holds just these bytes of a shard.
func (j *joined) leaf(ctx context.Context, i int, at, n int64) (c cid.Cid, ok bool) {
	c, start, size := j.links[i].CID(), int64(0), j.each
	for levels := 0; start != at || size != n; levels++ {
		node, ok := j.inner(ctx, i, c)
		if !ok || levels > maxDepth || len(node.Data) > 0 {
			return c, false
		}
		found := false
		for k, s := range node.Sizes {
			if found = start <= at && at+n <= start+s; found {
				c, size = node.Links[k].CID(), s
				break
			}
			start += s
		}
		if !found {
			return c, false
		}
	}
	return c, true
}

// inner brings an inner block of a shard, if it comes soon: most often it did before.
func (j *joined) inner(ctx context.Context, i int, c cid.Cid) (*Node, bool) {
	j.mu.Lock()
	bare := j.bare[i]
	j.mu.Unlock()
	if bare {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, leafTimeout)
	defer cancel()
	n, err := load(ctx, j.blocks, c, 0)
	if err != nil {
		j.mu.Lock()
		j.bare[i] = true
		j.mu.Unlock()
	}
	return n, err == nil
}
