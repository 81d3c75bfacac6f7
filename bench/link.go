package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link forwards TCP connections to a seeder. What the seeder sends passes at a rate,
// all connections together, and both directions are delayed.
type link struct {
	at    string // where it listens
	to    string
	delay time.Duration // one way
	line  *line         // towards the client

	silent atomic.Bool // nothing passes any more

	mu    sync.Mutex
	l     net.Listener
	open  map[net.Conn]struct{}
	until time.Time // nothing passes before: lost packets are being sent again
}

// cut ends the connections that pass.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.open {
		c.Close()
	}
}

// stall lets nothing pass for a time, as lost packets do.
func (k *link) stall(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Now().Add(d)
}

func (k *link) stalled() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Until(k.until)
}

// line carries bytes at a rate; several links can share one.
type line struct {
	rate float64 // bytes/s; 0 = no limit

	mu   sync.Mutex
	free time.Time // when it can take the next chunk
}

// queue is how much a line holds beyond what it delays: 0.3 s of its rate, as home
// routers do.
const queue = 300 * time.Millisecond

func newLink(to string, delay time.Duration, rate float64) (*link, error) {
	return newLinkOn(&line{rate: rate}, to, delay)
}

func newLinkOn(line *line, to string, delay time.Duration) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{at: l.Addr().String(), l: l, to: to, delay: delay, line: line, open: map[net.Conn]struct{}{}}
	go k.serve(l) // ends with close
	return k, nil
}

func (k *link) addr() string { return k.at }

func (k *link) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.l.Close()
}

// pause refuses connections until resume.
func (k *link) pause() { k.close() }

func (k *link) resume() {
	l, err := net.Listen("tcp", k.at)
	if err != nil {
		return // the figures will show it
	}
	k.mu.Lock()
	k.l = l
	k.mu.Unlock()
	go k.serve(l)
}

// hush lets nothing pass any more, and closes nothing.
func (k *link) hush() { k.silent.Store(true) }

func (k *link) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go k.forward(c) // ends with either connection
	}
}

func (k *link) forward(client net.Conn) {
	defer client.Close()
	k.mu.Lock()
	k.open[client] = struct{}{}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.open, client)
	}()
	d := net.Dialer{Timeout: 5 * time.Second}
	time.Sleep(2 * k.delay) // the handshake's round trip
	seeder, err := d.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer seeder.Close()
	// Small kernel buffers: the queue is here.
	seeder.(*net.TCPConn).SetReadBuffer(32 << 10)
	client.(*net.TCPConn).SetWriteBuffer(32 << 10)
	done := make(chan struct{}, 2)
	go func() { k.pipe(seeder, client, &line{}); done <- struct{}{} }()
	go func() { k.pipe(client, seeder, k.line); done <- struct{}{} }()
	<-done
}

type chunk struct {
	b  []byte
	at time.Time
}

// pipe moves bytes from src to dst; each chunk leaves when the line has carried it
// and arrives a delay later.
func (k *link) pipe(dst, src net.Conn, on *line) {
	line := make(chan chunk, 4096)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range line {
			time.Sleep(time.Until(c.at))
			time.Sleep(k.stalled())
			if k.silent.Load() {
				continue
			}
			if _, err := dst.Write(c.b); err != nil {
				src.Close()
			}
		}
		dst.Close()
	})
	size := 64 << 10
	if on.rate > 0 {
		size = 4 << 10
	}
	for {
		b := make([]byte, size)
		n, err := src.Read(b)
		if n > 0 {
			line <- chunk{b[:n], on.leave(n).Add(k.delay)}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				src.Close()
			}
			break
		}
	}
	close(line)
	wg.Wait()
}

// leave books n bytes on the line and returns when they have left it; it waits while
// the queue is full.
func (l *line) leave(n int) time.Time {
	if l.rate == 0 {
		return time.Now()
	}
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * 1e9))
	at := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(at.Add(-queue)))
	return at
}
