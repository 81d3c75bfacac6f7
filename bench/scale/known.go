package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/btmount/btmount/fetch/swarm"
)

// known measures a mount of many torrents.
func known(ctx context.Context, n, active, files, starts int, bin, dir string) error {
	torrents := filepath.Join(dir, "torrents")
	if files > 0 {
		dir = filepath.Join(dir, fmt.Sprintf("each-%d", files))
		torrents = filepath.Join(dir, "torrents")
	}
	live, err := library(torrents, n, active, files)
	if err != nil {
		return err
	}
	addr, stop, err := seedAll(live)
	if err != nil {
		return err
	}
	defer stop()
	for i := range starts {
		if err := knownOnce(ctx, i, n, live, bin, dir, addr); err != nil {
			return err
		}
	}
	return nil
}

// library makes the torrents, unless they are there, and returns those that are real.
func library(dir string, n, active, each int) (live []*content, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for i := range n {
		c := &content{number: i, piece: 16 << 10}
		pieces, files := 500+(i*7919)%1501, 1+(i*31)%20
		if i%100 == 50 {
			files = 5000
		}
		if each > 0 {
			files = each
		}
		c.length = int64(pieces)*c.piece - 1
		real := i < active
		if real {
			c.length, files = 4<<20, 1
			live = append(live, c)
		}
		path := filepath.Join(dir, fmt.Sprintf("%05d.torrent", i))
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, c.torrent(name(i), files, real), 0o644); err != nil {
			return nil, err
		}
	}
	return live, nil
}

func name(i int) string { return fmt.Sprintf("A torrent with a name of usual length %05d.bin", i) }

// seedAll seeds from this process.
func seedAll(live []*content) (addr string, stop func(), err error) {
	c, err := swarm.NewClient(swarm.Config{Listen: "127.0.0.1:0", PeerPrefix: "-SC0000-", MaxConns: 5000, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	for _, l := range live {
		meta, err := l.meta(name(l.number), 1, true)
		if err == nil {
			var t *swarm.Torrent
			if t, err = c.Add(swarm.TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}); err == nil {
				t.Attach(meta, source{l})
				wg.Go(func() { _ = t.Run(ctx) })
			}
		}
		if err != nil {
			cancel()
			return "", nil, err
		}
	}
	return c.Addr().String(), func() { cancel(); wg.Wait() }, nil
}

func knownOnce(ctx context.Context, round, n int, live []*content, bin, dir, addr string) error {
	point := filepath.Join(dir, "mnt")
	if err := os.MkdirAll(point, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, bin, "mount", point, filepath.Join(dir, "torrents"), "--no-dht", "--no-lsd", "--peer", addr,
		"--listen", "127.0.0.1:0", "--cache-dir", filepath.Join(dir, "cache"), "--state-dir", filepath.Join(dir, "state"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("btmount did not mount: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the daemon
	answered := time.Since(began)
	list, err := exec.CommandContext(ctx, "ls", filepath.Join(point, "torrents")).Output()
	if err != nil {
		return err
	}
	if got := strings.Count(string(list), "\n"); got != n {
		return fmt.Errorf("ls shows %d of %d torrents (%s)", got, n, strings.TrimSpace(line))
	}
	listed := time.Since(began)
	cpu := processorTime(cmd.Process.Pid)
	idle := memory(cmd.Process.Pid)
	cold, warm, err := readAll(point, live)
	if err != nil {
		return err
	}
	busy := memory(cmd.Process.Pid)
	began = time.Now()
	found, err := exec.CommandContext(ctx, "sh", "-c", "find "+filepath.Join(point, "torrents")+" | wc -l").Output()
	if err != nil {
		return err
	}
	took, walked, used := time.Since(began), memory(cmd.Process.Pid), processorTime(cmd.Process.Pid)
	fmt.Printf("start %d: mounted %.2f s, listed %.2f s, %.2f s of processor; RSS %d MB, peak %d MB; with %d active %d MB, peak %d MB; first byte median %.1f ms from asleep (max %.1f), %.1f ms awake (max %.1f)\n",
		round+1, answered.Seconds(), listed.Seconds(), cpu.Seconds(), idle["VmRSS"], idle["VmHWM"], len(live), busy["VmRSS"], busy["VmHWM"],
		ms(median(cold)), ms(slices.Max(cold)), ms(median(warm)), ms(slices.Max(warm)))
	fmt.Printf("         find of %s entries: %.1f s, with what came before %.1f s of processor; RSS %d MB, peak %d MB\n",
		strings.TrimSpace(string(found)), took.Seconds(), used.Seconds(), walked["VmRSS"], walked["VmHWM"])
	return nil
}

func ms(d time.Duration) float64             { return float64(d.Microseconds()) / 1000 }
func median(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }

// readAll reads from each torrent twice, at two places: the first time it may sleep. The
// files stay open until all were read.
func readAll(point string, live []*content) (cold, warm []time.Duration, err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	want, got := make([]byte, 4096), make([]byte, 4096)
	for _, l := range live {
		f, err := os.Open(filepath.Join(point, "torrents", name(l.number)))
		if err != nil {
			return nil, nil, err
		}
		open = append(open, f)
		for i, off := range []int64{0, 3 << 20} {
			began := time.Now()
			if _, err := f.ReadAt(got, off); err != nil {
				return nil, nil, err
			}
			took := time.Since(began)
			if l.read(want, off); string(got) != string(want) {
				return nil, nil, errors.New("wrong bytes")
			}
			if i == 0 {
				cold = append(cold, took)
			} else {
				warm = append(warm, took)
			}
		}
	}
	return cold, warm, nil
}

// memory returns the sizes of a process, in MB.
func memory(pid int) map[string]int {
	out := map[string]int{}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if key, rest, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(line, "kB\n") {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			out[key] = kb / 1000
		}
	}
	return out
}

// processorTime returns what a process has used.
func processorTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
