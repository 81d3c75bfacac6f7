package network

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers TXT questions of one name on loopback, and that there is no other.
func nameServer(t *testing.T, name string, texts ...string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with pc
		defer close(done)
		for b := make([]byte, 1500); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(b[:n]) != nil || len(q.Questions) != 1 {
				continue
			}
			q.Response, q.RCode, q.Additionals = true, dnsmessage.RCodeNameError, nil
			if q.Questions[0].Name.String() == name && q.Questions[0].Type == dnsmessage.TypeTXT {
				q.RCode = dnsmessage.RCodeSuccess
				for _, text := range texts {
					q.Answers = append(q.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET, TTL: 7},
						Body:   &dnsmessage.TXTResource{TXT: []string{text}},
					})
				}
			}
			if answer, err := q.Pack(); err == nil {
				_, _ = pc.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestLookupTXT(t *testing.T) {
	n, err := Open(Config{Resolver: nameServer(t, "_dnslink.example.org.", "dnslink=/btfs/x", "other")})
	if err != nil {
		t.Fatal(err)
	}
	texts, err := n.LookupTXT(t.Context(), "_dnslink.example.org.")
	if err != nil || len(texts) != 2 || texts[0] != "dnslink=/btfs/x" {
		t.Error(texts, err)
	}
	_, err = n.LookupTXT(t.Context(), "gone.example.org.")
	if de := (*net.DNSError)(nil); !errors.As(err, &de) || !de.IsNotFound {
		t.Error(err)
	}
	behind, err := Open(Config{Proxy: "socks5://127.0.0.1:1", Resolver: nameServer(t, "example.org.", "x")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := behind.LookupTXT(t.Context(), "example.org."); !errors.Is(err, ErrProxied) {
		t.Errorf("behind a proxy: %v", err)
	}
}
