package daemon_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

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
