package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// v2: seeks on the same path in a torrent of BitTorrent v2, whose blocks are verified by
// themselves; beside seeders that have no hashes of blocks to give, of whom a seek
// takes the whole piece.
func (b *bench) v2() error {
	torrent, err := b.file("v2.bin", farSize, "--v2")
	if err != nil {
		return err
	}
	at := offsets(farSize, 24)
	floor := (2 * farDelay).Seconds() + (64<<10)/(4*farRate)
	for _, mode := range []string{"hash", "believe"} {
		var peers []string
		for range 4 {
			k, err := b.behind(farDelay, farRate, torrent, mode)
			if err != nil {
				return err
			}
			defer k.close()
			peers = append(peers, k.at)
		}
		system := "btmount"
		if mode != "hash" {
			system = "btmount, no hashes"
		}
		for range *reps {
			m, err := b.mount(torrent, peers...)
			if err != nil {
				return err
			}
			lat, err := seeks(m.mnt+"/torrents/v2.bin", at)
			m.close()
			if err != nil {
				return err
			}
			b.addSeeks("v2", system, lat, floor)
		}
		b.stopAll()
	}
	return nil
}

func (b *bench) addSeeks(scenario, system string, lat []float64, floor float64) {
	lat = slices.Sorted(slices.Values(lat))
	b.table.add(fmt.Sprintf("%s: seek p50, x floor of %.3f s", scenario, floor), system, median(lat)/floor)
	b.table.add(fmt.Sprintf("%s: seek p95, x floor of %.3f s", scenario, floor), system, lat[len(lat)*95/100]/floor)
}

// served makes a file and a seeder of it without a limit; stop it with stopAll.
func (b *bench) served(name string, size int64) (torrent, addr string, err error) {
	if torrent, err = b.file(name, size); err != nil {
		return "", "", err
	}
	addr, err = b.near(torrent)
	return torrent, addr, err
}

// loop: a whole file from one seeder without a limit; CPU and memory.
func (b *bench) loop() error {
	const speed = "loop: MB/s (btmount: through the mount, compared)"
	return b.whole("loop", speed, "seq", func(torrent, addr string) (m *mounted, took float64, err error) {
		if m, err = b.mount(torrent, addr); err == nil {
			_, took, err = readFor(m.mnt+"/torrents/loop.bin", time.Hour)
		}
		if err == nil {
			b.table.add("loop: idle CPU %", "btmount", m.idle(3*time.Second))
		}
		return m, took, err
	})
}

// engine: the same without a reader: the file is pinned, so nothing passes the kernel's side.
func (b *bench) engine() error {
	b.flags = []string{"--pin", "*"}
	defer func() { b.flags = nil }()
	return b.whole("engine", "engine: MB/s into the cache, unread", "all", func(torrent, addr string) (*mounted, float64, error) {
		m, err := b.mountUntil(0, []string{torrent}, addr)
		start := time.Now()
		if err == nil {
			err = m.untilPinned()
		}
		return m, time.Since(start).Seconds(), err
	})
}

// whole fetches 1 GiB from one seeder without a limit, by ours and by a way of libtorrent's, in
// turn.
func (b *bench) whole(name, speed, way string, ours func(torrent, addr string) (m *mounted, took float64, err error)) error {
	const size = 1 << 30
	torrent, addr, err := b.served(name+".bin", size)
	if err != nil {
		return err
	}
	defer b.stopAll()
	for range *reps {
		if err := b.touch(); err != nil {
			return err
		}
		m, took, err := ours(torrent, addr)
		var cpu, rss float64
		if m != nil {
			cpu, rss = m.close()
		}
		if err != nil {
			return err
		}
		b.table.add(speed, "btmount", size/took/1e6)
		b.table.add(name+": CPU s/GB", "btmount", cpu/(size/1e9))
		b.table.add(name+": RSS MB, most", "btmount", rss)
		if err := b.touch(); err != nil {
			return err
		}
		theirs, err := b.libtorrent(way, torrent, 3600, nil, addr)
		if err != nil {
			return err
		}
		b.table.add(speed, "libtorrent", theirs[0]/theirs[1]/1e6)
		b.table.add(name+": CPU s/GB", "libtorrent", theirs[2]/(size/1e9))
	}
	return nil
}

// untilPinned waits until all that is pinned is there.
func (m *mounted) untilPinned() error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var s struct {
			Torrents []struct {
				Pinned  int64
				Present int64 `json:"pinned_present"`
			}
		}
		text, err := os.ReadFile(m.mnt + "/.btmount/status.json")
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			return err
		}
		if t := s.Torrents[0]; t.Pinned > 0 && t.Present == t.Pinned {
			return nil
		}
	}
	return errors.New("what is pinned has not come within a minute")
}

// touch writes and removes 4 GiB, so that each system finds memory that the machine
// has at hand: on a virtual one, pages that were given back to the host cost more to
// touch again than all that is measured here.
func (b *bench) touch() error {
	path := filepath.Join(b.dir, "touch")
	defer os.Remove(path)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for range 4 << 10 {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// idle returns the CPU that the daemon uses while nobody reads, in percent.
func (m *mounted) idle(d time.Duration) float64 {
	ticks := func() float64 {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		var u, s float64
		fmt.Sscan(f[11], &u)
		fmt.Sscan(f[12], &s)
		return u + s
	}
	before := ticks()
	time.Sleep(d)
	return (ticks() - before) / d.Seconds() // a tick is a hundredth of a second
}

// tree: ls -lR of 20,000 files, beside the same tree on the host's filesystem. That is in the
// kernel's memory, as it was just written, while ours can not be the first time; so the first
// time is compared as well with what the host takes once the kernel has forgotten names and
// attributes of both.
func (b *bench) tree() error {
	root := filepath.Join(b.dir, "tree")
	for d := range 500 {
		dir := filepath.Join(root, fmt.Sprintf("d%03d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for f := range 40 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", f)), []byte(dir), 0o644); err != nil {
				return err
			}
		}
	}
	torrent := b.torrent(root)
	for range *reps {
		m, err := b.mount(torrent)
		if err != nil {
			return err
		}
		if forget() == nil {
			b.table.add("tree: ls -lR of 20,000 files, s, nothing in the kernel", "host", list(root))
			if err := forget(); err != nil {
				return err
			}
			b.table.add("tree: ls -lR of 20,000 files, s, nothing in the kernel", "btmount", list(m.mnt+"/torrents/tree"))
			list(root)
			m.close()
			if m, err = b.mount(torrent); err != nil {
				return err
			}
		}
		for _, pass := range []string{"first", "second"} {
			b.table.add("tree: ls -lR of 20,000 files, s, "+pass, "btmount", list(m.mnt+"/torrents/tree"))
			b.table.add("tree: ls -lR of 20,000 files, s, "+pass, "host", list(root))
		}
		m.close()
	}
	return nil
}

// forget has the kernel drop names and attributes that nobody uses. It takes root.
func forget() error { return os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0) }

func list(dir string) float64 {
	cmd := exec.Command("ls", "-lR", dir)
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return -1
	}
	return time.Since(start).Seconds()
}
