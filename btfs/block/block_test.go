package block

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func hash(t testing.TB, b []byte, code uint64, length int) multihash.Multihash {
	t.Helper()
	h, err := multihash.Sum(b, code, length)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestParse(t *testing.T) {
	const v0, v1 = "QmQNkWdoWcUnGNE4qk3VH9JMDAVZwnYkMUqcSztGij3sxD", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
	for text, want := range map[string]string{
		v0:                       "",
		v1:                       "",
		"":                       "not a CID",
		"Qm":                     "not a CID",
		v0[:45]:                  "not a CID",
		v0 + "x":                 "not a CID",
		"hello":                  "not a CID",
		strings.Repeat("Q", 600): "not a CID: 600 characters",
		cid.NewCidV1(cid.DagCBOR, hash(t, nil, multihash.SHA2_256, -1)).String():     "codec 0x71",
		cid.NewCidV1(cid.Raw, hash(t, nil, multihash.SHA1, -1)).String():             "hash sha1",
		cid.NewCidV1(cid.Raw, hash(t, nil, multihash.SHA2_256, 20)).String():         "a hash of 20 bytes",
		cid.NewCidV1(cid.Raw, hash(t, make([]byte, 129), 0, -1)).String():            "an identity CID of 129 bytes",
		cid.NewCidV1(cid.Raw, hash(t, make([]byte, 128), 0, -1)).String():            "",
		cid.NewCidV1(cid.DagProtobuf, hash(t, nil, multihash.SHA2_256, -1)).String(): "",
	} {
		c, err := Parse(text)
		if want == "" && (err != nil || c.String() != text) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v; want %q", text, c, err, want)
		}
	}
}

func TestVerify(t *testing.T) {
	good := []byte("some bytes")
	sha := cid.NewCidV1(cid.Raw, hash(t, good, multihash.SHA2_256, -1))
	inline := cid.NewCidV1(cid.Raw, hash(t, good, multihash.IDENTITY, -1))
	for _, c := range []cid.Cid{sha, inline} {
		if err := Verify(c, good); err != nil {
			t.Error(err)
		}
		for _, bad := range []string{"", "some byteS", "some bytes\x00", "some byte"} {
			if err := Verify(c, []byte(bad)); !errors.Is(err, ErrWrongBytes) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
	big := make([]byte, MaxSize+1)
	if err := Verify(cid.NewCidV1(cid.Raw, hash(t, big, multihash.SHA2_256, -1)), big); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := Verify(cid.NewCidV1(cid.Raw, hash(t, big[1:], multihash.SHA2_256, -1)), big[1:]); err != nil {
		t.Error(err)
	}
	if err := Verify(cid.Undef, nil); err == nil {
		t.Error("no CID")
	}
	if b, ok := Inline(inline); !ok || string(b) != string(good) {
		t.Error(b, ok)
	}
	if _, ok := Inline(sha); ok {
		t.Error("sha2-256 is not inline")
	}
}

// Whatever is parsed can be checked, and prints as something that is parsed again.
func FuzzParse(f *testing.F) {
	f.Add("QmQNkWdoWcUnGNE4qk3VH9JMDAVZwnYkMUqcSztGij3sxD")
	f.Add("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
	f.Add("f01550000")
	f.Add("bafkqaaa")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(c.String())
		if err != nil || !again.Equals(c) {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
		if b, ok := Inline(c); ok && Verify(c, b) != nil {
			t.Fatalf("%q is not what it holds", text)
		}
	})
}
