package portmap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	ssdpPort   = 1900
	ssdpWait   = 3 * time.Second
	maxAnswer  = 256 << 10
	httpWait   = 5 * time.Second
	maxURL     = 1024
	maxDatagam = 2048
)

var ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// upnp is a router that speaks UPnP.
type upnp struct {
	net     *network.Network
	at      netip.Addr // of the router: every connection goes there
	control *url.URL
	service string     // URN
	local   netip.Addr // ours, as the router sees it
}

func (r *upnp) String() string { return "UPnP" }
func (r *upnp) close()         {}

// findUPnP searches for a service of the router that maps ports.
func findUPnP(ctx context.Context, n *network.Network, gateway netip.Addr, port uint16) (*upnp, error) {
	location, err := search(ctx, n, gateway, port)
	if err != nil {
		return nil, err
	}
	r := &upnp{net: n, at: gateway}
	text, err := r.http(ctx, http.MethodGet, location, nil, "")
	if err != nil {
		return nil, fmt.Errorf("the router's description: %w", err)
	}
	r.control, r.service, err = parseDescription(text, location, gateway)
	return r, err
}

// search asks the router, and the group in case it listens there only, where its
// description is.
func search(ctx context.Context, n *network.Network, gateway netip.Addr, port uint16) (*url.URL, error) {
	pc, err := n.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return nil, err
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	for _, target := range []string{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"} {
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(gateway, port), ssdpGroup} {
			msg := "M-SEARCH * HTTP/1.1\r\nHOST: " + ssdpGroup.String() + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
			if to == ssdpGroup && gateway.IsLoopback() {
				continue // in tests
			}
			_, _ = pc.WriteTo([]byte(msg), net.UDPAddrFromAddrPort(to)) // one that fails is one that nobody answers
		}
	}
	_ = pc.SetReadDeadline(time.Now().Add(ssdpWait))
	buf := make([]byte, maxDatagam)
	for {
		k, from, err := pc.ReadFrom(buf)
		if err != nil {
			return nil, errSilent
		}
		ua, ok := from.(*net.UDPAddr)
		if !ok || ua.AddrPort().Addr().Unmap() != gateway {
			continue
		}
		if u := parseSSDP(buf[:k], gateway); u != nil {
			return u, nil
		}
	}
}

// parseSSDP returns where the description is, nil if that is not at the router.
func parseSSDP(b []byte, gateway netip.Addr) *url.URL {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("St"), ":InternetGatewayDevice:") {
		return nil
	}
	return urlAt(resp.Header.Get("Location"), nil, gateway)
}

// urlAt reads a URL that has to be at the router.
func urlAt(s string, base *url.URL, gateway netip.Addr) *url.URL {
	if len(s) > maxURL {
		return nil
	}
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil {
		return nil
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || a.Unmap() != gateway || u.Scheme != "http" || u.User != nil {
		return nil
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || p == 0) {
		return nil
	}
	return u
}

type device struct {
	Services []struct {
		Type    string `xml:"serviceType"`
		Control string `xml:"controlURL"`
	} `xml:"serviceList>service"`
	Devices []device `xml:"deviceList>device"`
}

// services are those that map ports, the better one first.
var services = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// parseDescription finds the control URL of a service that maps ports.
func parseDescription(text []byte, location *url.URL, gateway netip.Addr) (*url.URL, string, error) {
	var root struct {
		Base   string `xml:"URLBase"`
		Device device `xml:"device"`
	}
	if err := xml.Unmarshal(text, &root); err != nil {
		return nil, "", errors.New("the router's description is no XML that can be read")
	}
	base := location
	if root.Base != "" {
		if base = urlAt(root.Base, location, gateway); base == nil {
			return nil, "", errElsewhere
		}
	}
	best, at := len(services), ""
	var look func(d *device)
	look = func(d *device) {
		for _, s := range d.Services {
			for i, name := range services[:best] {
				if strings.TrimSpace(s.Type) == name {
					best, at = i, s.Control
					break
				}
			}
		}
		for i := range d.Devices {
			look(&d.Devices[i])
		}
	}
	look(&root.Device)
	if best == len(services) {
		return nil, "", errors.New("the router has no service that maps ports")
	}
	u := urlAt(at, base, gateway)
	if u == nil {
		return nil, "", errElsewhere
	}
	return u, services[best], nil
}

var errElsewhere = errors.New("the router's description leads elsewhere, where it is not followed")

// http sends a request to the router and returns the answer's body. It follows nothing.
func (r *upnp) http(ctx context.Context, method string, u *url.URL, body []byte, action string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, httpWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if action != "" {
		req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
		req.Header.Set("SOAPAction", action)
	}
	tr := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, DialContext: func(_ context.Context, _, hostport string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(hostport)
		if err != nil || to.Addr() != r.at {
			return nil, errElsewhere
		}
		c, err := r.net.Dial(ctx, network.Ask{Use: network.Download, From: network.Typed, To: to}) // the system's routes name it
		if err == nil {
			if ta, ok := c.LocalAddr().(*net.TCPAddr); ok {
				r.local = ta.AddrPort().Addr().Unmap()
			}
		}
		return c, err
	}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxAnswer:
		return nil, errors.New("the answer is longer than 256 KiB")
	case resp.StatusCode == http.StatusInternalServerError && action != "":
		return nil, soapError(text)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the router answers %d", resp.StatusCode)
	}
	return text, nil
}

