// Command btmount mounts torrents as a filesystem, and seeds files.
//
//	btmount mount MOUNTPOINT SOURCE...    until Ctrl-C
//	btmount unmount MOUNTPOINT
//	btmount seed PATH
//	btmount demo
//
// Every flag can also be given by environment (--read-timeout is
// BTMOUNT_READ_TIMEOUT) and in a TOML file (read-timeout = "30s"). This package
// parses; everything is done by cmd/daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the Makefile.
var version = "0.1.0-dev"

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main without the process around it; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	go func() { <-ctx.Done(); stop() }() // ends with the first signal or with stop
	app := newApp(stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "btmount:", oneLine(err))
	if code := cli.ExitCoder(nil); errors.As(err, &code) {
		return code.ExitCode()
	}
	return 1
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:      "btmount",
		Usage:     "mount torrents as a filesystem: ls and cp work at once, bytes come on demand",
		Version:   version,
		Writer:    stdout,
		ErrWriter: stderr,
		Commands:  []*cli.Command{mountCommand(), unmountCommand(), seedCommand(), demoCommand()},
		Suggest:   true,
		// Errors are printed by run, once.
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return usage(err) },
		UseShortOptionHandling: false,
		HideHelpCommand:        true,
		Description: `btmount MOUNTPOINT shows torrents/NAME for every torrent that you name, with its
files at their full size. What is read is fetched, verified and kept in a cache
of bounded size; nothing else is fetched. .btmount/status.json in the mount tells
how every torrent is.`,
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

func (usageError) ExitCode() int { return 2 }

func usage(err error) error { return usageError{err} }
