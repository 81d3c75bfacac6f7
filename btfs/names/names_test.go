package names

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
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
	id, b, err := Sign(key, value, until, sequence, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return id, b
}

// Records of every kind of key are taken, and not when anything that counts is changed.
func TestVerify(t *testing.T) {
	now := time.Now()
	_, stranger := sign(t, newKey(t, crypto.Ed25519), object, now.Add(time.Hour), 1, 0)
	for name, kind := range map[string]int{"Ed25519": crypto.Ed25519, "secp256k1": crypto.Secp256k1, "RSA": crypto.RSA} {
		id, b := sign(t, newKey(t, kind), object, now.Add(time.Hour), 7, time.Minute)
		r, err := Verify(id, b, now)
		if err != nil || r.Value != object || r.Sequence != 7 || r.TTL != time.Minute || !r.Until.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err := (Validator{}).Validate(RecordKey(id), b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Verify(id, b, now.Add(2*time.Hour)); !errors.Is(err, ErrExpired) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Verify(id, stranger, now); err == nil {
			t.Errorf("%s: a stranger's record is taken", name)
		}
		for _, at := range []string{"QmZULk", "EN"} {
			i := strings.Index(string(b), at)
			c := append([]byte(nil), b...)
			c[i] ^= 1
			if _, err := Verify(id, c, now); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: changed at %s: %v", name, at, err)
			}
		}
	}
	key := newKey(t, crypto.RSA)
	id, b := sign(t, key, object, now.Add(time.Hour), 1, 0)
	e, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(id, b[:len(b)-len(e.key)-3], now); !errors.Is(err, ErrNoKey) {
		t.Errorf("without its key: %v", err)
	}
	edID, edRecord := sign(t, newKey(t, crypto.Ed25519), object, now.Add(time.Hour), 1, 0)
	swapped := append(append([]byte(nil), edRecord...), b[len(b)-len(e.key)-3:]...) // another's key
	if _, err := Verify(edID, swapped, now); !errors.Is(err, ErrOtherKey) {
		t.Errorf("with the key of another: %v", err)
	}
	for _, bad := range [][]byte{nil, {}, []byte("x"), make([]byte, MaxRecord+1), b[:10], append([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, b...), {0x18, 0x01}} {
		if _, err := Verify(id, bad, now); err == nil {
			t.Errorf("%.20x is taken", bad)
		}
	}
	if (Validator{}).Validate("/ipns/"+string(id), b) == nil || (Validator{}).Validate(prefix, b) == nil {
		t.Error("another key of the DHT is taken")
	}
}

func TestSelect(t *testing.T) {
	now := time.Now()
	key := newKey(t, crypto.Ed25519)
	var all [][]byte
	for _, x := range []struct {
		seq  uint64
		ends time.Duration
	}{{1, 9 * time.Hour}, {3, time.Hour}, {3, 2 * time.Hour}, {2, 9 * time.Hour}} {
		_, b := sign(t, key, object, now.Add(x.ends), x.seq, 0)
		all = append(all, b)
	}
	if i, err := (Validator{}).Select("", append(all, []byte("junk"))); i != 2 || err != nil {
		t.Error(i, err)
	}
	if _, err := (Validator{}).Select("", [][]byte{{1}}); err == nil {
		t.Error("of junk there is a best")
	}
}

func TestParseKey(t *testing.T) {
	id, _ := sign(t, newKey(t, crypto.Secp256k1), object, time.Now(), 1, 0)
	ed, _ := sign(t, newKey(t, crypto.Ed25519), object, time.Now(), 1, 0)
	rsa, _ := sign(t, newKey(t, crypto.RSA), object, time.Now(), 1, 0)
	if !strings.HasPrefix(id.String(), "16Uiu2HA") || !strings.HasPrefix(FormatKey(ed), "k51") || !strings.HasPrefix(rsa.String(), "Qm") {
		t.Error(id, FormatKey(ed), rsa)
	}
	for _, want := range []peer.ID{id, ed, rsa} {
		for _, text := range []string{want.String(), FormatKey(want), peer.ToCid(want).String()} {
			if got, err := ParseKey(text); got != want || err != nil {
				t.Errorf("%s: %v, %v", text, got, err)
			}
		}
	}
	for _, bad := range []string{"", "x", "k51", "QmZULk", strings.TrimPrefix(object, "/btfs/") + "x", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", strings.Repeat("k", 1000), "\x1b[2J", "1" + strings.Repeat("1", 60)} {
		if got, err := ParseKey(bad); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

// world is a DNS, records and a node in maps.
type world struct {
	texts   map[string][]string
	records map[peer.ID][]byte
	node    map[string]string
	ttl     time.Duration
	fails   error
	asked   []string
}

func (w *world) TXT(_ context.Context, name string) ([]string, time.Duration, error) {
	w.asked = append(w.asked, name)
	if w.fails != nil {
		return nil, 0, w.fails
	}
	texts, ok := w.texts[strings.TrimSuffix(name, ".")]
	if !ok {
		return nil, 0, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return texts, w.ttl, nil
}

func (w *world) Record(_ context.Context, id peer.ID) ([]byte, error) {
	w.asked = append(w.asked, id.String())
	if b, ok := w.records[id]; ok {
		return b, nil
	}
	return nil, errors.New("nobody has its record")
}

func (w *world) ResolveName(_ context.Context, name string) (string, error) {
	w.asked = append(w.asked, name)
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
	w.node = map[string]string{"/btns/" + FormatKey(absent): other + "/n"}
	r := New(Config{Records: w, DNS: w, Now: func() time.Time { return now }})
	for name, want := range map[string]string{
		"/btns/example.org":                   object + "/docs dnslink 1m0s",
		"btns://EXAMPLE.org./a/b":             object + "/docs/a/b dnslink 1m0s",
		"plain.example":                       object + " dnslink 1m0s",
		"/btns/" + id.String() + "/x":         object + "/signed/x record 10m0s",
		"btns://" + FormatKey(id):             object + "/signed record 10m0s",
		FormatKey(toDomain) + "/y":            object + "/docs/deep/y dnslink 1m0s",
		"h2.hops":                             object + "/d8/d7/d6/d5/d4/d3/d2 dnslink 1m0s",
		"h1.hops":                             "!more than 8 names",
		"a.loop":                              "!leads back to itself",
		"bad.example":                         "!not a CID",
		"long.example":                        "!no DNSLink",
		"none.example":                        "!no DNSLink",
		"dots.example":                        "!without . and ..",
		"control.example":                     "!control characters",
		"absent.example":                      "!no DNSLink",
		"/btns/":                              "!is needed",
		"/btns/" + FormatKey(id) + "/../x":    "!without . and ..",
		"nodots":                              "!not a peer id",
		"exämple.org":                         "!xn--",
		"a..b":                                "!not a domain",
		strings.Repeat("a", 64) + ".org":      "!not a domain",
		strings.Repeat("a.", 200) + "org":     "!at most 253",
		"btns://" + strings.Repeat("a", 5000): "!at most 4095",
		FormatKey(expired):                    "!expired",
		FormatKey(odd):                        `!"https://x", which is neither`,
		FormatKey(absent):                     "!nobody has its record",
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
	if got, err := r.Resolve(t.Context(), FormatKey(absent)); err != nil || got.Source != "node" || got.Verified() || "/btfs/"+got.Path.String() != other+"/n" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := New(Config{}).Resolve(t.Context(), FormatKey(absent)); !errors.Is(err, ErrNoSource) {
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

func FuzzVerify(f *testing.F) {
	key := newKey(f, crypto.Ed25519)
	id, b := sign(f, key, object, time.Now().Add(time.Hour), 1, time.Minute)
	rsa, c := sign(f, newKey(f, crypto.RSA), object, time.Now().Add(time.Hour), 1, 0)
	f.Add(b)
	f.Add(c)
	f.Add([]byte{0x0a, 0x01, 'x', 0x12, 0x01, 'y', 0x38, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, id := range []peer.ID{id, rsa} {
			if r, err := Verify(id, b, time.Now()); err == nil && r.Value != object {
				t.Errorf("%+v was never signed", r)
			}
		}
		_, _ = Validator{}.Select("", [][]byte{b, b})
	})
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
