package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goneDir is where folders are removed that were evicted.
const goneDir = "gone"

// ErrFull means that nothing more can be evicted to make room.
var ErrFull = errors.New("cache is full and everything in it is in use")

// Config says where a Store lives and how large it may be.
type Config struct {
	Dir string
	// MinFree is how many bytes of the filesystem stay free, whatever Limit says; 0 means 512 MiB
	// or a twentieth of it, whichever is less; negative: none.
	MinFree   int64
	Limit     int64         // bytes of real blocks; at least one unit of each object that is read
	OpenFiles int           // descriptors kept open; 0 means 256
	SyncEvery time.Duration // how long verified bytes may stay unsynced; 0 means 1 s
	// VerifyAlways has every unit hashed each time it is read, and nothing read by the kernel.
	VerifyAlways bool
	Logger       *slog.Logger
}

// Store is one cache folder. It is safe for concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	lock    *os.File
	pool    *pool
	session session
	unclean bool // the last session left no clean mark
	start   time.Time
	readers atomic.Uint64
	kept    atomic.Int64  // bytes of bodies that the kernel reads by itself
	tainted atomic.Bool   // a journal lacks a record: this session leaves no clean mark
	hashing chan struct{} // bounds the memory of re-hashing: one unit at a time

	evicting sync.Mutex    // one eviction at a time; held across its I/O, taken before mu
	kick     chan struct{} // capacity 1: room is getting short

	memory     sync.Mutex // guards units and remembered; taken before Object.mu
	units      []inMemory
	remembered int64 // their bytes

	complained atomic.Int64 // when, Unix ns

	contents contents
	link     func(from, to string) error // os.Link

	mu      sync.Mutex
	limit   int64
	minFree int64 // as Config says it
	space   int64 // what used may be for the disk to keep minFree
	used    int64 // charged bytes of objects and dormant folders
	objects map[Key]*Object
	dormant map[string]dormant // folders of objects that are not open, by folder name
	pins    map[Key]*pin
	shares  map[shareKey]*share
	links   map[inode]linkedFile
}

type dormant struct {
	bytes int64           // but for links
	data  int64           // of bodies, with links
	links map[inode]int64 // bytes of files with several links
	at    time.Time       // last use

	doubt  int64 // bytes to be hashed again, if somebody looked
	looked bool
}

// Stored returns how many bytes of an object are on disk, roughly, and when they were
// used last, without opening it: 0 if the object is open.
func (s *Store) Stored(key Key) (bytes int64, used time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dormant[string(key)]
	return d.data, d.at
}

// Key names one object: "ih-" and an info-hash, or a CID. It is a folder name.
type Key string

// ReaderID names one open file towards a Source.
type ReaderID uint64

// Open takes the cache folder for this process. The caller runs Run and, after
// it has returned, calls Close.
func Open(cfg Config) (*Store, error) {
	if cfg.OpenFiles == 0 {
		cfg.OpenFiles = 256
	}
	if cfg.SyncEvery == 0 {
		cfg.SyncEvery = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	objects := filepath.Join(cfg.Dir, "objects")
	if err := os.MkdirAll(objects, 0o700); err != nil {
		return nil, fmt.Errorf("cache folder %s: %w; choose another with --cache-dir", cfg.Dir, cause(err))
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, lock: lock, pool: newPool(cfg.OpenFiles), start: time.Now(),
		hashing: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		limit: cfg.Limit, minFree: cfg.MinFree, space: math.MaxInt64, objects: map[Key]*Object{}, dormant: map[string]dormant{}, pins: map[Key]*pin{},
		shares: map[shareKey]*share{}, links: map[inode]linkedFile{}, contents: contents{of: map[ContentID][]holder{}}, link: os.Link,
	}
	if err := s.begin(objects); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cache folder %s: %w; choose another with --cache-dir", cfg.Dir, cause(err))
	}
	return s, nil
}

func (s *Store) begin(objects string) error {
	var err error
	if s.session, err = startSession(s.cfg.Dir); err != nil {
		return err
	}
	s.unclean = s.session.Distrust == s.session.Number-1 && s.session.Number > 1
	if err := os.RemoveAll(filepath.Join(s.cfg.Dir, goneDir)); err != nil {
		s.log.Warn("cache", "err", err)
	}
	list, err := os.ReadDir(objects)
	if err != nil {
		return err
	}
	for _, e := range list {
		d := measure(filepath.Join(objects, e.Name()))
		s.dormant[e.Name()] = d
		s.chargeLocked(d)
		s.contents.learn(e.Name(), s.readContents(e.Name()))
	}
	return nil
}

// measure counts the real blocks below dir.
func measure(dir string) dormant {
	var d dormant
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be seen cannot be evicted either
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			body := e.Type().IsRegular() && e.Name() != "units"
			if body {
				d.data += st.Blocks * 512
			}
			if body && st.Nlink > 1 {
				if d.links == nil {
					d.links = map[inode]int64{}
				}
				d.links[inode{uint64(st.Dev), st.Ino}] = st.Blocks * 512
			} else {
				d.bytes += st.Blocks * 512
			}
		}
		if e.Name() == "units" {
			d.at = info.ModTime()
		}
		return nil
	})
	return d
}

// leaving is written to the lock by a daemon that stops. Who wants the folder waits for it: an
// automounter, or umount and mount in a row, begins the next mount while the last one still puts
// its things away.
const (
	leaving     = "leaving"
	waitForAny  = time.Second      // umount(8) returns before the daemon knows
	waitLeaving = 20 * time.Second // more than every part of a daemon may take to stop
	waitTick    = 50 * time.Millisecond
)

