package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// soak reads from a mount for long while its peers come and go and links stall, and writes
// down what the daemon holds: soak.csv and soak.svg of the folder of -docs. A copy, a film of
// 1 MB/s and seeks are compared with what the files hold; a fourth torrent is pinned. The
// cache holds an eighth of it all, so that everything is evicted over and over.
func (b *bench) soak() error {
	const size = 512 << 20
	var torrents, peers []string
	var links []*link
	defer b.stopAll()
	for i, flags := range [][]string{nil, {"--v2"}, {"--hybrid"}, nil} {
		length := int64(size)
		if i == 3 {
			length = 64 << 20 // it is pinned
		}
		torrent, err := b.file(fmt.Sprintf("soak%d.bin", i), length, flags...)
		if err != nil {
			return err
		}
		torrents = append(torrents, torrent)
		for n := range 4 {
			k, err := b.behind(farDelay, farRate, torrent, []string{"hash", "believe"}[n%2])
			if err != nil {
				return err
			}
			defer k.close()
			links, peers = append(links, k), append(peers, k.at)
		}
	}
	b.flags = []string{"--cache-size", "256MiB", "--pin", "soak3.bin"}
	defer func() { b.flags = nil }()
	m, err := b.mountUntil(len(links), torrents, peers...)
	if err != nil {
		return err
	}
	defer m.close()
	r := rand.New(rand.NewPCG(1, 2))
	gone := map[int]bool{}
	stop := meanwhile(2*time.Second, func(n int) {
		i := r.IntN(len(links))
		switch {
		case gone[i]:
			links[i].back()
			delete(gone, i)
		case n%3 == 0:
			links[i].stall(400 * time.Millisecond)
		case len(gone) < len(links)/2:
			links[i].leave()
			gone[i] = true
		}
	})
	defer stop()

	until := time.Now().Add(*lasts)
	var readers sync.WaitGroup
	var read, slowest atomic.Int64
	fails := make(chan error, 3)
	reader := func(name string, at func(off int64) int64, n int, gap time.Duration) {
		readers.Go(func() {
			f, err := os.Open(filepath.Join(m.mnt, "torrents", name))
			if err != nil {
				fails <- err
				return
			}
			defer f.Close()
			got, want := make([]byte, n), make([]byte, n)
			for off := int64(0); time.Now().Before(until); off = at(off) {
				began := time.Now()
				if _, err := f.ReadAt(got, off); err != nil && err != io.EOF {
					fails <- fmt.Errorf("%s at %d: %w", name, off, err)
					return
				}
				took := time.Since(began)
				if fill(want, off); !bytes.Equal(got, want) {
					fails <- fmt.Errorf("%s at %d: wrong bytes", name, off)
					return
				}
				for old := slowest.Load(); int64(took) > old && !slowest.CompareAndSwap(old, int64(took)); old = slowest.Load() {
				}
				read.Add(int64(n))
				// Else all of it is in the kernel's memory after a while, and nothing is asked of us.
				_ = unix.Fadvise(int(f.Fd()), off, int64(n), unix.FADV_DONTNEED)
				time.Sleep(gap - took)
			}
		})
	}
	next := func(off int64) int64 { return (off + 1<<20) % size }
	reader("soak0.bin", next, 1<<20, 0)
	reader("soak2.bin", next, 1<<20, time.Second)
	reader("soak1.bin", func(int64) int64 { return r64(size-64<<10) / page * page }, 64<<10, 100*time.Millisecond)

	var rows []soaked
	began := time.Now()
	for at := began; at.Before(until); at = time.Now() {
		time.Sleep(min(*lasts/180, time.Until(until)) + time.Millisecond)
		row, err := m.holds()
		if err != nil {
			return err
		}
		row.Minutes, row.Read = time.Since(began).Minutes(), float64(read.Load())/1e6
		rows = append(rows, row)
	}
	readers.Wait()
	select {
	case err := <-fails:
		return err
	default:
	}
	third := len(rows) / 3
	early, late := rows[third/2:third], rows[len(rows)-third/2:]
	for _, v := range []struct {
		name string
		of   func(soaked) float64
	}{{"RSS, MB", soaked.rss}, {"goroutines", soaked.goroutines}, {"open files", soaked.files}} {
		b.table.add("soak: "+v.name+", in the first third", "btmount", median(each(early, v.of)))
		b.table.add("soak: "+v.name+", at the end", "btmount", median(each(late, v.of)))
	}
	last := rows[len(rows)-1]
	b.table.add("soak: GB read and compared", "btmount", last.Read/1e3)
	b.table.add("soak: slowest read, s", "btmount", time.Duration(slowest.Load()).Seconds())
	b.table.add("soak: wasted, % of what came", "btmount", 100*last.Wasted/(last.Came+last.Wasted))
	if *docs == "" {
		return nil
	}
	return draw(*docs, rows)
}

