package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

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
	if err := d.writeState(h, m.Encode()); err != nil {
		d.log.Warn("cannot keep metadata", "path", d.statePath(h), "err", bare(err))
	}
}

func (d *Daemon) writeState(h metainfo.InfoHash, b []byte) error {
	return replace(d.statePath(h), b)
}

// ensureState keeps metadata unless it is kept already: as long as it is, and its hash is
// its name, so what differs could only be trackers, which are not taken from there. (With
// another set of piece layers, which decide about ByTree, it has another length.)
func (d *Daemon) ensureState(h metainfo.InfoHash, m *metainfo.Meta) error {
	b := m.Encode()
	if st, err := os.Stat(d.statePath(h)); err == nil && st.Size() == int64(len(b)) {
		return nil
	}
	err := d.writeState(h, b)
	if err != nil {
		d.log.Warn("cannot keep metadata, so it stays in memory", "path", d.statePath(h), "err", bare(err))
	}
	return err
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

// stateAge is how long the metadata of a torrent is kept that nobody mounts.
const stateAge = 180 * 24 * time.Hour

// sweep removes what is kept of torrents that were not mounted for long. There is no
// moment at which one is removed for good: it is not named at the next start, and another
// mount may share the folder. So the age decides, which is that of the last mount.
func (d *Daemon) sweep(now time.Time) {
	dir := filepath.Join(d.cfg.StateDir, "torrents")
	files, err := os.ReadDir(dir)
	if err != nil {
		d.log.Warn("cannot look through the state folder", "path", dir, "err", bare(err))
		return
	}
	removed := 0
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".tmp") // left by a crash
		kind := filepath.Ext(name)
		h, err := metainfo.ParseInfoHash(strings.TrimSuffix(name, kind))
		st, serr := f.Info()
		if err != nil || serr != nil || name != h.String()+kind || !st.Mode().IsRegular() || kind != ".torrent" && kind != ".peers" {
			continue // nothing of ours
		}
		d.mu.Lock()
		mounted := d.byHash[h] != nil
		d.mu.Unlock()
		age, path := now.Sub(st.ModTime()), filepath.Join(dir, f.Name())
		switch {
		case kind == ".torrent" && mounted:
			if age > 24*time.Hour {
				err = os.Chtimes(path, time.Time{}, now)
			}
		case kind == ".peers" && age > oldPeers, age > stateAge:
			err = os.Remove(path)
			removed++
		}
		if err != nil {
			d.log.Warn("cannot tidy the state folder", "path", path, "err", bare(err))
			return
		}
	}
	if removed > 0 {
		d.log.Info("removed what was kept of torrents that were not mounted for long", "files", removed)
	}
}
