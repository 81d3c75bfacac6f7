package discovery

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

func newTestTrackers(c Config) *Trackers {
	return NewTrackers(c, metainfo.InfoHash{1, ' ', '+', '&'}, nil, nil, func() Stats { return Stats{} }, func([]Peer) {})
}

var testRequest = request{hash: metainfo.InfoHash{1, ' ', '+', '&'}, event: started, numWant: 200, stats: Stats{Left: 7, Port: 80}}

// zeros writes megabytes of zero bytes, as long as the client takes them.
func zeros(w interface{ Write([]byte) (int, error) }, megabytes int) {
	b := make([]byte, 1<<20)
	for range megabytes {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

const peer1 = "\x01\x02\x03\x04\x00\x50"

// The forms of lying HTTP trackers: each must end soon, in bounded memory, with
// its error, or with the good peers that are in the reply.
func TestHostileHTTP(t *testing.T) {
	body := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(s)) }
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros(z, 100)
	z.Close()
	for _, c := range []struct {
		name     string
		handler  http.HandlerFunc
		reason   string // part of the error
		peers    int
		interval time.Duration
	}{
		{"100 MB body", func(w http.ResponseWriter, r *http.Request) { zeros(w, 100) }, "longer than 2 MiB", 0, 0},
		{"chunked for ever", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("d")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}, "", -1, 0},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, "too many redirects", 0, 0},
		{"redirect to file", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, `redirect to "file" refused`, 0, 0},
		{"interval -1", body("d8:intervali-1e5:peers6:" + peer1 + "e"), "", 1, minInterval},
		{"interval 0", body("d8:intervali0e5:peers6:" + peer1 + "e"), "", 1, minInterval},
		{"interval 2^63", body("d8:intervali9223372036854775808e5:peers6:" + peer1 + "e"), "", 1, maxInterval},
		{"interval text", body("d8:interval3:abc5:peers6:" + peer1 + "e"), "", 1, defaultInterval},
		{"no interval", body("d5:peers6:" + peer1 + "e"), "", 1, defaultInterval},
		{"peers6 of odd length", body("d8:intervali60e5:peers6:" + peer1 + "6:peers67:1234567e"), "", 1, time.Minute},
		{"peers of odd length", body("d8:intervali60e5:peers11:" + peer1 + "12345e"), "", 1, time.Minute},
		{"bad peers", body("d5:peers30:" + "\x01\x02\x03\x04\x00\x00" + "\x00\x00\x00\x00\x00\x50" + "\xe0\x00\x00\x01\x00\x50" + "\xff\xff\xff\xff\x00\x50" + peer1 + "e"), "", 1, defaultInterval},
		{"equal peers", body("d5:peers600:" + strings.Repeat(peer1, 100) + "e"), "", 1, defaultInterval},
		{"100000 peers", body("d5:peers600000:" + manyPeers(100_000) + "e"), "", 200, defaultInterval},
		{"list of peers", body("d5:peersld2:ip7:1.2.3.44:porti80eed2:ip3:::14:porti80eed2:ip4:name4:porti80eed2:ip7:1.2.3.44:porti-1eei5ed2:ipi1e4:port1:xeee"), "", 2, defaultInterval},
		{"list of 200000", body("d5:peersl" + strings.Repeat("de", 200_000) + "ee"), "", 0, defaultInterval},
		{"list of a million", body("d5:peersl" + strings.Repeat("0:", 1<<20-10) + "ee"), "too many values", 0, 0},
		{"unknown list of a million", body("d1:xl" + strings.Repeat("0:", 1<<20-10) + "ee"), "too many values", 0, 0},
		{"peers is a number", body("d5:peersi5ee"), "", 0, defaultInterval},
		{"gzip bomb", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		}, "longer than 2 MiB", 0, 0},
		{"endless header", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "header", 0, 0},
		{"not bencode", body("<html>go away</html>"), "not bencoded", 0, 0},
		{"cut short", body("d5:peers6:"), "not bencoded", 0, 0},
		{"nested lists", body("d5:peers" + strings.Repeat("l", 1<<20)), "not bencoded", 0, 0},
		{"failure reason", body("d14:failure reason" + "9:no\nfriend" + "e"), `tracker refuses: "no\nfrien`, 0, 0},
		{"failure of 1 MB", body("d14:failure reason1000000:" + strings.Repeat("x", 1000000) + "e"), "tracker refuses", 0, 0},
		{"status 403", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, "HTTP status 403", 0, 0},
		{"empty", body(""), "empty reply", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(c.handler)
			defer srv.Close()
			u, _ := url.Parse(srv.URL + "/announce?secret=1")
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := newTestTrackers(Config{}).announceHTTP(ctx, u, testRequest)
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("allocated %d MiB, the server's part included", used>>20)
			}
			if c.peers < 0 { // by its timeout or its size, whichever comes first
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if (err == nil) != (c.reason == "") || err != nil && (!strings.Contains(err.Error(), c.reason) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "secret")) {
				t.Fatalf("error %v, want one with %q", err, c.reason)
			}
			if len(r.peers) != c.peers || r.interval != c.interval {
				t.Errorf("%d peers %.100v, interval %v", len(r.peers), r.peers, r.interval)
			}
		})
	}
}