// soaked is what the daemon held at a time, in MB and in numbers.
type soaked struct {
	Minutes, RSS, Goroutines, Files, Cache, Peers, Read, Came, Wasted float64
}

func (s soaked) rss() float64        { return s.RSS }
func (s soaked) goroutines() float64 { return s.Goroutines }
func (s soaked) files() float64      { return s.Files }

func each(rows []soaked, of func(soaked) float64) (out []float64) {
	for _, r := range rows {
		out = append(out, of(r))
	}
	return out
}

func r64(n int64) int64 { return rand.Int64N(n) }

// holds asks the daemon and the kernel.
func (m *mounted) holds() (s soaked, err error) {
	var status struct {
		Goroutines float64
		Cache      struct{ Used float64 }
		Torrents   []struct{ Downloaded, Wasted, Peers float64 }
	}
	text, err := os.ReadFile(m.mnt + "/.btmount/status.json")
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		return s, err
	}
	s.Goroutines, s.Cache = status.Goroutines, status.Cache.Used/1e6
	for _, t := range status.Torrents {
		s.Came, s.Wasted, s.Peers = s.Came+t.Downloaded/1e6, s.Wasted+t.Wasted/1e6, s.Peers+t.Peers
	}
	proc := fmt.Sprintf("/proc/%d", m.cmd.Process.Pid)
	kernel, err := os.ReadFile(proc + "/status")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(kernel)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(kb, &s.RSS)
			s.RSS /= 1e3
		}
	}
	files, err := os.ReadDir(proc + "/fd")
	s.Files = float64(len(files))
	return s, err
}

// draw writes the curves down.
func draw(dir string, rows []soaked) error {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	w.Write([]string{"minutes", "rss_mb", "goroutines", "open_files", "cache_mb", "peers", "read_mb", "came_mb", "wasted_mb"})
	for _, r := range rows {
		var line []string
		for _, v := range []float64{r.Minutes, r.RSS, r.Goroutines, r.Files, r.Cache, r.Peers, r.Read, r.Came, r.Wasted} {
			line = append(line, fmt.Sprintf("%.4g", v))
		}
		w.Write(line)
	}
	w.Flush()
	if err := os.WriteFile(filepath.Join(dir, "soak.csv"), text.Bytes(), 0o644); err != nil {
		return err
	}
	const width, height, left, top = 640.0, 120.0, 90.0, 20.0
	text.Reset()
	fmt.Fprintf(&text, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" font-family="sans-serif" font-size="12">`+"\n", left+width+20, 3*(height+40)+top)
	fmt.Fprintln(&text, `<rect width="100%" height="100%" fill="white"/>`)
	longest := rows[len(rows)-1].Minutes
	for i, c := range []struct {
		name string
		of   func(soaked) float64
	}{{"RSS, MB", soaked.rss}, {"goroutines", soaked.goroutines}, {"open files", soaked.files}} {
		y, most := top+float64(i)*(height+40), 0.0
		for _, v := range each(rows, c.of) {
			most = max(most, v)
		}
		fmt.Fprintf(&text, `<text x="5" y="%g">%s</text><text x="5" y="%g">%.0f</text><text x="5" y="%g">0</text>`+"\n", y+height/2, c.name, y+10, most, y+height)
		fmt.Fprintf(&text, `<path d="M%g %gv%gh%g" fill="none" stroke="gray"/><polyline fill="none" stroke="black" points="`, left, y, height, width)
		for _, r := range rows {
			fmt.Fprintf(&text, "%.1f,%.1f ", left+width*r.Minutes/longest, y+height-height*c.of(r)/max(most, 1))
		}
		fmt.Fprintln(&text, `"/>`)
	}
	fmt.Fprintf(&text, `<text x="%g" y="%g">%.0f minutes</text>`+"\n</svg>\n", left+width-60, 3*(height+40)+top-8, longest)
	return os.WriteFile(filepath.Join(dir, "soak.svg"), text.Bytes(), 0o644)
}
