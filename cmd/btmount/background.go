package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// readyVar tells a child started by background that descriptor 3 is a pipe on which
// it says that it is ready.
const readyVar = "BTMOUNT_READY_FD"

// background starts this command again and returns when that one is ready, and goes on in a
// session of its own, or has failed. What the child says until then is passed on.
func background(ctx context.Context, stdout, stderr io.Writer) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	said, saying, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.Command(exe, os.Args[1:]...) // not of ctx: it stays
	cmd.Env = append(os.Environ(), readyVar+"=3")
	cmd.ExtraFiles = []*os.File{saying}
	complaints, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	saying.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	_, _ = io.Copy(stderr, complaints) // ends when the child lets go of the terminal, or ends
	line, _ := io.ReadAll(said)
	if len(line) > 0 {
		_, _ = stdout.Write(line)
		return cmd.Process.Release()
	}
	return childError(ctx, cmd.Wait())
}

// childError ends the command like its child, which has said why.
func childError(ctx context.Context, err error) error {
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.Exited() {
		return saidError{e.ExitCode()}
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	return fmt.Errorf("the process in the background ended before the mount was ready (%v); try without --daemon", err)
}

// announceReady tells a waiting parent, if there is one, what to print, and lets go
// of its terminal.
func announceReady(line string) bool {
	if os.Getenv(readyVar) == "" {
		return false
	}
	os.Unsetenv(readyVar)
	// Only now: an automounter lets its own process group alone in, while it mounts.
	_, _ = syscall.Setsid()
	f := os.NewFile(3, "ready")
	_, _ = io.Copy(f, bytes.NewBufferString(line))
	f.Close()
	// The parent reads stderr until it closes; after that, writing to it would kill us.
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = syscall.Dup3(int(null.Fd()), fd, 0)
		}
		null.Close()
	}
	return true
}
