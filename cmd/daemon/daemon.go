package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/portmap"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/catalog"
)

// Config is everything that a user can set.
type Config struct {
	Version string

	Mountpoint  string
	AllowOther  bool
	ReadTimeout time.Duration

	CacheDir     string
	CacheSize    int64
	CacheMinFree int64 // of its disk; 0 is the default of package cache
	VerifyAlways bool  // all that is read is hashed
	StateDir     string

	NoPassthrough bool // complete files are read through us too

	Bind           string // address or interface of every socket
	Proxy          string // SOCKS5 that everything goes through
	ProxyPassword  string
	ProxyUDP       bool // the proxy relays UDP too
	Listen         string
	Peers          []netip.AddrPort
	Trackers       []string
	NoDHT          bool
	NoLSD          bool
	NoUTP          bool
	NoPortMapping  bool
	DHTBootstrap   []string // empty: the well-known routers
	NoUpload       bool
	UpLimit        int64 // bytes/s, 0 = none
	DownLimit      int64
	EachUp         int64 // the same of each torrent
	EachDown       int64
	SeedRatio      float64 // nobody is served above it; 0 = no end
	SeedTime       time.Duration
	MaxPeers       int
	MaxConnections int
	MaxHalfOpen    int
	Encryption     string        // allow, prefer, require or forbid
	Blocklists     []string      // files and URLs
	Idle           time.Duration // after which a torrent that nobody reads goes to sleep; 0 means 5 min

	// Pins are patterns of paths below torrents/: what matches is fetched in the
	// background and never evicted.
	Pins []string

	BTFS BTFSConfig // the fields of its network are those of this Config

	ScrubRate int64 // bytes/s at which the cache is hashed again and again; 0 = not

	Logger *slog.Logger
}

// Daemon is one mount with all that serves it.
type Daemon struct {
	cfg       Config
	log       *slog.Logger
	cache     *cache.Store
	scheduler *fetch.Scheduler
	network   *network.Network
	client    *swarm.Client
	dht       *discovery.DHT
	lsd       *discovery.LSD
	mapper    *portmap.Mapper // nil: no port is mapped
	scraper   *discovery.Scraper
	btfs      *btfsParts // nil: there is nobody to ask for objects
	catalog   *catalog.Catalog
	server    *fs.Server
	socket    *control.Socket // nil if that is not to be had
	unasked   error           // why
	started   time.Time

	swarm    sync.WaitGroup
	kick     chan struct{} // capacity 1: too much is in memory, or something was pinned
	checking chan struct{} // capacity 1: held while some units are hashed again
	scrubbed scrubbed

	pinning sync.Mutex // held while files are matched with patterns, and pinned; taken before torrent.change
	kept    []string   // patterns given by btmount cache pin

	mu        sync.Mutex
	ctx       context.Context // of the swarm; nil unless Run runs
	torrents  []*torrent      // in the order added
	byHash    map[metainfo.InfoHash]*torrent
	pinned    []*torrent            // those of which something is pinned
	unmatched []*torrent            // those whose metadata came just now
	up        map[*torrent]struct{} // those that are more than dormant
}

