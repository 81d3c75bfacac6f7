package daemon_test

import (
	"bytes"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// dhtCounter is a DHT node that counts the packets that name a torrent. It answers,
// so that whoever asks goes on to announce.
type dhtCounter struct {
	net.PacketConn
	mu    sync.Mutex
	named map[metainfo.InfoHash]int
	total int
}

func countDHT(t testing.TB, hashes ...metainfo.InfoHash) *dhtCounter {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dhtCounter{PacketConn: c, named: map[metainfo.InfoHash]int{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			d.count(buf[:n], hashes)
			var q dict
			if unbencode(buf[:n], &q) == nil && q["y"] == "q" {
				_, _ = c.WriteTo(bencode.MustMarshal(dict{"t": q["t"], "y": "r", "r": dict{"id": "a node that only counts"[:20], "token": "token", "nodes": ""}}), from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return d
}

func (d *dhtCounter) count(packet []byte, hashes []metainfo.InfoHash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total++
	for _, h := range hashes {
		if bytes.Contains(packet, h[:]) {
			d.named[h]++
		}
	}
}

func (d *dhtCounter) of(h metainfo.InfoHash) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.named[h]
}

// A private torrent asks its trackers and nobody else. The public one beside it
// shows that the counting works.
func TestPrivate(t *testing.T) {
	t.Parallel() // it waits for the second round of announces
	private := single(t, "private", 1<<20, metainfo.MakeConfig{Private: true})
	public := single(t, "public", 1<<20, metainfo.MakeConfig{})
	magnet := single(t, "private magnet", 1<<20, metainfo.MakeConfig{Private: true})
	again := single(t, "public magnet", 1<<20, metainfo.MakeConfig{})
	node := countDHT(t, private.meta.Info.Hash, public.meta.Info.Hash, magnet.meta.Info.Hash, again.meta.Info.Hash)
	m := mount(t, private.torrent, public.torrent, magnet.magnet(), again.magnet(), "--dht-bootstrap", node.LocalAddr().String())
	eventually(t, patience, "announces of what is not private", func() bool {
		return node.of(public.meta.Info.Hash) > 0 && node.of(again.meta.Info.Hash) > 0 && node.of(magnet.meta.Info.Hash) > 0
	})

	// What a peer is told, from the handshake on.
	for _, p := range []*payload{private, public} {
		c, err := dialRaw(m.listen, p.meta)
		if err != nil {
			t.Fatal(err)
		}
		h, err := c.handshakeOf()
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		ids, _ := h["m"].(dict)
		if _, pex := ids["ut_pex"]; pex == p.meta.Info.Private {
			t.Errorf("%s: ut_pex offered: %v", p.name(), pex)
		}
	}

	// The magnet turns out to be private when its metadata comes.
	seed(t, magnet, "--peer", m.listen, "--no-dht")
	eventually(t, patience, "the metadata", func() bool {
		_, err := filepath.EvalSymlinks(m.path("private magnet"))
		return err == nil
	})
	c, err := dialRaw(m.listen, magnet.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if h, err := c.handshakeOf(); err != nil {
		t.Error(err)
	} else if ids, _ := h["m"].(dict); ids["ut_pex"] != nil {
		t.Error("ut_pex is offered for a magnet that turned out private")
	}
	before, other := node.of(magnet.meta.Info.Hash), node.of(again.meta.Info.Hash)
	eventually(t, 2*time.Minute, "the next announce of the public magnet", func() bool { return node.of(again.meta.Info.Hash) > other })
	t.Logf("packets: private %d, public %d, private magnet %d before and %d after its metadata, public magnet %d", node.of(private.meta.Info.Hash),
		node.of(public.meta.Info.Hash), before, node.of(magnet.meta.Info.Hash)-before, node.of(again.meta.Info.Hash))
	if n := node.of(private.meta.Info.Hash); n != 0 {
		t.Errorf("%d packets of the DHT name a private torrent", n)
	}
	if n := node.of(magnet.meta.Info.Hash) - before; n != 0 {
		t.Errorf("%d packets of the DHT name a magnet that had turned out private", n)
	}
}
