package daemon_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// noTCP is of a machine that speaks uTP, since holes are made over it alone.
const noTCP = `nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; }'
	nft add rule inet wall in iifname lo accept; nft add rule inet wall in 'tcp flags & (syn | ack) == syn reject with tcp reset' `

// walled is of a machine behind a router that lets in only whom something was sent to.
const walled = noTCP + `
	nft add rule inet wall in ct state established,related accept; nft add rule inet wall in meta l4proto udp drop`

// Two behind routers meet since a third one, whom both know, tells them to call at once
// (BEP 55). libtorrent is each of the three in turn.
func TestHolepunchWithLibtorrent(t *testing.T) {
	t.Parallel()
	if !namespaced(t) {
		return
	}
	need(t, "nft")
	bridge(t, "world", "203.0.113.1/24")
	relays, seeders, readers := box(t, "world", "203.0.113.2/24", noTCP), box(t, "world", "203.0.113.3/24", walled), box(t, "world", "203.0.113.4/24", walled)
	ours := []string{"--no-dht", "--no-lsd", "--no-port-mapping", "--log-level", "debug", "--listen"}
	for _, c := range []struct{ name, relay, seeder, reader string }{
		{"relay", "libtorrent", "btmount", "btmount"},
		{"seeder", "btmount", "libtorrent", "btmount"},
		{"reader", "libtorrent", "btmount", "libtorrent"},
		{"both ends", "btmount", "libtorrent", "libtorrent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := func(b boxed) boxed { return boxed{t, b.box} }
			p := single(t, c.name, 1<<20, metainfo.MakeConfig{})
			var relay, seeder string
			var told []*proc
			// The relay wants what the seeder has, or they would part, and is too slow to give
			// it on. If peer exchange told the seeder of the reader, both would by chance call
			// at once: libtorrent has none then, and libtorrent tells us once in a minute, at
			// first of a bystander.
			var bystander *libtorrent
			if c.relay == "libtorrent" {
				slow := []string{"--torrent", p.torrent, "--save", t.TempDir(), "--utp", "--set", `{"download_rate_limit": 5000, "upload_rate_limit": 5000}`, "--address", "203.0.113.2"}
				l := startLibtorrent(in(relays), slow...)
				relay = "203.0.113.2:" + l.await(`"port": ([1-9]\d*)`)[1]
				slow[3] = t.TempDir()
				bystander = startLibtorrent(in(relays), append(slow, "--peer", relay)...)
				bystander.await(`"peers": 1`)
			} else {
				relay = mount(in(relays), append(ours, "203.0.113.2:0", p.torrent)...).listen
			}
			if c.seeder == "libtorrent" {
				l := startLibtorrent(in(seeders), "--torrent", p.torrent, "--save", p.parent(), "--seed", "--utp", "--no-pex", "--address", "203.0.113.3", "--peer", relay)
				l.await(`"peers": 1`)
				seeder = "203.0.113.3:" + l.await(`"port": ([1-9]\d*)`)[1]
			} else {
				addr, s := seed(in(seeders), p, append(ours, "203.0.113.3:0", "--peer", relay)...)
				seeder, told = addr, append(told, s)
				bystander.await(`"peers": 2`)
			}
			if c.reader == "libtorrent" {
				dir := t.TempDir()
				l := startLibtorrent(in(readers), "--torrent", p.torrent, "--save", dir, "--utp", "--address", "203.0.113.4", "--peer", relay, "--set", `{"utp_connect_timeout": 500, "utp_syn_resends": 1}`)
				l.await(`"state": "seeding"`)
				if !bytes.Equal(mustRead(t, filepath.Join(dir, p.name())), mustRead(t, p.dir)) {
					t.Error("it has something else")
				}
			} else {
				m := mount(in(readers), append(ours, "203.0.113.4:0", p.torrent, "--peer", relay)...)
				told = append(told, m.proc)
				same(t, "sequential", m.path(p.name()), p.dir)
				if s := m.torrent(t).Swarm; !slices.ContainsFunc(s, func(s swarm.Peer) bool { return s.Addr == seeder && s.Transport == "utp" && s.Down > 1<<19 }) {
					t.Errorf("%+v", s)
				}
			}
			for _, p := range told {
				p.await(`msg="told to call"`)
			}
		})
	}
}
