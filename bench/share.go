package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

// share: a film from two peers is played at 3 MB/s while another torrent is copied from
// six, all of it over one line of 8 MB/s. TCP alone would give the film a quarter.
func (b *bench) share() error {
	const rate, bitrate, lasts = 8e6, 3e6, 15 * time.Second
	film, err := b.file("film.bin", farSize)
	if err != nil {
		return err
	}
	data, err := b.file("data.bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	var peers []string
	shared := &line{rate: rate}
	for i := range 8 {
		torrent := film
		if i >= 2 {
			torrent = data
		}
		k, err := b.behindLine(shared, farDelay, torrent)
		if err != nil {
			return err
		}
		defer k.close()
		peers = append(peers, k.at)
	}
	for range *reps {
		m, err := b.mountUntil(8, []string{film, data}, peers...)
		if err != nil {
			return err
		}
		copied := make(chan float64, 1)
		go func() {
			n, took, err := readFor(m.mnt+"/torrents/data.bin", lasts+2*time.Second)
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench: share:", err)
			}
			copied <- float64(n) / took
		}()
		time.Sleep(2 * time.Second)
		start, stalled, err := play(m.mnt+"/torrents/film.bin", bitrate, lasts)
		c := <-copied
		m.close()
		if err != nil {
			return err
		}
		b.table.add("share: start of the film, s", "btmount", start)
		b.table.add("share: the film stalls, s of 15", "btmount", stalled)
		b.table.add("share: MB/s of the copy beside it (line 8, film 3)", "btmount", c/1e6)
	}
	return nil
}

// play reads a file as a player does that has a second of buffer: it returns how long
// it took to fill it for the first time, and for how long it was empty later.
func play(path string, bitrate float64, lasts time.Duration) (start, stalled float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	began := time.Now()
	var clock time.Time // when the bytes read so far will have been played
	for off := int64(0); time.Since(began) < lasts; off += int64(len(got)) {
		if _, err := io.ReadFull(f, got); err != nil {
			return 0, 0, err
		}
		if fill(want, off); !bytes.Equal(got, want) {
			return 0, 0, fmt.Errorf("wrong bytes near %d", off)
		}
		now := time.Now()
		seconds := float64(off) / bitrate
		switch {
		case clock.IsZero() && seconds < 1:
			continue
		case clock.IsZero():
			start = now.Sub(began).Seconds()
			clock = now.Add(time.Second)
		case now.After(clock):
			stalled += now.Sub(clock).Seconds()
			clock = now
		}
		clock = clock.Add(time.Duration(float64(len(got)) / bitrate * 1e9))
		time.Sleep(time.Until(clock.Add(-time.Second)))
	}
	return start, stalled, nil
}