// New opens the cache and the sockets.
func New(cfg Config) (_ *Daemon, err error) {
	d := &Daemon{
		cfg: cfg, log: cfg.Logger, catalog: catalog.New(), started: time.Now(), kick: make(chan struct{}, 1), checking: make(chan struct{}, 1),
		byHash: map[metainfo.InfoHash]*torrent{}, up: map[*torrent]struct{}{},
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := outside(cfg.Mountpoint, cfg.CacheDir, "cache folder", "--cache-dir"); err != nil {
		return nil, err
	}
	if err := outside(cfg.Mountpoint, cfg.StateDir, "state folder", "--state-dir"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "torrents"), 0o700); err != nil {
		return nil, fmt.Errorf("state folder %s: %w; choose another with --state-dir", cfg.StateDir, bare(err))
	}
	if d.cache, err = cache.Open(cache.Config{Dir: cfg.CacheDir, Limit: cfg.CacheSize, MinFree: cfg.CacheMinFree, VerifyAlways: cfg.VerifyAlways, Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	d.openSocket()
	if d.network, err = openNetwork(cfg); err != nil {
		return nil, err
	}
	cfg = cfg.reachable(d.network).affordable()
	encryption, err := swarm.ParseEncryption(cfg.Encryption)
	if err != nil {
		return nil, err
	}
	d.scheduler = fetch.New(fetch.Config{Logger: cfg.Logger, AllAhead: func() int64 { return d.cache.Room() / 2 }})
	p, err := openPorts(cfg, d.network)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if !cfg.NoDHT {
		if d.dht, err = openDHT(cfg, d.network, p); err != nil {
			return nil, err
		}
	}
	if !cfg.NoLSD {
		d.lsd = discovery.NewLSD(d.network, cfg.Logger)
	}
	d.mapper = p.mapper(cfg, d.network)
	d.scraper = discovery.NewScraper(discovery.Config{UserAgent: "btmount " + cfg.Version, Network: d.network, Logger: cfg.Logger}, cfg.Trackers)
	d.client, err = swarm.NewClient(swarm.Config{
		Listener: p.tcp, UTP: p.utp, Version: "btmount " + cfg.Version, PeerPrefix: "-BM0010-", MaxPeers: cfg.MaxPeers,
		MaxConns: cfg.MaxConnections, MaxHalfOpen: cfg.MaxHalfOpen,
		NoUpload: cfg.NoUpload, UpLimit: cfg.UpLimit, DownLimit: cfg.DownLimit, EachUp: cfg.EachUp, EachDown: cfg.EachDown, Share: swarm.Share{Ratio: cfg.SeedRatio, Time: cfg.SeedTime},
		Encryption: encryption, DHT: d.dht, LSD: d.lsd, Network: d.network, External: external(d.mapper), Dormant: d, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err = d.openBTFS(); err != nil {
		return nil, err
	}
	return d, d.addStatus()
}

func (c Config) network() network.Config {
	return network.Config{Bind: c.Bind, Proxy: c.Proxy, ProxyPassword: c.ProxyPassword, ProxyUDP: c.ProxyUDP}
}

// reachable takes from c what the network cannot do.
func (c Config) reachable(n *network.Network) Config {
	if n.Proxied() {
		c.Listen = ""
		if !n.ProxiesUDP() {
			c.NoDHT, c.NoUTP = true, true
		}
	}
	// Who listens on loopback, or not at all, cannot be called from the LAN.
	host, _, err := net.SplitHostPort(c.Listen)
	if a, aerr := netip.ParseAddr(host); err != nil || host == "localhost" || aerr == nil && a.IsLoopback() {
		c.NoLSD, c.NoPortMapping = true, true
	}
	return c
}

// Lookup returns the address of a host:port, found in the way that c asks for.
func (c Config) Lookup(ctx context.Context, hostport string) (netip.AddrPort, error) {
	n, err := network.Open(c.network())
	if err != nil {
		return netip.AddrPort{}, err
	}
	addrs, err := n.Resolve(ctx, hostport)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	return addrs[0], nil
}

// openNetwork opens what every socket is made of.
func openNetwork(cfg Config) (*network.Network, error) {
	n, err := network.Open(cfg.network())
	if err != nil {
		return nil, err
	}
	return n, n.Block(context.Background(), cfg.Blocklists, filepath.Join(cfg.StateDir, "blocklists"), cfg.Logger)
}

// outside refuses folders below the mountpoint: the daemon would wait for itself.
func outside(mountpoint, dir, what, flag string) error {
	if mountpoint == "" {
		return nil
	}
	rel, err := filepath.Rel(mountpoint, dir)
	if err == nil && (rel == "." || rel != ".." && !hasParent(rel)) {
		return fmt.Errorf("%s %s: lies inside the mountpoint; choose another with %s", what, dir, flag)
	}
	return nil
}

func hasParent(rel string) bool { return len(rel) >= 3 && rel[:3] == "../" }

// Close frees what New opened of a daemon that never ran.
func (d *Daemon) Close() error {
	var errs error
	if d.socket != nil {
		errs = errors.Join(errs, d.socket.Close())
	}
	if d.client != nil {
		errs = errors.Join(errs, d.client.Close())
	}
	d.btfs.close()
	if d.cache != nil {
		errs = errors.Join(errs, d.cache.Close())
	}
	return errs
}

// Mount puts the catalog on the mountpoint.
func (d *Daemon) Mount() (err error) {
	d.server, err = fs.Mount(fs.Config{
		Catalog: d.catalog, Mountpoint: d.cfg.Mountpoint, AllowOther: d.cfg.AllowOther,
		ReadTimeout: d.cfg.ReadTimeout, NoPassthrough: d.cfg.NoPassthrough, Logger: d.log,
	})
	if err == nil && d.unasked != nil {
		d.log.Warn("btmount cache can not ask this mount", "err", d.unasked)
	}
	return err
}

// Torrents returns how many torrents were added and how many of them have metadata.
func (d *Daemon) Torrents() (all, ready int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.torrents {
		all++
		if t.ready() {
			ready++
		}
	}
	return all, ready
}

// Addr returns the address that peers reach us at.
func (d *Daemon) Addr() netip.AddrPort { return d.client.Addr() }

// stopTimes are the deadlines of the parts, in the order in which they stop.
const (
	stopControl   = 3 * time.Second
	stopSwarm     = 4 * time.Second
	stopScheduler = 2 * time.Second
	stopBTFS      = 2 * time.Second
	stopCache     = 10 * time.Second
)

// Run serves until ctx ends or the mount goes away, then stops everything in order.
func (d *Daemon) Run(ctx context.Context) error {
	swarmCtx, stopSwarmNow := context.WithCancelCause(context.Background())
	cacheCtx, stopCacheNow := context.WithCancel(context.Background())
	schedCtx, stopSched := context.WithCancel(context.Background())
	d.mu.Lock()
	d.ctx = swarmCtx
	d.mu.Unlock()
	controlCtx, stopControlNow := context.WithCancelCause(context.Background())
	var sched, store, calls sync.WaitGroup
	if d.socket != nil {
		calls.Go(func() { d.serveControl(controlCtx) })
	}
	store.Go(func() { _ = d.cache.Run(cacheCtx) })
	sched.Go(func() { _ = d.scheduler.Run(schedCtx) })
	d.swarm.Go(func() { _ = d.client.Run(swarmCtx) })
	if d.dht != nil {
		d.swarm.Go(func() { _ = d.dht.Run(swarmCtx) })
	}
	if d.lsd != nil {
		d.swarm.Go(func() { _ = d.lsd.Run(swarmCtx) })
	}
	d.swarm.Go(func() { _ = d.scraper.Run(swarmCtx) })
	if d.mapper != nil {
		d.swarm.Go(func() { _ = d.mapper.Run(swarmCtx) })
	}
	d.swarm.Go(func() { d.warm(); d.lull(swarmCtx) })
	d.swarm.Go(func() { d.scrub(swarmCtx) })
	d.swarm.Go(func() { d.sweep(time.Now()) }) // ends with the folder

	gone := make(chan struct{})
	if d.server != nil {
		go func() { d.server.Wait(); close(gone) }() // ends with the mount
	}
	select {
	case <-ctx.Done():
	case <-gone:
	}
	d.log.Info("stopping")
	d.cache.Leave()
	stopControlNow(errStopping)
	errs := ended("control", &calls, stopControl)
	if d.server != nil {
		limit, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		errs = errors.Join(errs, d.server.Unmount(limit))
		cancel()
		<-gone
	}
	stopSched()
	errs = errors.Join(errs, ended("scheduler", &sched, stopScheduler))
	var objects sync.WaitGroup
	objects.Go(d.btfs.close)
	errs = errors.Join(errs, ended("btfs", &objects, stopBTFS))
	d.mu.Lock()
	d.ctx = nil // nothing wakes any more
	d.mu.Unlock()
	stopSwarmNow(errors.New("stopping"))
	errs = errors.Join(errs, ended("swarm", &d.swarm, stopSwarm))
	stopCacheNow()
	errs = errors.Join(errs, ended("cache", &store, stopCache))
	return errors.Join(errs, d.cache.Close())
}

// ended waits for a part, up to its deadline.
func ended(part string, wg *sync.WaitGroup, limit time.Duration) error {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s did not stop within %v", part, limit)
	}
}

// join starts a session; false: it is too late, or too early.
func (d *Daemon) join(t *torrent, s *session) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		return false
	}
	ctx, stop := context.WithCancelCause(d.ctx)
	s.stop = stop
	d.swarm.Go(func() {
		err := s.swarm.Run(ctx)
		stop(nil)
		t.over(s, err)
	})
	return true
}

// tiers joins the trackers of the source and those that the user named.
func tiers(f found, meta *metainfo.Meta, more []string) [][]string {
	var out [][]string
	if meta != nil {
		out = append(out, meta.Trackers...)
	}
	if meta != nil && meta.Info.Private && len(out) > 0 {
		return out // BEP 27: nobody else may learn of it
	}
	for _, url := range append(slices.Clone(f.trackers), more...) {
		if !slices.ContainsFunc(out, func(t []string) bool { return slices.Contains(t, url) }) {
			out = append(out, []string{url})
		}
	}
	return out
}

// bare drops the path that an error repeats.
func bare(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
