package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// found is one torrent that a source names.
type found struct {
	from     string // how to call it in messages
	meta     *metainfo.Meta
	hash     metainfo.InfoHash // if there is no meta
	hashV2   [32]byte          // of a magnet that has it
	name     string
	trackers []string
	webSeeds []string
	peers    []netip.AddrPort
	only     []int // files that a magnet selects (BEP 53); nil: all
}

// label is the name of a torrent whose metadata is missing.
func (f found) label() string {
	if f.name != "" {
		return f.name
	}
	return f.hash.String()
}

const (
	maxTorrent   = 32 << 20
	fetchTimeout = 30 * time.Second
)

// resolve finds the torrents that a source names: a magnet link, an info-hash, a URL
// of a .torrent, a .torrent file, or a folder of them. What is in a folder is read when
// it is asked for: there may be many.
func resolve(ctx context.Context, n *network.Network, source string) []func() (found, error) {
	one := func(f found, err error) []func() (found, error) {
		return []func() (found, error){func() (found, error) { return named(shorten(source), f, err) }}
	}
	switch scheme, _, _ := strings.Cut(strings.ToLower(source), ":"); scheme {
	case "magnet":
		return one(fromMagnet(source))
	case "http", "https":
		return one(fromURL(ctx, n, source))
	}
	if h, err := metainfo.ParseInfoHash(source); err == nil {
		if _, err := os.Stat(source); err != nil {
			return one(found{hash: h}, nil)
		}
	}
	st, err := os.Stat(source)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return one(found{}, errors.New("no such file; give a .torrent, a folder of them, a magnet link, a URL or 40 hex digits"))
	case err != nil:
		return one(found{}, bare(err))
	case st.IsDir():
		paths, err := folder(source)
		if err != nil {
			return one(found{}, err)
		}
		out := make([]func() (found, error), 0, len(paths))
		for _, path := range paths {
			out = append(out, func() (found, error) {
				f, err := fromFile(path)
				return named(shorten(path), f, err)
			})
		}
		return out
	}
	return one(fromFile(source))
}

// shorten keeps a source short enough for one line of a message, without what
// would move the cursor.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 120 {
		return s[:117] + "..."
	}
	return s
}

func fromMagnet(s string) (found, error) {
	m, err := metainfo.ParseMagnet(s)
	if err != nil {
		return found{}, fmt.Errorf("%w; check that the link is whole, and quote it in a shell", err)
	}
	f := found{hash: m.Hash, hashV2: m.HashV2, name: m.Name, trackers: m.Trackers, webSeeds: m.WebSeeds, only: m.Select}
	for _, p := range m.Peers {
		if a, err := netip.ParseAddrPort(p); err == nil {
			f.peers = append(f.peers, a)
		}
	}
	return f, nil
}

func fromFile(path string) (found, error) {
	file, err := os.Open(path)
	if err != nil {
		return found{}, bare(err)
	}
	defer file.Close()
	return parse(file)
}

func parse(r io.Reader) (found, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxTorrent+1))
	if err != nil {
		return found{}, bare(err)
	}
	m, err := metainfo.Parse(b)
	if err != nil {
		return found{}, fmt.Errorf("%w; get another copy of the .torrent", err)
	}
	return found{meta: m, hash: m.Info.Hash, name: m.Info.Name}, nil
}

// named says in f and in its error where it is from.
func named(from string, f found, err error) (found, error) {
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", from, err)
	}
	f.from = from
	return f, nil
}

// folder returns the paths of every .torrent of a folder, in the order of their names.
func folder(dir string) (paths []string, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, bare(err)
	}
	for _, e := range list {
		if strings.EqualFold(filepath.Ext(e.Name()), ".torrent") && !e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("no .torrent file in this folder; name one that has some")
	}
	return paths, nil
}

// fromURL fetches a .torrent over HTTP.
func fromURL(ctx context.Context, n *network.Network, source string) (found, error) {
	u, err := url.Parse(source)
	if err != nil || u.Host == "" {
		return found{}, errors.New("not a URL of a .torrent")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return found{}, err
	}
	res, _, err := n.Do(req, network.Download, network.Typed)
	if err != nil {
		return found{}, netCause(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return found{}, fmt.Errorf("the server answers %s; check the address", res.Status)
	}
	f, err := parse(res.Body)
	if err != nil && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		return found{}, errors.New("the server sent a web page, not a .torrent; give the address of the .torrent itself")
	}
	return f, err
}

// netCause drops the URL and the operation that net/http repeats.
func netCause(err error) error {
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return fmt.Errorf("cannot connect: %w; check the address", op.Err)
	}
	return err
}
