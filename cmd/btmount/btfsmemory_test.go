package main

import (
	"io"
	"syscall"
	"testing"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
)

// What a get from four peers takes of memory is bounded, whatever its size.
func TestBTFSMemory(t *testing.T) {
	const most = 120 << 20
	size := int64(300 << 20)
	if raceDetector { // which is slow, and takes memory itself
		size = 20 << 20
	}
	blocks := btfstest.NewStore()
	file := blocks.File(size, 1)
	p := newPlace(t)
	p.env = append(p.env, "BTMOUNT_BTFS_NETWORK=main", "BTMOUNT_BTFS_BOOTSTRAP="+peers.New(t, peers.Config{}).Addr())
	rss := func(args ...string) int64 {
		cmd := p.command(append([]string{"btfs"}, args...)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, out); args[0] == "get" && (err != nil || n != size) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := cmd.Wait(); (err == nil) != (args[0] == "get") {
			t.Error(err)
		}
		return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	}
	idle := rss("ls", "Qmnone")
	args := []string{"get", file.CID.String(), "--to", "-"}
	for range 4 {
		args = append(args, "--btfs-peer", peers.New(t, peers.Config{Store: blocks}).Addr())
	}
	busy := rss(args...)
	t.Logf("%d MiB idle, %d more at work", idle>>20, (busy-idle)>>20)
	if busy-idle > most && !raceDetector {
		t.Errorf("%d MiB above idle", (busy-idle)>>20)
	}
}
