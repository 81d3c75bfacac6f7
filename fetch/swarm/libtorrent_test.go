package swarm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// rasterbar is a running libtorrent, the client of other people.
type rasterbar struct {
	t     testing.TB
	stdin io.WriteCloser // it ends when that is closed
	moved chan struct{}  // capacity 1: now has changed

	mu  sync.Mutex
	now rasterbarStatus
}

type rasterbarStatus struct {
	Port, Progress, Peers int
	Up, Down              int64
	State                 string
	Swarm                 []struct {
		Addr, Client, ID string
		Pieces           int
		UploadOnly       bool `json:"upload_only"`
		Chokes           bool
	}
}

// startLibtorrent runs the script of cmd/daemon for a torrent whose data is, or comes,
// in a folder.
func startLibtorrent(t testing.TB, meta *metainfo.Meta, dir string, args ...string) *rasterbar {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's, which has the bindings
	if err := exec.Command(python, "-c", "import libtorrent").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("libtorrent: ", err)
	}
	file := filepath.Join(t.TempDir(), "test.torrent")
	if err := os.WriteFile(file, meta.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, append([]string{"../../cmd/daemon/testdata/lt.py", "--torrent", file, "--save", dir, "--show-peers"}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := &rasterbar{t: t, stdin: stdin, moved: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { // ends with the process
		defer close(done)
		for d := json.NewDecoder(out); ; {
			var s rasterbarStatus
			if err := d.Decode(&s); err != nil {
				return
			}
			l.mu.Lock()
			l.now = s
			l.mu.Unlock()
			select {
			case l.moved <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-done
		_ = cmd.Wait()
	})
	l.until("it listens", func(s rasterbarStatus) bool { return s.Port > 0 })
	return l
}

// until waits until it says something.
func (l *rasterbar) until(what string, ok func(rasterbarStatus) bool) rasterbarStatus {
	l.t.Helper()
	for limit := time.After(40 * time.Second); ; {
		l.mu.Lock()
		s := l.now
		l.mu.Unlock()
		if ok(s) {
			return s
		}
		select {
		case <-l.moved:
		case <-limit:
			l.t.Fatalf("libtorrent: still not: %s: %+v", what, s)
		}
	}
}

// tell gives it a command.
func (l *rasterbar) tell(command string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.stdin, command); err != nil {
		l.t.Fatal(err)
	}
}

// odd is the number of a file that does not fill a piece.
func odd(meta *metainfo.Meta) string {
	for i, f := range meta.Info.Files {
		if f.Length == 70001 {
			return strconv.Itoa(i)
		}
	}
	return ""
}

func (l *rasterbar) addr() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(l.now.Port))
}

