package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// server answers as no server of .torrent files should.
func server(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page.torrent":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!doctype html><title>Not here</title>")
		case "/loop.torrent":
			http.Redirect(w, r, "/loop.torrent", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const aHash = "0123456789012345678901234567890123456789"

// TestBadInput: whatever is wrong is one line on stderr that names the thing, the
// reason and the cure; the exit code is not 0, and nothing is left behind.
func TestBadInput(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	good, mnt := p.torrent("good"), p.path("mnt")
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	url := server(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.write("full/file", "content")
	p.write("empty/readme.txt", "no torrent")
	// A second mount that holds a cache and a mountpoint.
	if err := os.Mkdir(p.path("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	busy := p.start("mount", p.path("other"), good, "--no-dht", "--cache-dir", p.path("held"))
	busy.line("mounted 1 torrent")

	for _, c := range []struct {
		name string
		args []string // of mount
		want []string // parts of the line
	}{
		{"missing file", []string{mnt, p.path("no.torrent")}, []string{p.path("no.torrent"), "no such file", "give a .torrent"}},
		{"folder without torrents", []string{mnt, p.path("empty")}, []string{p.path("empty"), "no .torrent file", "; name"}},
		{"HTTP 404", []string{mnt, url + "/x.torrent"}, []string{url + "/x.torrent", "404", "check the address"}},
		{"web page", []string{mnt, url + "/page.torrent"}, []string{url + "/page.torrent", "web page", "give the address of the .torrent"}},
		{"redirect loop", []string{mnt, url + "/loop.torrent"}, []string{"/loop.torrent", "too many redirects", "; check"}},
		{"nobody listens", []string{mnt, "http://" + deadAddr(t) + "/x"}, []string{"cannot connect", "refused", "; check"}},
		{"truncated", []string{mnt, p.write("short.torrent", string(whole[:len(whole)/2]))}, []string{"short.torrent: cut short", "; get another"}},
		{"empty file", []string{mnt, p.write("zero.torrent", "")}, []string{"zero.torrent: empty", "; get another"}},
		{"text", []string{mnt, p.write("text.torrent", "hello\x1b[2J\nworld")}, []string{"text.torrent: not a .torrent", "; get another"}},
		{"negative length", []string{mnt, p.write("neg.torrent", "d4:infod6:lengthi-1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee")}, []string{"neg.torrent", "length -1", "; get another"}},
		{"deep nesting", []string{mnt, p.write("deep.torrent", "d1:a"+strings.Repeat("l", 1<<20))}, []string{"deep.torrent", "; get another"}},
		{"bad hash", []string{mnt, "0123"}, []string{"0123", "no such file", "40 hex"}},
		{"bad hash in a magnet", []string{mnt, "magnet:?xt=urn:btih:zzz"}, []string{"magnet:?xt=urn:btih:zzz", "40 hex", "; check"}},
		{"magnet without hash", []string{mnt, "magnet:?dn=name"}, []string{"magnet:?dn=name", "without xt", "; check"}},
		{"short v2 hash in a magnet", []string{mnt, "magnet:?xt=urn:btmh:1220" + strings.Repeat("ab", 31)}, []string{"1220 and 64", "; check"}},
		{"strict", []string{"--strict", mnt, good, p.path("no.torrent")}, []string{"no.torrent", "no such file", "--strict"}},
		{"no mountpoint", []string{good}, []string{"mountpoint", "btmount mount MOUNTPOINT"}},
		{"mountpoint missing", []string{p.path("nowhere"), good}, []string{p.path("nowhere"), "no such directory", "mkdir"}},
		{"mountpoint not empty", []string{p.path("full"), good}, []string{p.path("full"), "not empty", "choose"}},
		{"mountpoint is a file", []string{p.path("full", "file"), good}, []string{p.path("full", "file"), "not a directory"}},
		{"already mounted", []string{p.path("other"), good}, []string{p.path("other"), "running btmount", "unmount"}},
		{"already mounted, other cache", []string{p.path("other"), good, "--cache-dir", p.path("own")}, []string{p.path("other"), "running btmount", "unmount"}},
		{"port taken", []string{mnt, good, "--listen", taken.Addr().String()}, []string{taken.Addr().String(), "in use", "--listen"}},
		{"port of the DHT taken", []string{mnt, good, "--listen", takenUDP(t)}, []string{"127.0.0.1:", "in use", "--listen"}},
		{"no such address", []string{mnt, good, "--listen", "192.0.2.1:0"}, []string{"192.0.2.1:0", "assign", "--listen"}},
		{"cache below a file", []string{mnt, good, "--cache-dir", p.path("full", "file", "cache")}, []string{p.path("full", "file", "cache"), "not a directory", "--cache-dir"}},
		{"cache is a file", []string{mnt, good, "--cache-dir", p.path("full", "file")}, []string{p.path("full", "file"), "not a directory", "--cache-dir"}},
		{"cache cannot be written", []string{mnt, good, "--cache-dir", "/proc/btmount"}, []string{"/proc/btmount", "no such file", "--cache-dir"}},
		{"cache held", []string{mnt, good, "--cache-dir", p.path("held")}, []string{p.path("held"), "in use by process", "--cache-dir"}},
		{"cache in the mount", []string{mnt, good, "--cache-dir", filepath.Join(mnt, "cache")}, []string{filepath.Join(mnt, "cache"), "inside the mountpoint", "--cache-dir"}},
		{"state in the mount", []string{mnt, good, "--state-dir", filepath.Join(mnt, "state")}, []string{filepath.Join(mnt, "state"), "inside the mountpoint", "--state-dir"}},
		{"state cannot be written", []string{mnt, good, "--state-dir", "/proc/btmount"}, []string{"/proc/btmount", "--state-dir"}},
		{"unknown flag", []string{mnt, good, "--nix"}, []string{"--nix", "no such flag", "--help"}},
		{"bad size", []string{mnt, good, "--cache-size", "abc"}, []string{"--cache-size", "abc", "give"}},
		{"bad bool", []string{mnt, good, "--no-dht=maybe"}, []string{"--no-dht", "maybe", "true or false"}},
		{"bad peer", []string{mnt, good, "--peer", "nowhere.invalid:1"}, []string{"--peer", "nowhere.invalid:1", "give"}},
		{"no config file", []string{mnt, good, "--config", p.path("no.toml")}, []string{p.path("no.toml"), "no such file", "--config"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"mount"}, c.args...)
			if c.name != "port of the DHT taken" && c.name != "bad bool" {
				args = append(args, "--no-dht")
			}
			holdsOneLine(t, p.run(args...), c.want)
			if left, err := os.ReadDir(mnt); err != nil || len(left) > 0 {
				t.Errorf("the mountpoint is not as it was: %v, %v", left, err)
			}
		})
	}
	if got := busy.end(syscall.SIGTERM); got.code != 0 || got.stderr != "" {
		t.Errorf("the mount beside it: %+v", got)
	}
}

// A mountpoint that can not be used is told of before any source is fetched.
func TestMountpointIsLookedAtFirst(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	p.write("full/file", "content")
	holdsOneLine(t, p.run("mount", p.path("full"), s.URL+"/x.torrent", "--no-dht"), []string{p.path("full"), "not empty", "choose"})
	if n := asked.Load(); n > 0 {
		t.Errorf("%d sources were asked for", n)
	}
}

func takenUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// holdsOneLine checks how a btmount failed.
func holdsOneLine(t *testing.T, got outcome, want []string) {
	t.Helper()
	t.Log(strings.TrimSuffix(got.stderr, "\n"))
	if got.code <= 0 {
		t.Errorf("exit code %d", got.code)
	}
	if strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "btmount: ") || got.stdout != "" {
		t.Errorf("not exactly one line: %q, stdout %q", got.stderr, got.stdout)
	}
	if strings.Contains(got.stderr, "goroutine ") || strings.ContainsAny(strings.TrimSuffix(got.stderr, "\n"), "\x1b\r\x00") {
		t.Errorf("a stack trace or control characters: %q", got.stderr)
	}
	for _, part := range want {
		if !strings.Contains(got.stderr, part) {
			t.Errorf("%q does not say %q", got.stderr, part)
		}
	}
}

func TestBadInputOfOthers(t *testing.T) {
	p := newPlace(t)
	p.write("there.torrent", "of mine")
	p.write("there", "content")
	if err := os.Mkdir(p.path("hollow"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"seed nothing", []string{"seed"}, []string{"one file or folder", "btmount seed PATH"}},
		{"seed what is not there", []string{"seed", p.path("no")}, []string{p.path("no"), "no such file", "; give"}},
		{"seed an empty folder", []string{"seed", p.path("hollow")}, []string{p.path("hollow")}},
		{"seed a device", []string{"seed", "/dev/null"}, []string{"/dev/null"}},
		{"seed over a file", []string{"seed", p.path("there"), "--no-dht"}, []string{"there.torrent", "is no .torrent", "--out"}},
		{"seed to nowhere", []string{"seed", p.path("there"), "--out", "/proc/x.torrent"}, []string{"/proc/x.torrent", "--out"}},
		{"seed in odd pieces", []string{"seed", p.path("there"), "--piece-length", "20KiB"}, []string{"--piece-length", "20KiB", "power of two"}},
		{"unmount nothing", []string{"unmount"}, []string{"a mountpoint is needed"}},
		{"unmount what is not mounted", []string{"unmount", p.path("mnt")}, []string{p.path("mnt"), "no btmount is mounted"}},
		{"unmount what is not there", []string{"unmount", p.path("no")}, []string{p.path("no"), "no btmount is mounted"}},
		{"unmount another filesystem", []string{"unmount", "/proc"}, []string{"/proc", "no btmount is mounted"}},
		{"no command", []string{"swarm"}, []string{`"swarm"`, "no command", "--help"}},
		{"demo with arguments", []string{"demo", "x"}, []string{`"x"`, "no arguments"}},
		{"mount(8) without sources", []string{"mnt", "-o", "ro"}, []string{"a source and a mountpoint"}},
		{"mount(8) with an unknown option", []string{"x.torrent", p.path("mnt"), "-o", "frob"}, []string{"--frob", "no such flag"}},
		{"in the background", []string{"mount", "--daemon", p.path("mnt"), p.path("no.torrent"), "--no-dht"}, []string{"no.torrent", "no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) { holdsOneLine(t, p.run(c.args...), c.want) })
	}
}

// Each of several bad sources has a line of its own.
func TestSeveralBadSources(t *testing.T) {
	p := newPlace(t)
	got := p.run("mount", p.path("mnt"), "one", "two", "--no-dht")
	if got.code != 1 || strings.Count(got.stderr, "\n") != 2 || !strings.Contains(got.stderr, "btmount: one: ") || !strings.Contains(got.stderr, "btmount: two: ") {
		t.Errorf("%+v", got)
	}
}

// One bad source among good ones is one line, and the others are mounted.
func TestOneBadSource(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	m := p.start("mount", p.torrent("a"), p.path("no.torrent"), p.torrent("b"), p.path("mnt"), "--no-dht")
	if line := m.line("mounted 2 torrents"); !strings.Contains(line, "1 source left out") {
		t.Error(line)
	}
	if list, err := os.ReadDir(p.path("mnt", "torrents")); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	got := m.end(syscall.SIGINT)
	if got.code != 0 || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, "no.torrent: no such file") {
		t.Errorf("%+v", got)
	}
}

// What a magnet link says besides its hash is no reason to refuse it.
func TestUnknownMagnetParameters(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	m := p.start("mount", p.path("mnt"), "magnet:?xt=urn:btih:"+aHash+"&dn=film&x.new=1&so=0-2&tr=nonsense&%zz", "--no-dht")
	if line := m.line("mounted 1 torrent"); !strings.Contains(line, "1 of them waiting for metadata") {
		t.Error(line)
	}
	why, err := os.ReadFile(p.path("mnt", "torrents", "film.resolving", "reason"))
	if err != nil || !strings.Contains(string(why), aHash) || !strings.Contains(string(why), "--peer") {
		t.Errorf("%q, %v", why, err)
	}
	if got := m.end(syscall.SIGTERM); got.code != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// An ordinary user hears what is not permitted.
func TestNotPermitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	p := newPlace(t)
	good := p.torrent("good")
	for dir := p.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := p.command()
	program := p.path("btmount") // where everybody may run it
	copyFile(t, cmd.Path, program)
	for _, args := range [][]string{
		{"mount", p.path("mnt"), good, "--no-dht", "--cache-dir", "/tmp", "--state-dir", "/tmp"},
		{"mount", p.path("mnt"), good, "--no-dht", "--cache-dir", p.path("cache"), "--state-dir", "/tmp"},
		{"mount", p.path("mnt"), good, "--no-dht"},
	} {
		cmd := p.command(args...)
		cmd.Path = program
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		holdsOneLine(t, p.finish(cmd), []string{"; "})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without /dev/fuse, mount and demo say so.
func TestNoFUSE(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can hide /dev/fuse")
	}
	p := newPlace(t)
	for _, args := range [][]string{{"mount", p.path("mnt"), p.torrent("good"), "--no-dht"}, {"demo"}} {
		cmd := p.command(args...)
		// In a mount namespace of its own, /dev is empty. In a chroot, / is no mount.
		hide := `{ mount --make-rprivate / || mount --make-rprivate /dev; } 2>/dev/null && mount -t tmpfs none /dev && exec "$0" "$@"`
		cmd.Args = append([]string{"sh", "-c", hide, cmd.Path}, args...)
		cmd.Path = "/bin/sh"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		holdsOneLine(t, p.finish(cmd), []string{"/dev/fuse", "modprobe fuse"})
	}
}
