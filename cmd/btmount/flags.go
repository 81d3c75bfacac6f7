package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
)

// Every flag is a string, a list of strings or a bool, and its text is checked here
// and not by cli: so an error can name where the value came from (command line,
// environment, config file), the reason and what to give instead.

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "BTMOUNT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// env gives a flag its environment variable. One that is empty counts as not set.
func env(flag string) []string {
	if os.Getenv(envName(flag)) == "" {
		return nil
	}
	return []string{envName(flag)}
}

func stringFlag(name, value, usage string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name), Aliases: aliases}
}

func listFlag(name, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage + "; may be repeated", EnvVars: env(name)}
}

func boolFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// under puts flags below a heading of the help.
func under(heading string, flags ...cli.Flag) []cli.Flag {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Category = heading
		case *cli.StringSliceFlag:
			f.Category = heading
		case *cli.BoolFlag:
			f.Category = heading
		}
	}
	return flags
}

// join makes one list of several.
func join(lists ...[]cli.Flag) (out []cli.Flag) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// settingFlags are those of every command that runs for long.
func settingFlags() []cli.Flag {
	return under("Settings and log",
		configFlag(),
		stringFlag("log-level", "warn", "least `LEVEL` that is logged: debug, info, warn or error"),
		stringFlag("log-file", "", "`FILE` that the log is appended to, instead of stderr; over 10 MB it is set aside, and one old one is kept; with --daemon it is btmount.log in the state folder if not given"),
		stringFlag("log-format", "text", "`FORMAT` of the log on stderr: text or json"),
	)
}

func configFlag() cli.Flag {
	return stringFlag("config", "", "TOML `FILE` with the names of the flags as keys; without this flag btmount/config.toml in $XDG_CONFIG_HOME or ~/.config is read, if it is there")
}

func swarmFlags() []cli.Flag {
	return under("Peers",
		stringFlag("listen", ":0", "`HOST:PORT` for peers (TCP, and uTP over UDP) and the DHT (UDP); port 0 takes any, no host is IPv4 and IPv6"),
		listFlag("peer", "`HOST:PORT` of a peer to ask, for every torrent"),
		listFlag("tracker", "`URL` of a tracker to ask, for every torrent"),
		boolFlag("no-dht", "do not use the DHT"),
		boolFlag("no-lsd", "do not look for peers in the local network (LSD); it is off too with a proxy, or if only this machine can call"),
		boolFlag("no-port-mapping", "do not ask the router to let peers call (PCP, NAT-PMP, UPnP); it is off too with a proxy, or if only this machine can call"),
		boolFlag("no-utp", "no peers over UDP (uTP), TCP only; it is off too with a proxy that does not relay it"),
		listFlag("dht-bootstrap", "`HOST:PORT` of a DHT node to start from instead of the well-known ones"),
		stringFlag("bind", "", "`ADDRESS` or name of an interface that everything goes through, or nothing is sent: peers, trackers, DHT, downloads, names; for a VPN give the interface"),
		listFlag("blocklist", "`FILE` or http(s) address of a list of peers never to speak to: lines of P2P text (name:192.0.2.0-192.0.2.255) or CIDR, plain or gzip"),
		stringFlag("encryption", "allow", "`WHETHER` connections are encrypted (MSE/PE): allow if a peer insists, prefer, require, or forbid"),
		stringFlag("proxy", "", "`URL` of a SOCKS5 proxy that everything goes through, as socks5://host:port or socks5://user@host:port; it looks up the names; listening is off then, and UDP (DHT, uTP, UDP trackers) unless --proxy-udp"),
		stringFlag("proxy-password-file", "", "`FILE` whose first line is the password for the proxy"),
		boolFlag("proxy-udp", "the proxy relays UDP (UDP ASSOCIATE), so DHT, uTP and UDP trackers go through it too"),
		stringFlag("up-limit", "", "most `BYTES` per second sent to peers, such as 500KB; no limit if not given"),
		stringFlag("down-limit", "", "most `BYTES` per second taken from peers; no limit if not given"),
		stringFlag("torrent-up-limit", "", "most `BYTES` per second that each torrent by itself sends; no limit if not given"),
		stringFlag("torrent-down-limit", "", "most `BYTES` per second that each torrent by itself takes; no limit if not given"),
		stringFlag("seed-ratio", "", "serve nobody once `RATIO` times what we have of a torrent was sent, such as 2 or 1.5; seed ends then"),
		stringFlag("seed-time", "", "serve nobody once nothing of a torrent was wanted for this `TIME`, such as 12h; seed ends then"),
		stringFlag("max-connections", "500", "most connections of all torrents together, a `NUMBER`"),
		stringFlag("max-half-open", "60", "most connections of all torrents that are being made at a time, a `NUMBER`"),
		stringFlag("max-peers", "60", "most connections of one torrent, a `NUMBER`"),
	)
}