// fastTorrent has pieces small enough that ten of them are given, and one file.
func fastTorrent(t *testing.T) (*metainfo.Meta, string) {
	dir := sample(t, 3<<20)
	meta, err := metainfo.Make(t.Context(), dir, metainfo.MakeConfig{PieceLength: 32 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return meta, dir
}

// Libtorrent, which we choke all the time, gets the pieces that we allow it, and no more.
func TestLibtorrentGetsAllowedFast(t *testing.T) {
	meta, dir := fastTorrent(t)
	s := seed(t, meta, dir, Config{UploadSlots: -1})
	l := startLibtorrent(t, meta, t.TempDir(), "--peer", addr(s.client).String())
	n := meta.Info.NumPieces()
	want := fastSet(netip.AddrFrom4([4]byte{127, 0, 0, 1}), meta.Info.Hash, n, maxFast)
	bytes := int64(0)
	for _, p := range want {
		bytes += meta.Info.PieceSize(p)
	}
	l.until("it has the allowed pieces", func(s rasterbarStatus) bool { return s.Down >= bytes })
	s.ask(t, "it was told", func(tr *Torrent) bool {
		c := tr.only()
		return c != nil && c.haveCount == maxFast && !c.serve.Unchoked
	})
	if got := l.until("", func(rasterbarStatus) bool { return true }); got.Down != bytes || !got.Swarm[0].Chokes {
		t.Errorf("%+v, want %d bytes", got, bytes)
	}
}

// What a libtorrent that chokes us allows is read from it.
func TestReadAllowedFastFromLibtorrent(t *testing.T) {
	meta, dir := fastTorrent(t)
	l := startLibtorrent(t, meta, filepath.Dir(dir), "--seed", "--choke")
	p := leech(t, meta, Config{})
	p.torrent.post(func() { p.torrent.found([]netip.AddrPort{l.addr()}, "given", netip.Addr{}) })
	var allowed []int
	p.ask(t, "pieces are allowed", func(tr *Torrent) bool {
		allowed = nil
		if c := tr.only(); c != nil && c.view.Choked {
			for piece := range c.allow {
				allowed = append(allowed, piece)
			}
		}
		return len(allowed) == 5 // its default
	})
	for _, piece := range allowed {
		e := extent.Extent{Off: int64(piece) * meta.Info.PieceLength, Len: meta.Info.PieceSize(piece)}
		if err := p.torrent.Fetch(within(t, 20*time.Second), e, time.Now()); err != nil {
			t.Fatalf("piece %d of %v: %v", piece, allowed, err)
		}
	}
	p.ask(t, "we are choked", func(tr *Torrent) bool { return tr.only().view.Choked })
}

// A piece that we have no more is none that libtorrent believes us to have (BEP 54), and
// we want nothing of it, and then do (BEP 21); it knows our client (BEP 20).
func TestLibtorrentIsToldOfEvicted(t *testing.T) {
	dir := sample(t, 3<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{})
	has := leech(t, meta, Config{Version: "btmount test"}, s)
	if err := has.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.stop()
	l := startLibtorrent(t, meta, t.TempDir(), "--peer", addr(has.client).String(), "--only", odd(meta), "--set", `{"close_redundant_connections": false}`)
	n := meta.Info.NumPieces()
	us := func(pieces int, only bool) func(s rasterbarStatus) bool {
		return func(s rasterbarStatus) bool {
			return len(s.Swarm) == 1 && s.Swarm[0].Pieces == pieces && s.Swarm[0].UploadOnly == only
		}
	}
	got := l.until("it knows that we have all", us(n, true))
	if sw := got.Swarm[0]; sw.Client != "btmount test" || !strings.HasPrefix(sw.ID, "-BM0000-") {
		t.Errorf("it takes us for %q, %q", sw.Client, sw.ID)
	}
	store := &forgetful{Store: has.object, gone: map[int]bool{}}
	has.torrent.post(func() { has.torrent.store = store })
	first, _ := has.torrent.served.Load().grid.of(3)
	store.mu.Lock()
	store.gone[first] = true
	store.mu.Unlock()
	has.torrent.post(has.torrent.look)
	l.until("it knows that piece 3 is gone, and that we want it", us(n-1, false))
}

// Libtorrent that has the one file it wants says that it wants no more (BEP 21).
func TestUploadOnlyOfLibtorrent(t *testing.T) {
	dir := sample(t, 3<<20)
	meta := makeTorrent(t, dir, "v1")
	first, second := seed(t, meta, dir, Config{}), seed(t, meta, dir, Config{})
	l := startLibtorrent(t, meta, t.TempDir(), "--peer", addr(first.client).String(), "--only", odd(meta), "--set", `{"close_redundant_connections": false}`)
	l.until("it has its file", func(s rasterbarStatus) bool { return s.State == "finished" })
	l.tell("peer " + addr(second.client).String()) // it says so in its greeting
	second.ask(t, "it has some, and wants nothing", func(tr *Torrent) bool {
		c := tr.only()
		return c != nil && c.uploadOnly && c.haveCount > 0 && !c.haveAll && c.haveCount < meta.Info.NumPieces()
	})
}
