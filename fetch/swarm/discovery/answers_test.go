package discovery

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	peer_store "github.com/anacrolix/dht/v2/peer-store"
	"github.com/anacrolix/torrent/bencode"
	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

const pyItems = `
import sys, time, libtorrent as lt
s = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": True, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "dht_bootstrap_nodes": sys.argv[1], "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False, "dht_enforce_node_id": False, "dht_ignore_dark_internet": False, "dht_block_ratelimit": 1000, "dht_upload_rate_limit": 1000000,
    "alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification})
host, port = sys.argv[1].rsplit(":", 1)
def until(kind, ask, good):
    while True:
        ask()
        end = time.time() + 2
        while time.time() < end:
            s.wait_for_alert(200)
            for a in s.pop_alerts():
                if isinstance(a, kind) and good(a):
                    return a
b = bytes.fromhex
if sys.argv[2] == "put":
    private, public, salt = b(sys.argv[3]), b(sys.argv[4]), b(sys.argv[5])
    target = [None]
    def immutable():
        target[0] = s.dht_put_immutable_item("a value of libtorrent")
    until(lt.dht_put_alert, immutable, lambda a: a.num_success > 0)
    print("put", target[0], flush=True)
    for value in ("first", "second"):
        a = until(lt.dht_put_alert, lambda: s.dht_put_mutable_item(private, public, value.encode(), salt), lambda a: a.num_success > 0)
        print("put", a.seq, flush=True)
elif sys.argv[2] == "get":
    target, public, salt = lt.sha1_hash(b(sys.argv[3])), b(sys.argv[4]), b(sys.argv[5])
    a = until(lt.dht_immutable_item_alert, lambda: s.dht_get_immutable_item(target), lambda a: a.item is not None)
    print("got", a.item, flush=True)
    a = until(lt.dht_mutable_item_alert, lambda: s.dht_get_mutable_item(public, salt), lambda a: a.seq > 0)
    print("got", a.seq, a.item, flush=True)
else:
    a = until(lt.dht_sample_infohashes_alert, lambda: s.dht_sample_infohashes((host, int(port)), lt.sha1_hash(b"x" * 20)), lambda a: True)
    print("sample", a.num_infohashes, a.num_samples, int(a.interval.total_seconds()) if hasattr(a.interval, "total_seconds") else a.interval, *a.samples, flush=True)
`

