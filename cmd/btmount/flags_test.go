package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
)

// parse reads a mount's command line, environment and config file, and stops there.
func parse(t *testing.T, config string, args ...string) (cfg daemon.Config, err error) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if config != "" {
		path := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "btmount", "config.toml")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	app := newApp(io.Discard, io.Discard)
	app.Command("mount").Action = func(c *cli.Context) error {
		if err := applyConfig(c); err != nil {
			return err
		}
		r := reader{c: c}
		cfg = r.mountConfig()
		return r.err
	}
	args, err = arrange(app, append([]string{"btmount", "mount"}, args...))
	if err == nil {
		err = app.Run(args)
	}
	return cfg, err
}

func TestPrecedence(t *testing.T) {
	const config = `
# lists may be one text
cache-size = "1GiB"
max-peers = 7
read-timeout = "5s"
no-dht = true
peer = ["192.0.2.1:1", "192.0.2.2:2"]
tracker = "udp://t.example:6969/a,b"
hybrid = true # of another command
`
	t.Setenv("BTMOUNT_MAX_PEERS", "8")
	t.Setenv("BTMOUNT_READ_TIMEOUT", "6s")
	t.Setenv("BTMOUNT_UP_LIMIT", "")
	t.Setenv("BTMOUNT_DHT_BOOTSTRAP", "a.example:1 b.example:2")
	cfg, err := parse(t, config, "--read-timeout", "7s")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CacheSize != 1<<30 || !cfg.NoDHT || len(cfg.Peers) != 2 || !slices.Equal(cfg.Trackers, []string{"udp://t.example:6969/a,b"}) {
		t.Errorf("the file: %+v", cfg)
	}
	if cfg.MaxPeers != 8 || cfg.UpLimit != 0 || !slices.Equal(cfg.DHTBootstrap, []string{"a.example:1", "b.example:2"}) {
		t.Errorf("the environment: %+v", cfg)
	}
	if cfg.ReadTimeout != 7*time.Second {
		t.Errorf("the command line: %+v", cfg)
	}
}

func TestConfigErrors(t *testing.T) {
	for config, want := range map[string]string{
		"\nno-such = 1":           `line 2: no-such: there is no such setting`,
		"# c\n\nno-dht = \"yes\"": `line 3: no-dht: give true or false`,
		"cache-size = true":       `line 1: cache-size: give one text in quotes`,
		"peer = [1, 2]":           `line 1: peer: give a list of texts`,
		"peer = [\"a\"]":          `line 1: peer "a": give an address and a port`,
		"\n\nmax-peers = 0":       `line 3: max-peers "0": give a number from 1`,
		"cache-size = \"abc\"":    `line 1: cache-size "abc": give a size`,
		"[mount]\nno-dht = true":  `line 1: mount: there is no such setting`,
		"a = 1\nno-dht = true":    `line 1: a: there is no such setting`,
		"no-dht = true\nno-dht":   `line 2: not TOML`,
		"config = \"other\"":      `line 1: config: there is no such setting`,
		"log-level = \"loud\"":    `line 1: log-level "loud": give debug`,
		"piece-length = true":     `line 1: piece-length: give one text`, // of another command
	} {
		_, err := parse(t, config)
		if err == nil || !strings.Contains(oneLine(err), want) || !strings.Contains(err.Error(), "config.toml: ") {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
	}
	if _, err := parse(t, "", "--config", "/no/such/file"); err == nil || !strings.Contains(err.Error(), "config file /no/such/file: no such file") {
		t.Error(err)
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		flag, value string
		ok          bool
	}{
		{"pin", "*/*.mkv", true},
		{"pin", "/Film [[]1080p]/", true},
		{"pin", "Film [1080p", false},
		{"pin", "/", false},
		{"pin", "", false},
		{"cache-size", "10GiB", true},
		{"cache-size", "1.5 GB", true},
		{"cache-size", "1048576", true},
		{"cache-size", "-1", false},
		{"cache-size", "0", false},
		{"cache-size", "abc", false},
		{"cache-size", "", false},
		{"cache-size", "99999PB", false},
		{"up-limit", "500KB", true},
		{"up-limit", "0", false},
		{"down-limit", "1e999", false},
		{"torrent-up-limit", "1MB", true},
		{"torrent-down-limit", "0", false},
		{"seed-ratio", "1.5", true},
		{"seed-ratio", "0", false},
		{"seed-ratio", "NaN", false},
		{"seed-ratio", "-1", false},
		{"seed-time", "12h", true},
		{"seed-time", "0", false},
		{"read-timeout", "2m", true},
		{"read-timeout", "60", false},
		{"read-timeout", "-1s", false},
		{"read-timeout", "0", false},
		{"max-peers", "1", true},
		{"max-peers", "0", false},
		{"max-peers", "x", false},
		{"peer", "192.0.2.1:6881", true},
		{"peer", "[2001:db8::1]:6881", true},
		{"peer", "localhost:6881", true},
		{"peer", "192.0.2.1", false},
		{"peer", "192.0.2.1:0", false},
		{"peer", ":6881", false},
		{"peer", "name.invalid:1", false},
		{"peer", "", false},
		{"tracker", "udp://t.example:6969", true},
		{"tracker", "http://t.example/announce?a=1,2", true},
		{"tracker", "ftp://t.example", false},
		{"tracker", "t.example", false},
		{"dht-bootstrap", "r.example:6881", true},
		{"dht-bootstrap", "r.example", false},
		{"listen", "0.0.0.0:0", true},
		{"listen", ":6881", true},
		{"listen", "6881", false},
		{"log-level", "debug", true},
		{"log-level", "all", false},
		{"log-format", "json", true},
		{"log-format", "xml", false},
		{"state-dir", "", false},
		{"cache-dir", "", false},
		{"cache-dir", "relative", true},
	} {
		_, err := parse(t, "", "--"+c.flag, c.value)
		if (err == nil) != c.ok {
			t.Errorf("--%s %q: %v", c.flag, c.value, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), fmt.Sprintf("--%s %q: ", c.flag, c.value)) || run([]string{"btmount", "mount", "x", "y", "--" + c.flag, c.value}, io.Discard, io.Discard) != 2) {
			t.Errorf("--%s %q: %v does not name it, or the exit code is not 2", c.flag, c.value, err)
		}
	}
	t.Setenv("BTMOUNT_CACHE_SIZE", "abc")
	if _, err := parse(t, ""); err == nil || !strings.HasPrefix(err.Error(), `BTMOUNT_CACHE_SIZE "abc": `) {
		t.Error(err)
	}
}

