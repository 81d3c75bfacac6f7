package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount torrents on a directory, until Ctrl-C",
		ArgsUsage: "MOUNTPOINT SOURCE...",
		Description: `SOURCE is a .torrent file, a folder of them, a magnet link, the http(s) address of a
.torrent, or an info-hash of 40 hex digits. MOUNTPOINT is an empty directory (it may
also stand last, if the first argument is no directory).

   btmount mount ~/swarm film.torrent 'magnet:?xt=urn:btih:…'
   ls -l ~/swarm/torrents

A source that cannot be used is named in one line and the others are mounted; the exit
code is not 0 only if nothing could be mounted, or with --strict. Reading is what
fetches: ls, stat and find never wait for the network.`,
		Flags:  append(mountFlags(), commonFlags()...),
		Action: mount,
	}
}

func swarmFlags(listen string) []cli.Flag {
	return []cli.Flag{
		stringFlag("listen", listen, "`HOST:PORT` for peers (TCP) and the DHT (UDP); port 0 takes any"),
		listFlag("peer", "`HOST:PORT` of a peer to ask, for every torrent; may be repeated"),
		listFlag("tracker", "`URL` of a tracker to ask, for every torrent; may be repeated"),
		boolFlag("no-dht", "do not use the DHT"),
		listFlag("dht-bootstrap", "`HOST:PORT` of a DHT node to start from, instead of the well-known ones; may be repeated"),
		stringFlag("up-limit", "", "most `BYTES` per second sent to peers, such as 500KB; none by default"),
		stringFlag("down-limit", "", "most `BYTES` per second taken from peers; none by default"),
		&cli.IntFlag{Name: "max-peers", Value: 60, Usage: "most connections of one torrent", EnvVars: env("max-peers")},
		stringFlag("state-dir", stateDir(), "`FOLDER` for metadata of magnets and known nodes"),
	}
}

func mountFlags() []cli.Flag {
	return append([]cli.Flag{
		stringFlag("cache-dir", cacheDir(), "`FOLDER` for what was read; must not lie in the mount", "cache"),
		stringFlag("cache-size", "10GiB", "most `BYTES` of it, as real blocks on disk"),
		&cli.DurationFlag{Name: "read-timeout", Value: time.Minute, Usage: "a read that gets no data for so long fails with ETIMEDOUT", EnvVars: env("read-timeout")},
		boolFlag("no-upload", "never send a byte of content to peers"),
		boolFlag("allow-other", "let other users read the mount"),
		boolFlag("strict", "a source that cannot be used is fatal"),
		boolFlag("daemon", "go to the background once the mount is ready"),
	}, swarmFlags("0.0.0.0:0")...)
}

// daemonConfig reads what swarmFlags and mountFlags set.
func daemonConfig(c *cli.Context) (cfg daemon.Config, err error) {
	cfg = daemon.Config{
		Version: version, AllowOther: c.Bool("allow-other"), ReadTimeout: c.Duration("read-timeout"),
		Listen: c.String("listen"), Trackers: c.StringSlice("tracker"), NoDHT: c.Bool("no-dht"),
		DHTBootstrap: c.StringSlice("dht-bootstrap"), NoUpload: c.Bool("no-upload"), MaxPeers: c.Int("max-peers"),
	}
	if cfg.MaxPeers < 1 {
		return cfg, usage(fmt.Errorf("--max-peers %d: give at least 1", cfg.MaxPeers))
	}
	if cfg.Logger, err = logger(c); err != nil {
		return cfg, err
	}
	if c.IsSet("read-timeout") && cfg.ReadTimeout <= 0 {
		return cfg, usage(errors.New("--read-timeout: give a time above 0, such as 30s"))
	}
	for _, p := range c.StringSlice("peer") {
		a, err := netip.ParseAddrPort(p)
		if err != nil || a.Port() == 0 {
			return cfg, usage(fmt.Errorf("--peer %q: give an address and a port, such as 192.0.2.7:6881", p))
		}
		cfg.Peers = append(cfg.Peers, a)
	}
	for _, f := range []struct {
		name string
		to   *int64
	}{{"cache-size", &cfg.CacheSize}, {"up-limit", &cfg.UpLimit}, {"down-limit", &cfg.DownLimit}} {
		if v := c.String(f.name); v != "" {
			n, err := humanize.ParseBytes(v)
			if err != nil || n == 0 || n > 1<<60 {
				return cfg, usage(fmt.Errorf("--%s %q: give a size such as 500MB or 10GiB", f.name, v))
			}
			*f.to = int64(n)
		}
	}
	if cfg.StateDir, err = filepath.Abs(c.String("state-dir")); err != nil {
		return cfg, err
	}
	if dir := c.String("cache-dir"); dir != "" {
		cfg.CacheDir, err = filepath.Abs(dir)
	}
	return cfg, err
}

