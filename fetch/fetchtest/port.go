package fetchtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

var ports struct {
	sync.Mutex
	given map[int]bool
}

// FreePort returns a port of loopback that is free for TCP and UDP now, for programs that
// can not be told to take any. It is none of those that the system gives to others, and none
// is given twice: two programs that each asked for a free one would now and then get the same.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	for range 1000 {
		port := 10_000 + rand.IntN(22_000) // Linux gives those from 32768 on
		if ports.given[port] {
			continue
		}
		at := fmt.Sprint("127.0.0.1:", port)
		l, err := net.Listen("tcp4", at)
		if err != nil {
			continue
		}
		l.Close()
		u, err := net.ListenPacket("udp4", at)
		if err != nil {
			continue
		}
		u.Close()
		ports.given[port] = true
		return port
	}
	t.Fatal("no free port")
	return 0
}
