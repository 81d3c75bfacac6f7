package daemon

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"time"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/portmap"
)

// Status is the content of .btmount/status.json. Sizes are in bytes, rates in bytes/s.
type Status struct {
	Version     string          `json:"version"`
	Pid         int             `json:"pid"`
	Mountpoint  string          `json:"mountpoint"`
	Started     time.Time       `json:"started"`
	Goroutines  int             `json:"goroutines"`
	Reads       int64           `json:"reads"`  // requests of the kernel: none for what it has or reads by itself
	Listen      string          `json:"listen"` // "" if nobody can call
	DHTNodes    int             `json:"dht_nodes"`
	PortMapping *portmap.Status `json:"port_mapping"` // null: none is asked for
	Cache       CacheStatus     `json:"cache"`
	BTFS        *BTFSStatus     `json:"btfs"` // null: off
	Torrents    []TorrentStatus `json:"torrents"`
}

// CacheStatus tells how full the cache is.
type CacheStatus struct {
	Dir   string `json:"dir"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"`
}

// TorrentStatus is one torrent.
type TorrentStatus struct {
	Name        string `json:"name"`
	InfoHash    string `json:"infohash"`
	Size        int64  `json:"size"`
	Present     int64  `json:"present"`  // verified and on disk
	Files       int    `json:"files"`    // that are shown
	FilesOf     int    `json:"files_of"` // as many there are; more if the magnet selects some
	PieceLength int64  `json:"piece_length"`
	Pieces      int    `json:"pieces"`
	// Of what is pinned: how many bytes that are, how many are there, and why it can not
	// be pinned.
	Pinned        int64  `json:"pinned"`
	PinnedPresent int64  `json:"pinned_present"`
	PinError      string `json:"pin_error,omitempty"`
	swarm.Status
}

// statusWait bounds how long a status file waits for the torrents to answer, all together.
const statusWait = time.Second

// Status collects what every part tells of itself.
func (d *Daemon) Status() Status {
	used, limit := d.cache.Usage()
	s := Status{
		Version: d.cfg.Version, Pid: os.Getpid(), Mountpoint: d.cfg.Mountpoint, Started: d.started, Goroutines: runtime.NumGoroutine(),
		Cache:    CacheStatus{d.cfg.CacheDir, used, limit},
		BTFS:     d.btfsStatus(),
		Torrents: []TorrentStatus{},
	}
	if d.server != nil {
		s.Reads = d.server.Reads()
	}
	if a := d.client.Addr(); a.IsValid() {
		s.Listen = a.String()
	}
	if d.mapper != nil {
		m := d.mapper.Status()
		s.PortMapping = &m
	}
	if d.dht != nil {
		s.DHTNodes, _ = d.dht.Status()
	}
	d.mu.Lock()
	torrents := append([]*torrent(nil), d.torrents...)
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	for _, t := range torrents {
		s.Torrents = append(s.Torrents, d.torrentStatus(ctx, t))
	}
	return s
}

func (d *Daemon) torrentStatus(ctx context.Context, t *torrent) TorrentStatus {
	s := TorrentStatus{Name: d.catalog.Name(t.handle), InfoHash: t.hash.String(), Status: t.status(ctx)}
	if c := t.shape.Load(); c != nil {
		s.Size, s.Files, s.FilesOf = c.length, c.tree.Files(), c.files
		s.PieceLength, s.Pieces = c.pieceLength, c.pieces
		s.Present, _ = t.Present(-1)
	}
	if w := t.pins.Load(); w != nil {
		s.Pinned = w.size
		var known bool
		if s.PinnedPresent, known = w.here(t); !known && w.done.Load() {
			s.PinnedPresent = w.size
		}
		if why := w.bad.Load(); why != nil {
			s.PinError = *why
		}
	}
	return s
}

// status is that of the session, with the counters of those before.
func (t *torrent) status(ctx context.Context) (s swarm.Status) {
	ok := false
	switch live := t.session.Load(); {
	case live != nil:
		if s, ok = live.swarm.Status(ctx); !ok {
			s.State = "starting"
		}
	case t.ready():
		s.State = "dormant"
	default:
		s.State = "starting"
	}
	s.Trackers = withScrapes(s.Trackers, t.daemon.scraper.Status(t.hash, t.trackers))
	if err := t.fault(); err != nil {
		s.State, s.Error = "failed", err.Error()
	}
	if why := t.bad.Load(); why != nil {
		s.State, s.Error = "bad", *why
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Downloaded += t.totals.Downloaded
	s.Uploaded += t.totals.Uploaded
	s.Wasted += t.totals.Wasted
	s.Corrupt += t.totals.Corrupt
	return s
}

// withScrapes adds what scrapes told to what announces did: the number of downloads, and
// all of it for a torrent that is dormant.
func withScrapes(announced, scraped []swarm.Tracker) []swarm.Tracker {
	if announced == nil {
		return scraped
	}
	for i := range announced {
		a := &announced[i]
		for _, s := range scraped {
			if s.URL != a.URL {
				continue
			}
			a.Completed = s.Completed
			if a.Seeders < 0 && a.Leechers < 0 {
				a.Seeders, a.Leechers = s.Seeders, s.Leechers
			}
		}
	}
	return announced
}

// look has the trackers of every torrent asked how many peers it has: somebody looks at the
// status, and will again.
func (d *Daemon) look() {
	d.mu.Lock()
	torrents := append([]*torrent(nil), d.torrents...)
	d.mu.Unlock()
	for _, t := range torrents {
		d.scraper.Ask(t.hash, t.trackers)
	}
}

func (d *Daemon) addStatus() error {
	return d.catalog.AddStatus("status.json", func() []byte {
		d.look()
		b, err := json.MarshalIndent(d.Status(), "", "  ")
		if err != nil {
			return []byte(err.Error() + "\n")
		}
		return append(b, '\n')
	})
}
