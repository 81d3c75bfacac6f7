package daemon_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// leechers run a client of other people that has nothing in a folder, knows nobody, and
// exchanges peers.
var leechers = map[string]func(t *testing.T, p *payload, dir string) (addr string){
	"libtorrent": func(t *testing.T, p *payload, dir string) string {
		return startLibtorrent(t, "--torrent", p.torrent, "--save", dir).addr()
	},
	"transmission": func(t *testing.T, p *payload, dir string) string {
		tr := startTransmission(t, p.torrent, dir)
		tr.until("it waits for peers", func(text string) bool { return strings.Contains(text, "State: Idle") })
		return tr.addr
	},
	"aria2": func(t *testing.T, p *payload, dir string) string {
		addr, _ := startAria2(t, p.torrent, dir, "--enable-peer-exchange=true", "--seed-time=1000")
		listens(t, addr)
		return addr
	},
}

// elsewhere is another address: Transmission has one peer of each.
const elsewhere = "127.0.0.2"

// Others learn of a seed from us (BEP 11): we are the only peer that they know, and send
// nothing. The seed is an aria2 that exchanges no peers, so it does not learn of them; it
// is out in the world, since Transmission calls nobody on loopback.
func TestPEXToEach(t *testing.T) {
	if !namespaced(t) {
		return
	}
	ip(t, "addr add 198.51.100.3/24 dev wan")
	for name, leech := range leechers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 1<<20, metainfo.MakeConfig{})
			s, run := startAria2(t, p.torrent, p.parent(), "--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000", "--interface=198.51.100.3")
			s = strings.Replace(s, "127.0.0.1", "198.51.100.3", 1)
			run.await("(?i)seed(ing)?|download complete|verification finished")
			dir, want := t.TempDir(), mustRead(t, p.dir)
			l := leech(t, p, dir)
			m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--no-upload", "--peer", s, "--peer", l)
			eventually(t, 2*patience, name+" has it all", func() bool {
				b, err := os.ReadFile(filepath.Join(dir, "film"))
				return err == nil && bytes.Equal(b, want)
			})
			if st := m.torrent(t); st.Uploaded != 0 {
				t.Errorf("we sent %d bytes ourselves", st.Uploaded)
			}
		})
	}
}

// Two of ours learn of each other from others, who are the only peer that each of them
// knows. Both are told, and the first one calls.
func TestPEXFromEach(t *testing.T) {
	t.Parallel()
	for name, leech := range leechers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 1<<20, metainfo.MakeConfig{})
			l := leech(t, p, t.TempDir())
			one := mount(t, p.torrent, "--no-dht", "--no-lsd", "--peer", l, "--bind", elsewhere, "--listen", elsewhere+":0")
			eventually(t, patience, "it is connected", func() bool { return len(one.torrent(t).Swarm) > 0 }) // aria2 tells of it in its first message
			other := mount(t, p.torrent, "--no-dht", "--no-lsd", "--peer", l)
			told := func(m, of *mounted) bool {
				return slices.ContainsFunc(m.torrent(t).Swarm, func(q swarm.Peer) bool { return q.Source == "pex" && q.Addr == of.listen })
			}
			eventually(t, 3*patience, "what "+name+" told", func() bool { return told(one, other) || told(other, one) })
		})
	}
}
