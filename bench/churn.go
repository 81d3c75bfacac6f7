package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// meanwhile calls do every gap until the returned function is called, which waits for
// its end.
func meanwhile(gap time.Duration, do func(n int)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(gap)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				do(n)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// trouble reads in order for 20 s from n seeders whose links are troubled every gap, and
// so does libtorrent.
func (b *bench) trouble(name, what string, n, serving int, gap time.Duration, do func(links []*link, n int), mode func(i int) []string) error {
	torrent, err := b.file(name+".bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	const lasts = 20 * time.Second
	for r := range 2 * *reps {
		system := []string{"btmount", "libtorrent"}[r%2]
		var links []*link
		var peers []string
		for i := range n {
			k, err := b.behind(farDelay, farRate, torrent, mode(i)...)
			if err != nil {
				return err
			}
			if slices.Contains(mode(i), "choke") {
				leave, err := b.crowd(k.at, torrent, 10)
				defer leave()
				if err != nil {
					return err
				}
			}
			links, peers = append(links, k), append(peers, k.at)
		}
		var got, took, longest float64
		if system == "btmount" {
			var m *mounted
			if m, err = b.mountUntil(serving, []string{torrent}, peers...); err == nil {
				stop := meanwhile(gap, func(n int) { do(links, n) })
				got, took, longest, err = readGaps(m.mnt+"/torrents/"+name+".bin", lasts)
				stop()
				if w, werr := m.wasted(); werr == nil {
					b.table.add(name+": wasted, % of what came", system, 100*w)
				}
				m.close()
			}
		} else {
			stop := meanwhile(gap, func(n int) { do(links, n) })
			var seq []float64
			if seq, err = b.libtorrent("seq", torrent, lasts.Seconds(), nil, peers...); err == nil {
				got, took, longest = seq[0], seq[1], seq[3]
			}
			stop()
		}
		for _, k := range links {
			k.close()
		}
		b.stopAll()
		if err != nil {
			return err
		}
		b.table.add(name+": MB/s in order"+what, system, got/took/1e6)
		b.table.add(name+": longest gap, s", system, longest)
	}
	return nil
}

func plain(int) []string { return nil }

// churn: every 2 s one of six seeders is gone, with its connections, and the one of
// before is there again.
func (b *bench) churn() error {
	return b.trouble("churn", " (six links of 2, one of them always gone)", 6, 6, 2*time.Second, func(links []*link, n int) {
		links[(n+len(links)-1)%len(links)].back()
		links[n%len(links)].leave()
	}, plain)
}

// stalls: every 0.5 s some link carries nothing for 0.4 s, as when packets are lost and
// sent again.
func (b *bench) stalls() error {
	r := rand.New(rand.NewPCG(7, 8))
	return b.trouble("stalls", " (four links of 2, each carries nothing a fifth of the time)", 4, 4, 500*time.Millisecond, func(links []*link, _ int) {
		for _, k := range links {
			if r.IntN(4) == 0 {
				k.stall(400 * time.Millisecond)
			}
		}
	}, plain)
}

// choke: three of five seeders have 8 slots, for us and for ten others, in rounds of 15 s.
func (b *bench) choke() error {
	return b.trouble("choke", " (five links of 2, three choke most of the time)", 5, 2, time.Hour, func([]*link, int) {}, func(i int) []string {
		if i < 3 {
			return []string{"choke"}
		}
		return nil
	})
}

// crowd are peers of a seeder that want its slots and nothing else.
func (b *bench) crowd(seeder string, torrent string, n int) (leave func(), err error) {
	var conns []net.Conn
	leave = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	f, err := os.ReadFile(torrent)
	if err != nil {
		return leave, err
	}
	meta, err := metainfo.Parse(f)
	if err != nil {
		return leave, err
	}
	for i := range n {
		var c net.Conn
		if err := b.net.afar(func() (err error) { c, err = net.Dial("tcp", seeder); return err }); err != nil {
			return leave, err
		}
		conns = append(conns, c)
		hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), meta.Info.Hash[:]...)
		hello = fmt.Appendf(hello, "-XX0001-%012d", i)
		hello = append(hello, 0, 0, 0, 1, 2) // interested
		if _, err := c.Write(hello); err != nil {
			return leave, err
		}
		go func() { _, _ = io.Copy(io.Discard, c) }() // ends with leave
	}
	return leave, nil
}

// small: cp -r of 2,000 files of 20 KB over the links of far, beside libtorrent, which
// loads all of it in order.
func (b *bench) small() error {
	const files, size = 2000, 20 << 10
	root := filepath.Join(b.dir, "small")
	want := make([]byte, size)
	for i := range files {
		path := filepath.Join(root, fmt.Sprintf("d%02d", i/50), fmt.Sprintf("f%04d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		fill(want, int64(i)*size)
		if err := os.WriteFile(path, want, 0o644); err != nil {
			return err
		}
	}
	torrent := b.torrent(root)
	links, err := b.farLinks(torrent, 4)
	if err != nil {
		return err
	}
	defer b.stopAll()
	var peers []string
	for _, k := range links {
		defer k.close()
		peers = append(peers, k.at)
	}
	for range *reps {
		m, err := b.mount(torrent, peers...)
		if err != nil {
			return err
		}
		start := time.Now()
		for i := range files {
			got, err := os.ReadFile(filepath.Join(m.mnt, "torrents/small", fmt.Sprintf("d%02d", i/50), fmt.Sprintf("f%04d", i)))
			if fill(want, int64(i)*size); err != nil || !bytes.Equal(got, want) {
				m.close()
				return fmt.Errorf("file %d: wrong bytes, %w", i, err)
			}
		}
		b.table.add("small: s for 2,000 files of 20 KB, one after the other (41 MB, links 8)", "btmount", time.Since(start).Seconds())
		m.close()
		seq, err := b.libtorrent("seq", torrent, 120, nil, peers...)
		if err != nil {
			return err
		}
		b.table.add("small: s for 2,000 files of 20 KB, one after the other (41 MB, links 8)", "libtorrent", seq[1])
	}
	return nil
}
