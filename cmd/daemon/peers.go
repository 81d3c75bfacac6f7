package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// The peers that a torrent met are kept in the state folder, so that the next session
// calls first those that served it: the trackers and the DHT need not have answered, and
// the first read does not wait behind those that can not be reached. It is written when a
// session ends, and each keepPeers while it lasts, for the case that nothing ends well.

const (
	keepPeers = 5 * time.Minute
	oldPeers  = 30 * 24 * time.Hour // then hardly anybody has their address any more
	maxPeers  = 64 << 10            // bytes of the file; 30 peers have less than 6 KiB
)

func (d *Daemon) peersPath(h metainfo.InfoHash) string {
	return filepath.Join(d.cfg.StateDir, "torrents", h.String()+".peers")
}

// loadPeers returns the peers of the last session, none if that is long ago.
func (d *Daemon) loadPeers(h metainfo.InfoHash) []swarm.Known {
	path := d.peersPath(h)
	known, err := readPeers(path)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		d.log.Warn("kept peers are not usable", "path", path, "err", bare(err))
	}
	return known
}

func readPeers(path string) (known []swarm.Known, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || time.Since(st.ModTime()) > oldPeers {
		return nil, err
	}
	err = json.NewDecoder(io.LimitReader(f, maxPeers)).Decode(&known)
	if err != nil {
		return nil, err
	}
	return known, nil
}

// savePeers keeps peers. No peers: what is kept stays, perhaps there was no network.
func (d *Daemon) savePeers(h metainfo.InfoHash, known []swarm.Known) {
	if len(known) == 0 {
		return
	}
	path := d.peersPath(h)
	b, err := json.Marshal(known)
	if err == nil {
		err = replace(path, b)
	}
	if err != nil {
		d.log.Warn("cannot keep peers", "path", path, "err", bare(err))
	}
}

// replace writes a file of the state folder in one step.
func replace(path string, b []byte) error {
	err := os.WriteFile(path+".tmp", b, 0o600)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	return err
}

// savePeers keeps the peers of a session that goes on. It is called by lull.
func (t *torrent) savePeers(s *session, now time.Time) {
	if now.Sub(s.kept) < keepPeers {
		return
	}
	s.kept = now
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	known, ok := s.swarm.Remember(ctx)
	t.change.Lock()
	defer t.change.Unlock()
	if ok && t.session.Load() == s { // else what it ended with is kept
		t.daemon.savePeers(t.hash, known)
	}
}
