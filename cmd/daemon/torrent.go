package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	iofs "io/fs"
	"net/netip"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/catalog"
	"github.com/btmount/btmount/fs/tree"
)

// torrent is one torrent as the catalog sees it, and as the scheduler does. What it
// keeps at all times is little: there may be tens of thousands.
type torrent struct {
	daemon    *Daemon
	hash      metainfo.InfoHash
	short     metainfo.InfoHash // of the v2 half of a hybrid; zeros: none is known
	hashV2    [32]byte          // of a magnet that has it
	label     string            // shown until the metadata names it
	from      string            // where it was found, for messages
	trackers  [][]string
	webSeeds  []string // of the magnet or the .torrent
	webPieces []string // of the .torrent
	hints     []netip.AddrPort
	only      []int // numbers of the files that are shown, sorted; nil: all
	handle    catalog.Handle
	bad       atomic.Pointer[string] // why its metadata will never be mounted

	shape   atomic.Pointer[shape]   // nil while the metadata is missing
	parts   atomic.Pointer[parts]   // nil while nobody needs them
	session atomic.Pointer[session] // nil while it is dormant
	pins    atomic.Pointer[pinning] // nil: nothing is pinned
	open    atomic.Int64            // files
	fetches atomic.Int64            // Fetch calls
	used    atomic.Int64            // when someone last opened or fetched something, Unix nanoseconds

	change sync.Mutex // held while parts or session come or go; see dormant.go
	left   *swarm.Torrent
	faults faults

	mu     sync.Mutex
	totals swarm.Totals // of sessions that ended
}

// shape is what listing and stat need of a torrent's metadata; immutable.
type shape struct {
	name        string
	tree        *tree.Tree
	mtime       time.Time
	length      int64
	files       int // also those that are not selected
	pieceLength int64
	pieces      int
}

// parts are the metadata of a torrent and what is opened with it; immutable.
type parts struct {
	meta   *metainfo.Meta
	object *cache.Object
}

// newShape shows all files of a torrent, or those that its magnet selects.
func (t *torrent) newShape(meta *metainfo.Meta) (*shape, error) {
	info := meta.Info
	specs, files := make([]tree.Spec, 0, len(info.Files)), 0
	only := t.only
	for i, f := range info.Files {
		for len(only) > 0 && only[0] < i {
			only = only[1:]
		}
		if f.Pad {
			continue
		}
		files++
		if t.only != nil && (len(only) == 0 || only[0] != i) {
			continue
		}
		s := tree.Spec{Path: f.Path, Size: f.Length, Exec: f.Exec, Symlink: f.Symlink, Tag: i}
		if info.Single {
			s.Path = nil
		}
		specs = append(specs, s)
	}
	if beyond := len(t.only) - sort.SearchInts(t.only, len(info.Files)); beyond > 0 && len(specs) > 0 {
		t.daemon.log.Warn("the magnet link selects files that the torrent does not have; they are left out", "torrent", t.hash, "files", len(info.Files), "left_out", beyond)
	}
	if len(specs) == 0 && t.only != nil {
		return nil, fmt.Errorf("none of the files that so= selects is in the torrent, which has the files 0 to %d; correct the magnet link, or leave so= out", len(info.Files)-1)
	}
	return &shape{
		name: info.Name, tree: tree.Build(specs), mtime: meta.Created, files: files,
		length: info.Length, pieceLength: info.PieceLength, pieces: info.NumPieces(),
	}, nil
}

func layout(key cache.Key, meta *metainfo.Meta) cache.Layout {
	info := meta.Info
	l := cache.Layout{Key: key, Unit: swarm.UnitLength(meta), Size: info.Length, Tag: swarm.TagSize(meta), Verify: swarm.Verify(meta)}
	for _, f := range info.Files {
		if f.Pad || f.Symlink != nil {
			continue
		}
		l.Files = append(l.Files, extent.Extent{Off: f.Offset, Len: f.Length})
		if meta.ByTree() { // else a root is a claim that nobody checks
			l.Content = append(l.Content, f.Root)
		}
	}
	return l
}

func (t *torrent) key() cache.Key { return cache.Key("ih-" + t.hash.String()) }

func (t *torrent) ready() bool { return t.shape.Load() != nil }

// gotInfo is called by the swarm when a magnet's metadata has come.
func (t *torrent) gotInfo(info *metainfo.Info, err error) {
	if err == nil {
		meta := t.daemon.firstSeen(t.hash, &metainfo.Meta{Info: info})
		t.daemon.saveState(t.hash, meta)
		err = t.turnReal(meta)
	}
	if err != nil {
		why := fmt.Sprintf("the metadata of %s can not be mounted: %v", t.hash, err)
		t.bad.Store(&why)
		t.daemon.log.Error("cannot mount", "torrent", t.hash, "err", err)
	}
}

