package daemon_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// many makes a folder of torrents that nobody has, and one that is real.
func many(t testing.TB, n int, real *payload) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n - 1 {
		p := single(t, fmt.Sprintf("other-%02d", i), 20000, metainfo.MakeConfig{})
		if err := os.Rename(p.torrent, filepath.Join(dir, fmt.Sprintf("%02d.torrent", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "real.torrent"), mustRead(t, real.torrent), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func stateOf(d *daemon.Daemon, name string) string {
	for _, s := range d.Status().Torrents {
		if s.Name == name {
			return s.State
		}
	}
	return "unknown"
}

// Of many torrents only the one that is read wakes up; it goes to sleep again, with a
// file of it open, and wakes up again. Its .torrent is not needed for that.
func TestDormant(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 8<<20+5, metainfo.MakeConfig{PieceLength: 256 << 10})
	dir := many(t, 70, p)
	addr, _ := seed(t, p, "--no-dht")
	d, f, _ := inProcess(t, daemon.Config{
		NoDHT: true, NoLSD: true, NoUpload: true, Peers: []netip.AddrPort{netip.MustParseAddrPort(addr)}, Idle: 300 * time.Millisecond,
	}, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := output(t, patience, "ls", f.path()); len(got) < 70*len("film") {
		t.Errorf("ls shows %q", got)
	}
	if sessions, loaded := d.Awake(); sessions+loaded > 0 {
		t.Errorf("%d torrents are awake and %d loaded that nobody reads", sessions, loaded)
	}
	same(t, "random", f.path("film"), p.dir)
	asleep := func() bool { s, l := d.Awake(); return s+l == 0 && stateOf(d, "film") == "dormant" }
	eventually(t, patience, "the torrent sleeps", asleep)
	got := d.Status()
	for _, s := range got.Torrents {
		if s.Name == "film" && (s.Downloaded == 0 || s.Present < s.Downloaded || s.Size != 8<<20+5) {
			t.Errorf("asleep it says %+v", s)
		}
	}
	holder := start(t, "tail", "-f", "-c", "1", f.path("film")) // has it open all the time
	eventually(t, patience, "a session beside an open file ends", func() bool { s, l := d.Awake(); return s == 0 && l == 1 })
	same(t, "sequential", f.path("film"), p.dir)
	eventually(t, patience, "it sleeps again", func() bool { s, l := d.Awake(); return s == 0 && l == 1 })
	holder.kill()
	eventually(t, patience, "it is forgotten", asleep)
	same(t, "sequential", f.path("film"), p.dir) // all from the cache
	if s, _ := d.Awake(); s != 0 {
		t.Error("reading from the cache woke it up")
	}
}

// Of what sleeps, status.json tells how many have it, once somebody has looked.
func TestScrapeOfDormant(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{})
	dir := many(t, 70, p) // so that none is awake
	url := "http://" + opentracker(t, p.meta.Info.Hash.String()) + "/announce"
	seed(t, p, "--no-dht", "--tracker", url)
	d, f, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, NoUpload: true, Trackers: []string{url}}, dir)
	film := func() daemon.TorrentStatus {
		for _, s := range d.Status().Torrents {
			if s.Name == "film" {
				return s
			}
		}
		return daemon.TorrentStatus{}
	}
	if tr := film().Trackers; len(tr) != 1 || tr[0].Seeders != -1 || tr[0].Completed != -1 {
		t.Errorf("unasked: %+v", tr)
	}
	output(t, patience, "cat", filepath.Join(f.point, ".btmount", "status.json"))
	eventually(t, patience, "the tracker's numbers", func() bool {
		s := film()
		return s.State == "dormant" && s.Trackers[0].Seeders == 1 && s.Trackers[0].Leechers == 0 && s.Trackers[0].Completed >= 0 && !s.Trackers[0].Last.IsZero()
	})
	if sessions, _ := d.Awake(); sessions > 0 {
		t.Error("a look wakes")
	}
	// Awake, it has both: what the announce and what the scrape told.
	same(t, "sequential", f.path("film"), p.dir)
	if s := film(); len(s.Trackers) != 1 || s.Trackers[0].Peers < 1 || s.Trackers[0].Completed < 0 {
		t.Errorf("awake: %+v", s.Trackers)
	}
}

