package webseed

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzAnswer: the head and body of an answer, as it comes over the wire, to a request for
// n bytes at off. What is not refused has the bytes that were asked for where it is said
// that they are, and whatever is refused is asked again within the hour.
func FuzzAnswer(f *testing.F) {
	const size = 2 << 20
	for _, s := range []string{
		"206 Partial Content\r\nContent-Range: bytes 100-109/2097152\r\nContent-Length: 10\r\n\r\n0123456789",
		"206 Partial Content\r\nContent-Range: bytes 90-200/*\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n",
		"206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x",
		"206 Partial Content\r\nContent-Range: bytes 100-109/2097152\r\nContent-Encoding: gzip\r\n\r\n",
		"206 Partial Content\r\nContent-Range: bytes 18446744073709551615-9/2\r\n\r\n",
		"200 OK\r\nContent-Length: 2097152\r\n\r\n", "200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "200 OK\r\n\r\n",
		"503 Service Unavailable\r\nRetry-After: 7\r\n\r\n30", "503 x\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n-1",
		"404 Not Found\r\n\r\n", "416 x\r\n\r\n", "302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "999 \x1b[31m\r\n\r\n", "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		f.Add([]byte(s), uint32(100), uint16(10))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint32, most uint16) {
		off, n := int64(at%size), int64(most)%(16<<10)+1
		if off+n > size {
			return
		}
		read := func() *http.Response {
			resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 "), strings.NewReader(string(b)))), nil)
			if err != nil {
				t.Skip()
			}
			return resp
		}
		check := func(what string, resp *http.Response, skip, mostSkip int64, err error) {
			t.Helper()
			resp.Body.Close()
			if r := (*RetryError)(nil); errors.As(err, &r) && (r.After < 0 || r.After > maxRetry || len(r.Error()) > 200) {
				t.Fatalf("%s: %v, after %v", what, r, r.After)
			}
			if err != nil {
				if skip != 0 {
					t.Fatalf("%s: skip %d beside %v", what, skip, err)
				}
				return
			}
			if skip < 0 || skip > mostSkip || resp.StatusCode != 200 && resp.StatusCode != 206 || resp.Header.Get("Content-Encoding") != "" {
				t.Fatalf("%s: %d is taken, the bytes are at %d", what, resp.StatusCode, skip)
			}
		}
		resp := read()
		skip, err := judge(resp, off, n, size)
		check("a file", resp, skip, maxSkip, err)
		if err == nil {
			first, last, total, ok := contentRange(resp.Header.Get("Content-Range"))
			switch {
			case resp.StatusCode == 206 && (!ok || first+skip != off || last < off+n-1 || total >= 0 && total != size):
				t.Fatalf("%q for %d bytes at %d: skip %d", resp.Header.Get("Content-Range"), n, off, skip)
			case resp.StatusCode == 200 && (skip != off || resp.ContentLength >= 0 && resp.ContentLength != size):
				t.Fatalf("all %d bytes for %d at %d: skip %d", resp.ContentLength, n, off, skip)
			}
		}
		resp = read()
		skip, err = judgePiece(resp, n)
		check("a piece", resp, skip, 0, err)
		if err == nil && resp.ContentLength >= 0 && resp.ContentLength != n {
			t.Fatalf("%d bytes of a piece, asked for %d", resp.ContentLength, n)
		}
	})
}
