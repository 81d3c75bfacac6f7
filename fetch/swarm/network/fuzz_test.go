package network

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/proxy"
)

// socksServer is the connection to a proxy that says what the test has prepared.
type socksServer struct {
	net.Conn
	says *bytes.Reader
	sent []byte
}

func (s *socksServer) Read(b []byte) (int, error)  { return s.says.Read(b) }
func (s *socksServer) Write(b []byte) (int, error) { s.sent = append(s.sent, b...); return len(b), nil }

func (s *socksServer) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.5:1080"))
}

// FuzzAssociate: what a SOCKS5 proxy answers. No more is read than an answer has, the
// password is sent only to who asked for it, and the relay has an address.
func FuzzAssociate(f *testing.F) {
	v4 := "\x05\x00\x00\x01\x0a\x00\x00\x01\x1f\x90"
	for _, s := range []string{
		"\x05\x00" + v4, "\x05\x02\x01\x00" + v4 + "more", "\x05\x02\x01\x01", "\x05\xff", "\x04\x00", "\x05\x00\x05\x07\x00\x01", "\x05\x00\x05\x00\x00\x03\x04name\x00\x50",
		"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x1f\x90", "\x05\x00\x05\x00\x00\x04" + string(make([]byte, 18)), "\x05\x00\x05\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01\x1f\x90",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, login bool) {
		n, c := &Network{}, &socksServer{says: bytes.NewReader(b)}
		if login {
			n.auth = &proxy.Auth{User: "me", Password: "secret"}
		}
		at, err := n.associate(c)
		if used := len(b) - c.says.Len(); used > 2+2+4+18 {
			t.Fatalf("%d bytes read", used)
		}
		asked := len(b) >= 2 && b[0] == 5 && b[1] == 2
		if bytes.Contains(c.sent, []byte("secret")) != (login && asked) {
			t.Fatalf("it sent %q to who said %q", c.sent, b)
		}
		if err != nil {
			return
		}
		if b[0] != 5 || !at.IsValid() || at.Addr().IsUnspecified() || at.Addr().Is4In6() || at.Port() == 0 {
			t.Fatalf("packets are taken at %v, says %q", at, b)
		}
	})
}