func stateFlag() cli.Flag {
	return stringFlag("state-dir", stateDir(), "`FOLDER` for what must outlive the cache: metadata, known peers and DHT nodes, pins; and for the socket by which btmount cache finds the mount")
}

func mountFlags() []cli.Flag {
	return join(
		under("Mount",
			stringFlag("read-timeout", "60s", "a read that gets no data for this `TIME` fails with ETIMEDOUT"),
			boolFlag("allow-other", "let other users read the mount"),
			boolFlag("no-passthrough", "have complete files read through btmount too, instead of by the kernel alone"),
			boolFlag("strict", "mount nothing if one of the sources cannot be used"),
			boolFlag("daemon", "go to the background once the mount is ready"),
		),
		under("Disk",
			stringFlag("cache-dir", cacheDir(), "`FOLDER` for what was read; must not lie in the mount", "cache"),
			stringFlag("cache-size", "10GiB", "most `BYTES` of it, counted as real blocks on disk"),
			stringFlag("cache-min-free", "", "`BYTES` of the disk that the cache leaves free, whatever --cache-size says; 512MiB or a twentieth of the disk, whichever is less, if not given"),
			stringFlag("verify-cache", "changed", "`WHEN` what is in the cache is hashed before it is read: changed, after a crash or if somebody changed its files, or always"),
			listFlag("pin", "`PATTERN` of paths below torrents/, such as 'Film' or '*/*.mkv', where a folder stands for all in it: what matches is fetched in the background, rarest pieces first, and never evicted; in the environment lines separate them"),
			stringFlag("scrub-rate", "", "hash everything in the cache once a day in the background, `BYTES` per second, such as 1MB, and drop what the disk got wrong; not done if not given"),
			stateFlag(),
		),
		append(swarmFlags(), under("Peers", boolFlag("no-upload", "never send a byte of content to peers"))...),
		under("BTFS", sourceFlags()...),
		settingFlags(),
	)
}

// reader reads the values of flags; its first error stays.
type reader struct {
	c   *cli.Context
	err error
}

// wrong notes that the value of a flag is not good. It names the flag as the user
// gave it.
func (r *reader) wrong(flag, value, advice string) {
	if r.err != nil {
		return
	}
	from := "--" + flag
	if line, ok := fromConfig(r.c, flag); ok {
		from = line
	} else if v := os.Getenv(envName(flag)); v != "" && strings.Contains(v, value) {
		from = envName(flag)
	}
	r.err = usage(fmt.Errorf("%s %s: %s", from, strconv.Quote(value), advice))
}

// size reads a number of bytes; "" is 0, which means no limit.
func (r *reader) size(flag string) int64 {
	v := r.c.String(flag)
	if v == "" && !r.c.IsSet(flag) {
		return 0
	}
	n, err := humanize.ParseBytes(v)
	if err != nil || n == 0 || n > 1<<60 {
		r.wrong(flag, v, "give a size above 0, such as 500MB or 10GiB")
	}
	return int64(n)
}

func (r *reader) folder(flag string) string {
	v := r.c.String(flag)
	if v == "" {
		r.wrong(flag, v, "give a folder")
		return ""
	}
	abs, err := filepath.Abs(v)
	if err != nil {
		r.wrong(flag, v, err.Error()+"; give an absolute path")
	}
	return abs
}

func (r *reader) number(flag string, most int) int {
	v := r.c.String(flag)
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		r.wrong(flag, v, fmt.Sprintf("give a number from 1 to %d", most))
	}
	return n
}

// ratio reads a number above 0; 0 if there is none.
func (r *reader) ratio(flag string) float64 {
	v := r.c.String(flag)
	if v == "" && !r.c.IsSet(flag) {
		return 0
	}
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || !(n > 0) || n > 1e6 {
		r.wrong(flag, v, "give a number above 0, such as 2 or 1.5")
	}
	return n
}

func (r *reader) oneOf(flag string, words ...string) string {
	v := r.c.String(flag)
	if !slices.Contains(words, v) {
		last := len(words) - 1
		r.wrong(flag, v, "give "+strings.Join(words[:last], ", ")+" or "+words[last])
	}
	return v
}

func (r *reader) time(flag string) time.Duration {
	v := r.c.String(flag)
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		r.wrong(flag, v, "give a time above 0, such as 30s or 2m")
	}
	return d
}

// list reads a flag that may be repeated. In the environment, spaces separate.
func (r *reader) list(flag string) (out []string) {
	for _, v := range r.c.StringSlice(flag) {
		if strings.TrimSpace(v) == "" {
			r.wrong(flag, v, "give a value")
		}
		out = append(out, strings.Fields(v)...)
	}
	return out
}

// files reads a list of files or URLs; the name of a file that exists may have spaces.
func (r *reader) files(flag string) (out []string) {
	for _, v := range r.c.StringSlice(flag) {
		if _, err := os.Stat(v); err == nil {
			out = append(out, v)
			continue
		}
		if strings.TrimSpace(v) == "" {
			r.wrong(flag, v, "give a value")
		}
		out = append(out, strings.Fields(v)...)
	}
	return out
}

