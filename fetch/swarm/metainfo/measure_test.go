package metainfo

import (
	"bytes"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
)

func TestMeasure(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want int // -1: an error
	}{
		{"i5e", 1, 3},
		{"0:", 1, 2},
		{"3:abcd", 1, 5},
		{"d1:ai5eerest", 3, 8},
		{"d1:ai5ee", 2, -1},
		{"l" + strings.Repeat("0:", 100) + "e", 101, 202},
		{"l" + strings.Repeat("0:", 100) + "e", 100, -1},
		{strings.Repeat("l", measureDepth) + strings.Repeat("e", measureDepth), 100, 2 * measureDepth},
		{strings.Repeat("l", measureDepth+1) + strings.Repeat("e", measureDepth+1), 100, -1},
		{"", 9, -1},
		{"e", 9, -1},
		{"i5", 9, -1},
		{"4:abc", 9, -1},
		{"99999999999:", 9, -1},
		{"d1:a", 9, -1},
		{"x", 9, -1},
	} {
		n, err := Measure([]byte(c.text), c.most)
		if err != nil {
			n = -1
		}
		if n != c.want {
			t.Errorf("%.40q: %d, want %d", c.text, n, c.want)
		}
	}
}

// FuzzMeasure: what the library decodes without anything left over is as long as is
// measured, and what is measured is no longer than what there is.
func FuzzMeasure(f *testing.F) {
	for _, s := range []string{"d1:md6:ut_pexi1eee", "l0:0:e", "i-5e", "d1:ale", "3:abcrest", strings.Repeat("l", 40), "i00000000000000000000e", "01:a"} {
		f.Add([]byte(s), 10)
	}
	f.Fuzz(func(t *testing.T, b []byte, most int) {
		n, err := Measure(b, most)
		if err == nil && (n <= 0 || n > len(b)) {
			t.Fatalf("%q has %d bytes", b, n)
		}
		if bytes.Count(b, []byte("l"))+bytes.Count(b, []byte("d")) > measureDepth || len(b) > 100 || most < len(b) {
			return // the library allows more
		}
		var v any
		if bencode.Unmarshal(b, &v) == nil && (err != nil || n != len(b)) {
			t.Fatalf("%q of %d bytes is measured as %d: %v", b, len(b), n, err)
		}
	})
}