func mount(c *cli.Context) error {
	if err := applyConfig(c); err != nil {
		return err
	}
	point, sources, err := splitArgs(c.Args().Slice())
	if err != nil {
		return usage(err)
	}
	if c.Bool("daemon") && os.Getenv(readyVar) == "" {
		return background(c.Context, c.App.ErrWriter)
	}
	cfg, err := daemonConfig(c)
	if err != nil {
		return err
	}
	if cfg.Mountpoint, err = filepath.Abs(point); err != nil {
		return err
	}
	d, err := daemon.New(cfg)
	if err != nil {
		return err
	}
	added, bad := addAll(c.Context, d, sources)
	for _, err := range bad {
		fmt.Fprintln(c.App.ErrWriter, "btmount:", oneLine(err))
	}
	if added == 0 || c.Bool("strict") && len(bad) > 0 {
		d.Close()
		if added == 0 {
			return errors.New("nothing to mount")
		}
		return fmt.Errorf("%d sources cannot be used, and --strict is set", len(bad))
	}
	if err := d.Mount(); err != nil {
		d.Close()
		return err
	}
	ready(c, d, cfg, len(bad))
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	defer progress(ctx, c.App.ErrWriter, d)()
	return d.Run(ctx)
}

func addAll(ctx context.Context, d *daemon.Daemon, sources []string) (added int, bad []error) {
	for _, s := range sources {
		n, errs := d.Add(ctx, s)
		added += n
		bad = append(bad, errs...)
	}
	return added, bad
}

// ready prints the one line that says that the mount can be used.
func ready(c *cli.Context, d *daemon.Daemon, cfg daemon.Config, bad int) {
	all, known := d.Torrents()
	line := fmt.Sprintf("mounted %s on %s", count(all, "torrent"), cfg.Mountpoint)
	if known < all {
		line += fmt.Sprintf(", %d of them waiting for metadata", all-known)
	}
	if bad > 0 {
		line += fmt.Sprintf(", %s left out", count(bad, "source"))
	}
	fmt.Fprintf(c.App.Writer, "%s; peers reach us at %s; Ctrl-C unmounts\n", line, d.Addr())
	announceReady()
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

var infoHash = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// splitArgs tells the mountpoint from the sources: it is the first argument, or the
// last one if the first can only be a source.
func splitArgs(args []string) (point string, sources []string, err error) {
	if len(args) < 2 {
		return "", nil, errors.New("a mountpoint and a source are needed: btmount mount MOUNTPOINT SOURCE...")
	}
	first, last := args[0], args[len(args)-1]
	if isSource(first) && isDir(last) {
		return last, args[:len(args)-1], nil
	}
	return first, args[1:], nil
}

func isSource(s string) bool {
	low := strings.ToLower(s)
	if strings.HasPrefix(low, "magnet:") || strings.HasPrefix(low, "http://") || strings.HasPrefix(low, "https://") {
		return true
	}
	st, err := os.Stat(s)
	return err == nil && st.Mode().IsRegular() || err != nil && infoHash.MatchString(s)
}

func isDir(s string) bool {
	st, err := os.Stat(s)
	return err == nil && st.IsDir()
}
