package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kernelSize = 512 << 20
	kernelOps  = 20_000 // of 4 KiB, each of another page
)

// kernel: bytes that are in the cache, through the kernel: a complete file opened anew beside
// the same file of the cache, and one of the host that was written at once, with their pages in memory; then the way that every
// incomplete file goes, with the page cache of the mount dropped before, and kept.
func (b *bench) kernel() error {
	torrent, addr, err := b.served("kernel.bin", kernelSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	cache := []string{"--cache-dir", filepath.Join(b.dir, "kernel-cache"), "--peer", addr}
	host := filepath.Join(b.dir, "kernel.bin")
	m, err := b.mountWith([]string{torrent}, cache...)
	if err != nil {
		return err
	}
	path := m.mnt + "/torrents/kernel.bin"
	_, _, err = readFor(path, time.Hour)
	// The file of the cache is what the kernel reads: how its pages lie in memory, which depends on
	// the writes that made them, is none of the mount's.
	bodies, _ := filepath.Glob(filepath.Join(b.dir, "kernel-cache", "objects", "*", "body", "0"))
	if err == nil && len(bodies) != 1 {
		err = fmt.Errorf("%d bodies in the cache", len(bodies))
	}
	if err == nil {
		err = b.complete(m, path, bodies[0], host)
	}
	m.close()
	if err != nil {
		return err
	}
	m, err = b.mountWith([]string{torrent}, append(cache, "--no-passthrough")...)
	if err != nil {
		return err
	}
	defer m.close()
	return b.incomplete(m, m.mnt+"/torrents/kernel.bin", bodies[0])
}

// trial is a row of measurements; after one that failed no more are made.
type trial struct {
	m   *mounted
	err error
}

func (t *trial) of(measure func(*mounted, string, bool) (usage, error), path string, drop bool) (u usage) {
	if t.err == nil {
		u, t.err = measure(t.m, path, drop)
	}
	return u
}

// reads is how many READs the daemon has had, those to look at the number included.
func (t *trial) reads() (n int64) {
	if t.err == nil {
		n, t.err = t.m.reads()
	}
	return n
}

func (b *bench) complete(m *mounted, path, body, host string) error {
	t := trial{m: m}
	before := t.reads()
	looks := t.reads() - before
	before += looks
	for range *reps {
		for what, measure := range map[string]func(*mounted, string, bool) (usage, error){"in order": sequential, "4 KiB at random": scattered} {
			there, other, here := t.of(measure, body, false), t.of(measure, host, false), t.of(measure, path, false)
			if t.err != nil {
				return t.err
			}
			b.table.add("kernel: a complete file, "+what+", speed, x of ext4", "btmount", there.took/here.took)
			b.table.add("kernel: a complete file, "+what+", CPU, x of ext4", "btmount", here.cpu/there.cpu)
			b.table.add("kernel: a complete file, "+what+", speed, x of ext4", "written at once", there.took/other.took)
		}
	}
	b.table.add("kernel: a complete file, READs in the daemon", "btmount", float64(t.reads()-before-looks))
	return t.err
}

func (b *bench) incomplete(m *mounted, path, host string) error {
	const gb = kernelSize / 1e9
	t := trial{m: m}
	for range *reps {
		there := t.of(sequential, host, false)
		cold := t.of(sequential, path, true)
		before := t.reads()
		looks := t.reads() - before
		before += looks
		warm := t.of(sequential, path, false)
		after := t.reads()
		few, fewThere := t.of(scattered, path, true), t.of(scattered, host, false)
		if t.err != nil {
			return t.err
		}
		b.table.add("kernel: in the cache, page cache dropped, in order, GB/s", "btmount", gb/cold.took)
		b.table.add("kernel: in the cache, page cache dropped, in order, GB/s", "ext4, in memory", gb/there.took)
		b.table.add("kernel: in the cache, page cache dropped, in order, CPU s/GB", "btmount", cold.cpu/gb)
		b.table.add("kernel: in the cache, page cache dropped, in order, CPU s/GB", "ext4, in memory", there.cpu/gb)
		b.table.add("kernel: in the page cache, CPU, x of ext4", "btmount", warm.cpu/there.cpu)
		b.table.add("kernel: in the page cache, READs in the daemon", "btmount", float64(after-before-looks))
		b.table.add("kernel: in the cache, page cache dropped, 4 KiB at random, CPU µs each", "btmount", few.cpu/kernelOps*1e6)
		b.table.add("kernel: in the cache, page cache dropped, 4 KiB at random, CPU µs each", "ext4, in memory", fewThere.cpu/kernelOps*1e6)
	}
	return nil
}

// usage is what a measurement took: seconds, and those of processors, of reader and daemon.
type usage struct{ took, cpu float64 }

func spent(m *mounted, f func() error) (usage, error) {
	cpu, began := m.cpu()+own(), time.Now()
	err := f()
	return usage{time.Since(began).Seconds(), m.cpu() + own() - cpu}, err
}

// own is what this process has used.
func own() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return seconds(u.Utime) + seconds(u.Stime)
}