// fault is an error code of UPnP.
type fault int

func (f fault) Error() string { return fmt.Sprintf("the router refuses: UPnP error %d", int(f)) }

const (
	faultConflict  fault = 718 // somebody has the port
	faultPermanent fault = 725 // it knows no leases
)

// soapError reads the code of a fault.
func soapError(text []byte) error {
	if n, err := strconv.Atoi(field(text, "errorCode")); err == nil {
		return fault(n)
	}
	return errors.New("the router refuses and does not say why")
}

// field is the text of the first element of a name, "" if there is none.
func field(text []byte, name string) string {
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		tok, err := d.Token()
		if err != nil {
			return ""
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == name {
			var s string
			if d.DecodeElement(&s, &e) != nil || len(s) > maxURL {
				return ""
			}
			return strings.TrimSpace(s)
		}
	}
}

// call calls an action; args are names and values in turn, none of which needs an escape.
func (r *upnp) call(ctx context.Context, action string, args ...string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?>` + "\r\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`)
	fmt.Fprintf(&b, `<u:%s xmlns:u="%s">`, action, r.service)
	for i := 0; i < len(args); i += 2 {
		fmt.Fprintf(&b, "<%s>%s</%[1]s>", args[i], args[i+1])
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>\r\n", action)
	return r.http(ctx, http.MethodPost, r.control, b.Bytes(), `"`+r.service+"#"+action+`"`)
}

func (r *upnp) external(ctx context.Context) (netip.Addr, error) {
	text, err := r.call(ctx, "GetExternalIPAddress")
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(field(text, "NewExternalIPAddress"))
}

// add maps a port; another one, if somebody has it already.
func (r *upnp) add(ctx context.Context, p protocol, inner, outer uint16, lease time.Duration) (mapping, error) {
	for try := 0; ; try++ {
		_, err := r.call(ctx, "AddPortMapping", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(int(outer)), "NewProtocol", p.String(),
			"NewInternalPort", strconv.Itoa(int(inner)), "NewInternalClient", r.local.String(), "NewEnabled", "1",
			"NewPortMappingDescription", "btmount", "NewLeaseDuration", strconv.Itoa(int(lease/time.Second)))
		var f fault
		switch {
		case err == nil:
			return mapping{outer, leaseFor}, nil // also without a lease: a router that was restarted forgets
		case !errors.As(err, &f) || try == 4:
			return mapping{}, err
		case f == faultPermanent && lease > 0:
			lease = 0
		case f == faultConflict:
			outer = uint16(20000 + rand.N(40000))
		default:
			return mapping{}, err
		}
	}
}

func (r *upnp) remove(ctx context.Context, p protocol, _, outer uint16) error {
	_, err := r.call(ctx, "DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(int(outer)), "NewProtocol", p.String())
	return err
}
