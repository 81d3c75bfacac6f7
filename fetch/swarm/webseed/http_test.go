package webseed

import (
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/100", "bytes 5-5/*", "bytes */10", "", "bytes 9-0/5", "bytes 0-+9/100", "bytes 0-9/9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := contentRange(s)
		if ok && (first < 0 || last < first || total != -1 && last >= total) {
			t.Fatalf("%q: %d-%d/%d", s, first, last, total)
		}
		if d := retryAfter(s, time.Now()); d < 0 || d > maxRetry {
			t.Fatalf("%q: %v", s, d)
		}
	})
}

func TestContentRange(t *testing.T) {
	for s, want := range map[string]bool{
		"bytes 0-9/100": true, "Bytes 5-5/*": true, "bytes */10": false, "bytes 9-0/50": false, "bytes 0-9/9": false,
		"bytes 0-9": false, "lines 0-9/100": false, "bytes -1-9/100": false, "bytes 0-99999999999999999999/*": false,
	} {
		if _, _, _, ok := contentRange(s); ok != want {
			t.Errorf("%q: %v", s, ok)
		}
	}
}

func TestFileURL(t *testing.T) {
	info := &metainfo.Info{Name: "a b", Files: []metainfo.File{{Path: []string{"..", "c%?#é", "\xff"}}}}
	if got, want := fileURL("http://h/x/", info, 0), "http://h/x/a%20b/%2E%2E/c%25%3F%23%C3%A9/%FF"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	info.Single = true
	for base, want := range map[string]string{"http://h/x/": "http://h/x/a%20b", "http://h/x": "http://h/x", "http://h/?k=/": "http://h/a%20b?k=/", "http://h/x?k=v": "http://h/x?k=v"} {
		if got := fileURL(base, info, 0); got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
	if strings.Contains(escape("."), ".") {
		t.Error("a dot is a folder")
	}
}
