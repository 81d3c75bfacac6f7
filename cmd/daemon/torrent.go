package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/catalog"
	"github.com/btmount/btmount/fs/tree"
)

// torrent is one torrent as the catalog sees it.
type torrent struct {
	daemon *Daemon
	hash   metainfo.InfoHash
	label  string // shown until the metadata names it
	swarm  *swarm.Torrent
	handle catalog.Handle
	bad    atomic.Pointer[string] // why its metadata will never be mounted

	content atomic.Pointer[content] // nil while the metadata is missing
}

// content is a torrent's metadata and everything made from it; immutable.
type content struct {
	meta   *metainfo.Meta
	object *cache.Object
	tree   *tree.Tree
	mtime  time.Time
}

func (t *torrent) ready() bool { return t.content.Load() != nil }

// prepare opens the cache object and builds the tree.
func (t *torrent) prepare(meta *metainfo.Meta) (*content, error) {
	info := meta.Info
	layout := cache.Layout{
		Key: cache.Key("ih-" + t.hash.String()), Unit: swarm.UnitLength(meta), Size: info.Length,
		Tag: swarm.TagSize(meta), Verify: swarm.Verify(meta),
	}
	specs := make([]tree.Spec, 0, len(info.Files))
	for i, f := range info.Files {
		switch {
		case f.Pad:
			continue
		case f.Symlink == nil:
			layout.Files = append(layout.Files, extent.Extent{Off: f.Offset, Len: f.Length})
			if meta.ByTree() { // else a root is a claim that nobody checks
				layout.Content = append(layout.Content, f.Root)
			}
		}
		s := tree.Spec{Path: f.Path, Size: f.Length, Exec: f.Exec, Symlink: f.Symlink, Tag: i}
		if info.Single {
			s.Path = nil
		}
		specs = append(specs, s)
	}
	object, err := t.daemon.cache.Object(layout)
	if err != nil {
		return nil, err
	}
	t.daemon.scheduler.Add(fetch.Target{Object: object, Download: t.swarm})
	return &content{meta: meta, object: object, tree: tree.Build(specs), mtime: meta.Created}, nil
}

// mount shows a torrent whose metadata is known from the start.
func (t *torrent) mount(meta *metainfo.Meta) error {
	c, err := t.prepare(meta)
	if err != nil {
		return err
	}
	t.content.Store(c)
	if t.handle, err = t.daemon.catalog.Add(meta.Info.Name, t); err != nil {
		return err
	}
	t.swarm.Attach(meta, c.object)
	return nil
}

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
	c, err := t.prepare(meta)
	if err != nil {
		return err
	}
	t.content.Store(c)
	t.swarm.Attach(meta, c.object)
	return t.daemon.catalog.Replace(t.handle, meta.Info.Name, t)
}

// reason is what the file "reason" of a resolving magnet says.
func (t *torrent) reason() []byte {
	if why := t.bad.Load(); why != nil {
		return []byte(*why + "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, _ := t.swarm.Status(ctx)
	switch {
	case s.Peers > 0:
		return fmt.Appendf(nil, "waiting for the metadata of %s: %d peers connected, none has sent it yet\n", t.hash, s.Peers)
	case t.swarm.Sources() > 0:
		return fmt.Appendf(nil, "waiting for the metadata of %s: %d peers known, none answers yet\n", t.hash, t.swarm.Sources())
	}
	return fmt.Appendf(nil, "waiting for the metadata of %s: no peer known yet; name one with --peer or a tracker with --tracker\n", t.hash)
}

// Tree implements catalog.Mountable.
func (t *torrent) Tree() *tree.Tree { return t.content.Load().tree }

// Identity implements catalog.Mountable.
func (t *torrent) Identity() [32]byte { return sha256.Sum256(t.hash[:]) }

// ModTime implements catalog.Mountable.
func (t *torrent) ModTime() time.Time { return t.content.Load().mtime }

// span returns where a file lies; the whole torrent for other tags.
func (t *torrent) span(tag int) extent.Extent {
	info := t.content.Load().meta.Info
	if tag < 0 || tag >= len(info.Files) {
		return extent.Extent{Len: info.Length}
	}
	return extent.Extent{Off: info.Files[tag].Offset, Len: info.Files[tag].Length}
}

// Present implements catalog.Mountable. Nothing is settled yet: a complete file may
// be evicted, and stat has to tell so.
func (t *torrent) Present(tag int) (int64, bool) {
	span := t.span(tag)
	if span.Empty() {
		return 0, true
	}
	return t.content.Load().object.PresentIn(span), false
}

// Open implements catalog.Mountable.
func (t *torrent) Open(_ context.Context, tag int) (fs.Content, error) {
	span := t.span(tag)
	if tag < 0 {
		return nil, iofs.ErrInvalid
	}
	return &reading{Reader: t.content.Load().object.NewReader(span, t.daemon.scheduler), t: t}, nil
}

// reading is one open file.
type reading struct {
	*cache.Reader
	t *torrent
}

// ReadAt tells a read that timed out because nobody is known to have the torrent
// from one that timed out because those who have it were too slow.
func (r *reading) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(ctx, p, off)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && r.t.swarm.Sources() == 0 {
		err = &swarm.NoSourceError{Hash: r.t.hash}
	}
	return n, err
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
		span := t.span(tag)
		if span.Empty() {
			return []byte("100.00%"), nil
		}
		have := t.content.Load().object.PresentIn(span)
		return fmt.Appendf(nil, "%.2f%%", 100*float64(have)/float64(span.Len)), nil
	case "user.btmount.peers":
		return strconv.AppendInt(nil, int64(t.swarm.Peers()), 10), nil
	case "user.btmount.file":
		if tag >= 0 {
			return strconv.AppendInt(nil, int64(tag), 10), nil
		}
	}
	return nil, iofs.ErrNotExist
}

// statePath is where the metadata of a torrent is kept.
func (d *Daemon) statePath(h metainfo.InfoHash) string {
	return filepath.Join(d.cfg.StateDir, "torrents", h.String()+".torrent")
}

// loadState returns the metadata of a magnet that was resolved before, or nil. The
// file is checked like any other.
func (d *Daemon) loadState(h metainfo.InfoHash) *metainfo.Meta {
	b, err := os.ReadFile(d.statePath(h))
	if err != nil {
		return nil
	}
	m, err := metainfo.Parse(b)
	if err != nil || m.Info.Hash != h && (!m.Info.V2 || m.Info.Short() != h) {
		d.log.Warn("kept metadata is not usable, fetched again", "torrent", h, "err", err)
		return nil
	}
	return m
}

// saveState keeps metadata, replacing the file in one step.
func (d *Daemon) saveState(h metainfo.InfoHash, m *metainfo.Meta) {
	path := d.statePath(h)
	err := os.WriteFile(path+".tmp", m.Encode(), 0o600)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		d.log.Warn("cannot keep metadata", "path", path, "err", bare(err))
	}
}

// firstSeen gives a torrent without a creation date the time at which it was seen
// first, which must be the same after a restart.
func (d *Daemon) firstSeen(h metainfo.InfoHash, m *metainfo.Meta) *metainfo.Meta {
	if !m.Created.IsZero() {
		return m
	}
	dated := *m
	if old := d.loadState(h); old != nil && !old.Created.IsZero() {
		dated.Created = old.Created
		return &dated
	}
	dated.Created = time.Now().Truncate(time.Second)
	d.saveState(h, &dated)
	return &dated
}
