package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// readyVar tells a child started by background that descriptor 3 is a pipe on which
// it says that it is ready.
const readyVar = "BTMOUNT_READY_FD"

// background starts this command again in a session of its own and returns when
// that one is ready, or has failed.
func background(ctx context.Context, stderr io.Writer) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), readyVar+"=3")
	cmd.ExtraFiles = []*os.File{w}
	var said strings.Builder
	errR, errW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer errR.Close()
	cmd.Stderr = errW
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if dir, err := os.Getwd(); err == nil {
		cmd.Dir = dir // sources may be relative
	}
	err = cmd.Start()
	w.Close()
	errW.Close()
	if err != nil {
		return err
	}
	line := make([]byte, 16)
	n, _ := r.Read(line) // ends when the child is ready or gone
	if n > 0 {
		return cmd.Process.Release()
	}
	_, _ = io.Copy(&said, errR)
	fmt.Fprint(stderr, said.String())
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the mount did not come up: %w", err)
	}
	return nil
}

// announceReady tells a waiting parent, if there is one, and lets go of its terminal.
func announceReady() {
	if os.Getenv(readyVar) == "" {
		return
	}
	os.Unsetenv(readyVar)
	f := os.NewFile(3, "ready")
	_, _ = f.WriteString("ready\n")
	f.Close()
	// The parent's end of stderr is closed now: writing to it would kill us.
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = syscall.Dup3(int(null.Fd()), fd, 0)
		}
		null.Close()
	}
}
