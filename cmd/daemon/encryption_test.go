package daemon_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// encryptionCase is one of our ways against one of theirs.
type encryptionCase struct {
	ours      string
	works     bool
	encrypted bool // if it works
}

// check reads through m, or expects that no connection comes about.
func (c encryptionCase) check(t *testing.T, m *mounted, p *payload, refusal string) {
	t.Helper()
	if !c.works {
		m.await(refusal)
		if s := m.torrent(t); s.Peers != 0 {
			t.Errorf("%d peers", s.Peers)
		}
		return
	}
	same(t, "sequential", m.path("film"), p.dir)
	peers := m.torrent(t).Swarm // with other mounts of the test, by peer exchange
	if !slices.ContainsFunc(peers, func(s swarm.Peer) bool { return s.Source != "pex" && s.Down > 0 && s.Encrypted == c.encrypted }) {
		t.Errorf("encrypted should be %v: %+v", c.encrypted, peers)
	}
}

const hungUp = `msg="cannot connect".* err=".*(EOF|reset|plain|crypt|handshake)`

// We call: each of our ways against each of Transmission's and libtorrent's. One that
// prefers the clear may choose it after the obfuscated handshake.
func TestEncryptionOut(t *testing.T) {
	t.Parallel()
	for _, theirs := range []struct {
		name  string
		start func(t *testing.T, p *payload) (addr string)
		cases []encryptionCase
	}{
		{"transmission 0, in the clear if it can", transmissionAt(0), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", true, true}, {"forbid", true, false}}},
		{"transmission 1, encrypted if it can", transmissionAt(1), []encryptionCase{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", true, false}}},
		{"transmission 2, encrypted only", transmissionAt(2), []encryptionCase{{"allow", true, true}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}}},
		{"libtorrent 0, encrypted only", libtorrentAt(0), []encryptionCase{{"allow", true, true}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}}},
		{"libtorrent 1, both", libtorrentAt(1), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", true, true}, {"forbid", true, false}}},
		{"libtorrent 2, in the clear only", libtorrentAt(2), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", false, false}, {"forbid", true, false}}},
	} {
		t.Run(theirs.name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 1<<20, metainfo.MakeConfig{})
			addr := theirs.start(t, p)
			for _, c := range theirs.cases {
				// One after the other: Transmission 3.00 knows a peer by its IP alone, and
				// hangs up on a second one of the same IP, which looks like a refusal.
				t.Run(c.ours, func(t *testing.T) {
					m := mount(t, p.torrent, "--no-dht", "--peer", addr, "--encryption", c.ours, "--log-level", "debug")
					c.check(t, m, p, hungUp)
				})
			}
		})
	}
}

func transmissionAt(encryption int) func(t *testing.T, p *payload) string {
	return func(t *testing.T, p *payload) string {
		tr := startTransmissionWith(t, p.torrent, p.parent(), map[string]any{"encryption": encryption})
		tr.complete()
		return tr.addr
	}
}

func libtorrentAt(encryption int) func(t *testing.T, p *payload) string {
	return func(t *testing.T, p *payload) string {
		return startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--encryption", fmt.Sprint(encryption)).addr()
	}
}

const turnedAway = `msg="incoming connection refused".* err="(not encrypted, and that is required|encrypted, and that is forbidden)"`

// They call. Transmission cannot be made to: it ignores addresses of loopback.
func TestEncryptionIn(t *testing.T) {
	t.Parallel()
	for encryption, cases := range [][]encryptionCase{
		{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}},
		{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", true, false}},
		{{"allow", true, false}, {"prefer", true, false}, {"require", false, false}, {"forbid", true, false}},
	} {
		t.Run(fmt.Sprint("libtorrent ", encryption), func(t *testing.T) {
			t.Parallel()
			for _, c := range cases {
				t.Run(c.ours, func(t *testing.T) {
					t.Parallel()
					p := single(t, "film", 1<<20, metainfo.MakeConfig{})
					m := mount(t, p.torrent, "--no-dht", "--encryption", c.ours, "--log-level", "debug")
					startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--encryption", fmt.Sprint(encryption), "--peer", m.listen)
					c.check(t, m, p, turnedAway)
				})
			}
		})
	}
}
