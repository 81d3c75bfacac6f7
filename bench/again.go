package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"time"
)

// again: the first start, and the second one with an empty cache, of a torrent whose
// tracker names four seeders behind uneven links of 50 ms among forty others that take
// calls and say nothing. Seconds from the start of the program to the first 64 KiB.
func (b *bench) again() error {
	torrent, err := b.file("again.bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	mute, err := net.Listen("tcp4", "0.0.0.0:0") // takes calls, and says nothing: the kernel does both
	if err != nil {
		return err
	}
	defer mute.Close()
	var peers []string
	for _, rate := range []float64{5e6, 2e6, 9e5, 1e5} {
		k, err := b.behind(farDelay, rate, torrent)
		if err != nil {
			return err
		}
		defer k.close()
		peers = append(peers, k.at)
	}
	var all []string
	for i := range 40 {
		all = append(all, fmt.Sprintf("127.3.0.%d:%d", i+1, mute.Addr().(*net.TCPAddr).Port))
	}
	all = append(all[:20:20], append(peers, all[20:]...)...)
	reply := "d8:intervali1800e5:peers" + compact(all) + "e"
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, reply) }))
	defer tracker.Close()
	for i := range *reps {
		state := filepath.Join(b.dir, fmt.Sprintf("again-%d", i))
		for _, start := range []string{"first", "second"} {
			began := time.Now()
			m, err := b.mountWith([]string{torrent}, "--state-dir", state, "--tracker", tracker.URL+"/announce", "--no-utp")
			if err != nil {
				return err
			}
			if _, err = seeks(m.mnt+"/torrents/again.bin", []int64{100 << 20}); err == nil {
				b.table.add("again: s from the start of the program to the first byte, "+start+" start", "btmount", time.Since(began).Seconds())
				_, _, err = readFor(m.mnt+"/torrents/again.bin", 10*time.Second)
			}
			m.close()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// compact is a list of IPv4 addresses as trackers send it, bencoded.
func compact(addrs []string) string {
	var b []byte
	for _, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		ip := ap.Addr().As4()
		b = binary.BigEndian.AppendUint16(append(b, ip[:]...), ap.Port())
	}
	return fmt.Sprintf("%d:%s", len(b), b)
}
