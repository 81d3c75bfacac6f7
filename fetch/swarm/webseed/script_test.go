package webseed

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

func TestPieceURL(t *testing.T) {
	info := &metainfo.Info{PieceLength: 100, Length: 250}
	info.Hash[0], info.Hash[19] = 0xff, 'a'
	hash := "info_hash=%FF" + strings.Repeat("%00", 18) + "%61"
	for base, want := range map[string]string{
		"http://h/seed.php":     "http://h/seed.php?" + hash + "&piece=2&ranges=10-29",
		"http://h/seed.php?k=v": "http://h/seed.php?k=v&" + hash + "&piece=2&ranges=10-29",
	} {
		if got := pieceURL(&Config{URL: base, Info: info}, 210, 20); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// What a script may answer to a request for 10 bytes.
func TestJudgePiece(t *testing.T) {
	for _, c := range []struct {
		status int
		length int64
		text   string
		ok     bool
		after  time.Duration
	}{
		{200, 10, "", true, 0},
		{200, -1, "", true, 0},
		{206, 10, "", true, 0},
		{200, 11, "", false, 0},
		{503, 3, " 75", false, 75 * time.Second},
		{503, -1, "9999999", false, maxRetry},
		{503, -1, "come back later", false, 0},
		{404, -1, "5", false, 0},
		{302, -1, "", false, 0},
	} {
		skip, err := judgePiece(&http.Response{StatusCode: c.status, ContentLength: c.length, Body: io.NopCloser(strings.NewReader(c.text))}, 10)
		r := &RetryError{}
		if skip != 0 || (err == nil) != c.ok || errors.As(err, &r) && r.After != c.after {
			t.Errorf("%d, %d bytes, %q: %v after %v", c.status, c.length, c.text, err, r.After)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 90 ": 90 * time.Second, "99999": maxRetry, "-1": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:05:00 GMT":  55 * time.Second,
		"Friday, 02-Jan-26 03:05:00 GMT": 55 * time.Second,
		"Fri Jan  2 03:05:00 2026":       55 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT":  0,
		"Fri, 02 Jan 2099 03:04:00 GMT":  maxRetry,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	// By the server's clock, which may be another.
	h := http.Header{}
	h.Set("Date", "Fri, 02 Jan 2015 03:04:00 GMT")
	h.Set("Retry-After", "Fri, 02 Jan 2015 03:06:00 GMT")
	if got := retry(&http.Response{Header: h}).After; got != 2*time.Minute {
		t.Errorf("%v", got)
	}
}
