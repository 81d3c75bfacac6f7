package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// farLinks are n links as in far, each to a seeder of its own.
func (b *bench) farLinks(torrent string, n int) (links []*link, err error) {
	for range n {
		k, err := b.behind(farDelay, farRate, torrent)
		if err != nil {
			return nil, err
		}
		links = append(links, k)
	}
	return links, nil
}

// mix: seeks while read-ahead is under way, as a viewer does who skips and watches.
func (b *bench) mix() error {
	torrent, err := b.file("mix.bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	links, err := b.farLinks(torrent, 4)
	if err != nil {
		return err
	}
	floor := (2 * farDelay).Seconds() + piece/(4*farRate)
	for range *reps {
		var peers []string
		for _, k := range links {
			peers = append(peers, k.at)
		}
		m, err := b.mount(torrent, peers...)
		if err != nil {
			return err
		}
		lat, err := watch(m.mnt+"/torrents/mix.bin", offsets(farSize-8<<20, 12))
		m.close()
		if err != nil {
			return err
		}
		slices.Sort(lat)
		b.table.add(fmt.Sprintf("mix: seek after 3 MiB in order, p50, x floor of %.3f s", floor), "btmount", median(lat)/floor)
		b.table.add("mix: the same, most", "btmount", lat[len(lat)-1]/floor)
	}
	for _, k := range links {
		k.close()
	}
	return nil
}

// silent: in the middle of a read in order one of four seeders falls silent without
// closing, and a second later another can be reached. Its address was known before.
func (b *bench) silent() error {
	torrent, err := b.file("silent.bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	const lasts, falls, comes = 16 * time.Second, 4 * time.Second, 5 * time.Second
	// What the links carry of payload in that time, without the round trip in which nothing comes.
	carries := payload * farRate * (3*(lasts-2*farDelay) + falls + (lasts - comes)).Seconds()
	for _, system := range slices.Repeat([]string{"btmount", "libtorrent"}, *reps) {
		links, err := b.farLinks(torrent, 5)
		if err != nil {
			return err
		}
		late := links[4]
		late.leave()
		trouble := func() {
			time.AfterFunc(falls, links[0].hush)
			time.AfterFunc(comes, late.back)
		}
		var peers []string
		for _, k := range links {
			peers = append(peers, k.at)
		}
		var n, took, gap float64
		if system == "btmount" {
			n, took, gap, err = b.readSilent(torrent, peers, lasts, trouble)
		} else {
			trouble()
			var seq []float64
			if seq, err = b.libtorrent("seq", torrent, lasts.Seconds(), nil, peers...); err == nil {
				n, took, gap = seq[0], seq[1], seq[3]
			}
		}
		for _, k := range links {
			k.close()
		}
		b.stopAll()
		if err != nil {
			return err
		}
		b.table.add("silent: share of what the links carry", system, n/carries*lasts.Seconds()/took)
		b.table.add("silent: longest gap, s", system, gap)
	}
	return nil
}

func (b *bench) readSilent(torrent string, peers []string, lasts time.Duration, trouble func()) (n, took, gap float64, err error) {
	m, err := b.mountUntil(4, []string{torrent}, peers...)
	if err != nil {
		return 0, 0, 0, err
	}
	defer m.close()
	trouble()
	return readGaps(m.mnt+"/torrents/silent.bin", lasts)
}

// readGaps reads a file in order for so long and returns bytes, seconds and the
// longest time that a read of 64 KiB took.
func readGaps(path string, lasts time.Duration) (n, took, gap float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, 0, err
	}
	defer f.Close()
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	start := time.Now()
	for last := start; last.Sub(start) < lasts; {
		if k, err := io.ReadFull(f, got); err != nil {
			return 0, 0, 0, fmt.Errorf("at %.0f, %d bytes: %w", n, k, err)
		}
		if fill(want, int64(n)); !bytes.Equal(got, want) {
			return 0, 0, 0, fmt.Errorf("wrong bytes near %.0f", n)
		}
		n += float64(len(got))
		now := time.Now()
		gap = max(gap, now.Sub(last).Seconds())
		last = now
	}
	return n, time.Since(start).Seconds(), gap, nil
}

// watch reads 64 KiB at each place and 3 MiB behind it, and returns how long the
// first of it took.
func watch(path string, at []int64) (took []float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for _, place := range at {
		for off := place; off < place+3<<20; off += int64(len(got)) {
			start := time.Now()
			if _, err := f.ReadAt(got, off); err != nil {
				return nil, err
			}
			if off == place {
				took = append(took, time.Since(start).Seconds())
			}
			if fill(want, off); !bytes.Equal(got, want) {
				return nil, fmt.Errorf("wrong bytes at %d", off)
			}
		}
	}
	return took, nil
}