func manyPeers(n int) string {
	var b []byte
	for i := range n {
		b = binary.BigEndian.AppendUint32(b, 0x01000001+uint32(i))
		b = append(b, 1, 1)
	}
	return string(b)
}

func TestAnnounceURL(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("key0") != "first" || !strings.HasPrefix(r.URL.RawQuery, "key0=first&info_hash=%01%20%2B%26%00") || q.Get("event") != "started" || q.Get("left") != "7" || q.Get("port") != "80" || r.UserAgent() != "test/1" {
			t.Error(r.URL, r.UserAgent())
		}
		w.Write([]byte("d8:completei3e10:incompletei4e12:min intervali77e10:tracker id2:ab5:peers0:e"))
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL + "/x?key0=first#fragment")
	r, err := newTestTrackers(Config{UserAgent: "test/1"}).announceHTTP(t.Context(), u, testRequest)
	if err != nil || r.seeders != 3 || r.leechers != 4 || r.min != 77*time.Second || r.id != "ab" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A tracker of this machine that a .torrent names is not asked; one that the user
// names is, and its peers are known to come from there.
func TestTrackerPolicy(t *testing.T) {
	var reached atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.Write([]byte("d5:peers6:" + peer1 + "e"))
	}))
	defer srv.Close()
	udp := liar(t, func(p []byte, action uint32) [][]byte {
		reached.Add(1)
		if action == 0 {
			return [][]byte{append(header(p, 0), "connect!"...)}
		}
		return [][]byte{append(append(header(p, 1), make([]byte, 12)...), peer1...)}
	})
	for _, u := range []string{srv.URL + "/announce", udp.String()} {
		for _, typed := range []bool{false, true} {
			var names []string
			if typed {
				names = []string{u}
			}
			found := make(chan []Peer, 1)
			tr := NewTrackers(Config{}, metainfo.InfoHash{1}, [][]string{{u}}, names, func() Stats { return Stats{} }, func(ps []Peer) { found <- ps })
			reached.Store(0)
			_, _, err := tr.round(t.Context(), tr.tiers[0])
			refused := (*network.RefusedError)(nil)
			if errors.As(err, &refused) == typed || (reached.Load() > 0) != typed {
				t.Errorf("%s, typed %v: %v, reached %d times", u, typed, err, reached.Load())
			}
			if typed {
				if ps := <-found; len(ps) != 1 || ps[0].Via.String() != "127.0.0.1" {
					t.Errorf("%s: %v", u, ps)
				}
			}
		}
	}
}

// liar is a UDP tracker that answers each packet with those that reply returns.
func liar(t *testing.T, reply func(packet []byte, action uint32) [][]byte) *url.URL {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
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
			if n < 16 {
				continue
			}
			for _, p := range reply(b[:n], binary.BigEndian.Uint32(b[8:])) {
				pc.WriteTo(p, from)
			}
		}
	}()
	return &url.URL{Scheme: "udp", Host: pc.LocalAddr().String(), Path: "/announce"}
}

// header is the beginning of an honest reply.
func header(packet []byte, action uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, action), packet[12:16]...)
}

