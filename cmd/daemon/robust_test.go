package daemon_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs"
)

// hang starts programs that read from a file and returns when all of them wait.
func hang(t testing.TB, n int, path string) (out []*proc) {
	t.Helper()
	for range n {
		out = append(out, start(t, "cat", path))
	}
	for _, p := range out {
		waits(t, p, path)
	}
	return out
}

// waits returns when a process waits for the mount in a read.
func waits(t testing.TB, p *proc, path string) {
	t.Helper()
	pid := p.cmd.Process.Pid
	eventually(t, patience, "a reader waits", func() bool {
		on, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", pid))
		call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		return on == path && strings.HasPrefix(string(call), "0 0x3 ")
	})
}

// inProcess runs a daemon in this process; stop ends it and returns how Run ended.
func inProcess(t testing.TB, cfg daemon.Config, sources ...string) (d *daemon.Daemon, f folders, stop func() error) {
	t.Helper()
	f = newFolders(t)
	cfg.Version, cfg.Mountpoint, cfg.CacheDir, cfg.StateDir = "test", f.point, f.cache, f.state
	cfg.Listen = "127.0.0.1:0"
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 1 << 30
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = time.Minute
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	if testing.Verbose() && os.Getenv("BTMOUNT_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := daemon.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		if _, errs := d.Add(t.Context(), s); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	if err := d.Mount(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	var result error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			select {
			case result = <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("the daemon does not stop")
			}
		}
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return d, f, stop
}

// A thousand readers wait for a torrent that nobody has. All can be killed at once,
// and the mount can be taken away from others.
func TestHungReaders(t *testing.T) {
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	m := mount(t, p.torrent, "--no-dht")
	path := m.path("film")
	const n = 1000
	readers := hang(t, n, path)
	began := time.Now()
	for i, r := range readers {
		r.signal([]os.Signal{syscall.SIGKILL, syscall.SIGINT}[i%2])
	}
	for _, r := range readers {
		r.ended(patience)
	}
	took := time.Since(began)
	t.Logf("%d readers gone after %v", n, took)
	if took > 2*time.Second {
		t.Errorf("%d readers needed %v to go, want 2 seconds", n, took)
	}
	more := hang(t, 20, path)
	began = time.Now()
	output(t, patience, btmount, "unmount", m.point)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("unmount took %v", took)
	} else {
		t.Logf("unmount with 20 readers after %v", took)
	}
	for _, r := range more {
		r.ended(time.Second)
	}
	m.ended(time.Second)
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the daemon ended with %v", m.cmd.ProcessState)
	}
}

// The same in this process: nothing of the daemon is left when Run has returned.
func TestNothingIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	_, f, stop := inProcess(t, daemon.Config{DHTBootstrap: []string{"127.0.0.1:9"}}, p.torrent, "magnet:?xt=urn:btih:"+strings.Repeat("ab", 20))
	readers := hang(t, 20, f.path("film"))
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped after %v", time.Since(began))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	for _, r := range readers {
		r.ended(time.Second)
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// A read without data ends at the timeout and says why.
func TestReadTimeout(t *testing.T) {
	t.Parallel()
	const limit = 5 * time.Second
	mute, err := net.Listen("tcp4", "127.0.0.1:0") // accepts, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	for want, args := range map[string][]string{"ETIMEDOUT": {"--peer", mute.Addr().String()}, "ENODATA": nil} {
		t.Run(want, func(t *testing.T) {
			m := mount(t, append(args, p.torrent, "--no-dht", "--read-timeout", limit.String())...)
			r := reader(t, "time", m.path("film"))
			r.ended(patience)
			var ms int
			var got string
			if _, err := fmt.Sscanf(r.out.String(), "%d %s", &ms, &got); err != nil {
				t.Fatal(err, r.out)
			}
			took := time.Duration(ms) * time.Millisecond
			t.Logf("%s after %v", got, took)
			if got != want || took < limit*9/10 || took > limit*11/10 {
				t.Errorf("%s after %v, want %s after %v", got, took, want, limit)
			}
		})
	}
}

