package daemon_test

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A router of the default route that speaks NAT-PMP gives another port than ours: status
// and peers are told of it, and it is given back in the end. With --no-port-mapping the
// router hears nothing.
func TestPortMapping(t *testing.T) {
	if !namespaced(t) {
		return
	}
	ip(t, "link add d0 type veth peer name d1")
	ip(t, "link set d1 up")
	ip(t, "addr add 203.0.113.2/24 dev d0")
	ip(t, "link set d0 up")
	ip(t, "route replace default via 203.0.113.1 dev d0")
	ip(t, "addr add 203.0.113.1/32 dev lo") // last: no route goes over an address of our own
	pc, err := net.ListenPacket("udp4", "203.0.113.1:5351")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	mapped := map[byte]bool{}
	asked, most := 0, 0
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		b := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			asked++
			a := []byte{0, 128 + b[1], 0, 0, 0, 0, 0, 1, 198, 51, 100, 7}
			if n == 12 {
				a = append(a[:8], b[4], b[5], 0x1f, 0x40, 0, 0, 0, 0) // port 8000
				lease := binary.BigEndian.Uint32(b[8:])
				binary.BigEndian.PutUint32(a[12:], lease)
				if mapped[b[1]] = lease > 0; lease == 0 {
					delete(mapped, b[1])
				}
				most = max(most, len(mapped))
			}
			mu.Unlock()
			_, _ = pc.WriteTo(a, from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	p := single(t, "file", 100_000, metainfo.MakeConfig{})
	m := mount(t, p.torrent, "--no-dht", "--listen", "203.0.113.2:0")
	eventually(t, patience, "the port is mapped", func() bool {
		s := m.status(t).PortMapping
		return s != nil && s.TCP == 8000 && s.UDP == 8000 && s.Method == "NAT-PMP" && s.External.String() == "198.51.100.7"
	})
	raw, err := dialRaw(m.listen, p.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if h, err := raw.handshakeOf(); err != nil || h["p"] != int64(8000) {
		t.Errorf("a peer is told %v, %v", h["p"], err)
	}
	m.stop()
	mu.Lock()
	if most != 2 || len(mapped) != 0 {
		t.Errorf("%d mappings, %d of them were not given back", most, len(mapped))
	}
	asked = 0
	mu.Unlock()
	m = mount(t, p.torrent, "--no-dht", "--listen", "203.0.113.2:0", "--no-port-mapping")
	if s := m.status(t).PortMapping; s != nil {
		t.Errorf("%+v", s)
	}
	m.stop()
	mu.Lock()
	defer mu.Unlock()
	if asked != 0 {
		t.Errorf("asked %d times", asked)
	}
}
