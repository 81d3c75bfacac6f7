package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fs"
)

func unmountCommand() *cli.Command {
	return &cli.Command{
		Name: "unmount", Aliases: []string{"umount"},
		Usage:     "end a mount, whoever reads from it, within 5 seconds",
		ArgsUsage: "MOUNTPOINT...",
		Description: `Programs that read from the mount get an error, and the directory is free again. It
works as well when the process that served the mount was killed or hangs.`,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage(errors.New("a mountpoint is needed: btmount unmount MOUNTPOINT"))
			}
			var errs severalErrors
			for _, p := range c.Args().Slice() {
				if err := unmount(c.Context, p); err != nil {
					errs = append(errs, err)
				}
			}
			if errs == nil {
				return nil
			}
			return errs
		},
	}
}

const unmountWait = 8 * time.Second // the daemon stops its other parts too

// unmount asks the daemon to stop and waits until it has; if there is none, or it
// does not answer, the mount is taken away from outside.
func unmount(ctx context.Context, point string) error {
	point, err := filepath.Abs(point)
	if err != nil {
		return err
	}
	if ours, err := fs.Mounted(point); err != nil || !ours {
		if err == nil || absent(ctx, point) {
			err = fmt.Errorf("%s: no btmount is mounted there; see what is mounted: findmnt -t fuse.btmount", point)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, unmountWait)
	defer cancel()
	pid := daemonOf(ctx, point)
	if pid == 0 {
		return fs.Detach(ctx, point)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fs.Detach(ctx, point)
	}
	for {
		if !alive(pid) { // gone, and the mount with it
			if ours, err := fs.Mounted(point); err == nil && !ours {
				return nil
			}
			return fs.Detach(ctx, point)
		}
		select {
		case <-ctx.Done():
			if ours, err := fs.Mounted(point); err == nil && !ours {
				return nil
			}
			return fs.Detach(context.WithoutCancel(ctx), point)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// absent reports whether there is nothing at all at a path. It does not wait for a
// filesystem that hangs.
func absent(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer := make(chan bool, 1)
	go func() { // a hung filesystem keeps it, for the rest of this short process
		_, err := os.Lstat(path)
		answer <- errors.Is(err, os.ErrNotExist)
	}()
	select {
	case none := <-answer:
		return none
	case <-ctx.Done():
		return false
	}
}

// daemonOf asks the mount for its daemon's process, 0 if there is none. The answer
// is believed only if that process is a btmount.
func daemonOf(ctx context.Context, point string) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	answer := make(chan int, 1)
	go func() { // a hung mount keeps it, for the rest of this short process
		var s daemon.Status
		b, err := os.ReadFile(filepath.Join(point, ".btmount", "status.json"))
		if err != nil || json.Unmarshal(b, &s) != nil {
			s.Pid = 0
		}
		answer <- s.Pid
	}()
	var pid int
	select {
	case pid = <-answer:
	case <-ctx.Done():
		return 0
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if pid <= 1 || err != nil || !strings.HasPrefix(string(comm), "btmount") {
		return 0
	}
	return pid
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