func (t *torrent) turnReal(meta *metainfo.Meta) error {
	shape, err := t.newShape(meta)
	if err != nil {
		return err
	}
	t.change.Lock()
	p, err := t.prepareLocked(meta)
	if err == nil {
		t.daemon.alias(t, meta.Info)
		t.shape.Store(shape)
		t.touch() // who asked for it is about to read
		if s := t.session.Load(); s != nil {
			s.swarm.Attach(meta, p.object)
			p.object.SetPeers(s.swarm.Available)
		}
	}
	t.change.Unlock()
	if err != nil {
		return err
	}
	if err := t.daemon.catalog.Replace(t.handle, meta.Info.Name, t); err != nil {
		return err
	}
	t.daemon.matchSoon(t) // not here: the session that brought the metadata may have to end first
	return nil
}

// reason is what the file "reason" of a resolving magnet says.
func (t *torrent) reason() []byte {
	if why := t.bad.Load(); why != nil {
		return []byte(*why + "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s := t.status(ctx)
	switch {
	case s.Peers > 0:
		return fmt.Appendf(nil, "waiting for the metadata of %s: %d peers connected, none has sent it yet\n", t.hash, s.Peers)
	case t.sources() > 0:
		return fmt.Appendf(nil, "waiting for the metadata of %s: %d peers known, none answers yet\n", t.hash, t.sources())
	}
	return fmt.Appendf(nil, "waiting for the metadata of %s: no peer known yet; name one with --peer or a tracker with --tracker\n", t.hash)
}

// Tree implements catalog.Mountable.
func (t *torrent) Tree() *tree.Tree { return t.shape.Load().tree }

// Identity implements catalog.Mountable.
func (t *torrent) Identity() [32]byte { return sha256.Sum256(t.hash[:]) }

// ModTime implements catalog.Mountable.
func (t *torrent) ModTime() time.Time { return t.shape.Load().mtime }

// span returns where a file lies; the whole torrent for other tags.
func (p *parts) span(tag int) extent.Extent {
	info := p.meta.Info
	if tag < 0 || tag >= len(info.Files) {
		return extent.Extent{Len: info.Length}
	}
	return extent.Extent{Off: info.Files[tag].Offset, Len: info.Files[tag].Length}
}

// Present implements catalog.Mountable. Nothing is settled yet: a complete file may
// be evicted, and stat has to tell so. Of what is not in memory it is told as exactly as
// is possible without loading it, unless a single file of several is meant.
func (t *torrent) Present(tag int) (int64, bool) {
	p, s := t.parts.Load(), t.shape.Load()
	if p == nil {
		stored, _ := t.daemon.cache.Stored(t.key())
		if stored == 0 || tag < 0 || s.files == 1 {
			return min(stored, s.length), s.length == 0
		}
		var err error
		if p, err = t.load(); err != nil {
			return 0, false
		}
	}
	span := p.span(tag)
	if span.Empty() {
		return 0, true
	}
	return p.object.PresentIn(span), false
}

// Open implements catalog.Mountable.
func (t *torrent) Open(_ context.Context, tag int) (fs.Content, error) {
	if tag < 0 {
		return nil, iofs.ErrInvalid
	}
	t.open.Add(1) // before load: what is open stays
	p, err := t.load()
	if err != nil {
		t.open.Add(-1)
		return nil, err
	}
	return &reading{Reader: p.object.NewReader(p.span(tag), t.daemon.scheduler), t: t}, nil
}

// reading is one open file.
type reading struct {
	*cache.Reader
	t      *torrent
	closed atomic.Bool
}

// ReadAt tells a read that timed out because nobody is known to have the torrent
// from one that timed out because those who have it were too slow.
func (r *reading) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(ctx, p, off)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && r.t.sources() == 0 {
		err = &swarm.NoSourceError{Hash: r.t.hash}
	}
	return n, err
}

// Close closes the file. The torrent may be forgotten from now on.
func (r *reading) Close() error {
	err := r.Reader.Close()
	if !r.closed.Swap(true) {
		r.t.touch()
		r.t.open.Add(-1)
	}
	return err
}

// Attributes implements catalog.Mountable.
func (t *torrent) Attributes(tag int) []string {
	names := []string{"user.btmount.infohash", "user.btmount.progress", "user.btmount.peers"}
	if tag >= 0 {
		names = append(names, "user.btmount.file")
	}
	return names
}

// Attribute implements catalog.Mountable.
func (t *torrent) Attribute(tag int, name string) ([]byte, error) {
	switch name {
	case "user.btmount.infohash":
		return []byte(t.hash.String()), nil
	case "user.btmount.progress":
		p, err := t.load()
		if err != nil {
			return nil, err
		}
		span := p.span(tag)
		if span.Empty() {
			return []byte("100.00%"), nil
		}
		return fmt.Appendf(nil, "%.2f%%", 100*float64(p.object.PresentIn(span))/float64(span.Len)), nil
	case "user.btmount.peers":
		peers := 0
		if s := t.session.Load(); s != nil {
			peers = s.swarm.Peers()
		}
		return strconv.AppendInt(nil, int64(peers), 10), nil
	case "user.btmount.file":
		if tag >= 0 {
			return strconv.AppendInt(nil, int64(tag), 10), nil
		}
	}
	return nil, iofs.ErrNotExist
}
