package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange makes of a command line what urfave/cli v2 understands: flags before
// arguments. It also takes the form in which mount(8) calls its helpers:
//
//	btmount SOURCE... MOUNTPOINT -o OPTION,NAME=VALUE
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	rest := args[1:]
	cmd := app.Command(rest[0])
	if cmd == nil {
		if !slices.Contains(rest, "-o") || strings.HasPrefix(rest[0], "-") {
			return args, nil
		}
		var err error
		if rest, err = helper(rest); err != nil {
			return nil, usage(err)
		}
		cmd = app.Command(rest[0])
	}
	flags, values := split(rest[1:], cmd.Flags)
	out := append([]string{args[0], rest[0]}, flags...)
	if len(values) > 0 {
		out = append(append(out, "--"), values...)
	}
	return out, nil
}

// split separates flags, with their values, from arguments. After "--" all are
// arguments. Flags that do not exist stay flags: cli names them in its error.
func split(args []string, known []cli.Flag) (flags, values []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return flags, append(values, args[i+1:]...)
		case len(a) < 2 || a[0] != '-':
			values = append(values, a)
			continue
		}
		flags = append(flags, a)
		name, _, whole := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !whole && takesValue(known, name) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return flags, values
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
			case name == "allow_other":
				out = append(out, "--allow-other")
			default:
				out = append(out, "--"+opt)
			}
		}
	}
	if len(values) < 2 {
		return nil, fmt.Errorf("a source and a mountpoint are needed")
	}
	last := len(values) - 1
	return append(append(out, values[last]), values[:last]...), nil
}

// oneLine makes sure that an error is one line.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
