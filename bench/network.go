package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// network is where the bench runs: a network namespace of its own, in which all clients
// are, and a far one with the seeders. Between them this process carries IP packets from
// one TUN device to the other, so that both kernels' TCP meets delay, a rate, queues that
// overflow, and loss: sch_netem, which does that, is missing from many kernels.
type network struct {
	near, far *os.File
	do        chan func() // what runs in the far namespace

	mu    sync.RWMutex
	links map[[4]byte]*link
	last  int
}

const (
	device = "link0"
	inside = "BTMOUNT_BENCH_NETWORK" // is set in the environment of who runs in its own namespace
)

// isolate runs this program again, in a network namespace of its own, and returns true
// and its outcome; false in that.
func isolate(ctx context.Context) (bool, error) {
	if os.Getenv(inside) != "" {
		return false, nil
	}
	runtime.LockOSThread() // it is the thread whose end the child does not outlive
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return true, cmd.Run()
}

func newNetwork() (*network, error) {
	n := &network{do: make(chan func()), links: map[[4]byte]*link{}}
	begun := make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.far, err = openDevice("")
		}
		begun <- err
		for f := range n.do {
			f()
		}
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("the seeders' network: %w", err)
	}
	var err error
	if n.near, err = openDevice("10.78.0.1/16"); err != nil {
		return nil, fmt.Errorf("the clients' network: %w", err)
	}
	go n.carry(n.near, 16, false) // both end with the process
	go n.carry(n.far, 12, true)
	return n, nil
}

// openDevice makes the TUN device of this thread's namespace.
func openDevice(address string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(device)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("a TUN device: %w", err)
	}
	f := os.NewFile(uintptr(fd), device)
	for _, c := range []string{"link set lo up", "link set " + device + " up", "address add " + address + " dev " + device} {
		if address == "" && strings.HasPrefix(c, "address") {
			continue
		}
		if err := ip(c); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// afar runs f in the far namespace: what it starts, listens on or dials is there.
func (n *network) afar(f func() error) error {
	done := make(chan error)
	n.do <- func() { done <- f() }
	return <-done
}

// carry takes packets from a device to the links: the address at off names the link.
func (n *network) carry(from *os.File, off int, up bool) {
	b := make([]byte, 64<<10)
	for {
		k, err := from.Read(b)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || k < 20 || b[0]>>4 != 4 {
			continue
		}
		n.mu.RLock()
		link := n.links[[4]byte(b[off:])]
		n.mu.RUnlock()
		if link != nil {
			link.carry(append([]byte(nil), b[:k]...), up)
		}
	}
}

// link makes a link to a new address, of which all connections from the far end share the
// line; delay is one way.
func (n *network) link(on *line, delay time.Duration) (*link, error) {
	n.mu.Lock()
	n.last++
	at := [4]byte{10, 78, byte(1 + n.last/250), byte(1 + n.last%250)}
	n.mu.Unlock()
	host := fmt.Sprintf("%d.%d.%d.%d", at[0], at[1], at[2], at[3])
	if err := n.afar(func() error { return ip("address add " + host + "/16 dev " + device) }); err != nil {
		return nil, err
	}
	k := &link{at: host + ":6881", up: newDirection(n.near, on, delay), down: newDirection(n.far, &line{}, delay)}
	done := make(chan struct{})
	k.close = sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.links, at)
		n.mu.Unlock()
		close(done)
	})
	for _, d := range []*direction{k.up, k.down} {
		go d.run(done, k.dead) // ends with close
	}
	n.mu.Lock()
	n.links[at] = k
	n.mu.Unlock()
	return k, nil
}
