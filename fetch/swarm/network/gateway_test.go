package network

import (
	"strings"
	"testing"
)

const routes = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
tun0	00000000	00000000	0001	0	0	0	00000000	0	0	0
eth0	00000000	0101A8C0	0003	0	0	0	00000000	0	0	0
eth0	0001A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
wlan0	00000000	FE00000A	0003	0	0	600	00000000	0	0	0
bad
eth1	00000000	XX	0003	0	0	0	00000000	0	0	0
`

func TestRoutes(t *testing.T) {
	for device, want := range map[string]string{"": "192.168.1.1", "wlan0": "10.0.0.254", "tun0": "invalid IP", "eth1": "invalid IP"} {
		if a, err := parseRoutes(strings.NewReader(routes), device); a.String() != want || (err == nil) != a.IsValid() {
			t.Errorf("%s: %v, %v", device, a, err)
		}
	}
}
