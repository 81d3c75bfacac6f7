package daemon_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A file that is complete is read by the kernel alone once it is opened anew, in every way
// that programs read. Who has it open goes on when btmount was killed, and sees right bytes
// even while the next one evicts them.
func TestCompleteFilesAreReadByTheKernel(t *testing.T) {
	t.Parallel()
	const size = 20<<20 + 77
	p := single(t, "film", size, metainfo.MakeConfig{PieceLength: 256 << 10})
	q := single(t, "other", size, metainfo.MakeConfig{PieceLength: 256 << 10})
	addr, _ := seed(t, p, "--no-dht")
	other, _ := seed(t, q, "--no-dht")
	f := newFolders(t)
	m := f.mount(t, p.torrent, "--no-dht", "--peer", addr)
	same(t, "random", m.path("film"), p.dir) // most of it
	same(t, "sequential", m.path("film"), p.dir)
	// Each look at the status is a READ or two.
	looks := m.status(t).Reads
	looks = m.status(t).Reads - looks
	before := m.status(t).Reads
	for _, way := range []string{"sequential", "random", "small", "mmap", "tail-head"} {
		same(t, way, m.path("film"), p.dir)
	}
	if n := m.status(t).Reads - before - looks; n > 0 {
		t.Errorf("%d READs of a complete file", n)
	}

	film, err := os.Open(m.path("film"))
	if err != nil {
		t.Fatal(err)
	}
	defer film.Close()
	m.kill()
	m = f.mount(t, p.torrent, q.torrent, "--no-dht", "--peer", addr, "--peer", other, "--cache-size", "24MiB")
	same(t, "sequential", m.path("other"), q.dir) // there is room for little else
	got := make([]byte, size)
	if _, err := film.ReadAt(got, 0); err != nil || !bytes.Equal(got, mustRead(t, p.dir)) {
		t.Errorf("a reader of before: wrong bytes, %v", err)
	}
	same(t, "sequential", m.path("film"), p.dir)
	m.stop()

	m = f.mount(t, p.torrent, "--no-dht", "--peer", addr, "--no-passthrough")
	before = m.status(t).Reads
	same(t, "sequential", m.path("film"), p.dir)
	if n := m.status(t).Reads - before; n <= looks {
		t.Errorf("%d READs with --no-passthrough", n)
	}
}
