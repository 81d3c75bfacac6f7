package swarm

import (
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// hashServer answers the hash requests of others. Layers above the pieces are in
// memory. Leaves are hashed again from the store, which reads verified bytes only, in
// one goroutine that ends when nothing is left to do; those of the last pieces are
// kept, since the next request is for their neighbours. What all peers and what one
// peer can make us hash in a second is bounded, and so is the queue: the rest is
// rejected, and asked of others. Run owns it.
type hashServer struct {
	h       *hashing
	jobs    []hashJob
	working bool
	summed  int64 // bytes hashed in this second
	kept    map[int][]merkle.Hash
	size    int // leaves kept
}

// hashJob is a request that waits for the leaves of pieces.
type hashJob struct {
	c           *conn
	r           merkle.Request
	file        int
	first, last int // pieces of the torrent
}

const (
	maxServedHashes = 512 // of one layer: all that BEP 52 lets a peer ask; a piece may have more leaves
	maxHashJobs     = 512
	maxPeerJobs     = 2 * maxHashAsks
	maxSummed       = 128 << 20 // bytes hashed in a second, for all
	maxPeerSummed   = 64 << 20  // for one peer
	maxAnswers      = 256       // to one peer in a second
	maxKeptLeaves   = 64 << 10  // 2 MiB
)

// hashMessage handles messages 21 to 23.
func (t *Torrent) hashMessage(c *conn, m *wire.Message) error {
	switch {
	case m.Type == pp.HashRequest:
		if t.hashes == nil || t.client.cfg.NoUpload || !t.hashes.server.asked(c, m.Hashes) {
			c.write(wire.AppendHashes(nil, pp.HashReject, m.Hashes))
		}
	case t.hashes == nil: // nothing was asked
		if c.hash.strays++; c.hash.strays > maxStrays {
			return errHashes
		}
	case m.Type == pp.Hashes:
		return t.hashes.got(c, m.Hashes, m.Payload)
	default:
		return t.hashes.rejected(c, m.Hashes)
	}
	return nil
}

// tick begins another second.
func (s *hashServer) tick() {
	s.summed = 0
	for c := range s.h.t.conns {
		c.hash.summed, c.hash.answers = 0, 0
	}
}

// asked answers a request, now or later; false: it is to be rejected.
func (s *hashServer) asked(c *conn, r merkle.Request) bool {
	file, ok := s.h.byRoot[r.Root]
	if !ok || c.hash.answers >= maxAnswers {
		return false
	}
	tree := s.h.trees[file]
	if r.Valid(tree.Blocks) != nil || int(r.Length) > max(maxServedHashes, 1<<tree.Piece) {
		return false
	}
	c.hash.answers++
	if int(r.Base) >= tree.Piece {
		return s.answer(c, r, file, nil)
	}
	if r.Base != 0 {
		return false // BEP 52 asks for the leaf and piece layers only
	}
	first, last := int(r.Index)>>tree.Piece, int(r.Index+r.Length-1)>>tree.Piece+1
	base := s.h.grid.file[file].first
	j := hashJob{c, r, file, base + first, base + min(last, tree.Pieces())}
	if s.answer(c, r, file, s.leaves(j)) {
		return true
	}
	work := int64(j.last-j.first) * s.h.grid.info.PieceLength
	if c.hash.jobs >= maxPeerJobs || len(s.jobs) >= maxHashJobs || s.summed > maxSummed || c.hash.summed > maxPeerSummed {
		return false
	}
	for p := j.first; p < j.last; p++ {
		u, _ := s.h.grid.of(p)
		if !s.h.grid.all(u, s.h.t.store.Has) {
			return false
		}
	}
	s.summed += work
	c.hash.summed += work
	c.hash.jobs++
	s.jobs = append(s.jobs, j)
	s.work()
	return true
}

// answer sends what was asked for if it is known.
func (s *hashServer) answer(c *conn, r merkle.Request, file int, leaves map[int][]merkle.Hash) bool {
	base := s.h.grid.file[file].first
	hashes, ok := s.h.trees[file].Answer(r, func(p int) []merkle.Hash { return leaves[base+p] })
	if ok {
		c.write(wire.AppendHashes(nil, pp.Hashes, r, hashes...))
	}
	return ok
}

// leaves returns the leaves of the pieces of a job that are kept.
func (s *hashServer) leaves(j hashJob) map[int][]merkle.Hash {
	out := map[int][]merkle.Hash{}
	for p := j.first; p < j.last; p++ {
		if l := s.kept[p]; l != nil {
			out[p] = l
		}
	}
	return out
}

// work does the next job, unless one is under way.
func (s *hashServer) work() {
	if s.working || len(s.jobs) == 0 {
		return
	}
	j := s.jobs[0]
	s.jobs = s.jobs[1:]
	s.working = true
	t := s.h.t
	leaves := s.leaves(j)
	store, g := t.store, s.h.grid
	t.pool.group.Go(func() { // ends with the job
		_ = fault.Catch(t.log, "the hashing for a peer", func() error {
			for p := j.first; p < j.last; p++ {
				if leaves[p] == nil {
					off := int64(p) * g.info.PieceLength
					if leaves[p] = sumStored(store, off, g.end(p)); leaves[p] == nil {
						break
					}
				}
			}
			return nil
		})
		t.post(func() { s.done(j, leaves) })
	})
}

// sumStored returns the leaves of bytes that are verified, nil if some are missing.
func sumStored(store Store, off, end int64) (leaves []merkle.Hash) {
	buf := make([]byte, 256<<10)
	for off < end {
		part := buf[:min(int64(len(buf)), end-off)]
		if store.ReadPresent(part, off) != nil {
			return nil
		}
		leaves = append(leaves, merkle.SumBlocks(part)...)
		off += int64(len(part))
	}
	return leaves
}

// done answers a job whose leaves were hashed. Leaves that do not lead to the piece
// layer are of files that changed under a seed: they are not sent.
func (s *hashServer) done(j hashJob, leaves map[int][]merkle.Hash) {
	s.working = false
	j.c.hash.jobs--
	tree := s.h.trees[j.file]
	for p := j.first; p < j.last; p++ {
		node, ok := tree.PieceNode(p - s.h.grid.file[j.file].first)
		if leaves[p] == nil || !ok || merkle.Root(leaves[p], 0, tree.Piece) != node {
			delete(leaves, p)
			continue
		}
		s.keep(p, leaves[p])
	}
	if !j.c.closed && !s.answer(j.c, j.r, j.file, leaves) {
		j.c.write(wire.AppendHashes(nil, pp.HashReject, j.r))
	}
	s.work()
}

func (s *hashServer) keep(piece int, leaves []merkle.Hash) {
	if s.kept == nil || s.size > maxKeptLeaves {
		s.kept, s.size = map[int][]merkle.Hash{}, 0
	}
	if s.kept[piece] == nil {
		s.size += len(leaves)
	}
	s.kept[piece] = leaves
}
