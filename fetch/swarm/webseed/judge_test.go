package webseed

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// What a server may answer to a request for 10 bytes at off of 2 MiB.
func TestJudge(t *testing.T) {
	const size = 2 << 20
	for _, c := range []struct {
		status int
		header string // Content-Range
		length int64
		off    int64
		skip   int64
		err    error
	}{
		{206, "bytes 100-109/2097152", 10, 100, 0, nil},
		{206, "bytes 90-200/2097152", 111, 100, 10, nil},
		{206, "bytes 100-109/*", 10, 100, 0, nil},
		{206, "bytes 101-110/2097152", 10, 100, 0, errRange},
		{206, "bytes 100-108/2097152", 9, 100, 0, errRange},
		{206, "bytes 100-109/2097153", 10, 100, 0, errOther},
		{206, "", 10, 100, 0, errRange},
		{200, "", size, 100, 100, nil},
		{200, "", -1, 0, 0, nil},
		{200, "", size, maxSkip + 1, 0, errRanges},
		{200, "", size - 1, 0, 0, errOther},
		{404, "", 0, 0, 0, errGone},
		{410, "", 0, 0, 0, errGone},
		{416, "", 0, 0, 0, errOther},
	} {
		h := http.Header{}
		h.Set("Content-Range", c.header)
		skip, err := judge(&http.Response{StatusCode: c.status, Header: h, ContentLength: c.length}, c.off, 10, size)
		if skip != c.skip || !errors.Is(err, c.err) {
			t.Errorf("%d %q: skip %d, %v", c.status, c.header, skip, err)
		}
	}
	h := http.Header{}
	h.Set("Retry-After", "7")
	_, err := judge(&http.Response{StatusCode: http.StatusServiceUnavailable, Header: h}, 0, 10, size)
	if r := (*RetryError)(nil); !errors.As(err, &r) || r.After.Seconds() != 7 {
		t.Errorf("503: %v", err)
	}
}

// A whole file in place of a range is read up to where the range begins.
func TestGetWithoutRanges(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") }))
	defer s.Close()
	cfg := &Config{Do: s.Client().Do}
	b, err := get(t.Context(), cfg, s.URL, 3, 4, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	if got, err := io.ReadAll(b); string(got) != "3456" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A block is cut at the ends of files; padding is zeros that nobody is asked for.
func TestParts(t *testing.T) {
	info := &metainfo.Info{Length: 30, Files: []metainfo.File{{Length: 10}, {Offset: 10}, {Offset: 10, Length: 5, Pad: true}, {Offset: 15, Length: 15}}}
	got := parts(info, 8, 10)
	want := []part{{0, 8, 2}, {2, 0, 5}, {3, 0, 3}}
	if len(got) != len(want) {
		t.Fatal(got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	p := []byte{1, 2}
	if n, err := (zeros{}).Read(p); n != 2 || err != nil || p[0]+p[1] != 0 {
		t.Error(p)
	}
	s := &seed{cfg: &Config{Info: &metainfo.Info{PieceLength: 10, Length: 30, Files: info.Files}}, gone: map[int]bool{3: true}}
	if has := s.pieces(); !has[0] || has[1] || has[2] {
		t.Errorf("without the last file: %v", has)
	}
}
