package daemon_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Eight processes read a film in all ways at once, beside a dozen peers of which each sends a wrong
// byte once in a while; the cache holds a quarter of it, so that it is fetched over and over.
// Nobody ever sees a wrong byte. A million reads with BTMOUNT_SOAK=1.
func TestReadsBesidePoison(t *testing.T) {
	ops := 1000
	if soak {
		ops = 130_000
	}
	for name, c := range map[string]metainfo.MakeConfig{"v1": {PieceLength: 256 << 10}, "v2": {PieceLength: 256 << 10, V2: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 24<<20, c)
			addr, _ := seed(t, p, "--no-dht")
			args := append(peers(addr), p.torrent, "--no-passthrough", "--cache-size", "6MiB")
			data := mustRead(t, p.dir)
			var lies atomic.Int64
			for i := range 12 {
				every := int64(20 + 60*i)
				if i == 0 { // whoever is slower than the seeder may be asked for no more than one
					every = 1
				}
				args = append(args, "--peer", listenRaw(t, p.meta, data, func(p *rawPeer) error {
					_ = p.seedAll()
					n := int64(0)
					return p.answer(func(m wire.Message) error {
						b := p.piece(m)
						if n++; n%every == 0 {
							b[len(b)-1-int(n)%wire.BlockSize] ^= 1
							lies.Add(1)
						}
						return p.say(b)
					})
				}))
			}
			m := mount(t, args...)
			readers := make([]*proc, 8)
			for i := range readers {
				readers[i] = reader(t, "mixed", m.path("film"), p.dir, strconv.Itoa(ops), strconv.Itoa(i))
			}
			for _, r := range readers {
				<-r.done
				t.Log(strings.TrimSpace(r.out.String()))
				if !r.cmd.ProcessState.Success() {
					t.Error(r.out)
				}
			}
			s := m.torrent(t)
			t.Logf("%d reads, %d wrong blocks sent, %d peers banned, %d bytes of bad pieces, %d fetched", len(readers)*ops, lies.Load(), s.Banned, s.Corrupt, s.Downloaded)
			if lies.Load() == 0 || s.Banned == 0 {
				t.Error("nobody lied, or nobody was found")
			}
			for _, peer := range s.Swarm {
				if peer.Addr == addr {
					return
				}
			}
			t.Error("the honest seeder was lost")
		})
	}
}

// mixed reads here and there: pages and spans, in order for a while, and through a mapping.
func mixed(mounted, original string, ops, self int) error {
	want, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	return withMap(mounted, len(want), func(f *os.File, m []byte) error { return mixedReads(f, m, want, ops, self) })
}

func mixedReads(f *os.File, m, want []byte, ops, self int) error {
	r := rand.New(rand.NewPCG(7, uint64(self)))
	buf := make([]byte, 128<<10)
	at, n := 0, 0
	slowest := time.Duration(0)
	defer func() { fmt.Println("slowest", slowest) }()
	for i := range ops {
		began := time.Now()
		if i%200 == 199 { // else all of it is in the page cache soon
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		switch k := r.IntN(8); {
		case k < 4 && at+n < len(want): // goes on where it was
			at += n
		default:
			at = r.IntN(len(want))
		}
		n = min(1+r.IntN([]int{16, 4096, len(buf)}[r.IntN(3)]), len(want)-at)
		got := buf[:n]
		if r.IntN(16) == 0 {
			got = m[at : at+n]
		} else if _, err := f.ReadAt(got, int64(at)); err != nil {
			return fmt.Errorf("read %d: %w", i, err)
		}
		slowest = max(slowest, time.Since(began))
		if !bytes.Equal(got, want[at:at+n]) {
			return fmt.Errorf("read %d: bytes differ in %d at %d", i, n, at)
		}
	}
	return nil
}
