package network

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestProxySettings(t *testing.T) {
	for _, c := range []struct{ url, password, reason string }{
		{"socks5://127.0.0.1:1080", "", ""},
		{"socks5h://proxy.example:1080/", "", ""},
		{"socks5://me@[::1]:1080", "pass", ""},
		{"http://127.0.0.1:1080", "", "no kind of proxy"},
		{"127.0.0.1:1080", "", "not a URL"},
		{"socks5://127.0.0.1", "", "port is missing"},
		{"socks5://:1080", "", "host or port is missing"},
		{"socks5://h:0", "", "port is missing"},
		{"socks5://h:99999", "", "port is missing"},
		{"socks5://h:1/path", "", "follows the port"},
		{"socks5://me:secret@h:1", "", "--proxy-password-file"},
		{"socks5://me:secret@h:x", "", "not a URL"},
		{"socks5://me@h:1", "", "a user and no password"},
		{"socks5://h:1", "secret", "a password and no user"},
		{"socks5://me@h:1", strings.Repeat("secret", 100), "255 bytes"},
		{"", "secret", "a password and no proxy"},
	} {
		n, err := Open(Config{Proxy: c.url, ProxyPassword: c.password})
		if (err == nil) != (c.reason == "") || err != nil && (!strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v", c.url, err)
		}
		if err == nil && !n.Proxied() {
			t.Errorf("%s: no proxy", c.url)
		}
	}
}

// What a proxy cannot do is not done.
func TestProxyRefuses(t *testing.T) {
	n, err := Open(Config{Proxy: "socks5://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := n.Listen(t.Context(), "127.0.0.1:0")
	_, err2 := n.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	_, err3 := n.Resolve(t.Context(), "localhost:80")
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, ErrProxied) {
			t.Error(i, err)
		}
	}
	refused := (*RefusedError)(nil)
	for _, to := range []string{"127.0.0.1:80", "192.168.1.1:80"} {
		if _, err := n.Dial(t.Context(), Ask{Use: Peer, From: Told, To: netip.MustParseAddrPort(to)}); !errors.As(err, &refused) {
			t.Error(to, err)
		}
	}
	for _, url := range []string{"http://localhost/announce", "http://LOCALHOST./announce", "http://x.localhost/announce", "http://127.0.0.1/announce", "http://[::ffff:7f00:1]/announce"} {
		if _, err := get(t, n, url, Tracker, File); !errors.As(err, &refused) {
			t.Error(url, err)
		}
	}
	if _, err := get(t, n, "http://tracker.example/announce", Tracker, File); err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "through the proxy") {
		t.Error(err)
	}
}
