package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// Messages of BEP 3 and BEP 6.
const (
	msgUnchoke    = 1
	msgInterested = 2
	msgHave       = 4
	msgRequest    = 6
	msgCancel     = 8
	msgHaveAll    = 14
	msgReject     = 16
)

// seeders is a process of fake seeders: whoever calls, under any address of loopback, is
// served any of the torrents, at rate bytes/s for all together.
type seeders struct {
	torrents map[metainfo.InfoHash]*content
	rate     float64
	greet    func(c *content, write func([]byte)) // what it says of its pieces

	mu   sync.Mutex
	next time.Time
}

// wait returns when n more bytes may be sent.
func (s *seeders) wait(n int) {
	if s.rate <= 0 {
		return
	}
	s.mu.Lock()
	now := time.Now()
	if s.next.Before(now.Add(-10 * time.Millisecond)) {
		s.next = now.Add(-10 * time.Millisecond)
	}
	s.next = s.next.Add(time.Duration(float64(n) / s.rate * 1e9))
	d := s.next.Sub(now)
	s.mu.Unlock()
	if d > time.Millisecond {
		time.Sleep(d)
	}
}

// run listens and tells where on out; it ends with in.
func (s *seeders) run(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr().(*net.TCPAddr).Port)
	go func() { _, _ = io.Copy(io.Discard, in); os.Exit(0) }() // ends with the process that asked for it
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with the connection
			defer c.Close()
			_ = s.serve(c)
		}()
	}
}

func (s *seeders) serve(c net.Conn) error {
	hello := make([]byte, 68)
	if _, err := io.ReadFull(c, hello); err != nil {
		return err
	}
	t := s.torrents[metainfo.InfoHash(hello[28:48])]
	if t == nil {
		return fmt.Errorf("no such torrent")
	}
	_, _ = rand.Read(hello[48:])
	copy(hello[48:], "-SC0001-")
	clear(hello[20:28])
	hello[27] = 0x04 // BEP 6
	w := bufio.NewWriterSize(c, 64<<10)
	_, _ = w.Write(hello)
	var mu sync.Mutex // of w and asked
	var asked [][3]int
	more := make(chan struct{}, 1)
	write := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write(b)
		_ = w.Flush()
	}
	s.greet(t, write)
	defer close(more)
	go func() { // ends with more
		buf := make([]byte, 0, wire.BlockSize+64)
		for range more {
			for {
				mu.Lock()
				if len(asked) == 0 {
					_ = w.Flush()
					mu.Unlock()
					break
				}
				r := asked[0]
				asked = asked[1:]
				mu.Unlock()
				s.wait(r[2])
				buf = wire.AppendPieceHeader(buf[:0], r[0], r[1], r[2])
				head := len(buf)
				buf = buf[:head+r[2]]
				t.read(buf[head:], int64(r[0])*t.piece+int64(r[1]))
				mu.Lock()
				_, err := w.Write(buf)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}
	}()
	r := wire.NewReader(c)
	for {
		m, err := r.Read()
		if err != nil {
			return err
		}
		switch {
		case m.Keepalive:
		case m.Type == msgInterested:
			write(wire.AppendFlag(nil, msgUnchoke))
		case m.Type == msgRequest && m.Length <= wire.BlockSize:
			mu.Lock()
			asked = append(asked, [3]int{int(m.Index), int(m.Begin), int(m.Length)})
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
		case m.Type == msgCancel:
			mu.Lock()
			for i, r := range asked {
				if r == [3]int{int(m.Index), int(m.Begin), int(m.Length)} {
					asked = append(asked[:i:i], asked[i+1:]...)
					_, _ = w.Write(wire.AppendRange(nil, msgReject, r[0], r[1], r[2]))
					break
				}
			}
			mu.Unlock()
		}
	}
}

// child starts this program again with other arguments and returns the port that it
// listens on.
func child(ctx context.Context, args ...string) (port int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // closed with this process
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the seeders did not start: %w", err)
	}
	_, err = fmt.Sscan(strings.TrimSpace(line), &port)
	return port, err
}
