package daemon_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Three clients that have nothing take all places; when a libtorrent seed calls, one of
// them has to go, and the read that waits is served.
func TestSeedIsTakenInThoughAllPlacesAreTaken(t *testing.T) {
	t.Parallel()
	p := single(t, "film", 8<<20, metainfo.MakeConfig{})
	m := mount(t, p.torrent, "--no-dht", "--max-peers", "3")
	for range 3 {
		startLibtorrent(t, "--torrent", p.torrent, "--save", t.TempDir(), "--peer", m.listen)
	}
	eventually(t, patience, "all places are taken", func() bool { return m.torrent(t).Peers == 3 })
	s := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--eager", "--peer", m.listen)
	reader := start(t, "cmp", m.path("film"), p.dir)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	eventually(t, patience, "the reader is served", func() bool {
		select {
		case <-reader.done:
			return true
		case <-tick.C:
			fmt.Fprintln(s.stdin, "peer", m.listen) // a client that is turned away calls again
			return false
		}
	})
	reader.succeed(patience)
	if got := m.torrent(t); got.Peers > 3 {
		t.Errorf("%d peers where 3 may be", got.Peers)
	}
}