// asked are the flags that a user was promised.
var asked = strings.Fields(`cache-dir pin cache-size state-dir listen peer tracker no-dht no-lsd dht-bootstrap no-upload read-timeout
	up-limit down-limit torrent-up-limit torrent-down-limit seed-ratio seed-time max-peers max-connections max-half-open encryption bind proxy proxy-password-file proxy-udp blocklist allow-other log-level log-format log-file config strict daemon`)

// Every flag of every command can be given by environment, and what is given arrives.
func TestEnvironment(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	for _, name := range asked {
		if findFlag(app.Command("mount").Flags, name) == nil {
			t.Errorf("mount has no --%s", name)
		}
	}
	if findFlag(app.Command("seed").Flags, "state-dir") == nil {
		t.Error("seed has no --state-dir")
	}
	for _, name := range []string{"mount", "seed"} {
		for _, f := range app.Command(name).Flags {
			flag := f.Names()[0]
			if flag == "help" {
				continue
			}
			t.Setenv(envName(flag), "true")
			app := newApp(io.Discard, io.Discard)
			set := ""
			app.Command(name).Action = func(c *cli.Context) error {
				set = fmt.Sprint(c.Value(flag))
				return nil
			}
			if err := app.Run([]string{"btmount", name}); err != nil || !strings.Contains(set, "true") {
				t.Errorf("%s: %s is not read: %q, %v", name, envName(flag), set, err)
			}
			os.Unsetenv(envName(flag))
		}
	}
}

