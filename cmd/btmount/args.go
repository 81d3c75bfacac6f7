package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange makes of a command line what urfave/cli v2 understands: flags before
// arguments. It also takes "btmount help COMMAND", and the form in which mount(8)
// calls its helpers:
//
//	btmount SOURCE... MOUNTPOINT -o OPTION,NAME=VALUE
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	rest := args[1:]
	if rest[0] == "help" {
		return append(append([]string{args[0]}, rest[1:]...), "--help"), nil
	}
	cmd := app.Command(rest[0])
	switch {
	case cmd != nil:
	case strings.HasPrefix(rest[0], "-"):
		return args, nil // --help, --version, or unknown
	case slices.Contains(rest, "-o"):
		var err error
		if rest, err = helper(rest); err != nil {
			return nil, usage(err)
		}
		cmd = app.Command(rest[0])
	default:
		return nil, usage(fmt.Errorf("%q is no command of btmount; see btmount --help", rest[0]))
	}
	out, name := []string{args[0], rest[0]}, "btmount "+cmd.Name
	for rest = rest[1:]; len(cmd.Subcommands) > 0; rest = rest[1:] {
		if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
			return append(out, rest...), nil // its help, or an unknown flag
		}
		sub := named(cmd.Subcommands, rest[0])
		if sub == nil {
			return nil, usage(fmt.Errorf("%q is no command of %s; see %s --help", rest[0], name, name))
		}
		cmd, name = sub, name+" "+sub.Name
		out = append(out, rest[0])
	}
	flags, values, err := split(rest, cmd.Flags)
	if err != nil {
		return nil, usage(fmt.Errorf("%w; see %s --help", err, name))
	}
	out = append(out, flags...)
	if len(values) > 0 {
		out = append(append(out, "--"), values...)
	}
	return out, nil
}

func named(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// split separates flags, with their values, from arguments. After "--" all are
// arguments. Flags that do not exist stay flags: cli names them in its error.
func split(args []string, known []cli.Flag) (flags, values []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return flags, append(values, args[i+1:]...), nil
		case len(a) < 2 || a[0] != '-':
			values = append(values, a)
			continue
		}
		flags = append(flags, a)
		name, _, whole := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !whole && takesValue(known, name) {
			if i++; i == len(args) {
				return nil, nil, fmt.Errorf("--%s: it needs a value", name)
			}
			flags = append(flags, args[i])
		}
	}
	return flags, values, nil
}

func takesValue(known []cli.Flag, name string) bool {
	for _, f := range known {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

// kernelOptions are options that mount(8) passes on and that mean nothing here: the
// mount is read-only, without devices and without set-uid bits anyway.
var kernelOptions = []string{
	"ro", "rw", "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail",
	"dev", "nodev", "suid", "nosuid", "exec", "noexec", "async", "sync", "atime", "noatime", "relatime", "diratime", "nodiratime",
}

// helper translates the form of mount(8) to that of the mount command.
func helper(args []string) ([]string, error) {
	var values []string
	out := []string{"mount", "--daemon"}
	for i := 0; i < len(args); i++ {
		if args[i] != "-o" {
			if strings.HasPrefix(args[i], "-") {
				continue // -n, -s, -v of mount(8)
			}
			values = append(values, args[i])
			continue
		}
		if i++; i == len(args) {
			return nil, fmt.Errorf("-o needs options")
		}
		for _, opt := range strings.Split(args[i], ",") {
			name, _, _ := strings.Cut(opt, "=")
			switch {
			case opt == "" || slices.Contains(kernelOptions, name) || strings.HasPrefix(name, "x-") || name == "fsname" || name == "subtype":
			default: // allow_other is --allow-other; one that does not exist is cli's error
				out = append(out, "--"+strings.ReplaceAll(name, "_", "-")+opt[len(name):])
			}
		}
	}
	if len(values) < 2 {
		return nil, fmt.Errorf("a source and a mountpoint are needed: btmount SOURCE MOUNTPOINT -o OPTIONS")
	}
	last := len(values) - 1
	return append(append(out, "--", values[last]), values[:last]...), nil
}

// oneLine makes sure that an error is one line, and that nothing in it moves the
// cursor.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.Join(lines, "; "))
}
