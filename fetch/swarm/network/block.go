package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const listTimeout = 60 * time.Second // for the download of a blocklist

// Block reads blocklists, from files or URLs; it is called before the network is used.
// A list that cannot be had is an error, since what it forbids would be allowed without
// it; but of a URL the copy of last time, in keep, serves as well.
func (n *Network) Block(ctx context.Context, sources []string, keep string, log *slog.Logger) error {
	for _, source := range sources {
		lines, err := n.blockOne(ctx, source, keep, log)
		if err != nil {
			return fmt.Errorf("blocklist %s: %w", source, err)
		}
		if lines.Bad > 0 {
			log.Warn("blocklist has lines that are no ranges; the others are used", "blocklist", source,
				"used", lines.Good, "bad", lines.Bad, "first", lines.FirstBad, "text", lines.Example)
		}
	}
	n.blocked.sort()
	if len(sources) > 0 {
		log.Info("blocklist", "ranges", n.blocked.Len())
	}
	return nil
}

func (n *Network) blockOne(ctx context.Context, source, keep string, log *slog.Logger) (Lines, error) {
	if scheme, _, _ := strings.Cut(strings.ToLower(source), ":"); scheme != "http" && scheme != "https" {
		return n.blockFile(source)
	}
	path := filepath.Join(keep, fmt.Sprintf("%x", sha256.Sum256([]byte(source)))[:32])
	err := n.download(ctx, source, path+".new")
	if err == nil {
		trial := Network{}
		if _, err = trial.blockFile(path + ".new"); err == nil {
			err = os.Rename(path+".new", path)
		}
	}
	if err != nil {
		os.Remove(path + ".new")
		lines, kept := n.blockFile(path)
		if kept != nil {
			return lines, fmt.Errorf("%w; check the address, give a file, or leave it out", err)
		}
		log.Warn("blocklist cannot be had, the copy of last time is used", "blocklist", source, "err", err)
		return lines, nil
	}
	return n.blockFile(path)
}

func (n *Network) blockFile(path string) (Lines, error) {
	f, err := os.Open(path)
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return Lines{}, pe.Err
	}
	if err != nil {
		return Lines{}, err
	}
	defer f.Close()
	return n.blocked.read(f)
}

// download saves what a URL has.
func (n *Network) download(ctx context.Context, source, path string) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return errors.New("not a URL")
	}
	resp, _, err := n.Do(req, Download, Typed)
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err // the URL is told already
	}
	if err != nil {
		return bare(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	size, err := io.Copy(f, io.LimitReader(resp.Body, maxList+1))
	if err == nil && size > maxList {
		err = errors.New("longer than 512 MiB")
	}
	return errors.Join(err, f.Close())
}

// Blocked reports whether an address is in a blocklist.
func (n *Network) Blocked(a netip.Addr) bool { return n.blocked.Contains(a) }

// BlockedError tells that an address is in a blocklist.
type BlockedError struct {
	Use Use
	To  netip.Addr
}

func (e *BlockedError) Error() string {
	return fmt.Sprintf("%s %v refused: it is in a blocklist", e.Use, e.To)
}

// listener accepts nobody who is blocked.
type listener struct {
	net.Listener
	n *Network
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.n.Blocked(AddrPort(c.RemoteAddr()).Addr()) {
			return c, err
		}
		c.Close()
	}
}
