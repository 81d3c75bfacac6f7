package swarm

import (
	"net/netip"
	"testing"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/discovery"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A slow peer was there first and has been asked for all of a piece; those who come a
// moment later are faster, which nobody knows of them. The reader does not wait for the
// slow one.
func TestWhoComesLaterTakesOver(t *testing.T) {
	dir := sample(t, 8<<20)
	meta, err := metainfo.Make(t.Context(), dir, metainfo.MakeConfig{PieceLength: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	slow := seed(t, meta, dir, Config{UpLimit: 100 << 10})
	fast := []*peer{seed(t, meta, dir, Config{UpLimit: 4 << 20}), seed(t, meta, dir, Config{UpLimit: 4 << 20})}
	l := leech(t, meta, Config{}, slow)
	unchoked(t, l, 1)
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Off: 2 << 20, Len: 1}, time.Now())
	}()
	l.ask(t, "it is asked", func(tr *Torrent) bool { c := tr.only(); return c != nil && c.view.Pipe.Outstanding() > 0 })
	for _, f := range fast {
		l.torrent.postFound([]discovery.Peer{{Addr: addr(f.client), Source: "tracker", Via: netip.MustParseAddr("127.0.0.1")}})
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Log("1 MiB, of which the first would take 10 s, came after", took)
	if took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}
