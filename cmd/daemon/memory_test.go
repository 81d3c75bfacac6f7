package daemon_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A second start that hears of nobody calls who served the first, which a tracker had
// named. What it finds kept may be anything.
func TestPeersAreKeptAcrossStarts(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 4<<20, metainfo.MakeConfig{})
	addr, _ := seed(t, p, "--no-dht")
	at := netip.MustParseAddrPort(addr)
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ip := at.Addr().As4()
		_, _ = w.Write([]byte("d8:intervali1800e5:peers6:" + string(ip[:]) + string([]byte{byte(at.Port() >> 8), byte(at.Port())}) + "e"))
	}))
	defer tracker.Close()
	f := newFolders(t)
	m := f.mount(t, p.torrent, "--no-dht", "--no-lsd", "--tracker", tracker.URL+"/announce")
	same(t, "sequential", m.path("film"), p.dir)
	m.stop()
	kept := filepath.Join(f.state, "torrents", p.meta.Info.Hash.String()+".peers")
	if st, err := os.Stat(kept); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	f.cache = t.TempDir()
	m = f.mount(t, p.torrent, "--no-dht", "--no-lsd")
	same(t, "sequential", m.path("film"), p.dir)
	m.stop()
	for _, bad := range []string{"", "{", "null", `[{"addr":"x"}]`, `[{"addr":"127.0.0.1:1","source":"dht","rate":1e999}]`, "[" + string(make([]byte, 100<<10))} {
		if err := os.WriteFile(kept, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		f.cache = t.TempDir()
		m = f.mount(t, p.torrent, "--no-dht", "--no-lsd", "--peer", addr)
		same(t, "sequential", m.path("film"), p.dir)
		m.stop()
	}
}

// What is kept of torrents that were not mounted for long is removed, and nothing else.
func TestStateOfTorrentsOfLongAgoIsRemoved(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 20000, metainfo.MakeConfig{})
	f := newFolders(t)
	dir := filepath.Join(f.state, "torrents")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mounted := p.meta.Info.Hash.String()
	const day = 24 * time.Hour
	put := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, mustRead(t, p.torrent), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, other := strings.Repeat("ab", 20), strings.Repeat("cd", 20)
	gone := []string{put(one+".torrent", 200*day), put(one+".peers", 40*day), put(one+".torrent.tmp", 200*day), put(mounted+".peers", 40*day)}
	kept := []string{put(other+".torrent", 150*day), put(other+".peers", 20*day), put("notes", 1000*day), put(one+".txt", 1000*day), put(one[:38]+".torrent", 1000*day)}
	used := put(mounted+".torrent", 200*day)
	m := f.mount(t, p.torrent, "--no-dht", "--no-lsd")
	eventually(t, patience, "old files are gone", func() bool {
		for _, path := range gone {
			if _, err := os.Stat(path); err == nil {
				return false
			}
		}
		st, err := os.Stat(used)
		return err == nil && time.Since(st.ModTime()) < day
	})
	m.stop()
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
