package daemon_test

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

func lstat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

func xattr(t testing.TB, path, name string) string {
	t.Helper()
	buf := make([]byte, 200)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		t.Errorf("%s of %s: %v", name, path, err)
		return ""
	}
	return string(buf[:n])
}

// Two torrents of one name, one of them without a creation date, over a restart.
func TestStatIsStable(t *testing.T) {
	a := single(t, "film", 100_000, metainfo.MakeConfig{})
	dir := filepath.Join(t.TempDir(), "film")
	mustWrite(t, filepath.Join(dir, "sub", "x"), 70_000)
	b := mustTorrent(t, dir, metainfo.MakeConfig{})
	b.meta.Created = time.Time{}
	if err := os.WriteFile(b.torrent, b.meta.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newFolders(t)
	var before map[string]string
	for _, sources := range [][]string{{a.torrent, b.torrent}, {b.torrent, a.torrent}} {
		m := f.mount(t, append(sources, "--no-dht")...)
		now := map[string]string{}
		entries, err := os.ReadDir(f.path())
		if err != nil || len(entries) != 2 {
			t.Fatalf("%v, %v", entries, err)
		}
		err = filepath.Walk(f.path(), func(path string, _ os.FileInfo, err error) error {
			if err != nil || path == f.path() {
				return err
			}
			st := lstat(t, path)
			// Which of two gets the suffix may depend on the order; what it is may not.
			key := xattr(t, path, "user.btmount.infohash") + strings.TrimPrefix(path, f.path())
			now[key] = fmt.Sprintf("inode %d, size %d, mtime %d, mode %o", st.Ino, st.Size, st.Mtim.Sec, st.Mode)
			if strings.HasPrefix(key, a.meta.Info.Hash.String()) && st.Mtim.Sec != created.Unix() {
				t.Errorf("%s: modified at %d, want the creation date", path, st.Mtim.Sec)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		m.stop()
		if before == nil {
			before = now
			// A second restart shows whether the date that was made up is kept: wait
			// until the clock has moved on.
			eventually(t, patience, "the next second", func() bool { return time.Now().Nanosecond() < 50_000_000 })
			continue
		}
		for k, v := range before {
			if now[k] != v {
				t.Errorf("%s was %s, is %q", k, v, now[k])
			}
		}
	}
}

// ls, stat, find and df do not wait for peers, and there are none.
func TestLookingDoesNotWait(t *testing.T) {
	lib := theLibrary(t)
	m := mount(t, lib.torrent, "magnet:?xt=urn:btih:"+strings.Repeat("cd", 20)+"&dn=unknown", "--no-dht", "--peer", "127.0.0.1:9")
	for _, args := range [][]string{
		{"ls", "-lR", m.point}, {"find", m.point, "-ls"}, {"stat", m.path("library", "random")}, {"du", "-s", m.point}, {"df", m.point},
	} {
		began := time.Now()
		output(t, 10*time.Second, args[0], args[1:]...)
		t.Logf("%s of 2,000 files: %v", args[0], time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%v took %v", args, took)
		}
	}
	if got, err := os.ReadFile(m.path("unknown.resolving", "reason")); err != nil || len(got) == 0 {
		t.Errorf("reason: %q, %v", got, err)
	}
	if s := m.status(t); s.Torrents[0].Downloaded != 0 || s.Torrents[0].Wanted != 0 {
		t.Errorf("looking has fetched %+v", s.Torrents[0])
	}
}

// What was read is on disk, and du, df, the attributes and status.json say so.
func TestAccounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "films")
	mustWrite(t, filepath.Join(dir, "a"), 4<<20)
	mustWrite(t, filepath.Join(dir, "b"), 4<<20+999)
	p := mustTorrent(t, dir, metainfo.MakeConfig{PieceLength: 64 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := mount(t, append(peers(addr), p.torrent)...)
	a, b := m.path("films", "a"), m.path("films", "b")
	if lstat(t, a).Blocks != 0 || xattr(t, a, "user.btmount.progress") != "0.00%" {
		t.Errorf("before: %d blocks, %s", lstat(t, a).Blocks, xattr(t, a, "user.btmount.progress"))
	}
	same(t, "sequential", a, p.file("a"))
	eventually(t, 5*time.Second, "du sees it", func() bool { return lstat(t, a).Blocks == 4<<20/512 })
	if got := xattr(t, a, "user.btmount.progress"); got != "100.00%" {
		t.Errorf("progress %s", got)
	}
	if got := xattr(t, m.path("films"), "user.btmount.infohash"); got != p.meta.Info.Hash.String() {
		t.Errorf("infohash %s", got)
	}
	if got := xattr(t, a, "user.btmount.peers"); got != "1" {
		t.Errorf("peers %s", got)
	}
	if got := xattr(t, b, "user.btmount.file"); got != "1" {
		t.Errorf("file %s", got)
	}
	if blocks := lstat(t, b).Blocks; blocks > 2<<20/512 {
		t.Errorf("of b, %d blocks are there, and nobody has read it", blocks)
	}
	du := strings.Fields(output(t, patience, "du", "-s", "-B1", m.path("films")))[0]
	if n, _ := strconv.Atoi(du); n < 4<<20 || n > 6<<20 {
		t.Errorf("du says %s", du)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.point, &st); err != nil || st.Blocks*uint64(st.Bsize) < 8<<20 || st.Bfree > st.Blocks || st.Files < 2 {
		t.Errorf("df: %+v, %v", st, err)
	}
	checkStatus(t, m, p)
}

// checkStatus holds status.json against what it promises.
func checkStatus(t *testing.T, m *mounted, p *payload) {
	t.Helper()
	var raw map[string]any
	text, err := os.ReadFile(filepath.Join(m.point, ".btmount", "status.json"))
	if err == nil {
		err = json.Unmarshal(text, &raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "pid", "mountpoint", "started", "listen", "cache", "torrents"} {
		if raw[key] == nil {
			t.Errorf("status.json has no %s", key)
		}
	}
	tr, _ := raw["torrents"].([]any)[0].(map[string]any)
	for _, key := range []string{"name", "infohash", "size", "present", "files", "piece_length", "pieces", "state", "peers", "down_rate", "up_rate", "downloaded", "uploaded", "wasted", "corrupt", "banned", "private", "swarm"} {
		if tr[key] == nil {
			t.Errorf("a torrent in status.json has no %s", key)
		}
	}
	s := m.torrent(t)
	if s.InfoHash != p.meta.Info.Hash.String() || s.Size != p.meta.Info.Length || s.Present < 4<<20 || s.Present > s.Size || s.Files != 2 || s.Pieces != p.meta.Info.NumPieces() || s.Peers != 1 {
		t.Errorf("status.json: %+v", s)
	}
}

// BEP 47: pad files are hidden, symlinks are real and do not leave, the x bit is
// shown. The torrent is hostile: some of its links would leave.
func TestBEP47(t *testing.T) {
	data := make([]byte, 64<<10)
	copy(data, "#!/bin/sh\necho it runs\n")
	script := len("#!/bin/sh\necho it runs\n")
	sum := sha1.Sum(data)
	link := func(name string, target ...string) dict {
		return dict{"path": []string{name}, "length": 0, "attr": "l", "symlink path": target}
	}
	info := dict{
		"name": "things", "piece length": 64 << 10, "pieces": string(sum[:]),
		"files": []dict{
			{"path": []string{"bin", "run"}, "length": script, "attr": "x"},
			{"path": []string{".pad", "32000"}, "length": 32_000 - script, "attr": "p"},
			{"path": []string{"plain"}, "length": 64<<10 - 32_000},
			link("good", "bin", "run"), link("up", "..", "..", "..", "etc", "passwd"), link("abs", "/etc/passwd"), link("dots", "bin", "..", "..", "other"),
		},
	}
	b := bencode.MustMarshal(dict{"info": info, "creation date": created.Unix()})
	meta, err := metainfo.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "things.torrent")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	addr := listenRaw(t, meta, data, func(p *rawPeer) error {
		_ = p.seedAll()
		return p.answer(p.serve)
	})
	m := mount(t, append(peers(addr), path)...)
	root := m.path("things")
	if names, _ := filepath.Glob(filepath.Join(root, ".pad*")); len(names) > 0 {
		t.Errorf("pad files are shown: %v", names)
	}
	if mode := lstat(t, filepath.Join(root, "bin", "run")).Mode & 0o7777; mode != 0o555 {
		t.Errorf("mode of a program is %o", mode)
	}
	if mode := lstat(t, filepath.Join(root, "plain")).Mode & 0o7777; mode != 0o444 {
		t.Errorf("mode of a file is %o", mode)
	}
	// Not from here: while this process starts a program, its collector, and with it the peer that
	// has the program, may have to wait for the start.
	if out := output(t, patience, "sh", "-c", `"$0"`, filepath.Join(root, "good")); out != "it runs\n" {
		t.Errorf("running it through the link: %q", out)
	}
	err = filepath.Walk(root, func(p string, st os.FileInfo, err error) error {
		if err != nil || st.Mode()&os.ModeSymlink == 0 {
			return err
		}
		target, _ := os.Readlink(p)
		if to := filepath.Join(filepath.Dir(p), target); filepath.IsAbs(target) || !strings.HasPrefix(to, root+"/") && to != root {
			t.Errorf("%s -> %s leaves its torrent", p, target)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
