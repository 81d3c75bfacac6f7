package network

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Gateway returns the router that the system's table of routes names for IPv4: of the
// interface that everything is bound to, if it is bound to one.
func (n *Network) Gateway() (netip.Addr, error) {
	if n.Proxied() {
		return netip.Addr{}, ErrProxied
	}
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no table of routes: %w", cause(err))
	}
	defer f.Close()
	return parseRoutes(f, n.bound.device)
}

// Toward returns the address that packets to a router leave from. Nothing is sent.
func (n *Network) Toward(to netip.AddrPort) (netip.Addr, error) {
	if n.Proxied() {
		return netip.Addr{}, ErrProxied
	}
	d := net.Dialer{LocalAddr: n.bound.local("udp"), Control: n.control}
	c, err := d.Dial("udp", to.String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no way to %v: %w", to.Addr(), cause(err))
	}
	defer c.Close()
	return AddrPort(c.LocalAddr()).Addr(), nil
}

// parseRoutes finds the default route of an interface, or of any.
func parseRoutes(r io.Reader, device string) (netip.Addr, error) {
	s := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for s.Scan() {
		f := strings.Fields(s.Text()) // Iface Destination Gateway Flags RefCnt Use Metric Mask …
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" || device != "" && f[0] != device {
			continue
		}
		b, err := hex.DecodeString(f[2])
		if err != nil || len(b) != 4 {
			continue
		}
		slices.Reverse(b) // as the kernel prints it on machines that are little endian
		if a, _ := netip.AddrFromSlice(b); !a.IsUnspecified() {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("there is no default route over a router")
}
