package network

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/iplist"
)

const listText = `# a comment

Some company: with a colon:1.2.3.4-1.2.3.9
dash-in-name:001.002.004.000-001.002.004.255
10.0.0.0/8
192.0.2.7
198.51.100.1 - 198.51.100.3
next:198.51.100.4-198.51.100.4
2001:db8::/32
six:2001:db9::1-2001:db9::5
::ffff:203.0.113.0/120
all the rest of it:255.255.255.254-255.255.255.255
`

func TestBlocklist(t *testing.T) {
	var b Blocklist
	n, err := b.read(strings.NewReader(listText + "bad:1.2.3.9-1.2.3.4\nname:1.2.3.256-1.2.3.257\nhello\n1.2.3\n1.2.3.4/33\nx:1.2.3.4-::5\n"))
	b.sort()
	if err != nil || n.Good != 10 || n.Bad != 6 || n.FirstBad != 13 || !strings.HasPrefix(n.Example, "bad:") {
		t.Fatalf("%+v, %v", n, err)
	}
	for s, want := range map[string]bool{
		"1.2.3.3": false, "1.2.3.4": true, "1.2.3.9": true, "1.2.3.10": false, "1.2.4.0": true, "1.2.4.255": true, "1.2.5.0": false,
		"9.255.255.255": false, "10.0.0.0": true, "10.255.255.255": true, "11.0.0.0": false, "192.0.2.6": false, "192.0.2.7": true, "192.0.2.8": false,
		"198.51.100.0": false, "198.51.100.2": true, "198.51.100.4": true, "198.51.100.5": false,
		"::ffff:1.2.3.5": true, "2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "2001:db9::3": true, "2001:db9::6": false,
		"203.0.113.77": true, "203.0.114.0": false, "255.255.255.253": false, "255.255.255.255": true, "0.0.0.0": false, "::": false,
		"2001:db9::3%eth0": true,
	} {
		if got := b.Contains(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	if b.Contains(netip.Addr{}) || new(Blocklist).Contains(netip.MustParseAddr("1.2.3.4")) {
		t.Error("contains what is not there")
	}
}

func packed(text string) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte(text))
	w.Close()
	return z.Bytes()
}

func TestBlocklistForms(t *testing.T) {
	var plain, z Blocklist
	if _, err := plain.read(strings.NewReader(listText)); err != nil {
		t.Fatal(err)
	}
	if _, err := z.read(bytes.NewReader(packed(listText))); err != nil || len(z.v4) != len(plain.v4) || len(z.v6) != len(plain.v6) {
		t.Error(err, len(z.v4), len(z.v6))
	}
	for name, c := range map[string]struct{ text, want string }{
		"a web page":  {"<!doctype html>\n<title>No</title>\n", "no address in it"},
		"nothing":     {"", "no address in it"},
		"broken gzip": {"\x1f\x8bxx", "gzip"},
		"cut gzip":    {string(packed(strings.Repeat(listText, 50))[:100]), "unexpected EOF"},
		"one line":    {strings.Repeat("x", 1<<20), "no address in it"},
	} {
		var b Blocklist
		if _, err := b.read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A line without an end costs itself and not the rest.
	var b Blocklist
	if n, err := b.read(strings.NewReader(strings.Repeat("y", 3*maxLine) + "\n192.0.2.0/24\n")); err != nil || n.Good != 1 || n.Bad < 1 {
		t.Error(n, err)
	}
}

// Every address is in the list if, and only if, some line has it.
func TestBlocklistAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b Blocklist
		model := map[byte]bool{}
		var text strings.Builder
		for range 1 + r.IntN(20) {
			first := r.IntN(256)
			last := min(first+r.IntN(30), 255)
			fmt.Fprintf(&text, "n:10.0.0.%d-10.0.0.%d\nn:2001:db8::%x-2001:db8::%x\n", first, last, first, last)
			for i := first; i <= last; i++ {
				model[byte(i)] = true
			}
		}
		if _, err := b.read(strings.NewReader(text.String())); err != nil {
			t.Fatal(err)
		}
		b.sort()
		for i := range 256 {
			want := model[byte(i)]
			if b.Contains(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})) != want || b.Contains(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))) != want {
				t.Fatalf("%d: want %v of\n%s", i, want, text.String())
			}
		}
	}
}