// The only peer comes while a reader waits already.
func TestPeerReturns(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	addr := fmt.Sprint("127.0.0.1:", fetchtest.FreePort(t))
	m := mount(t, p.torrent, "--no-dht", "--peer", addr)
	r := reader(t, "compare", "sequential", m.path("film"), p.dir)
	tick := time.NewTimer(6 * time.Second)
	defer tick.Stop()
	select {
	case <-tick.C:
	case <-r.done:
		t.Fatalf("the reader did not wait: %v", r.out)
	}
	seed(t, p, "--no-dht", "--listen", addr)
	took := r.ended(patience)
	t.Logf("read complete %v after the peer was there", took)
	if !r.cmd.ProcessState.Success() {
		t.Errorf("%v", r.out)
	}
}

// The daemon is killed in the middle of a read, again and again, and mounted again
// on the same folder. No byte is wrong, and little is fetched twice.
func TestKilledAndBack(t *testing.T) {
	rounds, step := 5, int64(12<<20)
	if soak {
		rounds, step = 200, 5<<20
	}
	size := int64(rounds) * step
	p := single(t, "film", size, metainfo.MakeConfig{PieceLength: 256 << 10})
	l := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed")
	f := newFolders(t)
	args := append(peers(l.addr()), p.torrent, "--no-upload", "--down-limit", "40MB")
	var allowed int64 // on the way when the daemon was killed
	for round := range rounds {
		m := f.mount(t, args...)
		began := m.torrent(t).Present
		if round > 0 && began == 0 {
			t.Error("nothing is left of the cache")
		}
		r := reader(t, "flood", "1", m.path("film"), p.dir)
		r.await("reading")
		s := reader(t, "compare", "sequential", m.path("film"), p.dir)
		goal := min(size-1, began+step/2)
		var last daemon.TorrentStatus
		eventually(t, patience, "some more is read", func() bool { last = m.torrent(t); return last.Present >= goal })
		for _, peer := range last.Swarm {
			allowed += int64(peer.OnTheWay)
		}
		allowed += int64(last.Wanted) * p.pieces // pieces that were begun
		m.kill()
		r.ended(5 * time.Second)
		s.ended(5 * time.Second)
		// An open that was under way says "connection abort", one after the kill "not connected".
		if said := s.out.String(); !r.cmd.ProcessState.Success() || !strings.Contains(said, "not connected") && !strings.Contains(said, "connection abort") {
			t.Errorf("readers after the kill: %s %s", r.out, s.out)
		}
	}
	m := f.mount(t, args...)
	same(t, "sequential", m.path("film"), p.dir)
	var up int64
	eventually(t, patience, "the seeder's counter", func() bool { up = l.status().Up; return up >= size })
	again := up - size
	t.Logf("%d rounds: fetched %d bytes again, %d per kill; pieces have %d; %d were on the way in all", rounds, again, again/int64(rounds), p.pieces, allowed)
	if again > int64(rounds)*p.pieces+allowed {
		t.Errorf("fetched %d bytes again in %d rounds", again, rounds)
	}
}

// Unmounting, and both signals, under the load of 32 readers.
func TestStopUnderLoad(t *testing.T) {
	p := single(t, "film", 64<<20, metainfo.MakeConfig{})
	addr, _ := seed(t, p, "--no-dht")
	for name, end := range map[string]func(m *mounted){
		"unmount": func(m *mounted) { output(t, patience, btmount, "unmount", m.point) },
		"SIGTERM": func(m *mounted) { m.signal(syscall.SIGTERM) },
		"SIGINT":  func(m *mounted) { m.signal(syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			m := mount(t, append(peers(addr), p.torrent)...)
			r := reader(t, "flood", "32", m.path("film"), p.dir)
			r.await("reading")
			eventually(t, patience, "something is read", func() bool { return m.torrent(t).Present > 4<<20 })
			began := time.Now()
			end(m)
			m.ended(patience)
			took := time.Since(began)
			t.Logf("ended after %v", took)
			if took > 5*time.Second || m.cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("ended after %v with %v", took, m.cmd.ProcessState)
			}
			r.ended(patience)
			if !r.cmd.ProcessState.Success() {
				t.Error(r.out)
			}
			if ours, _ := fs.Mounted(m.point); ours {
				t.Error("still mounted")
			}
		})
	}
}

