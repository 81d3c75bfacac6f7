package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/cmd/control"
)

// What is wrong with a question is told in one line, with the cure, before anybody is asked.
func TestCacheErrors(t *testing.T) {
	p := newPlace(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"cache none", 2, `"none" is no command of btmount cache; see btmount cache --help`},
		{"cache --json", 2, "--json: there is no such flag"},
		{"cache status film", 2, `"film": btmount cache status takes no argument`},
		{"cache pin", 2, "a pattern is needed: btmount cache pin PATTERN"},
		{"cache unpin --json", 2, "a pattern is needed: btmount cache unpin PATTERN"},
		{"cache pin [", 2, `"[": give a path below torrents/`},
		{"cache evict", 2, "give patterns, or --bytes, or --all"},
		{"cache evict film --all", 2, "give patterns, or --bytes, or --all"},
		{"cache evict --bytes x", 2, `--bytes "x": give a size above 0`},
		{"cache verify --rate 0", 2, `--rate "0": give a size above 0`},
		{"cache limit 1GB 2GB", 2, "one size is needed"},
		{"cache limit -- -1", 2, `"-1": give a size above 0`},
		{"cache limit --min-free", 2, "--min-free: it needs a value; see btmount cache limit --help"},
		{"cache status --state-dir other", 1, "no btmount runs with state folder " + p.path("other") + "; start one with btmount mount, or name its folder with --state-dir"},
		{"cache evict --all", 1, "no btmount runs with state folder " + p.path("home", ".local", "state", "btmount")},
	} {
		got := p.run(strings.Fields(c.args)...)
		if got.code != c.code || !strings.HasPrefix(got.stderr, "btmount: "+c.want) || strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%s: %+v, want %d, %q", c.args, got, c.code, c.want)
		}
	}
	p.write("home/.config/btmount/config.toml", "state-dir = \"/from/config\"\ncache-size = \"1GiB\"\n")
	if got := p.run("cache", "status"); got.code != 1 || !strings.Contains(got.stderr, "state folder /from/config;") {
		t.Errorf("the config file: %+v", got)
	}
}

// The status is a page that people read: it is kept in testdata.
func TestCacheStatusTable(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	full := control.CacheStatus{
		Pid: 4711, Mountpoint: "/home/user/swarm", Started: ago(3 * time.Hour), Dir: "/home/user/.cache/btmount",
		Used: 7 << 30, Limit: 10 << 30, DiskFree: 44 << 30, MinFree: 512 << 20, Pinned: 2 << 30, Kept: 1 << 30, Room: 7 << 30,
		Memory: 1 << 20, Unverified: 3 << 30, Unmounted: 200 << 20, Objects: 14, Loaded: 3,
		Pins: []string{"Film"}, Flags: []string{"*/*.mkv"}, Scrub: control.Scrub{Rate: 1e6, Checked: 5 << 30, Wrong: 16 << 10},
		Torrents: []control.Torrent{
			{Name: "Film", Size: 2 << 30, Present: 3 << 29, Pinned: 2 << 30, PinnedHere: 3 << 29, OpenFiles: 1, LastUsed: ago(time.Second)},
			{Name: "Data set.tar", Size: 70 << 30, Present: 5 << 30, Unverified: 3 << 30, LastUsed: ago(50 * time.Hour)},
			{Name: "Large", Size: 1 << 40, Pinned: 1 << 40, PinError: "too much"},
			{Name: "nothing", Size: 1},
		},
	}
	var out strings.Builder
	statusTable(&out, full, now)
	statusTable(&out, control.CacheStatus{Clean: true, Started: now, Limit: 10 << 30, Room: 10 << 30, Torrents: []control.Torrent{{}, {}}}, now)
	golden := filepath.Join("testdata", "cache-status.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != out.String() {
		t.Errorf("differs from %s (%v); read it, then: go test ./cmd/btmount -run TestCacheStatusTable -update\n%s", golden, err, out.String())
	}
}