// libtorrent runs the script to its end and returns what it printed.
func libtorrent(t *testing.T, script string, args ...string) (lines []string) {
	t.Helper()
	need(t, "/usr/bin/python3", "-c", "import libtorrent")
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{"-c", script}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	for r := bufio.NewScanner(out); r.Scan(); {
		lines = append(lines, r.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %q", err, lines)
	}
	return lines
}

// What libtorrent puts into our node, another libtorrent gets from it, when the first has
// gone (BEP 44); and it is told of the torrents that were announced (BEP 51).
func TestDHTItemsWithLibtorrent(t *testing.T) {
	node := runDHT(t, DHTConfig{})
	at := node.Addr().String()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	expanded := sha512.Sum512(private.Seed()) // the form that libtorrent signs with
	expanded[0], expanded[31] = expanded[0]&248, expanded[31]&63|64
	salt := "2073616c74"
	target := sha1.Sum([]byte("21:a value of libtorrent"))
	got := libtorrent(t, pyItems, at, "put", hex.EncodeToString(expanded[:]), hex.EncodeToString(public), salt)
	if want := []string{"put " + hex.EncodeToString(target[:]), "put 1", "put 2"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	got = libtorrent(t, pyItems, at, "get", hex.EncodeToString(target[:]), hex.EncodeToString(public), salt)
	if len(got) != 2 || !strings.Contains(got[0], "a value of libtorrent") || !strings.HasPrefix(got[1], "got 2 ") || !strings.Contains(got[1], "second") {
		t.Errorf("%q", got)
	}
	for i := range 3 {
		node.conn.answers.peers.AddPeer(peer_store.InfoHash{0xaa, byte(i)}, krpc.NodeAddr{IP: net.IP{1, 2, 3, 4}, Port: 5})
	}
	got = libtorrent(t, pyItems, at, "sample")
	if len(got) != 1 || !strings.HasPrefix(got[0], "sample 3 3 ") || !strings.Contains(got[0], metainfo.InfoHash{0xaa, 2}.String()) {
		t.Errorf("%q", got)
	}
}

// mutable is a put of a value, signed.
func mutable(key ed25519.PrivateKey, value, salt string, seq int64, cas *int64) *putArgs {
	a := &putArgs{V: bencode.MustMarshal(value), K: string(key.Public().(ed25519.PublicKey)), Salt: salt, Seq: &seq, Cas: cas}
	a.Sig = string(ed25519.Sign(key, signed(a)))
	return a
}

// The rules of BEP 44, one after the other on the same item.
func TestItemRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := ed25519.NewKeyFromSeed(make([]byte, 32))
		var s items
		cas := func(n int64) *int64 { return &n }
		broken := func(f func(*putArgs)) *putArgs { a := mutable(key, "v", "salt", 9, nil); f(a); return a }
		long := strings.Repeat("x", maxItemValue-4) // and "996:"
		for _, c := range []struct {
			name string
			a    *putArgs
			code int
		}{
			{"immutable", &putArgs{V: bencode.Bytes("5:hello")}, 0},
			{"immutable again", &putArgs{V: bencode.Bytes("5:hello")}, 0},
			{"a list", &putArgs{V: bencode.Bytes("li1ei2ee")}, 0},
			{"no value", &putArgs{}, 203},
			{"the longest", &putArgs{V: bencode.MustMarshal(long)}, 0},
			{"too long", &putArgs{V: bencode.MustMarshal(long + "x")}, 205},
			{"mutable", mutable(key, "a", "salt", 4, nil), 0},
			{"same seq, same value", mutable(key, "a", "salt", 4, nil), 0},
			{"same seq, other value", mutable(key, "b", "salt", 4, nil), 302},
			{"lower seq", mutable(key, "a", "salt", 3, nil), 302},
			{"other salt", mutable(key, "a", "other", 1, nil), 0},
			{"no salt", mutable(key, "a", "", 1, cas(77)), 0},
			{"wrong cas", mutable(key, "c", "salt", 5, cas(3)), 301},
			{"cas of 0", mutable(key, "c", "salt", 5, cas(0)), 301},
			{"right cas", mutable(key, "c", "salt", 5, cas(4)), 0},
			{"signature of another value", broken(func(a *putArgs) { a.V = bencode.Bytes("1:w") }), 206},
			{"signature of another seq", broken(func(a *putArgs) { *a.Seq = 10 }), 206},
			{"signature of another salt", broken(func(a *putArgs) { a.Salt = "salz" }), 206},
			{"short signature", broken(func(a *putArgs) { a.Sig = a.Sig[:63] }), 203},
			{"short key", broken(func(a *putArgs) { a.K = a.K[:31] }), 203},
			{"no seq", broken(func(a *putArgs) { a.Seq = nil }), 203},
			{"negative seq", mutable(key, "v", "salt", -1, nil), 203},
			{"longest salt", mutable(key, "v", strings.Repeat("s", 64), 1, nil), 0},
			{"long salt", mutable(key, "v", strings.Repeat("s", 65), 1, nil), 207},
		} {
			code := 0
			if err := s.put(c.a, time.Now()); err != nil {
				code = err.Code
			}
			if code != c.code {
				t.Errorf("%s: %d, want %d", c.name, code, c.code)
			}
		}
		get := func(target [20]byte, known int64) string {
			r := map[string]bencode.Bytes{}
			s.get(target, known, time.Now(), r)
			return fmt.Sprintf("%s %s %d", r["v"], r["seq"], len(r["k"])+len(r["sig"]))
		}
		a := sha1.Sum([]byte(string(key.Public().(ed25519.PublicKey)) + "salt"))
		b := sha1.Sum([]byte("5:hello"))
		for want, got := range map[string]string{
			"1:c i5e 102": get(a, -1), "1:c i5e 102 ": get(a, 4) + " ", " i5e 0": get(a, 5), "5:hello  0": get(b, -1), "  0": get([20]byte{1}, -1),
		} {
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		time.Sleep(itemExpires - time.Minute)
		if err := s.put(mutable(key, "c", "salt", 5, nil), time.Now()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		if get(b, -1) != "  0" || get(a, -1) == "  0" {
			t.Error("the one that nobody put again should be gone, and the other not")
		}
		time.Sleep(itemExpires)
		if err := s.put(mutable(key, "z", "salt", 1, nil), time.Now()); err != nil {
			t.Error("an item that has expired stands in the way: ", err)
		}
		for i := range 3 * maxItems {
			if err := s.put(&putArgs{V: bencode.MustMarshal(i)}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.of) != maxItems {
			t.Errorf("%d items", len(s.of))
		}
	})
}

// The vectors of BEP 44.
func TestItemVectors(t *testing.T) {
	unhex := func(s string) string { b, _ := hex.DecodeString(s); return string(b) }
	one := int64(1)
	for _, c := range []struct{ salt, sig, target string }{
		{"", "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01", "4a533d47ec9c7d95b1ad75f576cffc641853b750"},
		{"foobar", "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17ddf9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08", "411eba73b6f087ca51a3795d9c8c938d365e32c1"},
	} {
		var s items
		a := &putArgs{V: bencode.Bytes("12:Hello World!"), K: unhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548"), Salt: c.salt, Sig: unhex(c.sig), Seq: &one}
		if err := s.put(a, time.Now()); err != nil || len(s.of) != 1 {
			t.Fatal(err)
		}
		if _, ok := s.of[krpc.ID([]byte(unhex(c.target)))]; !ok {
			t.Errorf("%q: %v", c.salt, s.of)
		}
	}
}

// asker speaks to a node by packets.
type asker struct {
	t *testing.T
	net.Conn
}

func ask(t *testing.T, d *DHT) asker {
	c, err := net.Dial("udp4", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return asker{t, c}
}

// query returns the reply to a query. It asks again: a node that is busy drops replies.
func (a asker) query(q string, args map[string]any) (m krpc.Msg) {
	a.t.Helper()
	args["id"] = strings.Repeat("q", 20)
	packet := bencode.MustMarshal(map[string]any{"t": "my own " + q, "y": "q", "q": q, "a": args, "ro": 1})
	b := make([]byte, 4096)
	for range 50 {
		if _, err := a.Write(packet); err != nil {
			a.t.Fatal(err)
		}
		_ = a.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := a.Read(b)
		if err != nil {
			continue
		}
		m = krpc.Msg{}
		if err := bencode.Unmarshal(b[:n], &m); err != nil {
			a.t.Fatal(err)
		}
		if m.Y == "q" || m.T != "my own "+q { // it wants to know who we are
			continue
		}
		if m.Y == "r" && m.IP.Port != a.LocalAddr().(*net.UDPAddr).Port {
			a.t.Errorf("%s: %q", q, b[:n])
		}
		return m
	}
	a.t.Fatal("no answer to ", q)
	return m
}

// withID starts a node of a chosen id.
func withID(t *testing.T, first byte, c DHTConfig) *DHT {
	c.NodesFile = filepath.Join(t.TempDir(), "nodes")
	if err := (savedNodes{id: krpc.ID{0: first, 19: 1}}).save(c.NodesFile); err != nil {
		t.Fatal(err)
	}
	return runDHT(t, c)
}

// The nodes nearest to the target come with every answer, and a token is needed to put.
func TestDHTAnswersNearest(t *testing.T) {
	a := withID(t, 0xff, DHTConfig{})
	var nodes []*DHT
	for i := range 12 {
		d := withID(t, byte(i+1)<<4, DHTConfig{Bootstrap: []string{a.Addr().String()}})
		nodes = append(nodes, d)
		a.AddNode(d.Addr())
	}
	deadline := time.Now().Add(20 * time.Second)
	for good := 0; good < len(nodes); <-time.After(20 * time.Millisecond) {
		if _, good = a.Status(); time.Now().After(deadline) {
			t.Fatal(good, "good nodes")
		}
	}
	c := ask(t, a)
	var target [20]byte
	for _, d := range nodes {
		target = d.server.ID()
		for _, q := range []string{"find_node", "get", "sample_infohashes"} {
			r := c.query(q, map[string]any{"target": string(target[:])}).R
			if r == nil || r.ID != a.server.ID() || (q == "get") != (r.Token != nil) || (q == "sample_infohashes") != (r.Samples != nil && r.Num != nil && r.Interval != nil) {
				t.Fatalf("%s: %+v", q, r)
			}
			if len(r.Nodes) > 8 || !slices.ContainsFunc(r.Nodes, func(n krpc.NodeInfo) bool { return n.ID == target }) {
				t.Errorf("%s: the node that is asked for is not in the answer of %d", q, len(r.Nodes))
			}
		}
	}
	value := map[string]any{"v": "value", "token": "no token"}
	if m := c.query("put", value); m.E == nil || m.E.Code != 203 {
		t.Errorf("%+v", m)
	}
	value["token"] = *c.query("get", map[string]any{"target": string(target[:])}).R.Token
	if m := c.query("put", value); m.R == nil || m.R.ID != a.server.ID() {
		t.Errorf("%+v", m)
	}
	stored := sha1.Sum([]byte("5:value"))
	if m := c.query("get", map[string]any{"target": string(stored[:])}); string(m.R.V) != "5:value" || m.R.Token == nil {
		t.Errorf("%+v", m.R)
	}
}

func TestTokens(t *testing.T) {
	a, b := newAnswers(krpc.ID{}, nil), newAnswers(krpc.ID{}, nil)
	addr, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	now := time.Unix(1_000_000, 0)
	token := a.token(addr, now)
	for name, good := range map[string]bool{
		"at once": a.goodToken(token, addr, now), "mapped": a.goodToken(token, netip.AddrFrom16(addr.As16()), now), "after ten minutes": a.goodToken(token, addr, now.Add(10*time.Minute)),
	} {
		if !good {
			t.Error(name)
		}
	}
	for name, good := range map[string]bool{
		"after 15 minutes": a.goodToken(token, addr, now.Add(15*time.Minute)), "of another": a.goodToken(token, other, now), "of another node": b.goodToken(token, addr, now), "none": a.goodToken("", addr, now),
	} {
		if good {
			t.Error(name)
		}
	}
}

// Who asks again and again for samples gets the same ones for a while.
func TestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s peerStore
		sample := func() (string, string) {
			r := map[string]bencode.Bytes{}
			s.sample(time.Now(), r)
			return text(r["samples"]), string(r["num"])
		}
		if got, num := sample(); got != "" || num != "i0e" {
			t.Error(got, num)
		}
		add := func(first, last int) {
			for i := first; i < last; i++ {
				s.AddPeer(peer_store.InfoHash{1, byte(i)}, krpc.NodeAddr{IP: net.IP{1, 2, 3, 4}, Port: 5})
			}
		}
		add(0, 20)
		if got, num := sample(); len(got) != 20*20 || num != "i20e" {
			t.Error(len(got), num)
		}
		add(20, 100)
		first, num := sample()
		if len(first) != 20*20 || num != "i100e" {
			t.Error(len(first), num)
		}
		for range 50 {
			if again, _ := sample(); again != first {
				t.Fatal("another sample at once")
			}
		}
		time.Sleep(40 * time.Minute)
		add(50, 100)
		time.Sleep(25 * time.Minute) // the first half has expired
		later, num := sample()
		if later == first || num != "i50e" {
			t.Error(num)
		}
	})
}

// Whatever is sent, the answers are bounded and bencoded, and the mark stays here.
func FuzzAnswers(f *testing.F) {
	from := netip.MustParseAddrPort("192.0.2.1:6881")
	a := newAnswers(krpc.ID{1, 2}, &peerStore{})
	a.puts = rate.NewLimiter(rate.Inf, 1)
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	add := func(q string, args map[string]any) {
		args["id"] = strings.Repeat("q", 20)
		f.Add(bencode.MustMarshal(map[string]any{"t": "aa", "y": "q", "q": q, "a": args}))
	}
	m := mutable(key, "v", "salt", 4, nil)
	add("put", map[string]any{"v": "x", "token": "12345678"})
	add("put", map[string]any{"v": m.V, "k": m.K, "sig": m.Sig, "salt": m.Salt, "seq": 4, "cas": 3, "token": "12345678"})
	add("get", map[string]any{"target": strings.Repeat("t", 20), "seq": 5})
	add("sample_infohashes", map[string]any{"target": strings.Repeat("t", 20), "want": []string{"n4"}})
	for _, p := range hostilePackets {
		f.Add([]byte(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok := acceptable(b)
		if !ok || q.Y != krpc.YQuery {
			return
		}
		check := func(what string, out []byte, in int) {
			var any map[string]bencode.Bytes
			if len(out) > in+2000 || bencode.Unmarshal(out, &any) != nil || strings.Contains(string(out), a.mark) {
				t.Fatalf("%s: %q", what, out)
			}
		}
		good := strings.ReplaceAll(string(b), "8:12345678", "8:"+a.token(from.Addr(), time.Now()))
		if out := a.put([]byte(good), from); out != nil {
			check("put", out, len(b))
		}
		p := a.query(b, &q)
		if p == nil {
			return
		}
		if q, ok = acceptable(p); !ok || len(p) > len(b)+1000 {
			t.Fatalf("%q", p)
		}
		reply := bencode.MustMarshal(krpc.Msg{T: q.T, Y: "r", R: &krpc.Return{ID: a.id, Nodes: krpc.CompactIPv4NodeInfo{{ID: a.id, Addr: krpc.NodeAddr{IP: net.IP{1, 2, 3, 4}, Port: 5}}}}, IP: dht.NewAddr(net.UDPAddrFromAddrPort(from)).KRPC()})
		check(q.Q, a.finish(reply, from.Addr()), len(b))
	})
}
