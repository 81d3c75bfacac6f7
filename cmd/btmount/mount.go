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

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fs"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount torrents and objects of BTFS on a directory, until Ctrl-C",
		ArgsUsage: "MOUNTPOINT [SOURCE...]",
		Description: `SOURCE is a .torrent file, a folder of them, a magnet link, the http(s) address of a
.torrent, an info-hash of 40 hex digits, or a CID of BTFS (btfs://CID). MOUNTPOINT is an
empty directory (it may also stand last, if the first argument is no directory).

   btmount mount ~/swarm film.torrent 'magnet:?xt=urn:btih:…'
   ls -l ~/swarm/torrents

Every CID is a name in ~/swarm/btfs, whether or not it was given here, if there is somebody
to ask for its blocks: see --btfs-gateway and --btfs-node.

A source that cannot be used is named in one line and the others are mounted; the exit
code is not 0 only if nothing could be mounted, or with --strict. Reading is what fetches:
ls, stat and find never wait for the network, but in btfs/.`,
		Flags:  mountFlags(),
		Action: mount,
	}
}

func mount(c *cli.Context) error {
	if err := applyConfig(c); err != nil {
		return err
	}
	point, sources, err := splitArgs(c.Args().Slice())
	if err != nil {
		return usage(err)
	}
	r := reader{c: c}
	cfg := r.mountConfig()
	if r.err != nil {
		return r.err
	}
	if cfg.Mountpoint, err = filepath.Abs(point); err != nil {
		return err
	}
	if err := free(c.Context, cfg.Mountpoint); err != nil {
		return err
	}
	if c.Bool("daemon") && os.Getenv(readyVar) == "" {
		return background(c.Context, c.App.Writer, c.App.ErrWriter)
	}
	return serve(c, cfg, sources)
}

// free looks at the mountpoint before anything else is opened: a second mount on it
// should hear that, and not that the cache is in use. All the rest is checked by fs.
func free(ctx context.Context, point string) error {
	ours, err := fs.Mounted(point)
	if err != nil {
		return err
	}
	if ours && daemonOf(ctx, point) != 0 {
		return fmt.Errorf("%s: a running btmount is mounted there already; use that one, or end it: btmount unmount %s", point, point)
	}
	return nil
}

// serve runs the mount until ctx ends.
func serve(c *cli.Context, cfg daemon.Config, sources []string) error {
	// Before the sources: some have to be fetched, and thousands of them read.
	if err := fs.Check(fs.Config{Mountpoint: cfg.Mountpoint, AllowOther: cfg.AllowOther, Logger: cfg.Logger}); err != nil {
		return err
	}
	d, err := daemon.New(cfg)
	if err != nil {
		return err
	}
	added, bad := addAll(c.Context, d, sources)
	if c.Context.Err() != nil {
		d.Close()
		return errInterrupted
	}
	named, can := d.Objects()
	if err := verdict(added, bad, c.Bool("strict")); err != nil || len(sources) == 0 && !can {
		if err == nil {
			err = usage(errNoSource)
		}
		d.Close()
		return err
	}
	if err := d.Mount(); err != nil {
		d.Close()
		return err
	}
	for _, err := range bad {
		fmt.Fprintln(c.App.ErrWriter, "btmount:", oneLine(err))
	}
	status := ready(c, d, cfg, named, len(bad))
	defer service(c.Context, c.App.ErrWriter, status)()
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	defer progress(ctx, c.App.ErrWriter, d)()
	return d.Run(ctx)
}

var errNoSource = errors.New("a source is needed: btmount mount MOUNTPOINT SOURCE; see btmount mount --help")

var errInterrupted = errors.New("interrupted before the mount was ready; nothing is mounted")

// verdict returns the error to end with, if sources could not be used. Each of them
// is one line.
func verdict(added int, bad []error, strict bool) error {
	switch {
	case added == 0 && len(bad) > 0:
		return severalErrors(bad)
	case strict && len(bad) > 0:
		last := len(bad) - 1
		bad[last] = fmt.Errorf("%w (nothing is mounted because of --strict)", bad[last])
		return severalErrors(bad)
	}
	return nil
}

func addAll(ctx context.Context, d *daemon.Daemon, sources []string) (added int, bad []error) {
	for _, s := range sources {
		n, errs := d.Add(ctx, s)
		added += n
		bad = append(bad, errs...)
	}
	return added, bad
}

// ready prints the one line that says that the mount can be used, and returns how it begins.
func ready(c *cli.Context, d *daemon.Daemon, cfg daemon.Config, objects, bad int) (status string) {
	all, known := d.Torrents()
	what := count(all, "torrent")
	switch {
	case objects > 0 && all > 0:
		what += " and " + count(objects, "object") + " of BTFS"
	case objects > 0:
		what = count(objects, "object") + " of BTFS"
	case all == 0:
		what = "BTFS"
	}
	line := fmt.Sprintf("mounted %s on %s", what, cfg.Mountpoint)
	if known < all {
		line += fmt.Sprintf(", %d of them waiting for metadata", all-known)
	}
	if bad > 0 {
		line += fmt.Sprintf(", %s left out", count(bad, "source"))
	}
	status = line
	line += fmt.Sprintf("; %s; ", reach(d.Addr(), c.Bool("proxy-udp")))
	if !announceReady(line + "btmount unmount ends it\n") {
		fmt.Fprintln(c.App.Writer, line+"Ctrl-C unmounts")
	}
	return status
}

// reach says how peers come to us.
func reach(a netip.AddrPort, proxyUDP bool) string {
	switch {
	case !a.IsValid() && proxyUDP:
		return "everything goes through the proxy, UDP too: no listening"
	case !a.IsValid():
		return "everything goes through the proxy: no listening, no DHT, no UDP trackers"
	}
	return "peers reach us at " + where(a)
}

// where names a listening address; that of all interfaces is its port.
func where(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf("port %d", a.Port())
	}
	return a.String()
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

var infoHash = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// splitArgs tells the mountpoint from the sources: it is the first argument, or the
// last one if only the first can be a source.
func splitArgs(args []string) (point string, sources []string, err error) {
	if len(args) == 1 && !isSource(args[0]) {
		return args[0], nil, nil
	}
	if len(args) < 2 {
		return "", nil, errors.New("a mountpoint and a source are needed: btmount mount MOUNTPOINT SOURCE; see btmount mount --help")
	}
	last := len(args) - 1
	if isSource(args[0]) && !isSource(args[last]) {
		return args[last], args[:last], nil
	}
	return args[0], args[1:], nil
}

// isSource reports whether s can be nothing but a source; a folder may be either.
func isSource(s string) bool {
	low := strings.ToLower(s)
	if strings.HasPrefix(low, "magnet:") || strings.HasPrefix(low, "http://") || strings.HasPrefix(low, "https://") || daemon.IsObject(s) {
		return true
	}
	st, err := os.Stat(s)
	return err == nil && st.Mode().IsRegular() || err != nil && infoHash.MatchString(s)
}
