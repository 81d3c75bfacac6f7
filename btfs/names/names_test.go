package names

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/btns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	object = "/btfs/QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN"
	other  = "/btfs/QmQNkWdoWcUnGNE4qk3VH9JMDAVZwnYkMUqcSztGij3sxD"
)

func newKey(t testing.TB, kind int) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateKeyPairWithReader(kind, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, key crypto.PrivKey, value string, until time.Time, sequence uint64, ttl time.Duration) (peer.ID, []byte) {
	t.Helper()
	id, b, err := btns.Sign(key, value, until, sequence, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return id, b
}

// world is a DNS, records and a node in maps.
type world struct {
	texts   map[string][]string
	records map[peer.ID][]byte
	node    map[string]string
	ttl     time.Duration
	fails   error
	hangs   bool // nobody gives a record

	mu    sync.Mutex
	asked []string
}

func (w *world) note(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, name)
}

func (w *world) TXT(_ context.Context, name string) ([]string, time.Duration, error) {
	w.note(name)
	if w.fails != nil {
		return nil, 0, w.fails
	}
	texts, ok := w.texts[strings.TrimSuffix(name, ".")]
	if !ok {
		return nil, 0, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return texts, w.ttl, nil
}

func (w *world) Record(ctx context.Context, id peer.ID) ([]byte, error) {
	w.note(id.String())
	if w.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if b, ok := w.records[id]; ok {
		return b, nil
	}
	return nil, errors.New("nobody has its record")
}

func (w *world) ResolveName(_ context.Context, name string) (string, error) {
	w.note(name)
	if v, ok := w.node[name]; ok {
		return v, nil
	}
	return "", errors.New("could not resolve name")
}

func TestResolve(t *testing.T) {
	now := time.Now()
	w := &world{records: map[peer.ID][]byte{}, texts: map[string][]string{
		"_dnslink.example.org":   {"other", "dnslink=/btns/later", "dnslink=" + object + "/docs"},
		"example.org":            {"dnslink=" + other},
		"plain.example":          {"v=spf1", "dnslink=" + object},
		"_dnslink.plain.example": {"dnslink=/ipfs/x"},
		"a.loop":                 {"dnslink=/btns/b.loop"},
		"b.loop":                 {"dnslink=/btns/a.loop/x"},
		"bad.example":            {"dnslink=/btfs/Qmxyz"},
		"long.example":           {"dnslink=/btfs/" + strings.Repeat("x", 5000)},
		"none.example":           {"dnslink=https://example.org"},
		"dots.example":           {"dnslink=" + object + "/../x"},
		"control.example":        {"dnslink=" + object + "/\x1b[2J"},
	}}
	for i := range 9 {
		w.texts[fmt.Sprintf("h%d.hops", i)] = []string{fmt.Sprintf("dnslink=/btns/h%d.hops/d%d", i+1, i)}
	}
	w.texts["h9.hops"] = []string{"dnslink=" + object}
	id, b := sign(t, newKey(t, crypto.Secp256k1), object+"/signed", now.Add(time.Hour), 5, 10*time.Minute)
	w.records[id] = b
	toDomain, b := sign(t, newKey(t, crypto.Ed25519), "/btns/example.org/deep", now.Add(time.Hour), 5, 0)
	w.records[toDomain] = b
	expired, b := sign(t, newKey(t, crypto.Ed25519), object, now.Add(-time.Hour), 5, 0)
	w.records[expired] = b
	odd, b := sign(t, newKey(t, crypto.Ed25519), "https://x", now.Add(time.Hour), 5, 0)
	w.records[odd] = b
	absent, _ := sign(t, newKey(t, crypto.Ed25519), object, now, 5, 0)
	w.node = map[string]string{"/btns/" + btns.FormatKey(absent): other + "/n"}
	r := New(Config{Records: w, DNS: w, Now: func() time.Time { return now }})
	for name, want := range map[string]string{
		"/btns/example.org":                     object + "/docs dnslink 1m0s",
		"btns://EXAMPLE.org./a/b":               object + "/docs/a/b dnslink 1m0s",
		"plain.example":                         object + " dnslink 1m0s",
		"/btns/" + id.String() + "/x":           object + "/signed/x record 10m0s",
		"btns://" + btns.FormatKey(id):          object + "/signed record 10m0s",
		btns.FormatKey(toDomain) + "/y":         object + "/docs/deep/y dnslink 1m0s",
		"h2.hops":                               object + "/d8/d7/d6/d5/d4/d3/d2 dnslink 1m0s",
		"h1.hops":                               "!more than 8 names",
		"a.loop":                                "!leads back to itself",
		"bad.example":                           "!not a CID",
		"long.example":                          "!no DNSLink",
		"none.example":                          "!no DNSLink",
		"dots.example":                          "!without . and ..",
		"control.example":                       "!control characters",
		"absent.example":                        "!no DNSLink",
		"/btns/":                                "!is needed",
		"/btns/" + btns.FormatKey(id) + "/../x": "!without . and ..",
		"nodots":                                "!not a peer id",
		"exämple.org":                           "!xn--",
		"a..b":                                  "!not a domain",
		strings.Repeat("a", 64) + ".org":        "!not a domain",
		strings.Repeat("a.", 200) + "org":       "!at most 253",
		"btns://" + strings.Repeat("a", 5000):   "!at most 4095",
		btns.FormatKey(expired):                 "!expired",
		btns.FormatKey(odd):                     `!"https://x", which is neither`,
		btns.FormatKey(absent):                  "!nobody has its record",
	} {
		got, err := r.Resolve(t.Context(), name)
		text := "!"
		if err == nil {
			text = fmt.Sprint("/btfs/", got.Path, " ", got.Source, " ", got.TTL)
		} else if strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 400 {
			t.Errorf("%.50s: %q", name, err)
		} else if want[0] == '!' && strings.Contains(err.Error(), want[1:]) {
			text = want
		}
		if text != want {
			t.Errorf("%.50s: %s (%v), want %s", name, text, err, want)
		}
	}
	// The node is asked when nobody has the record, and believed.
	r = New(Config{Records: w, Node: w})
	if got, err := r.Resolve(t.Context(), btns.FormatKey(absent)); err != nil || got.Source != "node" || got.Verified() || "/btfs/"+got.Path.String() != other+"/n" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := New(Config{}).Resolve(t.Context(), btns.FormatKey(absent)); !errors.Is(err, ErrNoSource) {
		t.Error(err)
	}
	no := errors.New("there is a proxy")
	if _, err := New(Config{NoDNS: no}).Resolve(t.Context(), "example.org"); !errors.Is(err, no) {
		t.Error(err)
	}
}

// A name is asked for again only when its time is over, and never goes back to an older
// record; an error of DNS does not make the second best count.
func TestRemembered(t *testing.T) {
	now := time.Now()
	key := newKey(t, crypto.Ed25519)
	id, b := sign(t, key, object, now.Add(3*time.Hour), 5, 2*time.Hour)
	w := &world{records: map[peer.ID][]byte{id: b}, ttl: 10 * time.Second, texts: map[string][]string{"_dnslink.a.example": {"dnslink=" + object}, "b.example": {"dnslink=" + object}}}
	clock := now
	r := New(Config{Records: w, DNS: w, Now: func() time.Time { return clock }})
	ask := func(name string) (Resolved, error) { return r.Resolve(t.Context(), name) }
	for range 2 {
		if got, err := ask("a.example"); err != nil || got.TTL != 10*time.Second {
			t.Error(got, err)
		}
		if got, err := ask(id.String()); err != nil || got.TTL != time.Hour || !got.Verified() {
			t.Error(got, err)
		}
	}
	if len(w.asked) != 2 {
		t.Errorf("asked: %q", w.asked)
	}
	_, w.records[id] = sign(t, key, other, now.Add(3*time.Hour), 4, 0)
	clock = clock.Add(time.Hour)
	if got, err := ask(id.String()); err == nil || !strings.Contains(err.Error(), "number 4, and there was number 5") {
		t.Error(got, err)
	}
	_, w.records[id] = sign(t, key, other, now.Add(3*time.Hour), 6, 0)
	if got, err := ask(id.String()); err != nil || "/btfs/"+got.Path.String() != other {
		t.Error(got, err)
	}
	w.fails = &net.DNSError{Err: "server misbehaving", IsTemporary: true, Name: "b.example"}
	if got, err := ask("b.example"); err == nil || !strings.Contains(err.Error(), "looking up _dnslink.b.example: server misbehaving") {
		t.Error(got, err)
	}
}

func FuzzDNSLink(f *testing.F) {
	for _, s := range []string{"dnslink=" + object, "dnslink=/btns/a.example/x", "dnslink=/btfs/../x", "dnslink=", "dnslink=/btns/", "dnslink=/btfs/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w := &world{texts: map[string][]string{"a.example": {text, text}}}
		got, err := New(Config{DNS: w}).Resolve(t.Context(), "a.example/below")
		if err == nil && (!got.Path.CID.Defined() || got.TTL <= 0 || got.Verified()) {
			t.Errorf("%q: %+v", text, got)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n\x00") {
			t.Errorf("%q: %q", text, err)
		}
	})
}

// What the node says counts if no record comes soon, and a record if it does.
func TestRecordOrNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, record := sign(t, newKey(t, crypto.Ed25519), object, time.Now().Add(time.Hour), 1, 0)
		name := btns.FormatKey(id)
		w := &world{records: map[peer.ID][]byte{id: record}, node: map[string]string{"/btns/" + name: other}, hangs: true}
		start := time.Now()
		got, err := New(Config{Records: w, Node: w}).Resolve(t.Context(), name)
		if err != nil || got.Source != "node" || "/btfs/"+got.Path.String() != other || time.Since(start) != recordGrace {
			t.Errorf("%+v, %v, after %v", got, err, time.Since(start))
		}
		w.hangs = false
		if got, err = New(Config{Records: w, Node: w}).Resolve(t.Context(), name); err != nil || got.Source != "record" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
