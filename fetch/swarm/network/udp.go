package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// UDP is a socket that reads many packets at a time and knows when each came.
type UDP struct {
	pc   *net.UDPConn
	raw  syscall.RawConn
	v6   *ipv6.PacketConn // reads of either family
	msgs []ipv6.Message
}

// Datagram is one packet that came.
type Datagram struct {
	Data []byte
	From netip.AddrPort
	Ago  time.Duration // since the kernel got it
}

const (
	udpBatch   = 64
	udpSize    = 2 << 10 // the longest packet; the rest is cut off
	udpBuffers = 4 << 20 // of the kernel: at 100 MB/s, what comes in 40 ms
	latest     = time.Second
)

// ListenUDP opens a socket for Read; it does not wait for anything.
func (n *Network) ListenUDP(ctx context.Context, addr string) (*UDP, error) {
	if n.Proxied() {
		return nil, fmt.Errorf("listen on %s (UDP): %w", addr, ErrProxied)
	}
	pc, err := n.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	u := &UDP{pc: pc.(*net.UDPConn), msgs: make([]ipv6.Message, udpBatch)}
	if u.raw, err = u.pc.SyscallConn(); err != nil {
		pc.Close()
		return nil, fmt.Errorf("listen on %s (UDP): %w", addr, err)
	}
	// All of this makes it better, and nothing fails without it.
	_ = u.raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], udpBuffers) != nil { // needs root
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], udpBuffers)
			}
		}
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		// Routers may break packets up: there is no search for the size that passes.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	u.v6 = ipv6.NewPacketConn(u.pc)
	for i := range u.msgs {
		u.msgs[i].Buffers = [][]byte{make([]byte, udpSize)}
		u.msgs[i].OOB = make([]byte, 64)
	}
	return u, nil
}

// ListenBoth opens TCP and UDP on the same port, as peers expect. Port 0 is a port that
// is free for both. If only UDP can not be had, TCP comes with the error.
func (n *Network) ListenBoth(ctx context.Context, addr string) (net.Listener, *UDP, error) {
	for try := 0; ; try++ {
		l, err := n.Listen(ctx, addr)
		if err != nil {
			return nil, nil, err
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			l.Close()
			return nil, nil, err
		}
		at := net.JoinHostPort(host, fmt.Sprint(AddrPort(l.Addr()).Port()))
		u, err := n.ListenUDP(ctx, at)
		if err == nil {
			return l, u, nil
		}
		if strings.Trim(port, "0") != "" || try == 20 {
			return l, nil, err
		}
		l.Close()
	}
}

// Read waits for packets and hands each to f; its Data is valid in f only. One goroutine
// reads.
func (u *UDP) Read(f func(Datagram)) error {
	for i := range u.msgs {
		u.msgs[i].OOB = u.msgs[i].OOB[:cap(u.msgs[i].OOB)]
	}
	n, err := u.v6.ReadBatch(u.msgs, 0)
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range u.msgs[:n] {
		m := &u.msgs[i]
		f(Datagram{Data: m.Buffers[0][:m.N], From: AddrPort(m.Addr), Ago: age(m.OOB[:m.NN], now)})
	}
	return nil
}

// age is how long ago the kernel says that a packet came. Its clock is the one of the
// wall, which may be set in between.
func age(oob []byte, now time.Time) time.Duration {
	if len(oob) == 0 {
		return 0
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS {
			if at, ok := timespec(m.Data); ok {
				return min(max(0, now.Sub(at)), latest)
			}
		}
	}
	return 0
}

// Write sends a packet. It waits at most until the interface has room.
func (u *UDP) Write(b []byte, to netip.AddrPort) error {
	_, err := u.pc.WriteToUDPAddrPort(b, to)
	return err
}

// Addr is where it listens.
func (u *UDP) Addr() netip.AddrPort { return AddrPort(u.pc.LocalAddr()) }

// Close ends Read.
func (u *UDP) Close() error { return u.pc.Close() }
