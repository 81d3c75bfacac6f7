package portmap

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// The numbers of PCP (RFC 6887).
const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpAnswer   = 0x80

	pcpHeader = 24
	pcpMapped = pcpHeader + 36
)

// pcp is a router that speaks PCP. It is at the port of NAT-PMP, which it succeeds: it
// tells the outer address with each mapping, and gives one back only to whoever knows the
// number that it was asked for with.
type pcp struct {
	pc    net.PacketConn
	to    netip.AddrPort
	us    netip.Addr // our address, as the router has to see it
	nonce map[protocol][12]byte
	outer netip.Addr
}

func newPCP(pc net.PacketConn, to netip.AddrPort, us netip.Addr) *pcp {
	r := &pcp{pc: pc, to: to, us: us, nonce: map[protocol][12]byte{}}
	for _, p := range []protocol{tcp, udp} {
		var n [12]byte
		rand.Read(n[:])
		r.nonce[p] = n
	}
	return r
}

// header begins a request.
func (r *pcp) header(op byte, lease time.Duration) []byte {
	b := binary.BigEndian.AppendUint32([]byte{pcpVersion, op, 0, 0}, uint32(lease/time.Second))
	us := r.us.As16()
	return append(b, us[:]...)
}

// speaks asks whether the router speaks PCP at all.
func (r *pcp) speaks(ctx context.Context) error {
	_, err := exchange(ctx, r.pc, r.to, r.header(pcpAnnounce, 0), func(b []byte) ([]byte, bool, error) {
		return parsePCP(b, pcpAnnounce, nil)
	})
	return err
}

// external is what the last mapping told.
func (r *pcp) external(context.Context) (netip.Addr, error) { return r.outer, nil }

// add maps a port; lease 0 takes the mapping back.
func (r *pcp) add(ctx context.Context, p protocol, inner, outer uint16, lease time.Duration) (mapping, error) {
	number := map[protocol]byte{tcp: 6, udp: 17}[p] // as IP has them
	nonce := r.nonce[p]
	req := append(r.header(pcpMap, lease), nonce[:]...)
	req = append(req, number, 0, 0, 0)
	req = binary.BigEndian.AppendUint16(req, inner)
	req = binary.BigEndian.AppendUint16(req, outer)
	any4 := netip.IPv4Unspecified().As16() // of IPv4, whichever
	b, err := exchange(ctx, r.pc, r.to, append(req, any4[:]...), func(b []byte) ([]byte, bool, error) {
		return parsePCP(b, pcpMap, nonce[:])
	})
	if err != nil {
		return mapping{}, err
	}
	if b[36] != number || binary.BigEndian.Uint16(b[40:]) != inner {
		return mapping{}, errors.New("the router maps another port than it was asked for")
	}
	m := mapping{outer: binary.BigEndian.Uint16(b[42:]), lease: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second}
	if lease > 0 && (m.outer == 0 || m.lease == 0) {
		return mapping{}, errors.New("the router gives no port")
	}
	r.outer = netip.AddrFrom16([16]byte(b[44:])).Unmap()
	return m, nil
}

// remove takes a mapping back.
func (r *pcp) remove(ctx context.Context, p protocol, inner, _ uint16) error {
	_, err := r.add(ctx, p, inner, 0, 0)
	return err
}

func (r *pcp) close() { r.pc.Close() }

func (r *pcp) String() string { return "PCP" }

// parsePCP reads an answer; ours: it answers this operation, and this number if there is
// one, well or badly.
func parsePCP(b []byte, op byte, nonce []byte) (answer []byte, ours bool, err error) {
	switch {
	case len(b) >= 4 && b[0] == 0 && b[1]&pcpAnswer != 0:
		return nil, true, errors.New("the router speaks NAT-PMP, and no PCP")
	case len(b) < pcpHeader || b[0] != pcpVersion || b[1] != pcpAnswer|op:
		return nil, false, nil
	case nonce != nil && len(b) >= pcpHeader+len(nonce) && string(b[pcpHeader:pcpHeader+len(nonce)]) != string(nonce):
		return nil, false, nil
	case b[3] != 0:
		return nil, true, fmt.Errorf("the router refuses: PCP result %d", b[3])
	case nonce != nil && len(b) < pcpMapped:
		return nil, true, errors.New("the router's answer is too short")
	}
	return b, true, nil
}
