package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	maxRedirects = 5
	tlsTimeout   = 15 * time.Second
	idleTimeout  = time.Minute
	maxIdle      = 4 // connections kept of one server
)

// Client sends requests of HTTP, follows up to five redirects, and asks the policy
// before it connects to each server: a redirect may not lead nearer than it comes from.
// There are no cookies, no Referer, which would tell one server the secrets in the URL of
// another, and no proxy of the environment, which would go around the policy.
//
// It keeps connections. One is used again only for hops that the policy judges as it
// judged the hop that it was opened for: first hops, or redirects by servers equally near.
type Client struct {
	n      *Network
	first  Ask // of a first hop, but for its path
	keep   bool
	ctx    context.Context // ends what connects
	cancel context.CancelFunc

	mu    sync.Mutex
	pools map[scope]*http.Transport
}

// scope is what the policy's answer depends on beside the address and the path.
type scope struct {
	from   Origin
	teller zone
	path   string // of a tracker: some are asked for their path's sake
}

// journey is one request with its redirects: what the policy is asked at the next hop.
// It belongs to the goroutine that sends the request.
type journey struct {
	ask  Ask
	last netip.Addr // of the server that answered last; not valid behind a proxy
}

type (
	journeyKey struct{}
	hopKey     struct{}
)

// Client returns a client for one use and for URLs of one origin. Close ends it.
func (n *Network) Client(use Use, from Origin) *Client {
	c := n.client("", use, from)
	c.keep = true
	return c
}

func (n *Network) client(family string, use Use, from Origin) *Client {
	c := &Client{n: n, first: Ask{Use: use, From: from, Only: family}, pools: map[scope]*http.Transport{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Do sends a request with a [Client] that keeps nothing. via is the address of the
// server that answered.
func (n *Network) Do(req *http.Request, use Use, from Origin) (resp *http.Response, via netip.Addr, err error) {
	return n.DoOver("", req, use, from)
}

// DoOver is Do over one family only: tcp4, tcp6, or "" for any.
func (n *Network) DoOver(family string, req *http.Request, use Use, from Origin) (resp *http.Response, via netip.Addr, err error) {
	c := n.client(family, use, from)
	defer context.AfterFunc(req.Context(), c.cancel)() // package http would go on to connect without it
	return c.do(req)
}

// Do sends a request. Its errors do not repeat the URL.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	resp, _, err := c.do(req)
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	return resp, err
}

func (c *Client) do(req *http.Request) (resp *http.Response, via netip.Addr, err error) {
	j := &journey{ask: c.first}
	j.ask.Path = req.URL.Path
	h := http.Client{Transport: c, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("too many redirects (%d); check the address", len(via))
		}
		if s := next.URL.Scheme; s != "http" && s != "https" {
			return fmt.Errorf("redirect to %.16q refused", s)
		}
		next.Header.Del("Referer")
		j.ask = Ask{Use: c.first.Use, From: Told, Via: j.last, Path: next.URL.Path, Only: c.first.Only}
		return nil
	}}
	resp, err = h.Do(req.WithContext(context.WithValue(req.Context(), journeyKey{}, j)))
	if err != nil {
		return nil, via, err
	}
	return resp, j.last, nil
}

// RoundTrip is one hop; it is for package http, which calls it.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	j := req.Context().Value(journeyKey{}).(*journey)
	var answered netip.Addr // written by this goroutine, while RoundTrip runs
	ctx := context.WithValue(req.Context(), hopKey{}, j.ask)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(g httptrace.GotConnInfo) {
		answered = AddrPort(g.Conn.RemoteAddr()).Addr()
	}})
	resp, err := c.pool(&j.ask).RoundTrip(req.WithContext(ctx))
	j.last = answered
	return resp, err
}

// pool is where connections for a hop are kept.
func (c *Client) pool(a *Ask) *http.Transport {
	key := scope{from: a.From}
	if a.Use == Tracker {
		key.path = a.Path
	}
	if a.From == Told {
		key.teller = zoneOfTeller(a.Via)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pools[key] == nil {
		c.pools[key] = &http.Transport{
			DialContext:            c.hop,
			DisableKeepAlives:      !c.keep,
			MaxIdleConnsPerHost:    maxIdle,
			MaxIdleConns:           2 * maxIdle,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			TLSHandshakeTimeout:    tlsTimeout,
		}
	}
	return c.pools[key]
}

// hop connects. Package http lets that go on when the request has ended, for the next one.
func (c *Client) hop(ctx context.Context, _, hostport string) (net.Conn, error) {
	ask := ctx.Value(hopKey{}).(Ask)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	return c.n.dial(ctx, hostport, &ask)
}

// Close ends the connections that are kept. Those of answers that are still read end
// with them.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.pools {
		t.CloseIdleConnections()
	}
}
