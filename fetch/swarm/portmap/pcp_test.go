package portmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// pcpRouter gives the ports that are asked for, plus a thousand, for a second, to whoever
// names its own address, and takes them back from who knows the number.
func pcpRouter(asked *told) func(b []byte) []byte {
	nonces := map[byte]string{}
	var mu sync.Mutex
	return func(b []byte) []byte {
		if len(b) < pcpHeader || b[0] != pcpVersion {
			return []byte{pcpVersion, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		}
		lease := binary.BigEndian.Uint32(b[4:])
		a := append([]byte{pcpVersion, pcpAnswer | b[1], 0, 0, 0, 0, 0, 1, 0, 0, 0, 9}, make([]byte, 12)...)
		if netip.AddrFrom16([16]byte(b[8:24])).Unmap() != here {
			a[3] = 12
			return a
		}
		if b[1] == pcpAnnounce {
			return a
		}
		if len(b) != pcpMapped || b[1] != pcpMap || string(b[37:40]) != "\x00\x00\x00" {
			asked.add(fmt.Sprintf("%x", b))
			return nil
		}
		inner, outer := binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint16(b[42:])
		asked.add(fmt.Sprint(b[36], " ", inner, " ", outer, " ", lease))
		mu.Lock()
		defer mu.Unlock()
		if n := string(b[24:36]); nonces[b[36]] != "" && nonces[b[36]] != n || n == strings.Repeat("\x00", 12) {
			a[3] = 2
			return a
		} else {
			nonces[b[36]] = n
		}
		if lease > 0 && outer == inner {
			outer += 1000
		}
		binary.BigEndian.PutUint32(a[4:], min(lease, 1))
		a = append(a, b[24:42]...)
		a = binary.BigEndian.AppendUint16(a, outer)
		ext := netip.MustParseAddr("::ffff:203.0.113.9").As16()
		return append(a, ext[:]...)
	}
}

// Both protocols are mapped to one port, the one that the router gives; renewed; and taken
// back, with the number that they were asked for with.
func TestPCP(t *testing.T) {
	asked := &told{}
	m, stop := run(t, Config{TCP: 6881, UDP: 6881, natpmp: answering(t, pcpRouter(asked)), ssdp: mute(t), least: 10 * time.Millisecond})
	want := Status{Method: "PCP", External: netip.MustParseAddr("203.0.113.9"), TCP: 7881, UDP: 7881}
	eventually(t, func() string { return fmt.Sprint(m.Status()) }, func() bool { return m.Status() == want })
	eventually(t, asked.String, func() bool { return strings.Count(asked.String(), "\n") >= 3 })
	stop()
	text := asked.String()
	if !strings.HasPrefix(text, "6 6881 6881 3600\n17 6881 7881 3600\n6 6881 7881 3600\n17 6881 7881 3600") || !strings.HasSuffix(text, "6 6881 0 0\n17 6881 0 0") {
		t.Errorf("the router was asked\n%s", text)
	}
}

// Routers older than PCP that pass over what they do not know cost a second, not four.
func TestOlderThanPCP(t *testing.T) {
	asked := &told{}
	old := natpmpRouter(asked)
	began := time.Now()
	m, _ := run(t, Config{TCP: 6881, ssdp: mute(t), natpmp: answering(t, func(b []byte) []byte {
		if b[0] != 0 {
			return nil
		}
		return old(b)
	})})
	eventually(t, func() string { return fmt.Sprint(m.Status()) }, func() bool { return m.Status().Method == "NAT-PMP" })
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("after %v", d)
	}
}

func TestHostilePCP(t *testing.T) {
	good := func(req []byte) []byte {
		a := append([]byte{pcpVersion, pcpAnswer | pcpMap, 0, 0, 0, 0, 0, 60, 0, 0, 0, 9}, make([]byte, 12)...)
		return append(append(a, req[24:44]...), make([]byte, 16)...)
	}
	for what, answer := range map[string]func(a []byte) []byte{
		"short":                func(a []byte) []byte { return a[:3] },
		"cut":                  func(a []byte) []byte { return a[:59] },
		"header alone":         func(a []byte) []byte { return a[:24] },
		"of another version":   func(a []byte) []byte { a[0] = 3; return a },
		"of another operation": func(a []byte) []byte { a[1] = pcpAnswer | 2; return a },
		"a request":            func(a []byte) []byte { a[1] = pcpMap; return a },
		"refused":              func(a []byte) []byte { a[3] = 8; return a },
		"for another number":   func(a []byte) []byte { a[30]++; return a },
		"for another protocol": func(a []byte) []byte { a[36] = 17; return a },
		"for another port":     func(a []byte) []byte { a[41]++; return a },
		"no port":              func(a []byte) []byte { a[42], a[43] = 0, 0; return a },
		"no time":              func(a []byte) []byte { a[7] = 0; return a },
		"NAT-PMP":              func([]byte) []byte { return []byte{0, 129, 0, 1} },
		"right":                func(a []byte) []byte { return a },
	} {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		r := newPCP(pc, netip.AddrPortFrom(here, answering(t, func(req []byte) []byte { return answer(good(req)) })), here)
		if m, err := r.add(ctx, tcp, 6881, 6882, time.Hour); (err == nil) != (what == "right") || err == nil && (m.outer != 6882 || m.lease != time.Minute) {
			t.Errorf("%s: %v, %v", what, m, err)
		}
		cancel()
		r.close()
	}
}

func FuzzPCP(f *testing.F) {
	nonce := []byte("123456789012")
	f.Add([]byte("\x02\x81\x00\x00\x00\x00\x00\x3c\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00123456789012\x06\x00\x00\x00\x1a\xe1\x1a\xe1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04"))
	f.Add([]byte("\x00\x81\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ours, err := parsePCP(b, pcpMap, nonce); ours && err == nil && (len(a) < pcpMapped || string(a[24:36]) != string(nonce)) {
			t.Fatal(a)
		}
		if a, ours, err := parsePCP(b, pcpAnnounce, nil); ours && err == nil && len(a) < pcpHeader {
			t.Fatal(a)
		}
	})
}
