package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// The help is ours and not cli's: that one repeats each placeholder, prints every
// environment variable and gets 180 columns wide.

const appHelp = `{{.Name}} {{.Version}}: {{.Usage}}

{{range .VisibleCommands}}   btmount {{.Name}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
       {{.Usage}}
{{end}}
A mount shows torrents/NAME for every torrent that you name, with its files at their
full size. What is read is fetched, verified and kept in a cache of bounded size;
nothing else is fetched. .btmount/status.json in the mount tells how every torrent is.

   btmount demo                               see it all on this machine, without internet
   btmount mount ~/swarm film.torrent         mount, until Ctrl-C
   ls -l ~/swarm/torrents                     read

Flags of each command: btmount COMMAND --help
`

const commandHelp = `FULLNAME{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
   {{.Usage}}
{{if .Description}}
{{.Description}}
{{end}}{{range .VisibleFlagCategories}}{{if .Name}}
{{.Name}}:
{{range .Flags}}{{.}}{{end}}{{end}}{{end}}{{if .VisibleFlagCategories}}
Flags may stand before, after and between arguments. Each can be given by environment
too (--read-timeout is BTMOUNT_READ_TIMEOUT; of a list, spaces separate) and in the
config file (read-timeout = "30s"). The command line wins over the environment, which
wins over the file.
{{end}}`

const groupHelp = `FULLNAME{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
   {{.Usage}}

{{range .VisibleCommands}}   FULLNAME {{.Name}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
       {{.Usage}}
{{end}}{{if .Description}}
{{.Description}}
{{end}}
Flags of each command: FULLNAME COMMAND --help
`

func init() { cli.FlagStringer = describe }

const (
	nameWidth = 30
	textWidth = 88 - nameWidth
)

// describe is the help of one flag, some whole lines.
func describe(f cli.Flag) string {
	var usage, value string
	switch f := f.(type) {
	case *cli.StringFlag:
		usage, value = f.Usage, f.Value
	case *cli.StringSliceFlag:
		usage = f.Usage
	case *cli.BoolFlag:
		usage = f.Usage
	}
	name := ""
	for _, n := range f.Names() {
		if len(n) > 1 {
			n = "-" + n
		}
		name += ", -" + n
	}
	name = name[2:]
	if _, after, ok := strings.Cut(usage, "`"); ok {
		placeholder, _, _ := strings.Cut(after, "`")
		name += " " + placeholder
		usage = strings.ReplaceAll(usage, "`", "")
	}
	if value != "" {
		usage += fmt.Sprintf(" (default %s)", tilde(value))
	}
	out := "   " + name
	indent := strings.Repeat(" ", nameWidth)
	if len(out) >= nameWidth-1 {
		out += "\n"
	} else {
		out += indent[len(out):]
	}
	for i, line := range wrap(usage) {
		if i > 0 || strings.HasSuffix(out, "\n") {
			out += indent
		}
		out += line + "\n"
	}
	return out
}

// wrap breaks a text into lines of textWidth.
func wrap(text string) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > textWidth {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimLeft(line+" "+word, " ")
	}
	return append(lines, line)
}

// tilde shortens a path in the user's home.
func tilde(path string) string {
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		if rest, ok := strings.CutPrefix(path, home+"/"); ok {
			return "~/" + rest
		}
	}
	return path
}
