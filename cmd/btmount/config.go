package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/urfave/cli/v2"
)

// env gives a flag its environment variable.
func env(name string) []string {
	return []string{"BTMOUNT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func stringFlag(name, value, usage string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name), Aliases: aliases}
}

func listFlag(name, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func boolFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// commonFlags are those of every command that runs for long.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("config", "", "TOML `FILE` with the same names as the flags (default: btmount/config.toml in your XDG config folder)"),
		stringFlag("log-level", "warn", "debug, info, warn or error"),
		stringFlag("log-format", "text", "text or json"),
	}
}

// applyConfig sets every flag that neither the command line nor the environment has
// set from the config file. A key that no command has is an error.
func applyConfig(c *cli.Context) error {
	path := c.String("config")
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil
		}
		path = filepath.Join(dir, "btmount", "config.toml")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config file %s: %w", path, bare(err))
	}
	k := koanf.New("\x00") // no nesting: dots are part of a key
	if err := k.Load(rawbytes.Provider(text), toml.Parser()); err != nil {
		return fmt.Errorf("config file %s: %w", path, err)
	}
	for _, key := range k.Keys() {
		if !anyFlag(c.App, key) {
			return fmt.Errorf("config file %s: line %d: there is no setting %q", path, lineOf(text, key), key)
		}
		if !hasFlag(c.Command.Flags, key) || c.IsSet(key) {
			continue
		}
		values := k.Strings(key)
		if len(values) == 0 {
			values = []string{k.String(key)}
		}
		for _, v := range values {
			if err := c.Set(key, v); err != nil {
				return fmt.Errorf("config file %s: line %d: %s: %w", path, lineOf(text, key), key, err)
			}
		}
	}
	return nil
}

func anyFlag(app *cli.App, name string) bool {
	for _, cmd := range app.Commands {
		if hasFlag(cmd.Flags, name) {
			return true
		}
	}
	return false
}

func hasFlag(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// lineOf finds the line on which a key stands.
func lineOf(text []byte, key string) int {
	for i, line := range bytes.Split(text, []byte("\n")) {
		name, _, ok := strings.Cut(string(line), "=")
		if ok && strings.Trim(strings.TrimSpace(name), `"'`) == key {
			return i + 1
		}
	}
	return 1
}

// logger makes the logger that --log-level and --log-format ask for.
func logger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage(fmt.Errorf("--log-level %q: give debug, info, warn or error", c.String("log-level")))
	}
	o := &slog.HandlerOptions{Level: level}
	switch c.String("log-format") {
	case "text":
		return slog.New(slog.NewTextHandler(c.App.ErrWriter, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(c.App.ErrWriter, o)), nil
	}
	return nil, usage(fmt.Errorf("--log-format %q: give text or json", c.String("log-format")))
}

// stateDir and cacheDir are the defaults of the XDG base directories; a user
// without a home gets the system's.
func stateDir() string {
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "btmount")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "btmount")
	}
	return "/var/lib/btmount"
}

func cacheDir() string {
	if d, err := os.UserCacheDir(); err == nil {
		return filepath.Join(d, "btmount")
	}
	return "/var/cache/btmount"
}

// bare drops the path that an error repeats.
func bare(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