func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cache folder %s: %w; choose another with --cache-dir", dir, cause(err))
	}
	began := time.Now()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		owner := make([]byte, 32)
		n, _ := f.ReadAt(owner, 0)
		pid, state, _ := strings.Cut(strings.TrimSpace(string(owner[:n])), " ")
		waited := time.Since(began)
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("cache folder %s: lock: %w", dir, err)
		case waited > waitLeaving || waited > waitForAny && state != leaving:
			f.Close()
			return nil, fmt.Errorf("cache folder %s: in use by process %s; stop it or choose another with --cache-dir", dir, pid)
		}
		time.Sleep(waitTick)
	}
	sign(f, "")
	return f, nil
}

// sign writes into a lock who has it: only a hint.
func sign(f *os.File, state string) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strings.TrimSpace(fmt.Sprint(os.Getpid(), " ", state))+"\n"), 0)
	}
}

// Leave tells who wants the folder that Close will be called soon.
func (s *Store) Leave() { sign(s.lock, leaving) }

// cause drops the path that an *fs.PathError repeats.
func cause(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Run syncs what was verified and keeps some room free, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
			s.keepRoom()
		case <-tick.C:
			s.lookAtDisk()
			if err := s.sync(); err != nil {
				s.log.Error("cache sync", "dir", s.cfg.Dir, "err", err)
			}
		}
	}
}

// Close syncs everything, leaves the clean mark and frees the folder. No reader
// or writer may be active any more.
func (s *Store) Close() error {
	s.mu.Lock()
	objects := make([]*Object, 0, len(s.objects))
	for _, o := range s.objects {
		objects = append(objects, o)
	}
	s.mu.Unlock()
	var errs error
	for _, o := range objects {
		errs = errors.Join(errs, o.close(false))
	}
	if errs == nil && !s.tainted.Load() {
		s.session.Clean = true
		errs = s.session.save(s.cfg.Dir)
	}
	return errors.Join(errs, s.lock.Close())
}

// sync brings bodies, then journals, to the disk.
func (s *Store) sync() error {
	s.mu.Lock()
	objects := make([]*Object, 0, len(s.objects))
	for _, o := range s.objects {
		if o.journal.isDirty() {
			objects = append(objects, o)
		}
	}
	s.mu.Unlock()
	var errs error
	for _, o := range objects {
		errs = errors.Join(errs, o.sync())
	}
	return errs
}

// Usage returns the bytes charged and the limit.
func (s *Store) Usage() (used, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.limit
}

// Room returns how much of the limit is left for what is read: all but what is pinned, or
// read by the kernel.
func (s *Store) Room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := s.ceilingLocked() - s.kept.Load()
	for _, p := range s.pins {
		room -= p.cost
	}
	return max(0, room)
}

// SetLimit changes how many bytes the cache may have, and evicts what is above. It fails with
// a TooSmallError, and changes nothing, if what is pinned would take more than seven eighths of that.
func (s *Store) SetLimit(limit int64) error {
	s.mu.Lock()
	pinned := int64(0)
	for _, p := range s.pins {
		pinned += p.cost
	}
	if limit < s.limit && pinned > mayPin(limit) {
		s.mu.Unlock()
		return &TooSmallError{Pinned: pinned, Least: (pinned*8 + 6) / 7}
	}
	s.limit = limit
	s.mu.Unlock()
	s.keepRoom()
	return nil
}

// SetMinFree changes how many bytes of the filesystem stay free, as Config.MinFree, and evicts
// what is above.
func (s *Store) SetMinFree(bytes int64) {
	s.mu.Lock()
	s.minFree = bytes
	s.mu.Unlock()
	s.lookAtDisk()
	s.keepRoom()
}

// wake has Run look whether there is room.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// tick is the unit of clock.
const tick = 100 * time.Millisecond

// clock is a coarse monotonic time in ticks, for recency only.
func (s *Store) clock() uint32 { return s.stamp(time.Now()) }

// stamp is what clock said at a time; 0 for an earlier session.
func (s *Store) stamp(at time.Time) uint32 {
	if at.Before(s.start) {
		return 0
	}
	return uint32(at.Sub(s.start)/tick) + 1
}

// reserve charges n bytes, evicting as needed.
func (s *Store) reserve(n int64) error {
	for {
		s.mu.Lock()
		limit := s.ceilingLocked()
		over := s.used + n - limit
		if over <= 0 {
			s.used += n
			short := s.used > limit-s.headroomLocked()
			s.mu.Unlock()
			if short {
				s.wake()
			}
			return nil
		}
		s.mu.Unlock()
		if s.evict(over) == 0 {
			return fmt.Errorf("%w: %d bytes wanted under a limit of %d; raise --cache-size", ErrFull, n, limit)
		}
	}
}

func (s *Store) unreserve(n int64) {
	s.mu.Lock()
	s.used -= n
	s.mu.Unlock()
}

// headroomLocked is what Run keeps free, so that a fill rarely has to evict by itself. Every
// eviction looks at all units, so a large cache frees more at a time.
func (s *Store) headroomLocked() int64 {
	c := max(0, s.ceilingLocked())
	return min(c/16, max(64<<20, c/256))
}

// ceilingLocked is how much there may be now.
func (s *Store) ceilingLocked() int64 { return min(s.limit, s.space) }