// What sleeps and is cached is served to who calls; the caller may speak in the clear or
// not.
func TestPeerWakes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"v1", "hybrid", "v2"} {
		for _, encryption := range []string{"forbid", "require"} {
			p := single(t, "film", 2<<20, metainfo.MakeConfig{PieceLength: 256 << 10, Hybrid: kind == "hybrid", V2: kind == "v2"})
			addr, s := seed(t, p, "--no-dht")
			d, f, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, Peers: []netip.AddrPort{netip.MustParseAddrPort(addr)}}, p.torrent)
			same(t, "sequential", f.path("film"), p.dir)
			s.kill()
			d.Sleep()
			if st := stateOf(d, "film"); st != "dormant" {
				t.Fatalf("it is %s", st)
			}
			m := mount(t, p.torrent, "--no-dht", "--peer", d.Addr().String(), "--encryption", encryption)
			same(t, "sequential", m.path("film"), p.dir)
			if sessions, _ := d.Awake(); sessions != 1 {
				t.Error("it was served by nobody")
			}
		}
	}
}

// Strangers wake nothing of which they could have nothing.
func TestStrangersWakeNothing(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	from := []netip.AddrPort{netip.MustParseAddrPort(addr)}
	nothing, _, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true}, many(t, 70, p))
	silent, f, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, NoUpload: true, Peers: from}, p.torrent)
	same(t, "sequential", f.path("film"), p.dir)
	for what, d := range map[string]*daemon.Daemon{"nothing is cached": nothing, "it may not upload": silent} {
		d.Sleep()
		if c, err := dialRaw(d.Addr().String(), p.meta); err == nil {
			c.Close()
			t.Errorf("%s, and it answers", what)
		}
		if sessions, _ := d.Awake(); sessions != 0 {
			t.Errorf("%s, and it woke up", what)
		}
	}
}

// What has something cached stays awake for others, also over a restart, beside torrents
// that sleep.
func TestSharedStaysAwake(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 1<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	dir := many(t, 70, p)
	addr, s := seed(t, p, "--no-dht")
	d, f, stop := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, Peers: []netip.AddrPort{netip.MustParseAddrPort(addr)}}, dir)
	same(t, "sequential", f.path("film"), p.dir)
	s.kill()
	d.Calm()
	if sessions, _ := d.Awake(); sessions != 1 || stateOf(d, "film") != "complete" {
		t.Errorf("%d sessions, and the torrent is %s", sessions, stateOf(d, "film"))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	m := f.mount(t, dir, "--no-dht", "--no-lsd")
	eventually(t, patience, "it is awake after a restart, and the others are not", func() bool {
		awake := 0
		for _, s := range m.status(t).Torrents {
			if s.State != "dormant" {
				awake++
			}
			if s.Name == "film" && s.State != "complete" {
				return false
			}
		}
		return awake == 1
	})
	c, err := dialRaw(m.listen, p.meta)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A fault of ours in one torrent: its reads end with EIO at once, the others go on, and
// after a pause it works again.
func TestFaultOfOneTorrent(t *testing.T) {
	t.Parallel()
	bad := single(t, "bad", 4<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	good := single(t, "good", 4<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
	var addrs []netip.AddrPort
	for _, p := range []*payload{bad, good} {
		addr, _ := seed(t, p, "--no-dht")
		addrs = append(addrs, netip.MustParseAddrPort(addr))
	}
	d, f, _ := inProcess(t, daemon.Config{NoDHT: true, NoLSD: true, Peers: addrs}, bad.torrent, good.torrent)
	eventually(t, patience, "both are awake", func() bool { s, _ := d.Awake(); return s == 2 })
	if err := d.Plant(bad.meta.Info.Hash); err != nil {
		t.Fatal(err)
	}
	r := reader(t, "time", f.path("bad"))
	out := r.succeed(patience)
	var took int
	var how string
	if _, err := fmt.Sscan(out, &took, &how); err != nil || how != "EIO" {
		t.Errorf("the read ended with %q", out)
	}
	if st := stateOf(d, "bad"); st != "failed" {
		t.Errorf("the torrent is %s", st)
	}
	same(t, "sequential", f.path("good"), good.dir)
	eventually(t, patience, "it works again", func() bool {
		return string(reader(t, "time", f.path("bad")).succeed(patience)) != out && stateOf(d, "bad") != "failed"
	})
	same(t, "sequential", f.path("bad"), bad.dir)
}
