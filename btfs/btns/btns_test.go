package btns

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	object = "/btfs/QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN"
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
