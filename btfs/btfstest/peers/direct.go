package peers

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/btmount/btmount/btfs/bitswap"
)

// Direct is a Dialer without a policy, unless it has one. What it connects to may be far.
type Direct struct {
	Delay  time.Duration             // of all that comes back: the round trip
	Policy func(bitswap.Ask) error   // nil: all are allowed
	Names  map[string]netip.AddrPort // that can be looked up

	mu     sync.Mutex
	dialed []netip.AddrPort
}

// Dialed returns all that was connected to.
func (d *Direct) Dialed() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]netip.AddrPort(nil), d.dialed...)
}

// Allow asks the policy.
func (d *Direct) Allow(a bitswap.Ask) error {
	if d.Policy == nil {
		return nil
	}
	return d.Policy(a)
}

// Resolve knows the Names.
func (d *Direct) Resolve(_ context.Context, hostport string) ([]netip.AddrPort, error) {
	if to, ok := d.Names[hostport]; ok {
		return []netip.AddrPort{to}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: hostport, IsNotFound: true}
}

// Dial connects.
func (d *Direct) Dial(ctx context.Context, a bitswap.Ask) (net.Conn, error) {
	if err := d.Allow(a); err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.To.String())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.dialed = append(d.dialed, a.To)
	d.mu.Unlock()
	if d.Delay > 0 {
		return delayed(c, d.Delay), nil
	}
	return c, nil
}

// late is a connection over a long way: what comes is read a while after it came, and as
// much may be on the way as does come in that while.
type late struct {
	net.Conn
	coming chan chunk
	rest   []byte
	err    error
	closed chan struct{}
	once   sync.Once
}

type chunk struct {
	at    time.Time
	bytes []byte
	err   error
}

func delayed(c net.Conn, by time.Duration) net.Conn {
	l := &late{Conn: c, coming: make(chan chunk, 4096), closed: make(chan struct{})}
	go func() { // ends with the connection
		for {
			b := make([]byte, 16<<10)
			n, err := c.Read(b)
			select {
			case l.coming <- chunk{time.Now().Add(by), b[:n], err}:
			case <-l.closed:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *late) Read(p []byte) (int, error) {
	if len(l.rest) == 0 && l.err == nil {
		select {
		case c := <-l.coming:
			if wait := time.Until(c.at); wait > 0 {
				t := time.NewTimer(wait)
				defer t.Stop()
				select {
				case <-t.C:
				case <-l.closed:
					return 0, net.ErrClosed
				}
			}
			l.rest, l.err = c.bytes, c.err
		case <-l.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, l.rest)
	if l.rest = l.rest[n:]; len(l.rest) > 0 {
		return n, nil
	}
	return n, l.err
}

func (l *late) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}
