package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/btmount/btmount/cmd/daemon"
)

// A file seeded by one btmount is read through another, which was mounted by the
// form of mount(8) and goes to the background.
func TestSeedMountUnmount(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	content := bytes.Repeat([]byte("a line of a film\n"), 20000)
	p.write("film", string(content))
	s := p.start("seed", "film", "--listen", "127.0.0.1:0", "--no-dht", "--hybrid")
	if line := s.line("film.torrent"); line != "film.torrent\n" {
		t.Error(line)
	}
	s.line("magnet:?xt=urn:btih:")
	_, addr, _ := strings.Cut(s.line("seeding "), " on ")
	addr, _, _ = strings.Cut(addr, ";")

	got := p.run("film.torrent", "mnt", "-o", "rw,nosuid,no_dht,peer="+addr+",listen=127.0.0.1:0")
	if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "mounted 1 torrent on "+p.path("mnt")) || !strings.Contains(got.stdout, "btmount unmount") {
		t.Fatalf("%+v", got)
	}
	read, err := os.ReadFile(p.path("mnt", "torrents", "film"))
	if err != nil || !bytes.Equal(read, content) {
		t.Errorf("%d bytes, %v", len(read), err)
	}
	var status daemon.Status
	b, err := os.ReadFile(p.path("mnt", ".btmount", "status.json"))
	if err != nil || json.Unmarshal(b, &status) != nil || len(status.Torrents) != 1 || status.Torrents[0].Present != int64(len(content)) {
		t.Errorf("%s, %v", b, err)
	}
	if again := p.run("mount", "mnt", "film.torrent", "--no-dht", "--daemon"); again.code != 1 || !strings.Contains(again.stderr, "running btmount") {
		t.Errorf("a second mount: %+v", again)
	}
	if got := p.run("unmount", "mnt"); got != (outcome{}) {
		t.Errorf("unmount: %+v", got)
	}
	if got := s.end(syscall.SIGINT); got.code != 0 || got.stderr != "" {
		t.Errorf("seed: %+v", got)
	}
}

// In the background, too, what is left out is told, once.
func TestDaemonTellsWhatIsLeftOut(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	got := p.run("mount", "--daemon", "mnt", p.torrent("a"), "missing", "--no-dht", "--log-level", "debug")
	lines := 0
	for line := range strings.Lines(got.stderr) {
		if strings.HasPrefix(line, "btmount: missing: no such file") {
			lines++
		}
	}
	if got.code != 0 || lines != 1 {
		t.Errorf("%+v", got)
	}
	if got := p.run("unmount", "mnt"); got != (outcome{}) {
		t.Errorf("unmount: %+v", got)
	}
}

// In the background the log is in the state folder; elsewhere it is where it is wanted, and
// stderr has none of it.
func TestLogFile(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	a := p.torrent("a")
	logged := func(file string) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "cannot pin") || !strings.Contains(string(text), "msg=stopping") {
			t.Errorf("%s: %q, %v", file, text, err)
		}
		if s, err := os.Stat(file); err == nil && s.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", file, s.Mode())
		}
	}
	flags := []string{"mount", "mnt", a, "--no-dht", "--log-level", "info", "--pin", "*", "--cache-size", "1"}
	if got := p.run(append(flags, "--daemon")...); got.code != 0 || !strings.Contains(got.stderr, "cannot pin") {
		t.Errorf("%+v", got)
	}
	if got := p.run("unmount", "mnt"); got != (outcome{}) {
		t.Errorf("unmount: %+v", got)
	}
	logged(p.path("home", ".local", "state", "btmount", "btmount.log"))
	m := p.start(append(flags, "--log-file", p.path("own.log"))...)
	m.line("mounted 1 torrent")
	if got := m.end(syscall.SIGINT); got.code != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	logged(p.path("own.log"))
	for _, bad := range []string{p.path("no", "such", "folder"), p.path("mnt"), ""} {
		if got := p.run(append(flags, "--log-file", bad)...); got.code != 2 || !strings.Contains(got.stderr, "--log-file") || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// Ctrl-C ends a mount that is not ready yet, in the background as well.
func TestInterruptedBeforeReady(t *testing.T) {
	for _, args := range [][]string{{"mount"}, {"mount", "--daemon"}} {
		asked := make(chan struct{}, 1)
		slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
		}))
		p := newPlace(t)
		r := p.start(append(args, "mnt", slow.URL+"/x.torrent", "--no-dht")...)
		<-asked
		if got := r.end(syscall.SIGINT); got.code != 1 || got.stderr != "btmount: "+errInterrupted.Error()+"\n" {
			t.Errorf("%v: %+v", args, got)
		}
		slow.Close()
	}
}

// A mount whose daemon was killed is unmounted, and mounted again, like any other.
func TestKilled(t *testing.T) {
	needFUSE(t)
	p := newPlace(t)
	file := p.torrent("a")
	for range 2 { // the second one finds the dead mount of the first
		m := p.start("mount", "mnt", file, "--no-dht", "--log-level", "error")
		m.line("mounted 1 torrent")
		m.end(syscall.SIGKILL)
	}
	if got := p.run("unmount", "mnt"); got != (outcome{}) {
		t.Errorf("unmount: %+v", got)
	}
}
