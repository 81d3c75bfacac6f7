package cache

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// defaultMinFree is what stays free if nobody says otherwise, or a twentieth of the disk.
const defaultMinFree = 512 << 20

// noSpace reports whether an error of a write means that the disk is full.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// lookAtDisk sets how large the cache may be for the disk to keep some bytes free.
func (s *Store) lookAtDisk() {
	free, least, ok := s.disk()
	if !ok {
		return
	}
	s.mu.Lock()
	s.space = s.used + free - least
	over := s.used > s.ceilingLocked()
	s.mu.Unlock()
	if over {
		s.wake()
	}
}

// makeSpace evicts because the disk is full, whatever the limit says; false: nothing can go.
func (s *Store) makeSpace(unit int64) bool {
	s.mu.Lock()
	s.space = min(s.space, s.used) // until the next look
	need := max(s.headroomLocked(), 2*unit)
	s.mu.Unlock()
	return s.evict(need) > 0
}

// complain logs why the disk takes nothing, once in a while.
func (s *Store) complain(err error) {
	now := time.Now().UnixNano()
	if last := s.complained.Load(); (last == 0 || now-last > int64(time.Minute)) && s.complained.CompareAndSwap(last, now) {
		s.log.Warn("the cache takes no more; what is read goes through memory, and nothing is read ahead", "dir", s.cfg.Dir, "err", err)
	}
}
