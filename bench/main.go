package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	reps  = flag.Int("reps", 3, "repetitions; the table shows median [min..max]")
	only  = flag.String("only", "far,long,proxied,uneven,loss,utp,again,v2,mix,silent,churn,stalls,choke,small,share,loop,engine,tree,kernel,evict", "scenarios")
	lasts = flag.Duration("soak", 30*time.Minute, "how long the scenario soak lasts; it runs only if it is named")
	docs  = flag.String("docs", "", "folder of benchmarks.json, which is brought up to date, and benchmarks.md, which is made of it")
	bin   = flag.String("bin", "bin/btmount", "the binary to measure")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	elsewhere, err := isolate(ctx)
	if !elsewhere {
		err = run(ctx)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(1) // it has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of everything.
type bench struct {
	ctx    context.Context
	dir    string
	bin    string
	python string
	net    *network
	table  table
	procs  []*exec.Cmd
	flags  []string // more of them for mount
	proxy  string   // host:port of one that libtorrent uses
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "btmount-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, dir: dir, python: "/usr/bin/python3", table: table{}}
	defer b.stopAll()
	if b.net, err = newNetwork(); err != nil {
		return err
	}
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if _, err := os.Stat(b.bin); err != nil {
		return fmt.Errorf("%s: not there; run make build first", *bin)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %d cores, load %s", runtime.Version(), runtime.NumCPU(), load)
	for _, s := range strings.Split(*only, ",") {
		do := map[string]func() error{
			"long": b.long, "proxied": b.proxied, "loss": b.loss, "utp": b.utp, "uneven": b.uneven, "churn": b.churn, "stalls": b.stalls, "choke": b.choke, "small": b.small,
			"far": b.far, "again": b.again, "v2": b.v2, "mix": b.mix, "silent": b.silent, "share": b.share, "loop": b.loop, "engine": b.engine, "tree": b.tree, "kernel": b.kernel, "evict": b.evict, "soak": b.soak,
		}[s]
		if do == nil {
			return fmt.Errorf("no scenario %q", s)
		}
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	b.table.print(os.Stdout)
	if ctx.Err() != nil || *docs == "" {
		return ctx.Err()
	}
	return b.publish(*docs, strings.TrimSpace(string(load)))
}

// pattern is what the files consist of: random pages, each with its number in front.
// It is computed instead of read, so that comparing takes no time from what is measured.
var pattern = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

const page = 4 << 10

// fill sets b to what a file holds at off, a multiple of the page.
func fill(b []byte, off int64) {
	for i := 0; i < len(b); i += page {
		at := off + int64(i)
		copy(b[i:min(i+page, len(b))], pattern()[at%int64(len(pattern())):])
		if len(b)-i >= 8 {
			binary.LittleEndian.PutUint64(b[i:], uint64(at/page))
		}
	}
}

// file makes a file and its torrent with pieces of 1 MiB, with more flags of seed.
func (b *bench) file(name string, size int64, flags ...string) (torrent string, err error) {
	path := filepath.Join(b.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		fill(buf, off)
		if _, err := f.Write(buf[:min(int64(len(buf)), size-off)]); err != nil {
			return "", err
		}
	}
	return b.torrent(path, flags...), f.Close()
}

// torrent makes the .torrent of a path with btmount seed, which is stopped at once.
func (b *bench) torrent(path string, flags ...string) string {
	out := path + ".torrent"
	args := []string{"seed", path, "--out", out, "--piece-length", "1MiB", "--no-dht", "--listen", "127.0.0.1:0", "--state-dir", b.dir + "/state"}
	cmd := exec.CommandContext(b.ctx, b.bin, append(args, flags...)...)
	p, _ := cmd.StdoutPipe()
	if cmd.Start() == nil {
		r := bufio.NewReader(p)
		for line, err := r.ReadString('\n'); err == nil && !strings.HasPrefix(line, "seeding"); line, err = r.ReadString('\n') {
		}
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	return out
}

// near starts a seeder beside the clients and returns its address.
func (b *bench) near(torrent string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l.Close()
	return addr, b.seeder(addr, torrent)
}

// behind starts a seeder behind a link: delay is one way, rate in bytes/s. mode as of seeder.
func (b *bench) behind(delay time.Duration, rate float64, torrent string, mode ...string) (*link, error) {
	return b.behindLine(&line{rate: rate}, delay, torrent, mode...)
}

func (b *bench) behindLine(on *line, delay time.Duration, torrent string, mode ...string) (*link, error) {
	k, err := b.net.link(on, delay)
	if err != nil {
		return nil, err
	}
	return k, b.net.afar(func() error { return b.seeder(k.at, torrent, mode...) })
}

// seeder starts a libtorrent seeder. mode "hash": it hashes its data first, instead of
// believing that it is right; see seed.py for others.
func (b *bench) seeder(addr, torrent string, mode ...string) error {
	cmd := exec.Command(b.python, append([]string{"bench/testdata/seed.py", addr, b.dir, torrent}, mode...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("seeder: %q, %w; is python3-libtorrent installed?", line, err)
	}
	return nil
}

func (b *bench) stopAll() {
	for _, p := range b.procs {
		_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // and those that it started
		_ = p.Wait()
	}
	b.procs = nil
}

// mounted is a running btmount.
type mounted struct {
	cmd  *exec.Cmd
	mnt  string
	work string
}

func (b *bench) mount(torrent string, peers ...string) (*mounted, error) {
	return b.mountUntil(len(peers), []string{torrent}, peers...)
}

// mountUntil waits until n of the peers serve us, each for one torrent.
func (b *bench) mountUntil(n int, torrents []string, peers ...string) (*mounted, error) {
	var args []string
	for _, p := range peers {
		args = append(args, "--peer", p)
	}
	m, err := b.mountWith(torrents, args...)
	if err != nil {
		return nil, err
	}
	return m, m.waitPeers(n)
}

// mountWith mounts with more flags.
func (b *bench) mountWith(torrents []string, flags ...string) (*mounted, error) {
	work, err := os.MkdirTemp(b.dir, "run-")
	if err != nil {
		return nil, err
	}
	m := &mounted{mnt: work + "/mnt", work: work}
	if err := os.Mkdir(m.mnt, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"mount", m.mnt}, torrents...)
	args = append(args, "--no-dht", "--listen", "0.0.0.0:0", "--cache-dir", work+"/cache", "--state-dir", work+"/state")
	args = append(append(args, b.flags...), flags...)
	m.cmd = exec.Command(b.bin, args...)
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return m, nil
}

// waitPeers waits until all peers are connected and have unchoked us.
func (m *mounted) waitPeers(n int) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var s struct {
			Torrents []struct {
				Swarm []struct{ Connected, Choked bool }
			}
		}
		text, err := os.ReadFile(m.mnt + "/.btmount/status.json")
		if err != nil || json.Unmarshal(text, &s) != nil {
			return fmt.Errorf("status.json: %w", err)
		}
		ready := 0
		for _, t := range s.Torrents {
			for _, p := range t.Swarm {
				if p.Connected && !p.Choked {
					ready++
				}
			}
		}
		if ready >= n {
			return nil
		}
	}
	return fmt.Errorf("fewer than %d peers connected", n)
}

// wasted returns what came twice or unasked, as a part of all that came.
func (m *mounted) wasted() (float64, error) {
	var s struct {
		Torrents []struct{ Downloaded, Wasted float64 }
	}
	text, err := os.ReadFile(m.mnt + "/.btmount/status.json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return 0, err
	}
	t := s.Torrents[0]
	return t.Wasted / (t.Wasted + t.Downloaded), nil
}

// close unmounts and returns the CPU seconds and the largest RSS in MB.
func (m *mounted) close() (cpu, rss float64) {
	m.cmd.Process.Signal(syscall.SIGTERM)
	m.cmd.Wait()
	u := m.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	os.RemoveAll(m.work)
	return seconds(u.Utime) + seconds(u.Stime), float64(u.Maxrss) / 1000
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// readFor reads a file in order for so long and returns bytes and seconds; all of it
// must be what fill says.
func readFor(path string, limit time.Duration) (n int64, took float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	start := time.Now()
	for time.Since(start) < limit {
		k, err := io.ReadFull(f, got)
		if k == 0 {
			break
		}
		if fill(want[:k], n); !bytes.Equal(got[:k], want[:k]) {
			return n, 0, fmt.Errorf("wrong bytes near %d", n)
		}
		n += int64(k)
		if err != nil {
			break
		}
	}
	return n, time.Since(start).Seconds(), nil
}

// offsets are places to seek to, each in another 8 MiB, the same for every system.
func offsets(size int64, n int) (out []int64) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, slot := range r.Perm(int(size / (8 << 20)))[:n] {
		out = append(out, int64(slot)*(8<<20)+int64(r.IntN(7<<20/page))*page)
	}
	return out
}

func seeks(path string, at []int64) (took []float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for _, off := range at {
		start := time.Now()
		if _, err := f.ReadAt(got, off); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start).Seconds())
		if fill(want, off); !bytes.Equal(got, want) {
			return nil, fmt.Errorf("wrong bytes at %d", off)
		}
	}
	return took, nil
}

