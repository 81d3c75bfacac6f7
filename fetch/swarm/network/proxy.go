package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/proxy"
)

const proxyTimeout = 30 * time.Second // a proxy that is a chain of others takes longer

// ErrProxied means that something cannot be done through the proxy, and so is not.
var ErrProxied = errors.New("not through the proxy, which takes TCP only, unless --proxy-udp says more")

// parseProxy reads socks5://[user@]host:port. Its errors do not repeat it: it may have
// a password in it, in spite of what is asked for.
func parseProxy(s, password string) (addr string, auth *proxy.Auth, err error) {
	const advice = "give it as socks5://host:port or socks5://user@host:port"
	u, err := url.Parse(s)
	if err != nil {
		return "", nil, errors.New("proxy: not a URL; " + advice)
	}
	port, perr := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "socks5" && u.Scheme != "socks5h":
		return "", nil, fmt.Errorf("proxy: %.20q is no kind of proxy that is known; %s", u.Scheme, advice)
	case u.Hostname() == "" || perr != nil || port == 0:
		return "", nil, errors.New("proxy: host or port is missing; " + advice)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", nil, errors.New("proxy: something follows the port; " + advice)
	}
	if _, has := u.User.Password(); has {
		return "", nil, errors.New("proxy: a password in the URL can be seen by every user of this machine; put it in a file and name that with --proxy-password-file")
	}
	name := u.User.Username()
	switch {
	case name == "" && password != "":
		return "", nil, errors.New("proxy: there is a password and no user; " + advice)
	case len(name) > 255 || len(password) > 255:
		return "", nil, errors.New("proxy: user and password may have 255 bytes each, no more")
	case name != "" && password == "":
		return "", nil, errors.New("proxy: there is a user and no password; put it in a file and name that with --proxy-password-file")
	case name != "":
		auth = &proxy.Auth{User: name, Password: password}
	}
	return u.Host, auth, nil
}

// proxied is what a connection through the proxy looks like: at the other end is whom
// it was dialled to, and not the proxy.
type proxied struct {
	net.Conn
	to net.Addr
}

func (p proxied) RemoteAddr() net.Addr { return p.to }

// name is the address of a server whose IP address only the proxy knows.
type name string

func (name) Network() string  { return "tcp" }
func (n name) String() string { return string(n) }

// throughProxy connects to host:port. Names are looked up by the proxy, and so the
// policy sees addresses that were named as such, and the name of this machine.
func (n *Network) throughProxy(ctx context.Context, hostport string, a *Ask) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	var remote net.Addr = name(hostport)
	ask := *a
	if isLocal(host) {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, err
		}
		ask.To = netip.AddrPortFrom(ip.Unmap(), uint16(p))
		if err := n.Allow(ask); err != nil {
			return nil, err
		}
		remote = net.TCPAddrFromAddrPort(ask.To)
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	d, err := proxy.SOCKS5("tcp", n.proxy, n.auth, toProxy{n})
	if err != nil {
		return nil, err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", hostport)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %v", n.proxy, cause(err))
	}
	return proxied{c, remote}, nil
}

// toProxy dials the proxy itself, bound like everything.
type toProxy struct{ n *Network }

func (t toProxy) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: t.n.bound.local(network), Resolver: t.n.resolver, Control: t.n.control, KeepAlive: keepAlive}
	return d.DialContext(ctx, network, addr)
}

func (t toProxy) Dial(network, addr string) (net.Conn, error) {
	return t.DialContext(context.Background(), network, addr)
}
