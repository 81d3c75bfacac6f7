package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// ask runs btmount cache to its end and returns what it printed, and its exit code.
func (f folders) ask(t testing.TB, args ...string) (out string, code int) {
	t.Helper()
	p := start(t, btmount, append([]string{"cache", args[0], "--state-dir", f.state}, args[1:]...)...)
	p.ended(2 * patience)
	return p.out.String(), p.cmd.ProcessState.ExitCode()
}

// asks is ask of what must be right.
func (f folders) asks(t testing.TB, args ...string) string {
	t.Helper()
	out, code := f.ask(t, args...)
	if code != 0 {
		t.Fatalf("btmount cache %v: %d: %s", args, code, out)
	}
	return out
}

func (f folders) cacheStatus(t testing.TB) (s control.CacheStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(f.asks(t, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// onDisk returns the bytes of real blocks below a folder.
func onDisk(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, err := e.Info(); err == nil {
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flip changes a byte of a body in the cache, as a failing disk would.
func (f folders) flip(t testing.TB, file string, off int64) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(f.cache, "objects", "*", "body", file))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	body, err := os.OpenFile(all[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b := make([]byte, 1)
	_, err = body.ReadAt(b, off)
	b[0] ^= 1
	if err == nil {
		_, err = body.WriteAt(b, off)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// cold has the kernel forget what it read of a file.
func cold(t testing.TB, path string) {
	t.Helper()
	output(t, patience, "dd", "if="+path, "iflag=nocache", "count=0", "status=none")
}

// What is pinned while btmount runs comes, stays pinned after a restart and is read without any
// peer; what is unpinned goes like everything else.
func TestCachePin(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 12<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	q := single(t, "other", 12<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	film, seeder := seed(t, p, "--no-dht")
	other, _ := seed(t, q, "--no-dht")
	f := newFolders(t)
	mount := func(args ...string) *mounted {
		return f.mount(t, append([]string{p.torrent, q.torrent, "--no-dht", "--peer", other, "--cache-size", "20MiB"}, args...)...)
	}
	m := mount("--peer", film)
	if out := f.asks(t, "pin", "--wait", "film"); !strings.Contains(out, "pinned 1 file, 12 MiB; all of it is here") {
		t.Errorf("%q", out)
	}
	if out, code := f.ask(t, "pin", "other"); code != 1 || !strings.Contains(out, "raise it with btmount cache limit, or pin less") {
		t.Errorf("too much: %d, %q", code, out)
	}
	if out, code := f.ask(t, "pin", "no such"); code != 1 || !strings.Contains(out, "matches no file") {
		t.Errorf("what is not there: %d, %q", code, out)
	}
	seeder.signal(syscall.SIGTERM)
	seeder.ended(patience)
	same(t, "sequential", m.path("other"), q.dir) // takes all the room that there is
	m.stop()

	m = mount()
	downloaded := func() int64 {
		for _, s := range m.status(t).Torrents {
			if s.Name == "film" {
				return s.Downloaded
			}
		}
		return -1
	}
	copied := filepath.Join(t.TempDir(), "film")
	output(t, patience, "cp", m.path("film"), copied)
	if !bytes.Equal(mustRead(t, copied), mustRead(t, p.dir)) || downloaded() != 0 {
		t.Errorf("cp of what is pinned: wrong bytes, or %d came", downloaded())
	}
	s := f.cacheStatus(t)
	if len(s.Pins) != 1 || s.Pins[0] != "film" || s.Pinned < 12<<20 || !s.Clean || s.Used > s.Limit || len(s.Torrents) != 2 {
		t.Errorf("%+v", s)
	}
	for _, c := range s.Torrents {
		if c.Name == "film" && (c.PinnedHere != 12<<20 || c.Present != 12<<20 || c.LastUsed.IsZero()) {
			t.Errorf("%+v", c)
		}
	}
	if out := f.asks(t, "status"); !strings.Contains(out, `pins       "film"`) || !strings.Contains(out, "12 MiB  100%") {
		t.Errorf("%s", out)
	}
	if out, code := f.ask(t, "unpin", "other"); code != 1 || !strings.Contains(out, "is not pinned") {
		t.Errorf("%d, %q", code, out)
	}
	if out := f.asks(t, "evict", "film"); !strings.Contains(out, "12 MiB stay: pinned") {
		t.Errorf("%q", out)
	}
	f.asks(t, "unpin", "film")
	if out := f.asks(t, "evict", "film"); !strings.Contains(out, "freed 12 MiB") {
		t.Errorf("%q", out)
	}
	m.stop()
	m = mount()
	if s := f.cacheStatus(t); len(s.Pins) != 0 || s.Pinned != 0 {
		t.Errorf("pinned after all: %+v", s)
	}
}

// The limit of a running daemon goes down, and what is above it goes at once, but not what pins
// hold; eviction leaves what is open.
func TestCacheLimitAndEvict(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 24<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := mount(t, p.torrent, "--no-dht", "--peer", addr, "--no-passthrough")
	same(t, "sequential", m.path("film"), p.dir)
	const limit = 8 << 20
	m.asks(t, "limit", "8MiB")
	eventually(t, patience, "the cache is as small as it should be", func() bool { return onDisk(t, m.cache) <= limit })
	cold(t, m.path("film"))
	same(t, "sequential", m.path("film"), p.dir)
	if n := onDisk(t, m.cache); n > limit+2*p.pieces {
		t.Errorf("%d bytes on disk, want %d", n, limit)
	}
	m.asks(t, "limit", "1GiB", "--min-free", "1MiB")
	cold(t, m.path("film"))
	same(t, "sequential", m.path("film"), p.dir)
	if out := m.asks(t, "limit"); !strings.Contains(out, "limit 1.0 GiB, used 24 MiB") || !strings.Contains(out, "1.0 MiB stay free") {
		t.Errorf("%q", out)
	}

	// A file that is open stays, and is read from the cache.
	film, err := os.Open(m.path("film"))
	if err != nil {
		t.Fatal(err)
	}
	defer film.Close()
	var r control.EvictResult
	if err := json.Unmarshal([]byte(m.asks(t, "evict", "--all", "--json")), &r); err != nil || r.Freed != 0 || r.InUse < 24<<20 {
		t.Errorf("%+v, %v", r, err)
	}
	film.Close()
	eventually(t, patience, "the file is closed", func() bool { return m.cacheStatus(t).Torrents[0].OpenFiles == 0 })
	if out := m.asks(t, "evict", "--bytes", "4MiB"); !strings.HasPrefix(out, "freed 4.0 MiB;") && !strings.HasPrefix(out, "freed 5.0 MiB;") {
		t.Errorf("%q", out)
	}
	m.asks(t, "evict", "--all")
	if s := m.cacheStatus(t); s.Used > 1<<20 || s.Torrents[0].Present != 0 {
		t.Errorf("%+v", s)
	}
	same(t, "random", m.path("film"), p.dir)

	m.asks(t, "pin", "--wait", "film")
	if out, code := m.ask(t, "limit", "8MiB"); code != 1 || !strings.Contains(out, "24.0 MiB are pinned") {
		t.Errorf("%d, %q", code, out)
	}
}

// verify finds what a disk got wrong, of a torrent that is loaded and of one that is dormant,
// drops it, and the next read is right. A pin brings it again by itself, and the scrub finds it
// without being asked.
func TestCacheVerify(t *testing.T) {
	t.Parallel()
	for _, c := range []metainfo.MakeConfig{{PieceLength: 256 << 10}, {PieceLength: 256 << 10, V2: true}} {
		p := single(t, "film", 8<<20+777, c)
		addr, _ := seed(t, p, "--no-dht")
		f := newFolders(t)
		mount := func(args ...string) *mounted {
			return f.mount(t, append([]string{p.torrent, "--no-dht", "--peer", addr}, args...)...)
		}
		m := mount()
		same(t, "sequential", m.path("film"), p.dir)
		if out := f.asks(t, "verify"); !strings.Contains(out, "hashed 8.0 MiB, nothing is wrong") {
			t.Errorf("%q", out)
		}
		f.flip(t, "0", 5<<20)
		f.flip(t, "0", 8<<20+776)
		out, code := f.ask(t, "verify", "film", "--json")
		var r control.VerifyResult
		if err := json.Unmarshal([]byte(lastLine(out)), &r); err != nil || code != 1 || r.Wrong == 0 || r.Wrong > 512<<10 || len(r.Torrents) != 1 {
			t.Errorf("%d, %s, %v", code, out, err)
		}
		cold(t, m.path("film"))
		same(t, "sequential", m.path("film"), p.dir)
		f.asks(t, "verify")

		f.asks(t, "pin", "--wait", "film")
		f.flip(t, "0", 0)
		if _, code := f.ask(t, "verify"); code != 1 {
			t.Error("a flipped byte was not found")
		}
		eventually(t, patience, "the pin brings it again", func() bool {
			c := f.cacheStatus(t).Torrents[0]
			return c.PinnedHere == c.Size
		})
		f.asks(t, "verify")
		f.asks(t, "unpin", "film")
		m.kill()
		f.flip(t, "0", 3<<20)
		m = mount("--scrub-rate", "100MB")
		eventually(t, patience, "the scrub went round", func() bool {
			s := f.cacheStatus(t)
			return s.Scrub.Wrong > 0 && s.Scrub.Checked == p.meta.Info.Length && !s.Clean && s.Unverified == 0
		})
		same(t, "sequential", m.path("film"), p.dir)
		m.stop()
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, "\n")+1:]
}

// Commands without a mount say so. Of two mounts with one state folder the second can not be
// asked, and works; and what is sent to the socket in malice is survived.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	f := newFolders(t)
	if out, code := f.ask(t, "status"); code != 1 || !strings.Contains(out, "no btmount runs with state folder "+f.state) || strings.Count(out, "\n") != 1 {
		t.Errorf("%d, %q", code, out)
	}
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	addr, _ := seed(t, p, "--no-dht")
	args := []string{p.torrent, "--no-dht", "--peer", addr}
	m := f.mount(t, args...)
	second := newFolders(t)
	second.state = f.state
	n := second.mount(t, args...)
	n.await("btmount cache can not ask this mount.*give each mount a --state-dir of its own")
	same(t, "sequential", n.path("film"), p.dir)
	if s := f.cacheStatus(t); s.Mountpoint != m.point {
		t.Errorf("%+v", s)
	}
	n.stop()

	socket := filepath.Join(f.state, "control.sock")
	if st, err := os.Lstat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	for _, request := range []string{
		"", "\x16\x03\x01", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"POST /v1/cache/evict HTTP/1.1\r\nHost: btmount\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n{\"all\":true}",
		"POST /v1/cache/pin HTTP/1.1\r\nHost: btmount\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n{\"patterns\":[\"" + strings.Repeat("x", 1<<20),
	} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, request)
		answer, _ := io.ReadAll(io.LimitReader(c, 1<<10))
		if bytes.Contains(answer, []byte(" 200 ")) {
			t.Errorf("%.40q: %s", request, answer)
		}
		c.Close()
	}
	same(t, "sequential", m.path("film"), p.dir)
	if s := f.cacheStatus(t); s.Torrents[0].Present != 1<<20 {
		t.Errorf("%+v", s)
	}
	m.kill()
	f.mount(t, args...) // the socket that is left is stale
	f.asks(t, "status")
}

// What is dormant is told of, hashed and evicted without staying awake, and without counting as
// used.
func TestCacheOfDormant(t *testing.T) {
	p := single(t, "film", 4<<20, metainfo.MakeConfig{PieceLength: 64 << 10})
	addr, _ := seed(t, p, "--no-dht")
	d, f, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, NoUpload: true, NoPassthrough: true, Peers: []netip.AddrPort{netip.MustParseAddrPort(addr)}}, p.torrent)
	same(t, "sequential", f.path("film"), p.dir)
	asleep := func() {
		t.Helper()
		if sessions, loaded := d.Awake(); sessions+loaded > 0 {
			t.Errorf("%d sessions, %d loaded", sessions, loaded)
		}
	}
	film := func() control.Torrent {
		t.Helper()
		s, err := d.CacheStatus(t.Context())
		if err != nil || len(s.Torrents) != 1 {
			t.Fatal(s, err)
		}
		return s.Torrents[0]
	}
	eventually(t, patience, "it sleeps", func() bool {
		d.Sleep()
		sessions, loaded := d.Awake()
		return sessions+loaded == 0
	})
	before := film()
	if before.Present != 4<<20 || before.Unverified != 0 || before.LastUsed.IsZero() {
		t.Errorf("%+v", before)
	}
	f.flip(t, "0", 1<<20)
	told := 0
	r, err := d.Verify(t.Context(), control.VerifyRequest{Patterns: []string{"*"}, Rate: 1 << 40}, func(control.Progress) { told++ })
	if err != nil || r.Checked != 4<<20 || r.Wrong != 64<<10 || told == 0 {
		t.Errorf("%+v, %v, %d", r, err, told)
	}
	asleep()
	if c := film(); c.Present != 4<<20-64<<10 || !c.LastUsed.Equal(before.LastUsed) {
		t.Errorf("%+v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if r, err := d.Verify(ctx, control.VerifyRequest{Rate: 1}, func(control.Progress) { cancel() }); err == nil || r.Checked > 1<<20 {
		t.Errorf("after its client hung up: %+v, %v", r, err)
	}
	asleep()
	if e, err := d.Evict(t.Context(), control.EvictRequest{Patterns: []string{"film"}}); err != nil || e.Freed < 4<<20-64<<10 || film().Present != 0 {
		t.Errorf("%+v, %v, %+v", e, err, film())
	}
	asleep()
	cold(t, f.path("film"))
	same(t, "sequential", f.path("film"), p.dir)
}
