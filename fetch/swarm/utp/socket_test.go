package utp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

// run runs a socket on loopback until the test ends.
func run(t testing.TB, addr string, n *network.Network) *Socket {
	t.Helper()
	u, err := n.ListenUDP(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	s := New(u, n, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func addrOf(s *Socket) netip.AddrPort { return s.udp.Addr() }

// pair is a connection between two sockets: who called, and who was called.
func pair(t testing.TB, addr string) (a, b net.Conn) {
	t.Helper()
	from, to := run(t, addr, network.System()), run(t, addr, network.System())
	a, err := from.Dial(t.Context(), network.Ask{To: addrOf(to)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("hello")); err != nil { // who is called hears of it then
		t.Fatal(err)
	}
	if b, err = to.Accept(); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 5)
	if _, err := io.ReadFull(b, hello); err != nil || string(hello) != "hello" {
		t.Fatal(string(hello), err)
	}
	return a, b
}

// Both ends write much at the same time, over IPv4 and IPv6, and close.
func TestBothWays(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			a, b := pair(t, addr)
			want := noise(8 << 20)
			var all sync.WaitGroup
			for _, c := range []net.Conn{a, b} {
				all.Go(func() {
					if _, err := c.Write(want); err != nil {
						t.Error(err)
					}
				})
				all.Go(func() {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
						t.Error("other bytes", err)
					}
				})
			}
			all.Wait()
			if rtt := a.(*Conn).RTT(); rtt <= 0 || rtt > time.Second {
				t.Error(rtt)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			b.Close()
			<-a.(*Conn).done
			<-b.(*Conn).done
			for _, c := range []net.Conn{a, b} {
				if n, half := counts(c.(*Conn).socket); n != 0 || half != 0 {
					t.Errorf("%d connections are left, %d half open", n, half)
				}
			}
		})
	}
}

// Deadlines end what waits, and what comes later works again.
func TestDeadlines(t *testing.T) {
	a, b := pair(t, "127.0.0.1:0")
	ended := make(chan error)
	go func() {
		_, err := a.Read(make([]byte, 1))
		ended <- err
	}()
	_ = a.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = a.SetDeadline(time.Now().Add(-time.Second))
	if _, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = a.SetDeadline(time.Time{})
	// Nobody reads: Write fills what there is, and waits.
	_ = a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := a.Write(make([]byte, 2*maxMemory))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Error(n, err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	if got, err := io.CopyN(io.Discard, b, int64(n)); err != nil {
		t.Error(got, err)
	}
	go func() {
		_, err := a.Read(make([]byte, 1))
		ended <- err
	}()
	a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A socket that ends takes its connections along, and the other ends hear of it.
func TestSocketEnds(t *testing.T) {
	a, b := pair(t, "127.0.0.1:0")
	a.(*Conn).socket.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// Who knows nothing of a connection answers with RESET; that ends it.
func TestForgotten(t *testing.T) {
	a, b := pair(t, "127.0.0.1:0")
	c := b.(*Conn)
	c.socket.forget(c, false)
	_, _ = a.Write([]byte("is anybody there"))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// raw is a stranger with a socket.
func raw(t testing.TB, s *Socket) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", addrOf(s).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func counts(s *Socket) (all, half int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.half
}

// A flood of calls leaves a bounded number half open, and none of them is accepted;
// somebody who means it gets through as soon as there is room.
func TestFlood(t *testing.T) {
	s := run(t, "127.0.0.1:0", network.System())
	c := raw(t, s)
	seen := make([]byte, 100)
	for id := range uint16(2 * maxHalfOpen) {
		syn := packet{kind: kindSyn, conn: 2 * id, seq: 1}
		if _, err := c.Write(syn.append(nil)); err != nil {
			t.Fatal(err)
		}
		if id < maxHalfOpen {
			if _, err := c.Read(seen); err != nil { // wait for it
				t.Fatal(err)
			}
		}
	}
	// What belongs to nobody is answered, so all before it was seen.
	stray := packet{kind: kindState, conn: 60000}
	_, _ = c.Write(stray.append(nil))
	if n, err := c.Read(seen); err != nil || n != headerSize || kind(seen[0]>>4) != kindReset {
		t.Fatalf("%x %v", seen[:n], err)
	}
	if all, half := counts(s); half != maxHalfOpen || all != maxHalfOpen || len(s.backlog) != 0 {
		t.Errorf("%d half open of %d, %d to be accepted", half, all, len(s.backlog))
	}
	s.mu.Lock()
	var some []*Conn
	for _, c := range s.conns {
		some = append(some, c)
	}
	s.mu.Unlock()
	for _, c := range some {
		c.mu.Lock()
		c.m.opened -= halfOpen
		c.mu.Unlock()
		c.step(s.now())
	}
	if all, half := counts(s); half != 0 || all != 0 {
		t.Errorf("%d half open of %d after their time", half, all)
	}
	other := run(t, "127.0.0.1:0", network.System())
	d, err := other.Dial(t.Context(), network.Ask{To: addrOf(s)})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// Answers to what belongs to nobody are few.
func TestFewResets(t *testing.T) {
	s := run(t, "127.0.0.1:0", network.System())
	s.resets.SetLimit(0)
	c := raw(t, s)
	for i := range uint16(4 * maxResets) {
		stray := packet{kind: kindData, conn: i, seq: i}
		_, _ = c.Write(stray.append(nil))
	}
	dht := s.Others().Open()
	_, _ = c.Write([]byte("de")) // comes after all the others
	buf := make([]byte, 100)
	if n, from, err := dht.ReadFrom(buf); err != nil || string(buf[:n]) != "de" || from.String() != c.LocalAddr().String() {
		t.Fatal(n, err)
	}
	if _, err := dht.WriteTo([]byte("the end"), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		k, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:k]) == "the end" {
			break
		}
	}
	if n != maxResets {
		t.Errorf("%d answers", n)
	}
}

// Who is blocked is neither called nor answered.
func TestBlocked(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("127.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	strict := network.System()
	if err := strict.Block(t.Context(), []string{list}, "", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	s, open := run(t, "127.0.0.1:0", strict), run(t, "127.0.0.1:0", network.System())
	var blocked *network.BlockedError
	if _, err := s.Dial(t.Context(), network.Ask{To: addrOf(open)}); !errors.As(err, &blocked) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := open.Dial(ctx, network.Ask{To: addrOf(s)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if all, _ := counts(s); all != 0 {
		t.Errorf("%d connections", all)
	}
}

// The policy of addresses holds for uTP as for TCP.
func TestPolicy(t *testing.T) {
	s := run(t, "127.0.0.1:0", network.System())
	var refused *network.RefusedError
	_, err := s.Dial(t.Context(), network.Ask{From: network.Told, Via: netip.MustParseAddr("198.51.100.1"), To: addrOf(s)})
	if !errors.As(err, &refused) {
		t.Error(err)
	}
}

// BenchmarkLoopback is what one connection brings, and what it costs.
func BenchmarkLoopback(b *testing.B) {
	x, y := pair(b, "127.0.0.1:0")
	block := make([]byte, 16<<10)
	b.SetBytes(int64(len(block)))
	var all sync.WaitGroup
	all.Go(func() { _, _ = io.CopyN(io.Discard, y, int64(b.N)*int64(len(block))) })
	for range b.N {
		if _, err := x.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	all.Wait()
}
