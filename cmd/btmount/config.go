package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	gotoml "github.com/pelletier/go-toml/v2"
	"github.com/urfave/cli/v2"
	"gopkg.in/natefinch/lumberjack.v2"
)

// configFile is a config file whose keys are known to be flags.
type configFile struct {
	path string
	text []byte
	used map[string]bool // keys that set a flag
}

// configPath returns the file to read, "" if there is none.
func configPath(c *cli.Context) string {
	if path := c.String("config"); path != "" {
		return path
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(dir, "btmount", "config.toml")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return path
}

// applyConfig sets every flag that neither the command line nor the environment has
// set from the config file. A key that no command has is an error.
func applyConfig(c *cli.Context) error {
	f := &configFile{path: configPath(c), used: map[string]bool{}}
	if f.path == "" {
		return nil
	}
	var err error
	if f.text, err = os.ReadFile(f.path); err != nil {
		return fmt.Errorf("config file %s: %w; name another with --config", f.path, bare(err))
	}
	k := koanf.New("\x00") // no nesting: a dot is part of a key
	if err := k.Load(rawbytes.Provider(f.text), toml.Parser()); err != nil {
		if de := (*gotoml.DecodeError)(nil); errors.As(err, &de) {
			line, _ := de.Position()
			return fmt.Errorf("config file %s: line %d: not TOML: %s", f.path, line, strings.TrimPrefix(de.Error(), "toml: "))
		}
		return fmt.Errorf("config file %s: not TOML: %w", f.path, err)
	}
	keys := k.Keys()
	slices.SortFunc(keys, func(a, b string) int { return f.line(a) - f.line(b) })
	for _, key := range keys {
		if err := f.apply(c, key, k.Get(key)); err != nil {
			return fmt.Errorf("%s: %w", f.at(key), err)
		}
	}
	c.App.Metadata = map[string]any{"config": f}
	return nil
}

// apply sets one flag.
func (f *configFile) apply(c *cli.Context, key string, value any) error {
	flag := findFlag(c.Command.Flags, key)
	for _, cmd := range everyCommand(c.App.Commands) {
		if flag == nil {
			flag = findFlag(cmd.Flags, key)
		}
	}
	if flag == nil || key == "config" {
		return fmt.Errorf("there is no such setting; the keys are the names of the flags: %s --help", c.Command.HelpName)
	}
	values, err := texts(flag, value)
	if err != nil || findFlag(c.Command.Flags, key) == nil || c.IsSet(key) {
		return err
	}
	for _, v := range values {
		if err := c.Set(key, v); err != nil {
			return err
		}
	}
	f.used[key] = true
	return nil
}

// everyCommand returns commands and those below them.
func everyCommand(commands []*cli.Command) (all []*cli.Command) {
	for _, c := range commands {
		all = append(append(all, c), everyCommand(c.Subcommands)...)
	}
	return all
}

// texts makes what a flag takes of a TOML value, if it is of the right type.
func texts(flag cli.Flag, value any) ([]string, error) {
	list, isList := value.([]any)
	switch flag.(type) {
	case *cli.BoolFlag:
		if b, ok := value.(bool); ok {
			return []string{fmt.Sprint(b)}, nil
		}
		return nil, errors.New("give true or false, without quotes")
	case *cli.StringSliceFlag:
		if !isList {
			list = []any{value}
		}
		var out []string
		for _, v := range list {
			s, ok := v.(string)
			if !ok {
				return nil, errors.New(`give a list of texts, such as ["one", "two"]`)
			}
			out = append(out, s)
		}
		return out, nil
	}
	switch v := value.(type) {
	case string:
		return []string{v}, nil
	case int64:
		return []string{fmt.Sprint(v)}, nil
	}
	return nil, errors.New(`give one text in quotes, such as "10GiB", or a whole number`)
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if f.Names()[0] == name {
			return f
		}
	}
	return nil
}

// line finds the line on which a key stands; of a table's key, the table's.
func (f *configFile) line(key string) int {
	key, _, table := strings.Cut(key, "\x00")
	for i, line := range bytes.Split(f.text, []byte("\n")) {
		name, _, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if table {
			name, ok = strings.Trim(name, "[]"), true
		}
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if ok && (name == key || table && strings.HasPrefix(name, key+".")) {
			return i + 1
		}
	}
	return 1
}

// at names a key for a message.
func (f *configFile) at(key string) string {
	shown, _, _ := strings.Cut(key, "\x00")
	return fmt.Sprintf("config file %s: line %d: %s", f.path, f.line(key), shown)
}

// fromConfig tells where in the config file a flag was set, if it was there.
func fromConfig(c *cli.Context, flag string) (at string, ok bool) {
	f, ok := c.App.Metadata["config"].(*configFile)
	if !ok || !f.used[flag] {
		return "", false
	}
	return f.at(flag), true
}

// logger makes the logger that --log-level and --log-format ask for.
func logger(c *cli.Context) (*slog.Logger, error) {
	r := reader{c: c}
	var level slog.Level
	if v := c.String("log-level"); level.UnmarshalText([]byte(v)) != nil {
		r.wrong("log-level", v, "give debug, info, warn or error")
	}
	o := &slog.HandlerOptions{Level: level}
	to := c.App.ErrWriter
	if file := r.logFile(); file != "" && r.err == nil {
		to = &lumberjack.Logger{Filename: file, MaxSize: 10, MaxBackups: 1}
		if c.String("log-file") == "" {
			to = io.MultiWriter(to, c.App.ErrWriter) // read until the mount is ready
		}
	}
	var h slog.Handler = slog.NewTextHandler(to, o)
	switch v := c.String("log-format"); v {
	case "text":
	case "json":
		h = slog.NewJSONHandler(to, o)
	default:
		r.wrong("log-format", v, "give text or json")
	}
	return slog.New(h), r.err
}

// logFile is where the log goes, "" for stderr. The file is opened once here, so that one
// that can not be written is told at once, and so that the trace of a crash goes there too.
func (r *reader) logFile() string {
	path := r.c.String("log-file")
	if r.c.IsSet("log-file") && path == "" {
		r.wrong("log-file", path, "give a file")
	}
	if path == "" && os.Getenv(readyVar) != "" { // in the background, where nobody sees stderr
		dir := r.folder("state-dir")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "" // it is told when the folder is needed
		}
		path = filepath.Join(dir, "btmount.log")
	}
	if path == "" || r.err != nil {
		return ""
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		r.wrong("log-file", path, bare(err).Error()+"; give a file that can be written")
		return ""
	}
	defer f.Close()
	_ = debug.SetCrashOutput(f, debug.CrashOptions{}) // it keeps a descriptor of its own
	return path
}
