package portmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/fetch/swarm/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var here = netip.MustParseAddr("127.0.0.1")

// answering has a UDP port that answers each datagram; nil: not.
func answering(t *testing.T, answer func(b []byte) []byte) uint16 {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				_, _ = pc.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return uint16(pc.LocalAddr().(*net.UDPAddr).Port)
}

func mute(t *testing.T) uint16 { return answering(t, func([]byte) []byte { return nil }) }

// told is what a router was asked, in order.
type told struct {
	mu   sync.Mutex
	list []string
}

func (x *told) add(s string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = append(x.list, s)
}

func (x *told) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Join(x.list, "\n")
}

// run starts a Mapper; stop ends it and waits.
func run(t *testing.T, cfg Config) (m *Mapper, stop func()) {
	t.Helper()
	cfg.Network, cfg.Logger, cfg.gateway = network.System(), slog.New(slog.DiscardHandler), here
	m = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return m, stop
}

func eventually(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("still: ", what())
		}
	}
}

// natpmpRouter gives the ports that are asked for, plus a thousand, for a second.
func natpmpRouter(asked *told) func(b []byte) []byte {
	return func(b []byte) []byte {
		if len(b) == 2 && b[0] == 0 && b[1] == 0 {
			return []byte{0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9}
		}
		if b[0] != 0 {
			return []byte{0, 128 + b[1], 0, 1, 0, 0, 0, 1}
		}
		if len(b) != 12 || b[1] != 1 && b[1] != 2 {
			asked.add(fmt.Sprintf("%x", b))
			return nil
		}
		inner, outer, lease := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint32(b[8:])
		asked.add(fmt.Sprint(protocol(b[1]), " ", inner, " ", outer, " ", lease))
		if lease > 0 && outer == inner {
			outer += 1000
		}
		a := append([]byte{0, 128 + b[1], 0, 0, 0, 0, 0, 1}, b[4:6]...)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(a, outer), min(lease, 1))
	}
}

// Both protocols are mapped to one port, the one that the router gives; renewed; and taken
// back.
func TestNATPMP(t *testing.T) {
	asked := &told{}
	m, stop := run(t, Config{TCP: 6881, UDP: 6881, natpmp: answering(t, natpmpRouter(asked)), ssdp: mute(t), least: 10 * time.Millisecond})
	want := Status{Method: "NAT-PMP", External: netip.MustParseAddr("203.0.113.9"), TCP: 7881, UDP: 7881}
	eventually(t, func() string { return fmt.Sprint(m.Status()) }, func() bool { return m.Status() == want })
	eventually(t, asked.String, func() bool { return strings.Count(asked.String(), "\n") >= 3 })
	stop()
	text := asked.String()
	if !strings.HasPrefix(text, "TCP 6881 6881 3600\nUDP 6881 7881 3600\nTCP 6881 7881 3600\nUDP 6881 7881 3600") || !strings.HasSuffix(text, "TCP 6881 0 0\nUDP 6881 0 0") {
		t.Errorf("the router was asked\n%s", text)
	}
	if m.External() != 0 {
		t.Error("a port that was given back is told of")
	}
}

