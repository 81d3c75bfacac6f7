package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/webseed"
)

// Web seeds (BEP 19, BEP 17) are peers whose other end is package webseed. They are connected
// while something is wanted, and a minute longer.

// web is one web seed that a torrent names.
type web struct {
	url    string
	script bool  // BEP 17
	conn   *conn // nil: not connected
	fails  int
	next   time.Time // not before
	lied   bool      // or can not be used at all
}

// name is its URL without what follows a ?, which may be a secret.
func (w *web) name() string {
	s, query, _ := strings.Cut(w.url, "?")
	if query != "" {
		s += "?..."
	}
	return printable(s, 120)
}

const (
	maxWeb     = 16  // connected at a time; others replace those that fail
	maxWebKnow = 200 // as many as metainfo accepts
	webIdle    = time.Minute
	webMost    = 10 * time.Minute // between two tries, unless the server names a time
)

// webFound notes the web seeds that the metadata or the magnet names.
func (t *Torrent) webFound(urls []string, script bool) {
	for _, s := range urls {
		w := &web{url: s, script: script}
		u, err := url.Parse(s)
		if err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" {
			t.log.Warn("web seed not used: only http and https without user or fragment are", "url", w.name())
			continue
		}
		if len(t.webs) < maxWebKnow {
			t.webs = append(t.webs, w)
		}
	}
	t.countSources()
}

// webUsable says why a web seed is of no use for this torrent.
func (t *Torrent) webUsable(w *web) error {
	switch {
	case w.script && !t.info.V1:
		return errors.New("BEP 17 knows no torrent of BitTorrent v2 alone")
	case !w.script && !t.info.Single && strings.Contains(w.url, "?"):
		return errors.New("a URL with a query can be that of one file only, and the torrent has several")
	}
	return nil
}

// webTick connects to web seeds while something is wanted, and leaves those that
// nothing was wanted of for a while.
func (t *Torrent) webTick() {
	if t.store == nil || len(t.webs) == 0 {
		return
	}
	if t.hungry() {
		t.webWanted = t.clock
	}
	idle, open := t.clock.Sub(t.webWanted) > webIdle, 0
	for _, w := range t.webs {
		if w.conn == nil {
			continue
		}
		if open++; idle {
			w.conn.close(errIdle)
		}
	}
	if !t.hungry() {
		return
	}
	for _, w := range t.webs {
		if open >= maxWeb {
			return
		}
		if w.conn == nil && !w.lied && !t.clock.Before(w.next) {
			if len(t.conns) >= t.client.cfg.MaxPeers && !t.parts() {
				return
			}
			t.webOpen(w)
			open++
		}
	}
}

var errIdle = errors.New("nothing is wanted of it")

// webOpen makes a connection to a web seed and serves both of its ends.
func (t *Torrent) webOpen(w *web) {
	if err := t.webUsable(w); err != nil {
		w.lied = true
		t.log.Warn("web seed not used", "url", w.name(), "err", err)
		return
	}
	ours, theirs := net.Pipe()
	c := &conn{
		t: t, net: ours, rw: ours, fast: true, choking: true, web: w.name(), source: "web", version: "web server",
		kick: make(chan struct{}, 1), gone: make(chan struct{}), asked: map[blockKey]int{},
	}
	id := sha1.Sum(append([]byte(w.url), t.hash[:]...)) // a ban is for this torrent
	c.id = id
	if w.lied = t.client.isBannedID(id); w.lied {
		return
	}
	c.view.Pipe.Reqq = webseed.Queue
	w.conn = c
	client := t.client.cfg.Network.Client(network.WebSeed, t.webFrom)
	cfg := webseed.Config{URL: w.url, Script: w.script, Info: t.info, Agent: t.client.cfg.Version, Logger: t.log, Do: client.Do}
	p := &t.pool
	p.background(p.group, "a web seed", func() error { t.serve(p.ctx, c); return nil }) // ends with the connection
	p.group.Go(func() {                                                                 // ends with the connection
		err := fault.Catch(t.log, "a web seed", func() error { return webseed.Serve(p.ctx, theirs, cfg) })
		client.Close()
		c.close(err)
		t.post(func() { t.webEnded(w, c, err) })
	})
}

// webEnded decides when a web seed that ended is tried again.
func (t *Torrent) webEnded(w *web, c *conn, err error) {
	w.conn = nil
	if c.barred.Load() {
		w.lied = true
		return
	}
	if cause := c.cause(); errors.Is(cause, errIdle) || t.pool.ctx.Err() != nil {
		return
	}
	if c.down.Load() > 0 {
		w.fails = 0
	}
	w.fails++
	wait := min(time.Second<<min(w.fails, 20), webMost)
	if r := (*webseed.RetryError)(nil); errors.As(err, &r) && r.After > wait {
		wait = r.After
	}
	w.next = t.clock.Add(wait)
	if !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		level := slog.LevelDebug
		if w.fails == 1 {
			level = slog.LevelWarn
		}
		t.log.Log(t.pool.ctx, level, "web seed failed", "url", w.name(), "err", err, "again", wait)
	}
	t.countSources()
}

// webMore returns how many web seeds may yet be of use and are not connected, and
// whether one of them did not fail yet.
func (t *Torrent) webMore() (n int, fresh bool) {
	for _, w := range t.webs {
		if w.conn == nil && !w.lied {
			n++
			fresh = fresh || w.fails == 0
		}
	}
	return n, fresh
}

// name is how the connection is called: by its address, or URL.
func (c *conn) name() string {
	if c.web != "" {
		return c.web
	}
	return c.addr.String()
}
