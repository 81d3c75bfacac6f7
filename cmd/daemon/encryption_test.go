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
		{"aria2, both", aria2At(), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", true, true}, {"forbid", true, false}}},
		{"aria2, handshake encrypted", aria2At("--bt-require-crypto"), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", true, true}, {"forbid", false, false}}},
		{"aria2, encrypted only", aria2At("--bt-force-encryption"), []encryptionCase{{"allow", true, true}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}}},
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

func aria2At(args ...string) func(t *testing.T, p *payload) string {
	return func(t *testing.T, p *payload) string {
		addr, _ := startAria2(t, p.torrent, p.parent(), append([]string{"--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000"}, args...)...)
		listens(t, addr)
		return addr
	}
}

const turnedAway = `msg="incoming connection refused".* err="(not encrypted, and that is required|encrypted, and that is forbidden)"`

// They call, each of theirs against each of our ways. One that may do both calls a second
// time, in the other way, where it is turned away.
func TestEncryptionIn(t *testing.T) {
	t.Parallel()
	for _, theirs := range []struct {
		name  string
		call  func(t *testing.T, p *payload, us string)
		cases []encryptionCase
	}{
		{"libtorrent 0, encrypted only", libtorrentCalls(0), []encryptionCase{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}}},
		{"libtorrent 1, both", libtorrentCalls(1), []encryptionCase{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", true, false}}},
		{"libtorrent 2, in the clear only", libtorrentCalls(2), []encryptionCase{{"allow", true, false}, {"prefer", true, false}, {"require", false, false}, {"forbid", true, false}}},
		{"aria2, both", aria2Calls(), []encryptionCase{{"allow", true, false}, {"prefer", true, true}, {"require", true, true}, {"forbid", true, false}}},
		{"aria2, encrypted only", aria2Calls("--bt-force-encryption"), []encryptionCase{{"allow", true, true}, {"prefer", true, true}, {"require", true, true}, {"forbid", false, false}}},
	} {
		t.Run(theirs.name, func(t *testing.T) {
			t.Parallel()
			called(t, "127.0.0.1:0", theirs.call, theirs.cases)
		})
	}
}

// called has a client call mounts of ours, each in one way.
func called(t *testing.T, listen string, call func(t *testing.T, p *payload, us string), cases []encryptionCase) {
	for _, c := range cases {
		t.Run(c.ours, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 1<<20, metainfo.MakeConfig{})
			m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--no-port-mapping", "--listen", listen, "--encryption", c.ours, "--log-level", "debug")
			call(t, p, m.listen)
			c.check(t, m, p, turnedAway)
		})
	}
}

func libtorrentCalls(encryption int) func(t *testing.T, p *payload, us string) {
	return func(t *testing.T, p *payload, us string) {
		startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed", "--encryption", fmt.Sprint(encryption), "--peer", us)
	}
}

func aria2Calls(args ...string) func(t *testing.T, p *payload, us string) {
	return func(t *testing.T, p *payload, us string) {
		startAria2(t, p.torrent, p.parent(), append([]string{"--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000", "--bt-tracker=" + naming(t, us)}, args...)...)
	}
}

func transmissionCalls(set map[string]any) func(t *testing.T, p *payload, us string) {
	return func(t *testing.T, p *payload, us string) {
		tr := startTransmissionWith(t, p.torrent, p.parent(), set)
		output(t, patience, "transmission-remote", tr.rpc, "-t", "1", "-td", naming(t, us))
	}
}

// Transmission calls, out in the world: it ignores addresses of loopback.
func TestTransmissionCalls(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	const at = "198.51.100.2:0" // the address of wan
	for encryption, cases := range [][]encryptionCase{
		{{"allow", true, false}, {"require", false, false}},
		{{"allow", true, true}, {"prefer", true, true}, {"require", true, true}, {"forbid", true, false}},
		{{"allow", true, true}, {"forbid", false, false}},
	} {
		t.Run(fmt.Sprint("encryption ", encryption), func(t *testing.T) {
			t.Parallel()
			called(t, at, transmissionCalls(map[string]any{"encryption": encryption}), cases)
		})
	}
	for name, encryption := range map[string]int{"clear": 0, "encrypted": 2} {
		t.Run("utp/"+name, func(t *testing.T) {
			t.Parallel()
			p := single(t, "film", 2<<20, metainfo.MakeConfig{})
			m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--no-port-mapping", "--listen", at, "--encryption", "prefer")
			transmissionCalls(map[string]any{"encryption": encryption, "utp-enabled": true})(t, p, m.listen)
			readsOverUTP(t, m, p, name == "encrypted")
		})
	}
}