func FuzzBlocklist(f *testing.F) {
	f.Add([]byte(listText))
	f.Add(packed(listText))
	f.Add([]byte("a:1.2.3.4-\n:\n-\n/\n1.2.3.4/-1\n::/0\n0.0.0.0/0\n::ffff:0:0/90\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b Blocklist
		n, err := b.read(bytes.NewReader(text))
		b.sort()
		if err == nil && (n.Good == 0 || b.Len() == 0 || b.Len() > n.Good) {
			t.Fatalf("%+v, %d ranges", n, b.Len())
		}
		for i, r := range b.v4 {
			if r.first > r.last || i > 0 && b.v4[i-1].last >= r.first {
				t.Fatal("not sorted", b.v4)
			}
		}
		for i, r := range b.v6 {
			if !b.Contains(r.first) || !b.Contains(r.last) || i > 0 && !b.v6[i-1].last.Less(r.first) {
				t.Fatal("not sorted", b.v6)
			}
		}
	})
}

// Lists come from files and URLs; a URL that fails is made up for by the copy of last
// time, and is an error without one.
func TestBlock(t *testing.T) {
	good := true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !good {
			http.Error(w, "gone", http.StatusGone)
			return
		}
		w.Write(packed("x:192.0.2.0-192.0.2.9\nbad\n"))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	url := fmt.Sprintf("http://%v/list.gz", l.Addr())
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte("198.51.100.0/24\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	keep := filepath.Join(t.TempDir(), "lists")
	block := func(sources ...string) (*Network, string, error) {
		var said bytes.Buffer
		n := System()
		err := n.Block(t.Context(), sources, keep, slog.New(slog.NewTextHandler(&said, nil)))
		return n, said.String(), err
	}
	n, said, err := block(file, url)
	if err != nil || !n.Blocked(netip.MustParseAddr("192.0.2.5")) || !n.Blocked(netip.MustParseAddr("198.51.100.5")) || n.Blocked(netip.MustParseAddr("192.0.2.10")) {
		t.Fatal(err, said)
	}
	if strings.Count(said, "level=WARN") != 1 || !strings.Contains(said, "bad=1") {
		t.Errorf("said %q", said)
	}
	good = false
	if n, said, err = block(url); err != nil || !n.Blocked(netip.MustParseAddr("192.0.2.5")) || !strings.Contains(said, "copy of last time") {
		t.Error(err, said)
	}
	for _, source := range []string{url + "?other", filepath.Join(keep, "no such"), "http://127.0.0.1:1/x"} {
		if _, _, err := block(source); err == nil || !strings.Contains(err.Error(), source) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// Who is blocked is neither dialled nor accepted, whoever names it.
func TestBlockedPeers(t *testing.T) {
	n := System()
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte("127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Block(t.Context(), []string{file}, t.TempDir(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	l, err := n.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := func(ip string) net.Conn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	blocked := from("127.0.0.2")
	defer blocked.Close()
	welcome := from("127.0.0.3")
	defer welcome.Close()
	c, err := l.Accept() // in the order in which they came
	if err != nil || c.RemoteAddr().String() != welcome.LocalAddr().String() {
		t.Fatal("accepted", c.RemoteAddr(), err)
	}
	c.Close()
	if k, err := blocked.Read(make([]byte, 1)); err == nil {
		t.Error("a blocked peer is served", k)
	}
	refused := (*BlockedError)(nil)
	for _, use := range []Use{Peer, Node, WebSeed} {
		ask := Ask{Use: use, From: Typed, To: netip.MustParseAddrPort("127.0.0.2:9")}
		if _, err := n.Dial(t.Context(), ask); !errors.As(err, &refused) {
			t.Errorf("%v: %v", use, err)
		}
	}
	if err := n.Allow(Ask{Use: Tracker, From: Typed, To: netip.MustParseAddrPort("127.0.0.2:9")}); err != nil {
		t.Error(err)
	}
}

func list(n int) string {
	r := rand.New(rand.NewPCG(3, 4))
	var text strings.Builder
	for i := range n {
		a := r.Uint32()
		last := a | 0xff
		fmt.Fprintf(&text, "Some organisation %d:%d.%d.%d.%d-%d.%d.%d.%d\n", i, a>>24, a>>16&255, a>>8&255, a&255, last>>24, last>>16&255, last>>8&255, last&255)
	}
	return text.String()
}

// BenchmarkBlocklist reads 500,000 ranges and says what stays in memory; beside it, the
// same list in anacrolix/torrent/iplist.
func BenchmarkBlocklist(b *testing.B) {
	text := list(500_000)
	for name, read := range map[string]func() any{
		"ours": func() any {
			var l Blocklist
			if _, err := l.read(strings.NewReader(text)); err != nil {
				b.Fatal(err)
			}
			l.sort()
			return l
		},
		"iplist": func() any {
			l, err := iplist.NewFromReader(strings.NewReader(text))
			if err != nil {
				b.Fatal(err)
			}
			return l
		},
	} {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var kept any
			for b.Loop() {
				kept = read()
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
			runtime.KeepAlive(kept)
		})
	}
}