func TestHostileUDP(t *testing.T) {
	connect := func(p []byte) []byte { return append(header(p, 0), "connect!"...) }
	announce := func(p []byte, interval int32) []byte {
		b := binary.BigEndian.AppendUint32(header(p, 1), uint32(interval))
		return append(b, 0, 0, 0, 3, 0, 0, 0, 4)
	}
	one := func(p ...[]byte) [][]byte { return p }
	// afterConnect lies only in the reply to the announce.
	afterConnect := func(f func(p []byte) [][]byte) func([]byte, uint32) [][]byte {
		return func(p []byte, action uint32) [][]byte {
			if action == 0 {
				return one(connect(p))
			}
			return f(p)
		}
	}
	for _, c := range []struct {
		name   string
		reply  func([]byte, uint32) [][]byte
		reason string
		peers  int
	}{
		{"honest", afterConnect(func(p []byte) [][]byte { return one(append(announce(p, 60), peer1...)) }), "", 1},
		{"silent", func([]byte, uint32) [][]byte { return nil }, "deadline", 0},
		{"empty packets", func([]byte, uint32) [][]byte { return one(nil, nil) }, "deadline", 0},
		{"short header", func(p []byte, a uint32) [][]byte { return one(header(p, a)[:7]) }, "deadline", 0},
		{"short connect", func(p []byte, a uint32) [][]byte { return one(header(p, a)) }, "too short", 0},
		{"short announce", afterConnect(func(p []byte) [][]byte { return one(announce(p, 60)[:19]) }), "too short", 0},
		{"wrong transaction", func(p []byte, a uint32) [][]byte { p[15]++; return one(connect(p)) }, "deadline", 0},
		{"wrong transaction first", afterConnect(func(p []byte) [][]byte {
			right := append(announce(p, 60), peer1...)
			p[15]++
			return one(append(announce(p, 60), strings.Repeat(peer1, 3)...), right)
		}), "", 1},
		{"wrong action", func(p []byte, a uint32) [][]byte { return one(append(header(p, 2), "12345678"...)) }, "has action 2", 0},
		{"action 3 at connect", func(p []byte, a uint32) [][]byte { return one(append(header(p, 3), "go\x1baway"...)) }, `tracker refuses: "go\x1baway"`, 0},
		{"action 3 at announce", afterConnect(func(p []byte) [][]byte { return one(header(p, 3)) }), "tracker refuses", 0},
		{"odd peers", afterConnect(func(p []byte) [][]byte { return one(append(announce(p, -1), peer1+"12345"...)) }), "", 1},
		{"300 peers", afterConnect(func(p []byte) [][]byte { return one(append(announce(p, 1<<31-1), manyPeers(300)...)) }), "", 200},
		{"every reply 100 times", func(p []byte, a uint32) (all [][]byte) {
			for range 100 {
				if a == 0 {
					all = append(all, connect(p))
				} else {
					all = append(all, append(announce(p, 60), peer1...))
				}
			}
			return all
		}, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if c.reason != "deadline" {
				ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
			}
			defer cancel()
			r, err := newTestTrackers(Config{}).announceUDP(ctx, liar(t, c.reply), testRequest)
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("error %v, want one with %q", err, c.reason)
			}
			if len(r.peers) != c.peers || err == nil && (r.interval < minInterval || r.interval > maxInterval || r.seeders != 4 || r.leechers != 3) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A reply from another address than the one asked is not believed.
func TestUDPFromStranger(t *testing.T) {
	stranger, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	asked := make(chan netip.AddrPort, 10)
	u := liar(t, func(p []byte, action uint32) [][]byte {
		stranger.WriteTo(append(header(p, 3), "stranger"...), net.UDPAddrFromAddrPort(<-asked))
		return [][]byte{append(header(p, 3), "tracker"...)}
	})
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	asked <- pc.LocalAddr().(*net.UDPAddr).AddrPort()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(u.Host))
	if _, _, err := conversation(t.Context(), pc, to, actionAnnounce, announceBody(u.RequestURI(), testRequest)); err == nil || !strings.Contains(err.Error(), `"tracker"`) {
		t.Error(err)
	}
}

func TestUDPBadURL(t *testing.T) {
	for _, host := range []string{"h", "127.0.0.1:0", "127.0.0.1:99999", "[::1]"} {
		if _, err := newTestTrackers(Config{}).announceUDP(t.Context(), &url.URL{Scheme: "udp", Host: host}, testRequest); err == nil {
			t.Error(host, "accepted")
		}
	}
}

func TestUDPOptions(t *testing.T) {
	if n := len(announceBody("/announce", testRequest)); n != 98-16 {
		t.Error(n)
	}
	long := "/" + strings.Repeat("k", 299)
	b := announceBody(long, testRequest)[98-16:]
	if b[0] != 2 || b[1] != 255 || b[257] != 2 || b[258] != 45 || string(b[2:257])+string(b[259:]) != long {
		t.Errorf("%q", b)
	}
}
