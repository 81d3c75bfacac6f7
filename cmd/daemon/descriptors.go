package daemon

import "syscall"

// What package swarm does if nobody says otherwise.
const (
	usualConnections = 500
	usualHalfOpen    = 60
)

// affordable keeps connections to what the process has descriptors for: a quarter of them, and
// half as many handshakes of strangers. The cache takes another quarter.
func (c Config) affordable() Config {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return c
	}
	bound := func(n *int, usual int, most uint64) {
		want := *n
		if want == 0 {
			want = usual
		}
		if uint64(want) > most {
			*n = max(1, int(most))
		}
	}
	before := c.MaxConnections
	bound(&c.MaxConnections, usualConnections, limit.Cur/4)
	bound(&c.MaxHalfOpen, usualHalfOpen, limit.Cur/8)
	if c.MaxConnections != before {
		c.Logger.Warn("few descriptors: fewer peers and open files than usual; raise the limit (ulimit -n)", "limit", limit.Cur, "connections", c.MaxConnections)
	}
	return c
}