const description = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/no</controlURL></service></serviceList>
<deviceList><device><deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ppp</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>%s</controlURL></service>
</serviceList></device></deviceList></device></deviceList></device></root>`

// igd is a router that speaks UPnP: port 6881 is somebody else's, and leases it knows
// only if it is told so.
type igd struct {
	told
	leases bool
}

func (g *igd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/desc.xml" {
		fmt.Fprintf(w, description, "/ctl")
		return
	}
	body, _ := io.ReadAll(r.Body)
	refuse := func(code int) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="x"><s:Body><s:Fault><detail><UPnPError><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
	}
	_, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	port, lease := field(body, "NewExternalPort"), field(body, "NewLeaseDuration")
	switch {
	case r.URL.Path != "/ctl" || r.Method != http.MethodPost:
		w.WriteHeader(http.StatusNotFound)
	case action == "GetExternalIPAddress":
		_, _ = io.WriteString(w, `<Envelope><Body><GetExternalIPAddressResponse><NewExternalIPAddress>203.0.113.9</NewExternalIPAddress></GetExternalIPAddressResponse></Body></Envelope>`)
	case action == "AddPortMapping" && lease != "0" && !g.leases:
		refuse(725)
	case action == "AddPortMapping" && port == "6881":
		refuse(718)
	default:
		g.add(strings.Join([]string{action, field(body, "NewProtocol"), port, field(body, "NewInternalPort"), field(body, "NewInternalClient"), lease}, " "))
	}
}

// ssdpAt answers searches with a place.
func ssdpAt(t *testing.T, location string) uint16 {
	return answering(t, func(b []byte) []byte {
		if !strings.HasPrefix(string(b), "M-SEARCH * HTTP/1.1\r\n") {
			return nil
		}
		return []byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nUSN: uuid:x\r\nEXT:\r\nLOCATION: " + location + "\r\n\r\n")
	})
}

func TestUPnP(t *testing.T) {
	for _, leases := range []bool{true, false} {
		g := &igd{leases: leases}
		s := httptest.NewServer(g)
		m, stop := run(t, Config{TCP: 6881, UDP: 6882, natpmp: mute(t), ssdp: ssdpAt(t, s.URL+"/desc.xml")})
		eventually(t, func() string { return fmt.Sprint(m.Status(), g) }, func() bool { return m.Status().UDP != 0 })
		st := m.Status()
		if st.Method != "UPnP" || st.TCP < 20000 || st.UDP != st.TCP || st.External.String() != "203.0.113.9" {
			t.Errorf("%+v", st)
		}
		stop()
		s.Close()
		lease := map[bool]string{true: "3600", false: "0"}[leases]
		want := fmt.Sprintf("AddPortMapping TCP %d 6881 127.0.0.1 %s\nAddPortMapping UDP %[1]d 6882 127.0.0.1 %[2]s\nDeletePortMapping TCP %[1]d   \nDeletePortMapping UDP %[1]d   ", st.TCP, lease)
		if g.String() != want {
			t.Errorf("the router was asked\n%s\nwant\n%s", g, want)
		}
	}
}

// What a router, or who speaks in its name, may try: nothing is asked of anybody else, and
// it ends soon.
func TestHostileRouter(t *testing.T) {
	other := &told{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { other.add(r.URL.String()) }))
	defer elsewhere.Close()
	// The same machine by another address.
	away := strings.Replace(elsewhere.URL, "127.0.0.1", "127.0.0.2", 1)
	pages := map[string]http.HandlerFunc{
		"/redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"/away":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, away+"/ctl") },
		"/name":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, "http://localhost/ctl") },
		"/file":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, "file:///etc/passwd") },
		"/huge": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, description, strings.Repeat("x", maxAnswer))
		},
		"/entities": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><root><device>&b;</device></root>`)
		},
		"/nothing":  func(http.ResponseWriter, *http.Request) {},
		"/ctl-away": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, "/redirect") },
	}
	mux := http.NewServeMux()
	for path, f := range pages {
		mux.Handle(path, f)
	}
	s := httptest.NewServer(mux)
	defer s.Close()
	places := []string{away + "/x", "http://localhost/x", "https://127.0.0.1/x", "http://u@127.0.0.1/x", "http://127.0.0.1:0/", "", "http://127.0.0.1/" + strings.Repeat("x", maxURL)}
	for path := range pages {
		places = append(places, s.URL+path)
	}
	var group sync.WaitGroup
	for _, at := range places {
		group.Go(func() {
			m := New(Config{Network: network.System(), TCP: 1, Logger: slog.New(slog.DiscardHandler), gateway: here, natpmp: 1, ssdp: ssdpAt(t, at)})
			r, err := findUPnP(t.Context(), m.cfg.Network, here, m.cfg.ssdp)
			if err == nil {
				_, err = r.add(t.Context(), tcp, 1, 1, leaseFor)
			}
			if err == nil {
				t.Errorf("%.100s: it maps", at)
			}
		})
	}
	group.Wait()
	if text := other.String(); text != "" {
		t.Errorf("somebody else was asked: %s", text)
	}
}

// Answers of NAT-PMP that are no answers, and refusals.
func TestHostileNATPMP(t *testing.T) {
	for what, answer := range map[string][]byte{
		"short": {0, 128}, "of another version": {1, 128, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, "of another operation": {0, 129, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
		"refused": {0, 128, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4}, "cut": {0, 128, 0, 0, 0, 0, 0, 0, 1, 2, 3},
	} {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		r := &natpmp{pc, netip.AddrPortFrom(here, answering(t, func([]byte) []byte { return answer }))}
		if a, err := r.external(ctx); err == nil {
			t.Errorf("%s: %v is taken", what, a)
		}
		cancel()
		r.close()
	}
}

func FuzzNATPMP(f *testing.F) {
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 9})
	f.Add([]byte{0, 129, 0, 3, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ours, err := parseNATPMP(b, 1, 16); ours && err == nil && len(a) < 16 {
			t.Fatal(a)
		}
	})
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://127.0.0.1:5000/rootDesc.xml\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if u := parseSSDP(b, here); u != nil && (u.Hostname() != "127.0.0.1" && u.Hostname() != "::ffff:127.0.0.1" || u.Scheme != "http") {
			t.Fatal(u)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(description, "/ctl")))
	f.Add([]byte(`<root><URLBase>http://127.0.0.2/</URLBase></root>`))
	f.Add([]byte(`<a><errorCode>718</errorCode></a>`))
	base, _ := url.Parse("http://127.0.0.1:5000/rootDesc.xml")
	f.Fuzz(func(t *testing.T, b []byte) {
		u, service, err := parseDescription(b, base, here)
		if err == nil && (service == "" || netip.MustParseAddr(u.Hostname()).Unmap() != here) {
			t.Fatal(u, service)
		}
		if s := field(b, "errorCode"); len(s) > maxURL {
			t.Fatal(len(s))
		}
	})
}
