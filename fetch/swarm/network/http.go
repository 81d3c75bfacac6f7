package network

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	maxRedirects = 5
	tlsTimeout   = 15 * time.Second
)

// journey is one request with its redirects: what the policy is asked at the next hop.
type journey struct {
	ctx  context.Context // of the request: package http would go on to connect without it
	ask  Ask
	last netip.Addr // of the server that answered last; not valid behind a proxy
}

type journeyKey struct{}

// Do sends a request of HTTP, follows up to five redirects, and asks the policy before
// it connects to each server: a redirect may not lead nearer than it comes from. via is
// the address of the server that answered.
//
// Between requests there is no state: no cookies, no kept connections (a connection
// serves one hop, so that the policy is asked at each), and no proxy of the environment,
// which would go around the policy.
func (n *Network) Do(req *http.Request, use Use, from Origin) (resp *http.Response, via netip.Addr, err error) {
	return n.DoOver("", req, use, from)
}

// DoOver is Do over one family only: tcp4, tcp6, or "" for any.
func (n *Network) DoOver(family string, req *http.Request, use Use, from Origin) (resp *http.Response, via netip.Addr, err error) {
	j := &journey{ctx: req.Context(), ask: Ask{Use: use, From: from, Path: req.URL.Path, Only: family}}
	c := http.Client{Transport: n.transport(), CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("too many redirects (%d); check the address", len(via))
		}
		if s := next.URL.Scheme; s != "http" && s != "https" {
			return fmt.Errorf("redirect to %.16q refused", s)
		}
		j.ask = Ask{Use: use, From: Told, Via: j.last, Path: next.URL.Path, Only: family}
		return nil
	}}
	resp, err = c.Do(req.WithContext(context.WithValue(req.Context(), journeyKey{}, j)))
	if err != nil { // a connection may still be under way, and write to j
		return nil, via, err
	}
	return resp, j.last, nil
}

// transport is made for one request; without kept connections it owns nothing.
func (n *Network) transport() *http.Transport {
	return &http.Transport{
		DialContext:            n.hop,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSHandshakeTimeout:    tlsTimeout,
	}
}

// hop connects for the next hop of a journey.
func (n *Network) hop(ctx context.Context, _, hostport string) (net.Conn, error) {
	j := ctx.Value(journeyKey{}).(*journey)
	c, err := n.dial(j.ctx, hostport, &j.ask)
	if err != nil {
		return nil, err
	}
	j.last = addrPort(c.RemoteAddr()).Addr()
	return c, nil
}
