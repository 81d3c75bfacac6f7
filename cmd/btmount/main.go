// Command btmount mounts torrents as a filesystem, and seeds files.
//
//	btmount mount MOUNTPOINT SOURCE...    until Ctrl-C
//	btmount unmount MOUNTPOINT
//	btmount cache COMMAND                 asks the daemon of a mount
//	btmount btfs COMMAND CID[/path]       asks gateways and nodes of BTFS, or a node of one's own
//	btmount wallet COMMAND                keys, balances, transfers and the ledger of your BTT
//	btmount seed PATH
//	btmount demo
//
// Every flag can also be given by environment (--read-timeout is
// BTMOUNT_READ_TIMEOUT) and in a TOML file (read-timeout = "30s"). This package
// parses; everything is done by cmd/daemon, and a running one is asked through cmd/control.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
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
	return report(err, stderr)
}

// report prints an error, unless that is done already, and returns the exit code.
func report(err error, stderr io.Writer) int {
	if several := severalErrors(nil); errors.As(err, &several) {
		code := 0
		for _, err := range several {
			code = max(code, report(err, stderr))
		}
		return code
	}
	if err == nil {
		return 0
	}
	if said := (saidError{}); !errors.As(err, &said) {
		fmt.Fprintln(stderr, "btmount:", oneLine(err))
	}
	if code := cli.ExitCoder(nil); errors.As(err, &code) {
		return code.ExitCode()
	}
	return 1
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "btmount",
		Usage:     "mount torrents as a filesystem: ls and cp work at once, bytes come on demand",
		Version:   version,
		Writer:    stdout,
		ErrWriter: stderr,
		Commands:  []*cli.Command{mountCommand(), unmountCommand(), cacheCommand(), btfsCommand(), walletCommand(), seedCommand(), demoCommand(), versionCommand()},
		// Errors are printed by run, once.
		ExitErrHandler:            func(*cli.Context, error) {},
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // a tracker's URL may hold commas
		CustomAppHelpTemplate:     appHelp,
	}
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badFlag(err, "btmount") }
	dress(app.Commands, "btmount")
	return app
}

// dress gives commands, and those below them, our help and our errors.
func dress(commands []*cli.Command, above string) {
	for _, cmd := range commands {
		name := above + " " + cmd.Name
		help := commandHelp
		if len(cmd.Subcommands) > 0 {
			help = groupHelp
		}
		cmd.CustomHelpTemplate = strings.ReplaceAll(help, "FULLNAME", name)
		cmd.HideHelpCommand = true
		cmd.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badFlag(err, name) }
		dress(cmd.Subcommands, name)
	}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Action: func(c *cli.Context) error {
			fmt.Fprintf(c.App.Writer, "btmount %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

func (usageError) ExitCode() int { return 2 }

func usage(err error) error { return usageError{err} }

// saidError ends the process without a word: it is all said.
type saidError struct{ code int }

func (e saidError) Error() string { return fmt.Sprintf("exit code %d", e.code) }
func (e saidError) ExitCode() int { return e.code }

// severalErrors are printed one per line.
type severalErrors []error

func (e severalErrors) Error() string { return errors.Join(e...).Error() }

// What packages flag and cli say of a command line, and what we make of it.
var flagErrors = []struct {
	theirs *regexp.Regexp
	ours   string
}{
	{regexp.MustCompile(`^flag provided but not defined: -(.*)$`), "--$1: there is no such flag"},
	{regexp.MustCompile(`^invalid boolean value (".*") for -(\S+): parse error$`), "--$2 $1: give true or false"},
	{regexp.MustCompile(`^could not parse (".*") as bool value from environment variable "(.*)" for flag .*$`), "$2 $1: give true or false"},
}

func badFlag(err error, command string) error {
	text := err.Error()
	for _, e := range flagErrors {
		text = e.theirs.ReplaceAllString(text, e.ours)
	}
	return usage(fmt.Errorf("%s; see %s --help", text, command))
}
