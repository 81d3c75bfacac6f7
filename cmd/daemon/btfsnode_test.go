package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// txtServer answers every question for TXT records of a name, as it goes over the wire.
func txtServer(t *testing.T, name, text string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wire := []byte{}
	for label := range strings.SplitSeq(name, ".") {
		wire = append(append(wire, byte(len(label))), label...)
	}
	done := make(chan struct{})
	go func() { // ends with pc
		defer close(done)
		for b := make([]byte, 1500); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12 + bytes.IndexByte(b[12:n], 0) + 5 // of the question
			answer := append([]byte(nil), b[:end]...)
			copy(answer[2:12], []byte{0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}) // no such name
			if bytes.Equal(b[12:end-5], wire) {
				answer[3], answer[7] = 0x80, 1
				answer = append(answer, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9)
				answer = binary.BigEndian.AppendUint16(answer, uint16(len(text)+1))
				answer = append(append(answer, byte(len(text))), text...)
			}
			_, _ = pc.WriteTo(answer, from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// A domain is looked up in DNS as the network has it. Behind a proxy it is not, and the
// node is asked if there is one.
func TestNames(t *testing.T) {
	const object = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN"
	node := btfstest.NewRPC(t, btfstest.NewStore())
	node.SetName("example.org", "/btfs/"+object+"/node")
	dns := txtServer(t, "_dnslink.example.org", "dnslink=/btfs/"+object+"/dns")
	resolve := func(cfg BTFSConfig, to network.Config) (string, error) {
		n, err := network.Open(to)
		if err != nil {
			t.Fatal(err)
		}
		client := n.Client(network.Download, network.Typed)
		defer client.Close()
		r, err := cfg.names(n, client, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Resolve(t.Context(), "btns://example.org/x")
		return got.Path.String() + " " + got.Source, err
	}
	if got, err := resolve(BTFSConfig{}, network.Config{Resolver: dns}); got != object+"/dns/x dnslink" {
		t.Error(got, err)
	}
	if got, err := resolve(BTFSConfig{Node: node.URL}, network.Config{Resolver: dns}); got != object+"/dns/x dnslink" {
		t.Error(got, err)
	}
	behind := network.Config{Resolver: dns, Proxy: "socks5://127.0.0.1:1"}
	if got, err := resolve(BTFSConfig{}, behind); !errors.Is(err, errProxiedName) {
		t.Error(got, err)
	}
	if _, err := resolve(BTFSConfig{Node: node.URL}, behind); err == nil || !strings.Contains(err.Error(), "through the proxy") {
		t.Error(err)
	}
	if len(node.Calls()) > 0 {
		t.Error("the node was asked around the proxy, or for what DNS knows")
	}
}
