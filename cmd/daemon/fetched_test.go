package daemon_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// fetcher is a client that fetches into a folder of its own.
type fetcher struct {
	into string
	addr string
	done func()
}

func fetchLibtorrent(t testing.TB, source string) fetcher {
	dir := t.TempDir()
	what := "--torrent"
	if filepath.Ext(source) != ".torrent" {
		what = "--magnet"
	}
	l := startLibtorrent(t, what, source, "--save", dir)
	return fetcher{dir, l.addr(), func() {
		l.awaitFor(2*patience, `"progress": 1000000, .*"metadata": true`)
	}}
}

func fetchTransmission(t testing.TB, source string) fetcher {
	dir := t.TempDir()
	tr := startTransmission(t, source, dir)
	return fetcher{dir, tr.addr, tr.complete}
}

func fetchAria2(t testing.TB, source string) fetcher {
	dir := t.TempDir()
	addr, p := startAria2(t, source, dir, "--seed-time=0")
	listens(t, addr)
	return fetcher{dir, addr, func() { p.succeed(2 * patience) }}
}

// What btmount seeds is fetched by the clients of other people, from a .torrent and
// from a magnet link. Neither transmission nor aria2 can be told of a peer: we are
// told of them.
func TestSeedToOthers(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "hybrid", "v2"} {
		dir := filepath.Join(t.TempDir(), "gift")
		mustWrite(t, filepath.Join(dir, "big"), 24<<20+77)
		for i := range 100 {
			mustWrite(t, filepath.Join(dir, "tree", fmt.Sprintf("file %d", i)), int64(1+i*997%9000))
		}
		p := mustTorrent(t, dir, metainfo.MakeConfig{PieceLength: 128 << 10, Hybrid: version == "hybrid", V2: version == "v2"})
		for name, fetch := range map[string]func(testing.TB, string) fetcher{
			"libtorrent": fetchLibtorrent, "transmission": fetchTransmission, "aria2": fetchAria2,
		} {
			for _, source := range []string{p.torrent, p.magnet()} {
				kind := "torrent"
				if source != p.torrent {
					kind = "magnet"
				}
				if version != "v1" && name != "libtorrent" {
					// transmission 3.00 refuses every hybrid .torrent as corrupt, aria2 1.36
					// joins the swarm of a wrong info-hash; those that libtorrent makes as well.
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, kind, version), func(t *testing.T) {
					t.Parallel() // the others take their time to connect
					f := fetch(t, source)
					seed(t, p, "--no-dht", "--peer", f.addr)
					f.done()
					for _, sub := range []string{"big", "tree"} {
						if sub == "tree" {
							sameTree(t, filepath.Join(f.into, "gift", sub), p.file(sub))
						} else {
							same(t, "sequential", filepath.Join(f.into, "gift", sub), p.file(sub))
						}
					}
				})
			}
		}
	}
}
