package discovery

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// needIPv6 skips where there is no ::1.
func needIPv6(t *testing.T) {
	t.Helper()
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no IPv6: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	pc.Close()
}

// dualNames is a network whose every name is 127.0.0.1 and ::1.
func dualNames(t *testing.T) *network.Network {
	t.Helper()
	n, err := network.Open(network.Config{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go answerNames(ours) // ends with theirs
		return theirs, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// answerNames is a name server for one connection, in the form of TCP.
func answerNames(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		end := 12 // of the name asked for
		for b[end] != 0 {
			end += int(b[end]) + 1
		}
		q := b[12 : end+5]
		kind := binary.BigEndian.Uint16(q[len(q)-4:])
		ip := map[uint16][]byte{1: netip.MustParseAddr("127.0.0.1").AsSlice(), 28: netip.IPv6Loopback().AsSlice()}[kind]
		reply := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, byte(min(len(ip), 1)), 0, 0, 0, 0}, q...)
		if ip != nil {
			reply = append(append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(ip))), ip...)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// bothHTTP serves on one port of 127.0.0.1 and of ::1 and returns the port.
func bothHTTP(t *testing.T, four, six http.HandlerFunc) int {
	t.Helper()
	l4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l4.Addr().(*net.TCPAddr).Port
	l6, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	for l, h := range map[net.Listener]http.HandlerFunc{l4: four, l6: six} {
		s := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close(); <-done })
	}
	return port
}

const peer6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x06"

func addrs(ps []Peer) (out []string) {
	for _, p := range ps {
		out = append(out, p.Addr.String()+" from "+p.Via.String())
	}
	slices.Sort(out)
	return out
}

var bothPeers = []string{"1.2.3.4:80 from 127.0.0.1", "[2001:db8::1]:6 from ::1"}

// A tracker of both families is asked over both, and each tells of its peers.
func TestTrackerOverBothFamilies(t *testing.T) {
	needIPv6(t)
	answer4 := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "d8:intervali60e5:peers6:"+peer1+"e") }
	answer6 := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "d8:intervali90e6:peers618:"+peer6+"e") }
	fails := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name      string
		four, six http.HandlerFunc
		want      []string
	}{
		{"both", answer4, answer6, bothPeers},
		{"IPv6 fails", answer4, fails, bothPeers[:1]},
		{"IPv4 fails", fails, answer6, bothPeers[1:]},
		{"IPv6 is silent", answer4, hangs, bothPeers[:1]},
		{"both fail", fails, fails, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, _ := url.Parse(fmt.Sprintf("http://tracker.example:%d/announce", bothHTTP(t, c.four, c.six)))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			r, err := newTestTrackers(Config{Network: dualNames(t)}).announceHTTP(ctx, u, testRequest)
			if got := addrs(r.peers); !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	// One that has IPv4 only is told of in its own words.
	srv := bothHTTP(t, fails, fails)
	u, _ := url.Parse(fmt.Sprintf("http://127.0.0.1:%d/announce", srv))
	if _, err := newTestTrackers(Config{}).announceHTTP(t.Context(), u, testRequest); err == nil || err.Error() != "HTTP status 418" {
		t.Error(err)
	}
}

func TestUDPTrackerOverBothFamilies(t *testing.T) {
	needIPv6(t)
	four := liar(t, func(p []byte, action uint32) [][]byte {
		if action == 0 {
			return [][]byte{append(header(p, 0), "connect!"...)}
		}
		return [][]byte{append(append(header(p, 1), make([]byte, 12)...), peer1...)}
	})
	pc, err := net.ListenPacket("udp6", "[::1]:"+four.Port())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			p := b[:n]
			reply := append(header(p, 0), "connect!"...)
			if binary.BigEndian.Uint32(p[8:]) == actionAnnounce {
				reply = append(append(header(p, 1), make([]byte, 12)...), peer6...)
			}
			_, _ = pc.WriteTo(reply, from)
		}
	}()
	u := *four
	u.Host = "tracker.example:" + four.Port()
	r, err := newTestTrackers(Config{Network: dualNames(t)}).announceUDP(t.Context(), &u, testRequest)
	if got := addrs(r.peers); err != nil || !slices.Equal(got, bothPeers) {
		t.Errorf("%v, %v", got, err)
	}
}

// One node on one socket speaks with nodes of both families, and brings one's peers
// to the other.
func TestDHTOfBothFamilies(t *testing.T) {
	needIPv6(t)
	both := runDHT(t, DHTConfig{Listen: ":0"})
	port := both.Addr().Port()
	four := runDHT(t, DHTConfig{Bootstrap: []string{fmt.Sprintf("127.0.0.1:%d", port)}})
	six := runDHT(t, DHTConfig{Listen: "[::1]:0", Bootstrap: []string{fmt.Sprintf("[::1]:%d", port)}})
	hash := metainfo.InfoHash{7}
	announceUntilFound(t, four, hash, 1004, "127.0.0.1:1004")
	announceUntilFound(t, six, hash, 1006, "[::1]:1006")
	announceUntilFound(t, four, hash, 1004, "[::1]:1006")
	announceUntilFound(t, six, hash, 1006, "127.0.0.1:1004")
}