// cpu is what the daemon has used.
func (m *mounted) cpu() (s float64) {
	// Of each thread, in ns: the sum that the process has is in hundredths of a second.
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", m.cmd.Process.Pid))
	for _, t := range threads {
		var ns float64
		text, _ := os.ReadFile(t)
		fmt.Sscan(string(text), &ns)
		s += ns / 1e9
	}
	return s
}

// reads is how many READs the daemon has had.
func (m *mounted) reads() (int64, error) {
	var s struct{ Reads int64 }
	text, err := os.ReadFile(m.mnt + "/.btmount/status.json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s.Reads, err
}

// open opens a file, and drops what the page cache of its filesystem holds of it.
func open(path string, drop bool) (*os.File, error) {
	f, err := os.Open(path)
	if err == nil && drop {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return f, err
}

// sequential reads a file in order, a mebibyte at a time.
func sequential(m *mounted, path string, drop bool) (usage, error) {
	f, err := open(path, drop)
	if err != nil {
		return usage{}, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	return spent(m, func() error {
		n := 0
		for {
			k, err := f.Read(buf)
			n += k
			if errors.Is(err, io.EOF) && n == kernelSize {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// scattered reads pages here and there, none of them twice.
func scattered(m *mounted, path string, drop bool) (usage, error) {
	f, err := open(path, drop)
	if err != nil {
		return usage{}, err
	}
	defer f.Close()
	pages := rand.New(rand.NewPCG(3, 4)).Perm(kernelSize / page)[:kernelOps]
	got, want := make([]byte, page), make([]byte, page)
	u, err := spent(m, func() error {
		for _, p := range pages {
			if _, err := f.ReadAt(got, int64(p)*page); err != nil {
				return err
			}
		}
		return nil
	})
	if fill(want, int64(pages[len(pages)-1])*page); err == nil && !bytes.Equal(got, want) {
		err = errors.New("wrong bytes in " + path)
	}
	return u, err
}

// evict: a file is read from a seeder without a limit, through a cache that is full and must
// evict for every piece, and through one that has room.
func (b *bench) evict() error {
	const size = 1 << 30
	torrent, addr, err := b.served("evict.bin", size)
	if err != nil {
		return err
	}
	defer b.stopAll()
	for range *reps {
		var took [2]float64
		for i, limit := range []string{"10GiB", "128MiB"} {
			if err := b.touch(); err != nil {
				return err
			}
			m, err := b.mountWith([]string{torrent}, "--peer", addr, "--cache-size", limit)
			if err != nil {
				return err
			}
			var n int64
			n, took[i], err = readFor(m.mnt+"/torrents/evict.bin", time.Hour)
			cpu, _ := m.close()
			if err == nil && n != size {
				err = fmt.Errorf("the read ended after %d bytes with %s of cache", n, limit)
			}
			if err != nil {
				return err
			}
			b.table.add("evict: CPU s/GB", limit+" of cache", cpu/(size/1e9))
		}
		b.table.add("evict: speed of 1 GiB through 128 MiB of cache, x of one that has room", "btmount", took[0]/took[1])
	}
	return nil
}
