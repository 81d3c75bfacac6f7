package discovery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// need finds a program that other people wrote; CI has them all.
func need(t *testing.T, path string, args ...string) {
	t.Helper()
	_, err := exec.LookPath(path)
	if err == nil && len(args) > 0 {
		err = exec.Command(path, args...).Run()
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", path, err)
	}
	t.Skipf("%s: %v", path, err)
}

// opentracker runs Debian's tracker for one torrent and returns its host:port.
func opentracker(t *testing.T, hash metainfo.InfoHash) string {
	t.Helper()
	need(t, "opentracker")
	dir, port := t.TempDir(), strconv.Itoa(fetchtest.FreePort(t))
	if err := os.WriteFile(filepath.Join(dir, "white"), []byte(hash.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-i", "127.0.0.1", "-p", port, "-P", port, "-w", "white"}
	if os.Geteuid() == 0 { // then it changes its root, and its user to nobody
		args = append(args, "-d", dir)
	}
	cmd := exec.Command("opentracker", args...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	addr := "127.0.0.1:" + port
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if authorizes(addr, string(hash[:]), "") && authorizes(addr, string(hash[:]), "&event=stopped") {
			return addr
		}
	}
	t.Fatal("opentracker does not listen")
	return ""
}

// authorizes reports whether opentracker answers and has read its list of torrents, which it
// does a while after it began to listen. Of who stops it does not look there.
func authorizes(addr, hash, event string) bool {
	r, err := http.Get("http://" + addr + "/announce?info_hash=" + strings.ReplaceAll(url.QueryEscape(hash), "+", "%20") + "&peer_id=-XX0000-000000000000&port=1&left=0&uploaded=0&downloaded=0" + event)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return err == nil && !strings.Contains(string(text), "failure")
}

// announcer runs Trackers as one client and returns the channel of its peers and
// how to end it.
func announcer(t *testing.T, id string, port uint16, hash metainfo.InfoHash, urls ...string) (chan netip.AddrPort, *Trackers, func()) {
	found := make(chan netip.AddrPort, 1000)
	c := Config{UserAgent: "test/1"}
	copy(c.PeerID[:], id)
	tr := NewTrackers(c, hash, [][]string{urls}, urls, func() Stats { return Stats{Left: 1, Port: port} }, func(peers []Peer) {
		for _, p := range peers {
			found <- p.Addr
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); tr.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return found, tr, stop
}

func await(t *testing.T, found chan netip.AddrPort, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case addr := <-found:
			if addr.String() == want {
				return
			}
		case <-deadline:
			t.Fatalf("%s was not found", want)
		}
	}
}

func TestOpentracker(t *testing.T) {
	for _, scheme := range []string{"http", "udp"} {
		t.Run(scheme, func(t *testing.T) {
			hash := metainfo.InfoHash{0, ' ', '%', '+', 0xff, 'x'}
			announce := scheme + "://" + opentracker(t, hash) + "/announce"
			foundA, trA, stopA := announcer(t, "client-a-12345678901", 1001, hash, announce)
			await(t, foundA, "127.0.0.1:1001") // itself, so it has announced
			foundB, trB, _ := announcer(t, "client-b-12345678901", 1002, hash, announce)
			await(t, foundB, "127.0.0.1:1001")
			st := trB.Status()[0]
			if st.Err != nil || st.Leechers < 1 || st.Peers < 1 || time.Until(st.Next) < 25*time.Second {
				t.Errorf("%+v", st)
			}
			// The first one leaves, and is handed out no more.
			stopA()
			foundC, _, _ := announcer(t, "client-c-12345678901", 1003, hash, announce)
			for got := ""; got != "127.0.0.1:1003"; {
				if got = (<-foundC).String(); got == "127.0.0.1:1001" {
					t.Error("a peer that has stopped is still handed out")
				}
			}
			if st := trA.Status()[0]; st.Err != nil {
				t.Error(st.Err)
			}
		})
	}
}

// Over HTTP only: over UDP it says nothing at all.
func TestOpentrackerRefusesUnknown(t *testing.T) {
	u, err := url.Parse("http://" + opentracker(t, metainfo.InfoHash{1}) + "/announce")
	if err != nil {
		t.Fatal(err)
	}
	_, err = newTestTrackers(Config{}).announceHTTP(t.Context(), u, request{hash: metainfo.InfoHash{2}, event: started, stats: Stats{Port: 5}})
	if err == nil || !strings.Contains(err.Error(), "not authorized") {
		t.Error(err)
	}
}

// runDHT starts a node on loopback.
func runDHT(t *testing.T, c DHTConfig) *DHT {
	t.Helper()
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	d, err := NewDHT(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

// announceDHT announces hash and returns the channel of the peers found.
func announceDHT(t *testing.T, d *DHT, hash metainfo.InfoHash, port uint16) chan netip.AddrPort {
	found := make(chan netip.AddrPort, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Announce(ctx, hash, func() uint16 { return port }, func(peers []Peer) {
			for _, p := range peers {
				found <- p.Addr
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return found
}

const pyDHT = `
import sys, libtorrent as lt
s = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": True, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "dht_bootstrap_nodes": sys.argv[1], "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False, "dht_enforce_node_id": False, "dht_ignore_dark_internet": False, "dht_block_ratelimit": 1000, "dht_upload_rate_limit": 1000000, "allow_multiple_connections_per_ip": True,
    "alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification | lt.alert.category_t.status_notification})
import threading, time
while not s.listen_port():
    time.sleep(0.05)
print(s.listen_port(), flush=True)
p = lt.parse_magnet_uri("magnet:?xt=urn:btih:" + sys.argv[2])
p.save_path = "/nonexistent"
t = s.add_torrent(p)
def ask():
    while True:
        s.dht_get_peers(lt.sha1_hash(bytes.fromhex(sys.argv[2])))
        t.force_dht_announce()
        time.sleep(1)
threading.Thread(target=ask, daemon=True).start()
while True:
    s.wait_for_alert(1000)
    for a in s.pop_alerts():
        if isinstance(a, lt.dht_get_peers_reply_alert):
            for p in a.peers():
                print("%s:%d" % p, flush=True)
`

// Two of our nodes and one of libtorrent find each other's peers.
func TestDHT(t *testing.T) {
	need(t, "/usr/bin/python3", "-c", "import libtorrent")
	hash := metainfo.InfoHash{1, 2, 3}
	counted := make(chan metainfo.InfoHash, 100)
	a := runDHT(t, DHTConfig{})
	b := runDHT(t, DHTConfig{Bootstrap: []string{a.Addr().String()}, OnAnnounce: func(h metainfo.InfoHash) { counted <- h }})

	cmd := exec.Command("/usr/bin/python3", "-c", pyDHT, a.Addr().String(), hash.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan netip.AddrPort, 1000)
	port := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := bufio.NewScanner(out)
		for first := true; r.Scan(); first = false {
			if first {
				port <- r.Text()
			} else if addr, err := netip.ParseAddrPort(r.Text()); err == nil {
				select {
				case lines <- addr:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-done; cmd.Wait() })
	python := "127.0.0.1:" + <-port
	b.AddNode(netip.MustParseAddrPort(python))

	announceUntilFound(t, a, hash, 1001, python)
	await(t, lines, "127.0.0.1:1001")
	found := announceDHT(t, b, hash, 1002)
	await(t, found, python)
	await(t, lines, "127.0.0.1:1002")
	if h := <-counted; h != hash {
		t.Error(h)
	}
	if nodes, good := b.Status(); nodes < 2 || good < 1 {
		t.Errorf("%d nodes, %d good", nodes, good)
	}
}

// announceUntilFound repeats the announce, the first of which may come before
// the other side is there, without the long pauses of Announce.
func announceUntilFound(t *testing.T, d *DHT, hash metainfo.InfoHash, port uint16, want string) {
	t.Helper()
	<-d.joined
	seen := map[string]bool{}
	for deadline := time.Now().Add(30 * time.Second); !seen[want]; <-time.After(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not found, only %v", want, seen)
		}
		if _, err := d.announceOnce(t.Context(), hash, port, func(peers []Peer) {
			for _, p := range peers {
				seen[p.Addr.String()] = true
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Over IPv6, with two of our own nodes; and the nodes outlive a restart.
func TestDHTNodesFile(t *testing.T) {
	if pc, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6:", err)
	} else {
		pc.Close()
	}
	file := filepath.Join(t.TempDir(), "nodes")
	a := runDHT(t, DHTConfig{Listen: "[::1]:0"})
	hash := metainfo.InfoHash{9}
	t.Run("first", func(t *testing.T) {
		b := runDHT(t, DHTConfig{Listen: "[::1]:0", NodesFile: file})
		b.AddNode(a.Addr())
		<-b.joined
		if _, err := b.announceOnce(t.Context(), hash, 1001, func([]Peer) {}); err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), a.Addr().String()) {
		t.Fatalf("%q, %v", text, err)
	}
	t.Run("second", func(t *testing.T) {
		b := runDHT(t, DHTConfig{Listen: "[::1]:0", NodesFile: file})
		await(t, announceDHT(t, b, hash, 0), "[::1]:1001")
		if id := fmt.Sprintf("%x\n", b.server.ID()); !strings.HasPrefix(string(text), id) {
			t.Error("the node has a new id", id)
		}
	})
}
