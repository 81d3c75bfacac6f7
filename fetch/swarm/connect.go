package swarm

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/utp"
)

const (
	// utpDelay is how long TCP may take before uTP is tried too. TCP is better where both
	// work: it costs less of a processor, and does not give way to everything else on
	// the line while a reader waits. Nearly everybody who can be reached by TCP at all is
	// reached within this time, so that few peers ever see both.
	utpDelay = 250 * time.Millisecond
	// refusedWait is what uTP may take when TCP was refused: the machine is there, and
	// mostly nobody listens on it. Until then the candidate takes a place of those being
	// dialled.
	refusedWait = 1500 * time.Millisecond
)

// dialed is how a dial ended.
type dialed struct {
	n   net.Conn
	err error
}

// connect connects over TCP, and over uTP too if that takes long or fails. The first
// connection that is made is used; what the other one has got to is taken back.
//
// Rejected: one after the other (a firewall that swallows TCP costs eight seconds), and
// both at once (twice the packets to everybody, and the slower transport wins half of
// the time). Who takes the call over TCP and hangs up is called over uTP by dial.
func (c *Client) connect(ctx context.Context, a network.Ask) (net.Conn, error) {
	u := c.cfg.UTP
	if u == nil {
		return c.cfg.Network.Dial(ctx, a)
	}
	ctx, cancel := context.WithCancel(ctx)
	first := c.background(func() (net.Conn, error) { return c.cfg.Network.Dial(ctx, a) })
	var second <-chan dialed
	defer func() {
		cancel()
		discard(first)
		discard(second)
	}()
	soon := time.NewTimer(utpDelay)
	defer soon.Stop()
	var late <-chan time.Time
	var failed error      // what TCP met
	var begun, ended bool // uTP
	for {
		select {
		case r := <-first:
			first = nil
			failed = r.err
			if r.err == nil || ended || forbidden(r.err) || ctx.Err() != nil {
				return r.n, r.err
			}
			soon.Reset(0)
			if errors.Is(r.err, syscall.ECONNREFUSED) {
				late = time.After(refusedWait)
			}
		case <-soon.C:
			if !begun {
				begun = true
				second = c.background(func() (net.Conn, error) { return u.Dial(ctx, a) })
			}
		case r := <-second:
			second, ended = nil, true
			if r.err == nil {
				return r.n, nil
			}
			if first == nil {
				return nil, failed
			}
		case <-late:
			return nil, failed
		}
	}
}

// forbidden reports whether an address may not be dialled in any way.
func forbidden(err error) bool {
	var refused *network.RefusedError
	var blocked *network.BlockedError
	return errors.As(err, &refused) || errors.As(err, &blocked)
}

// background dials in a goroutine of its own, which ends with the dial.
func (c *Client) background(dial func() (net.Conn, error)) <-chan dialed {
	out := make(chan dialed, 1)
	go func() {
		var r dialed
		r.err = fault.Catch(c.log, "the dialling of a peer", func() (err error) {
			r.n, err = dial()
			return err
		})
		out <- r
	}()
	return out
}

// discard closes the connection of a dial that was cancelled too late.
func discard(late <-chan dialed) {
	if late == nil {
		return
	}
	go func() { // ends with the dial, whose context has ended
		if r := <-late; r.err == nil {
			r.n.Close()
		}
	}()
}

// transport names how a peer is connected.
func (c *conn) transport() string {
	if c.web != "" {
		return "web"
	}
	if _, ok := c.net.(*utp.Conn); ok {
		return "utp"
	}
	return "tcp"
}