// The only seeder sends nothing but wrong bytes: the read fails, and soon, and the
// traffic ends.
func TestOnlyPoison(t *testing.T) {
	p := single(t, "film", 8<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	l := startLibtorrent(t, "--torrent", p.torrent, "--save", spoil2(t, p), "--seed", "--blind")
	m := mount(t, append(peers(l.addr()), p.torrent, "--read-timeout", "20s")...)
	r := reader(t, "time", m.path("film"))
	r.ended(patience)
	s := m.torrent(t)
	t.Logf("%s; corrupt %d, banned %d, seeder sent %d", strings.TrimSpace(r.out.String()), s.Corrupt, s.Banned, l.status().Up)
	if !strings.Contains(r.out.String(), "EIO") {
		t.Errorf("the read ended with %q, want EIO", r.out)
	}
	if up := l.status().Up; up > 6*p.pieces || s.Banned != 1 {
		t.Errorf("the poisoner could send %d bytes; banned %d", up, s.Banned)
	}
}

// spoil2 is spoil for a torrent of one file.
func spoil2(t testing.TB, p *payload) string {
	t.Helper()
	b := mustRead(t, p.dir)
	for i := 0; i < len(b); i += 16 << 10 {
		b[i] ^= 1
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, p.name()), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// With --no-upload not one byte of content leaves, although a leecher asks for all
// of it. The same leecher gets it from a mount that uploads.
func TestNoUpload(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{PieceLength: 64 << 10})
	for _, no := range []bool{false, true} {
		t.Run(fmt.Sprintf("no-upload=%v", no), func(t *testing.T) {
			t.Parallel()
			addr, _ := seed(t, p, "--no-dht")
			m := mount(t, append(peers(addr), p.torrent, fmt.Sprintf("--no-upload=%v", no))...)
			same(t, "sequential", m.path("film"), p.dir)
			c, err := dialRaw(m.listen, p.meta)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got := make(chan int, 1)
			go func() { got <- c.leech() }()
			limit := patience
			if no {
				limit = 12 * time.Second // longer than any round of choking
			}
			select {
			case n := <-got:
				if no || n < 1<<20 {
					t.Errorf("the leecher got %d bytes", n)
				}
			case <-time.After(limit):
				c.Close()
				if n := <-got; !no || n != 0 {
					t.Errorf("the leecher got %d bytes", n)
				}
			}
			if up := m.torrent(t).Uploaded; (up == 0) != no {
				t.Errorf("uploaded %d", up)
			}
		})
	}
}

// A daemon that is stopped for a while, as a laptop that sleeps: meanwhile its peer goes, and
// another comes in its place. When it goes on, so does the read, and the reader sees nothing of it.
func TestSleepsAWhile(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 8<<20, metainfo.MakeConfig{PieceLength: 128 << 10})
	addr, seeder := seed(t, p, "--no-dht", "--up-limit", "2MB")
	m := mount(t, p.torrent, "--no-dht", "--peer", addr)
	cmp := start(t, "cmp", m.path("film"), p.dir)
	for _, step := range []int64{1 << 20, 3 << 20} {
		eventually(t, patience, "some of it is read", func() bool { return m.torrent(t).Present >= step })
		m.signal(syscall.SIGSTOP)
		eventually(t, patience, "the daemon is stopped", func() bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
			_, rest, _ := strings.Cut(string(stat), ") ")
			return strings.HasPrefix(rest, "T")
		})
		seeder.kill()
		_, seeder = seed(t, p, "--no-dht", "--up-limit", "2MB", "--listen", addr)
		m.signal(syscall.SIGCONT)
		eventually(t, 10*time.Second, "the read goes on", func() bool { return m.torrent(t).Present >= step+1<<20 })
	}
	cmp.succeed(patience)
}
