package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	natpmpPort  = 5351
	natpmpFirst = 250 * time.Millisecond // then twice as long, as RFC 6886 has it
	natpmpTries = 4
)

// protocol is what is mapped; the values are the operations of NAT-PMP.
type protocol byte

const (
	udp protocol = 1
	tcp protocol = 2
)

func (p protocol) String() string { return [...]string{"", "UDP", "TCP"}[p] }

// natpmp is a router that speaks NAT-PMP.
type natpmp struct {
	pc net.PacketConn
	to netip.AddrPort
}

// external asks for the router's outer address.
func (r *natpmp) external(ctx context.Context) (netip.Addr, error) {
	b, err := r.ask(ctx, []byte{0, 0}, 12)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), nil
}

// add maps a port; lease 0 takes the mapping back.
func (r *natpmp) add(ctx context.Context, p protocol, inner, outer uint16, lease time.Duration) (mapping, error) {
	req := []byte{0, byte(p), 0, 0}
	req = binary.BigEndian.AppendUint16(req, inner)
	req = binary.BigEndian.AppendUint16(req, outer)
	req = binary.BigEndian.AppendUint32(req, uint32(lease/time.Second))
	b, err := r.ask(ctx, req, 16)
	if err != nil {
		return mapping{}, err
	}
	if binary.BigEndian.Uint16(b[8:]) != inner {
		return mapping{}, errors.New("the router maps another port than it was asked for")
	}
	m := mapping{outer: binary.BigEndian.Uint16(b[10:]), lease: time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second}
	if lease > 0 && (m.outer == 0 || m.lease == 0) {
		return mapping{}, errors.New("the router gives no port")
	}
	return m, nil
}

// remove takes a mapping back.
func (r *natpmp) remove(ctx context.Context, p protocol, inner, _ uint16) error {
	_, err := r.add(ctx, p, inner, 0, 0)
	return err
}

func (r *natpmp) close() { r.pc.Close() }

func (r *natpmp) String() string { return "NAT-PMP" }

// ask sends a request and returns the answer of size bytes.
func (r *natpmp) ask(ctx context.Context, req []byte, size int) ([]byte, error) {
	return exchange(ctx, r.pc, r.to, req, func(b []byte) ([]byte, bool, error) { return parseNATPMP(b, req[1], size) })
}

// exchange sends a request to a router, again when nothing comes, and returns the first
// answer that is ours.
func exchange(ctx context.Context, pc net.PacketConn, to netip.AddrPort, req []byte, parse func([]byte) (answer []byte, ours bool, err error)) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { _ = pc.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 1100) // the longest message of PCP
	wait := natpmpFirst
	for range natpmpTries {
		if _, err := pc.WriteTo(req, net.UDPAddrFromAddrPort(to)); err != nil {
			return nil, err
		}
		_ = pc.SetReadDeadline(time.Now().Add(wait))
		wait *= 2
		if ctx.Err() != nil { // after the deadline was set: else ctx has moved it
			return nil, context.Cause(ctx)
		}
		for {
			n, from, err := pc.ReadFrom(buf)
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				break
			}
			if err != nil {
				return nil, err
			}
			if network.AddrPort(from) != to {
				continue // others may send too
			}
			if b, ours, err := parse(buf[:n]); ours {
				return b, err
			}
		}
	}
	return nil, errSilent
}

var errSilent = errors.New("the router does not answer")

// parseNATPMP reads an answer; ours: it answers this operation, well or badly.
func parseNATPMP(b []byte, op byte, size int) (answer []byte, ours bool, err error) {
	if len(b) < 8 || b[0] != 0 || b[1] != 128+op {
		return nil, false, nil
	}
	if code := binary.BigEndian.Uint16(b[2:]); code != 0 {
		return nil, true, fmt.Errorf("the router refuses: NAT-PMP result %d", code)
	}
	if len(b) < size {
		return nil, true, errors.New("the router's answer is too short")
	}
	return b, true, nil
}
