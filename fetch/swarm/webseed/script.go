package webseed

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// getPiece asks a script for n bytes at off of the torrent, all in one piece (BEP 17).
func getPiece(ctx context.Context, cfg *Config, off, n int64) (*body, error) {
	return ask(ctx, cfg, pieceURL(cfg, off, n), n, func(*http.Request) {}, func(resp *http.Response) (int64, error) {
		return judgePiece(resp, n)
	})
}

func pieceURL(cfg *Config, off, n int64) string {
	var hash strings.Builder
	for _, c := range cfg.Info.Hash {
		fmt.Fprintf(&hash, "%%%02X", c)
	}
	sep := "?"
	if strings.Contains(cfg.URL, "?") {
		sep = "&"
	}
	piece, begin := off/cfg.Info.PieceLength, off%cfg.Info.PieceLength
	return fmt.Sprintf("%s%sinfo_hash=%s&piece=%d&ranges=%d-%d", cfg.URL, sep, &hash, piece, begin, begin+n-1)
}

// judgePiece judges the answer of a script, which says in the text of a 503 in how many
// seconds it wants to be asked again.
func judgePiece(resp *http.Response, n int64) (skip int64, err error) {
	switch c := resp.StatusCode; {
	case c == http.StatusOK || c == http.StatusPartialContent:
		if resp.Header.Get("Content-Encoding") != "" || resp.ContentLength >= 0 && resp.ContentLength != n {
			return 0, errRange
		}
		return 0, nil
	case c == http.StatusServiceUnavailable:
		r := retry(resp)
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 32)) // what stops is stopped by who asks
		if s, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31); err == nil {
			r.After = min(time.Duration(s)*time.Second, maxRetry)
		}
		return 0, r
	}
	return 0, retry(resp)
}