// libtorrent runs lt.py and returns the numbers that it prints.
func (b *bench) libtorrent(mode, torrent string, limit float64, at []int64, peers ...string) ([]float64, error) {
	work, err := os.MkdirTemp(b.dir, "lt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	places := make([]string, len(at))
	for i, o := range at {
		places[i] = strconv.FormatInt(o, 10)
	}
	args := append([]string{"bench/testdata/lt.py", mode, torrent, work, fmt.Sprint(limit), strings.Join(places, ",")}, peers...)
	cmd := exec.CommandContext(b.ctx, b.python, args...)
	cmd.Env = append(os.Environ(), "PROXY="+b.proxy)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("libtorrent: %w", err)
	}
	var nums []float64
	for _, f := range strings.FieldsFunc(string(out), func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }) {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return nil, err
		}
		nums = append(nums, v)
	}
	return nums, nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// table collects figures: scenario and metric, then system, then values.
type table map[string]map[string][]float64

func (t table) add(metric, system string, v float64) {
	t.put(metric, system, v)
	fmt.Fprintf(os.Stderr, "%s: %s %.4g\n", metric, system, v) // a run takes long, and may be ended
}

func (t table) put(metric, system string, v float64) {
	if t[metric] == nil {
		t[metric] = map[string][]float64{}
	}
	t[metric][system] = append(t[metric][system], v)
}

func (t table) print(w io.Writer) {
	var metrics []string
	for m := range t {
		metrics = append(metrics, m)
	}
	slices.Sort(metrics)
	fmt.Fprintf(w, "\n| metric | btmount | beside it |\n| --- | --- | --- |\n")
	for _, m := range metrics {
		row := [2]string{"-", ""}
		ours := t[m]["btmount"]
		for _, system := range slices.Sorted(maps.Keys(t[m])) {
			v := t[m][system]
			text := fmt.Sprintf("%.3g [%.3g..%.3g]", median(v), slices.Min(v), slices.Max(v))
			if system == "btmount" {
				row[0] = text
				continue
			}
			if ours != nil {
				text += fmt.Sprintf(", ratio %.2f", median(ours)/median(v))
			}
			row[1] += system + " " + text + "; "
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", m, row[0], strings.TrimSuffix(row[1], "; "))
	}
}