// password reads the first line of a file.
func (r *reader) password(flag string) string {
	path := r.c.String(flag)
	if path == "" {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.wrong(flag, path, bare(err).Error()+"; give a file that can be read")
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		r.wrong(flag, path, "its first line is empty; it should be the password")
	}
	return line
}

// hostPorts reads a list of HOST:PORT.
func (r *reader) hostPorts(flag string) []string {
	all := r.list(flag)
	for _, v := range all {
		host, port, err := net.SplitHostPort(v)
		n, err2 := strconv.ParseUint(port, 10, 16)
		if err != nil || err2 != nil || host == "" || n == 0 {
			r.wrong(flag, v, "give an address and a port, such as 192.0.2.7:6881")
		}
	}
	return all
}

// peers reads --peer; names are looked up once, in the way that cfg asks for.
func (r *reader) peers(cfg daemon.Config) (out []netip.AddrPort) {
	for _, v := range r.hostPorts("peer") {
		if r.err != nil {
			return nil
		}
		if a, err := netip.ParseAddrPort(v); err == nil {
			out = append(out, a)
			continue
		}
		a, err := cfg.Lookup(r.c.Context, v)
		if err != nil {
			r.wrong("peer", v, fmt.Sprintf("this name has no address (%v); give an address and a port, such as 192.0.2.7:6881", err))
			return nil
		}
		out = append(out, a)
	}
	return out
}

// patterns reads patterns of paths below torrents/. They may have spaces: in the
// environment one stands on each line.
func (r *reader) patterns(flag string) (all []string) {
	var list []string
	for _, v := range r.c.StringSlice(flag) {
		list = append(list, strings.Split(v, "\n")...)
	}
	for _, v := range list {
		p, err := daemon.CleanPattern(v)
		if err != nil {
			r.wrong(flag, v, err.Error())
		}
		all = append(all, p)
	}
	return all
}

func (r *reader) trackers() []string {
	all := r.list("tracker")
	for _, v := range all {
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "udp" {
			r.wrong("tracker", v, "give the address of a tracker, such as udp://tracker.example:6969/announce (http, https or udp)")
		}
	}
	return all
}

// swarmConfig reads what every command that meets peers has.
func (r *reader) swarmConfig() daemon.Config {
	cfg := daemon.Config{
		Version: version, Bind: r.c.String("bind"), Proxy: r.c.String("proxy"), ProxyPassword: r.password("proxy-password-file"), ProxyUDP: r.c.Bool("proxy-udp"), Listen: r.c.String("listen"), Trackers: r.trackers(),
		Blocklists: r.files("blocklist"), NoDHT: r.c.Bool("no-dht"), NoLSD: r.c.Bool("no-lsd"), NoUTP: r.c.Bool("no-utp"), NoPortMapping: r.c.Bool("no-port-mapping"), DHTBootstrap: r.hostPorts("dht-bootstrap"), MaxPeers: r.number("max-peers", 10000),
		MaxConnections: r.number("max-connections", 100000), MaxHalfOpen: r.number("max-half-open", 10000),
		UpLimit: r.size("up-limit"), DownLimit: r.size("down-limit"), StateDir: r.folder("state-dir"),
		EachUp: r.size("torrent-up-limit"), EachDown: r.size("torrent-down-limit"),
		SeedRatio: r.ratio("seed-ratio"),
	}
	if r.c.String("seed-time") != "" || r.c.IsSet("seed-time") {
		cfg.SeedTime = r.time("seed-time")
	}
	cfg.Encryption = r.oneOf("encryption", "allow", "prefer", "require", "forbid")
	cfg.Peers = r.peers(cfg)
	if _, port, err := net.SplitHostPort(cfg.Listen); err != nil || port == "" {
		r.wrong("listen", cfg.Listen, "give an address and a port, such as :6881 or 192.0.2.7:6881; port 0 takes any")
	}
	if r.err == nil {
		cfg.Logger, r.err = logger(r.c)
	}
	return cfg
}

// mountConfig reads what the mount command has besides.
func (r *reader) mountConfig() daemon.Config {
	cfg := r.swarmConfig()
	cfg.AllowOther, cfg.NoUpload = r.c.Bool("allow-other"), r.c.Bool("no-upload")
	cfg.NoPassthrough = r.c.Bool("no-passthrough")
	cfg.ReadTimeout = r.time("read-timeout")
	cfg.CacheDir, cfg.CacheSize = r.folder("cache-dir"), r.size("cache-size")
	cfg.CacheMinFree = r.size("cache-min-free")
	cfg.VerifyAlways = r.oneOf("verify-cache", "changed", "always") == "always"
	cfg.Pins = r.patterns("pin")
	cfg.ScrubRate = r.size("scrub-rate")
	cfg.BTFS = r.btfsConfig()
	return cfg
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
