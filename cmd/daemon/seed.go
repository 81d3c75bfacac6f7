package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/portmap"
)

// Seed serves files from where they lie.
type Seed struct {
	log     *slog.Logger
	client  *swarm.Client
	config  swarm.TorrentConfig
	meta    *metainfo.Meta
	torrent *swarm.Torrent
	dht     *discovery.DHT
	lsd     *discovery.LSD
	mapper  *portmap.Mapper // nil: no port is mapped
	files   *swarm.Files
}

// NewSeed opens the sockets and checks the files' sizes. Of cfg it uses what
// concerns the swarm.
func NewSeed(cfg Config, meta *metainfo.Meta, path string) (_ *Seed, err error) {
	s := &Seed{log: cfg.Logger, meta: meta}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.files, err = swarm.NewFiles(meta, path); err != nil {
		return nil, err
	}
	n, err := openNetwork(cfg)
	if err != nil {
		return nil, err
	}
	cfg = cfg.reachable(n)
	encryption, err := swarm.ParseEncryption(cfg.Encryption)
	if err != nil {
		return nil, err
	}
	p, err := openPorts(cfg, n)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if !cfg.NoDHT && !meta.Info.Private {
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			return nil, fmt.Errorf("state folder %s: %w; choose another with --state-dir", cfg.StateDir, bare(err))
		}
		if s.dht, err = openDHT(cfg, n, p); err != nil {
			return nil, err
		}
	}
	if !cfg.NoLSD && !meta.Info.Private {
		s.lsd = discovery.NewLSD(n, cfg.Logger)
	}
	s.mapper = p.mapper(cfg, n)
	s.client, err = swarm.NewClient(swarm.Config{
		Listener: p.tcp, UTP: p.utp, Version: "btmount " + cfg.Version, PeerPrefix: "-BM0010-", MaxPeers: cfg.MaxPeers,
		MaxConns: cfg.MaxConnections, MaxHalfOpen: cfg.MaxHalfOpen,
		UpLimit: cfg.UpLimit, DownLimit: cfg.DownLimit, EachUp: cfg.EachUp, EachDown: cfg.EachDown, Share: swarm.Share{Ratio: cfg.SeedRatio, Time: cfg.SeedTime},
		Encryption: encryption, DHT: s.dht, LSD: s.lsd, Network: n, External: external(s.mapper), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.config = swarm.TorrentConfig{
		Hash: meta.Info.Hash, Info: meta.Info, Trackers: tiers(found{}, meta, cfg.Trackers), Typed: cfg.Trackers, Peers: cfg.Peers,
	}
	return s, s.add()
}

func (s *Seed) add() (err error) {
	if s.torrent, err = s.client.Add(s.config); err == nil {
		s.torrent.Attach(s.meta, s.files)
	}
	return err
}

func (s *Seed) close() error {
	var errs error
	if s.client != nil {
		errs = errors.Join(errs, s.client.Close())
	}
	if s.files != nil {
		errs = errors.Join(errs, s.files.Close())
	}
	return errs
}

// Addr returns the address that peers reach us at.
func (s *Seed) Addr() netip.AddrPort { return s.client.Addr() }

// Run seeds until ctx ends, or the torrent was seeded as much as the settings ask for:
// then it returns ErrSated.
func (s *Seed) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := s.run(ctx, func() { cancel(ErrSated) })
	if errors.Is(context.Cause(ctx), ErrSated) {
		return errors.Join(ErrSated, err)
	}
	return err
}

// ErrSated means that the torrent was seeded as much as was asked for.
var ErrSated = errors.New("seeded enough")

func (s *Seed) run(ctx context.Context, sated func()) error {
	var group sync.WaitGroup
	group.Go(func() { _ = s.client.Run(ctx) })
	group.Go(func() { s.share(ctx, sated) })
	if s.dht != nil {
		group.Go(func() { _ = s.dht.Run(ctx) })
	}
	if s.mapper != nil {
		group.Go(func() { _ = s.mapper.Run(ctx) })
	}
	if s.lsd != nil {
		group.Go(func() { _ = s.lsd.Run(ctx) })
	}
	group.Wait()
	return s.files.Close()
}

// share seeds until ctx ends, again some time after a fault of ours.
func (s *Seed) share(ctx context.Context, sated func()) {
	var failed faults
	for {
		running := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			select {
			case <-s.torrent.Sated():
				sated()
			case <-running:
			}
		})
		err := s.torrent.Run(ctx)
		close(running)
		watch.Wait()
		if err == nil {
			return
		}
		wait := failed.add(err, time.Now())
		s.log.Error("seeding failed", "err", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		s.config.Sent += s.torrent.Totals().Uploaded
		s.client.Remove(s.torrent)
		if err := s.add(); err != nil {
			s.log.Error("cannot seed again", "err", err)
			return
		}
	}
}
