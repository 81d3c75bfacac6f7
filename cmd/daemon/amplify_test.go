package daemon_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// How much is fetched for what is read. The bounds are far from what is measured:
// they are there to catch a scheduler that fetches what nobody asked for.
func TestAmplification(t *testing.T) {
	t.Run("head", func(t *testing.T) {
		p := single(t, "film", 64<<20, metainfo.MakeConfig{PieceLength: 256 << 10})
		amplification(t, p, 64<<10, 20, func(path string) {
			output(t, patience, "head", "-c", "65536", path)
		})
	})
	t.Run("random reads", func(t *testing.T) {
		p := single(t, "film", 128<<20, metainfo.MakeConfig{PieceLength: 64 << 10})
		// Each of 1,000 pages lies in a piece of 64 KiB: 16 is what must be.
		amplification(t, p, 1000*4096, 20, func(path string) { same(t, "small", path, p.dir) })
	})
	t.Run("ffprobe", func(t *testing.T) {
		p := film(t)
		// It reads the head, which says where the index is, and the index at the end.
		fetched := amplification(t, p, 0, 0, func(path string) {
			output(t, patience, "ffprobe", "-v", "error", "-show_streams", path)
		})
		if share := float64(fetched) / float64(p.meta.Info.Length); share > 0.25 {
			t.Errorf("ffprobe fetched %.0f%% of the film", 100*share)
		}
	})
}

// film makes an mp4 of some 60 MB (soak: 240 MB) with its index at the end.
func film(t testing.TB) *payload {
	t.Helper()
	size := int64(60 << 20)
	if soak {
		size *= 4
	}
	need(t, "ffmpeg")
	need(t, "ffprobe")
	dir := t.TempDir()
	short, long := filepath.Join(dir, "short.mp4"), filepath.Join(dir, "film.mp4")
	output(t, patience, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-t", "4", "-c:v", "mjpeg", "-q:v", "2", short)
	st, err := os.Stat(short)
	if err != nil {
		t.Fatal(err)
	}
	output(t, patience, "ffmpeg", "-v", "error", "-stream_loop", strconv.Itoa(int(size/st.Size())), "-i", short, "-c", "copy", long)
	return mustTorrent(t, long, metainfo.MakeConfig{PieceLength: 256 << 10})
}

// amplification reads in some way on a new mount and returns how much was fetched;
// want > 0: at most so many times what was read.
func amplification(t *testing.T, p *payload, read int64, want float64, use func(path string)) int64 {
	t.Helper()
	addr, _ := seed(t, p, "--no-dht")
	m := mount(t, append(peers(addr), p.torrent)...)
	use(m.path(p.name()))
	eventually(t, patience, "nothing is wanted any more", func() bool { return m.torrent(t).Wanted == 0 })
	s := m.torrent(t)
	fetched := s.Downloaded + s.Wasted
	if read == 0 {
		t.Logf("%d of %d bytes fetched (%.1f%%), %d of them wasted", fetched, s.Size, 100*float64(fetched)/float64(s.Size), s.Wasted)
		return fetched
	}
	factor := float64(fetched) / float64(read)
	t.Logf("%d bytes read, %d fetched: x %.1f", read, fetched, factor)
	if want > 0 && factor > want {
		t.Errorf("fetched %.1f times what was read, want %.0f at most", factor, want)
	}
	return fetched
}