// The help is a page that people read: it is kept in testdata, and read in reviews.
func TestHelp(t *testing.T) {
	p := newPlace(t)
	p.env = append(p.env, "HOME=/home/user")
	for name, args := range map[string][]string{
		"btmount": {}, "mount": {"mount", "--help"}, "unmount": {"unmount", "-h"}, "seed": {"help", "seed"}, "demo": {"demo", "--help"},
		"cache": {"cache"}, "cache-status": {"help", "cache", "status"}, "cache-pin": {"cache", "pin", "--help"}, "cache-unpin": {"cache", "unpin", "-h"},
		"cache-evict": {"cache", "evict", "--help"}, "cache-verify": {"cache", "verify", "--help"}, "cache-limit": {"cache", "limit", "--help"},
		"btfs": {"btfs"}, "btfs-ls": {"btfs", "ls", "--help"}, "btfs-stat": {"help", "btfs", "stat"}, "btfs-get": {"btfs", "get", "-h"}, "btfs-dag": {"btfs", "dag", "--help"},
		"btfs-add": {"btfs", "add", "--help"}, "btfs-pin": {"btfs", "pin", "--help"}, "btfs-unpin": {"btfs", "unpin", "--help"}, "btfs-pins": {"btfs", "pins", "--help"},
		"btfs-rent": {"btfs", "rent", "--help"}, "btfs-rentals": {"btfs", "rentals", "--help"}, "btfs-renew": {"btfs", "renew", "--help"},
		"btfs-node-hosts": {"btfs", "node", "hosts", "--help"}, "btfs-node-contracts": {"btfs", "node", "contracts", "--help"}, "btfs-node-cheques": {"btfs", "node", "cheques", "--help"},
		"btfs-name": {"btfs", "name"}, "btfs-name-publish": {"btfs", "name", "publish", "--help"}, "btfs-name-resolve": {"btfs", "name", "resolve", "--help"},
		"btfs-node": {"btfs", "node"}, "btfs-node-status": {"help", "btfs", "node", "status"},
		"wallet": {"wallet"}, "wallet-new": {"wallet", "new", "--help"}, "wallet-import": {"wallet", "import", "--help"}, "wallet-export": {"wallet", "export", "-h"}, "wallet-list": {"wallet", "list", "--help"},
		"wallet-address": {"wallet", "address", "--help"}, "wallet-balance": {"wallet", "balance", "--help"}, "wallet-send": {"help", "wallet", "send"}, "wallet-wrap": {"wallet", "wrap", "--help"},
		"wallet-unwrap": {"wallet", "unwrap", "--help"}, "wallet-tx": {"wallet", "tx", "--help"}, "wallet-limit": {"wallet", "limit"}, "wallet-limit-set": {"wallet", "limit", "set", "--help"},
		"wallet-limit-show": {"wallet", "limit", "show", "-h"}, "wallet-limit-off": {"wallet", "limit", "off", "-h"}, "wallet-ledger": {"wallet", "ledger", "--help"}, "wallet-chain": {"wallet", "chain"},
		"wallet-chain-list": {"wallet", "chain", "list", "-h"}, "wallet-chain-use": {"wallet", "chain", "use", "--help"}, "wallet-chain-check": {"wallet", "chain", "check", "-h"},
	} {
		got := p.run(args...)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%v: %+v", args, got)
		}
		for line := range strings.Lines(got.stdout) {
			if len(line) > 100 {
				t.Errorf("%v: a line is too long: %s", args, line)
			}
		}
		golden := filepath.Join("testdata", "help-"+name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || string(want) != got.stdout {
			t.Errorf("%v differs from %s (%v); read it, then: go test ./cmd/btmount -run TestHelp -update\n%s", args, golden, err, got.stdout)
		}
	}
	if same := p.run("--help"); same != p.run() {
		t.Errorf("--help: %+v", same)
	}
	for _, args := range []string{"version", "--version"} {
		if got := p.run(args); got.code != 0 || !strings.Contains(got.stdout, version) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// README has a table of all flags, true to the help, and of none that does not exist.
func TestReadmeNamesEveryFlag(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "/home/user")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	of, exists := map[string]string{}, map[string]bool{} // help of a flag -> commands
	app := newApp(io.Discard, io.Discard)
	for _, cmd := range app.Commands {
		for flag, names := range usersOf(cmd, cmd.Name) {
			of[flag] = strings.TrimPrefix(of[flag]+", "+strings.Join(names, ", "), ", ")
		}
	}
	for _, cmd := range everyCommand(app.Commands) {
		for _, f := range cmd.Flags {
			exists[f.Names()[0]] = true
			if row := readmeRow(f, of[describe(f)]); !strings.Contains(string(readme), row) {
				t.Errorf("README lacks this row of its table of flags:\n%s", row)
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z0-9-]+)").FindAllStringSubmatch(string(readme), -1) {
		if !exists[m[1]] {
			t.Errorf("README has a row for --%s, which does not exist", m[1])
		}
	}
}

// usersOf tells of each flag, by its help, which commands have it: what all below a group have is the
// group's.
func usersOf(cmd *cli.Command, name string) map[string][]string {
	of := map[string][]string{}
	for _, f := range cmd.Flags {
		of[describe(f)] = []string{name}
	}
	groups := map[string]int{}
	for _, sub := range cmd.Subcommands {
		below := name + " " + sub.Name
		for flag, names := range usersOf(sub, below) {
			of[flag] = append(of[flag], names...)
			if len(names) == 1 && names[0] == below {
				groups[flag]++
			}
		}
	}
	for flag, n := range groups {
		if n == len(cmd.Subcommands) {
			of[flag] = []string{name}
		}
	}
	return of
}

// readmeRow is a flag in README's table.
func readmeRow(f cli.Flag, commands string) string {
	lines := strings.SplitN(strings.Join(strings.Fields(strings.ReplaceAll(describe(f), "\n", " ")), " "), " ", 2)
	text := strings.TrimPrefix(lines[1], "--cache ") // the alias
	name := strings.TrimSuffix(lines[0], ",")
	if first, rest, ok := strings.Cut(text, " "); ok && first == strings.ToUpper(first) {
		name, text = name+" "+first, rest
	}
	value := ""
	if i := strings.LastIndex(text, " (default "); i >= 0 {
		value, text = strings.TrimSuffix(text[i+len(" (default "):], ")"), text[:i]
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, commands, value, text)
}
