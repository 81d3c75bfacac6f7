package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/cmd/daemon"
)

func cacheCommand() *cli.Command {
	return &cli.Command{
		Name:      "cache",
		Usage:     "look at the cache of a running mount, pin, evict and verify",
		ArgsUsage: "COMMAND",
		Description: `The mount is found by its state folder: who gave btmount mount a --state-dir gives the
same one here. Two mounts at a time need one each.

PATTERN is a path below torrents/, such as 'Film' or '*/*.mkv', where a folder stands for
all in it.`,
		Subcommands: []*cli.Command{
			{
				Name: "status", Usage: "how full the cache is, and of what",
				Flags: askFlags(), Action: asking(cacheStatus),
			},
			{
				Name: "pin", Usage: "fetch what matches in the background, and never evict it",
				ArgsUsage: "PATTERN...",
				Description: `The pattern is kept in the state folder and holds after a restart as well, beside those
of --pin. Pins take at most seven eighths of the cache.`,
				Flags:  askFlags(boolFlag("wait", "return when all of it is there, and show how far it is")),
				Action: asking(cachePin),
			},
			{
				Name: "unpin", Usage: "take a pattern back that was pinned", ArgsUsage: "PATTERN...",
				Description: `What it matched stays until something else needs the room.`,
				Flags:       askFlags(), Action: asking(cacheUnpin),
			},
			{
				Name: "evict", Usage: "free what is neither pinned nor open", ArgsUsage: "[PATTERN...]",
				Description: `Give patterns, or --bytes, or --all. A piece that a file shares with its neighbour goes
with it, unless that one is pinned or open.`,
				Flags: askFlags(
					stringFlag("bytes", "", "so many `BYTES`, of what is worth least"),
					boolFlag("all", "everything, also of torrents that are not mounted now"),
				),
				Action: asking(cacheEvict),
			},
			{
				Name: "verify", Usage: "hash what is on disk, and drop what is wrong", ArgsUsage: "[PATTERN...]",
				Description: `Without a pattern it is everything that is mounted. Reading goes on meanwhile, and what
was dropped is fetched again when it is read. The exit code is 1 if something was wrong.`,
				Flags:  askFlags(stringFlag("rate", "100MB", "most `BYTES` per second that are hashed")),
				Action: asking(cacheVerify),
			},
			{
				Name: "limit", Usage: "show or change how much the cache may have", ArgsUsage: "[BYTES]",
				Description: `What is above the limit is evicted. It holds until the mount ends; the settings of
btmount mount are --cache-size and --cache-min-free.`,
				Flags:  askFlags(stringFlag("min-free", "", "`BYTES` of the disk that the cache leaves free, whatever its limit")),
				Action: asking(cacheLimit),
			},
		},
	}
}

const jsonUsage = "answer in JSON, with sizes in bytes; of what takes long a line of progress now and then, and the result in the last line"

// askFlags are those of every command that asks a running daemon.
func askFlags(more ...cli.Flag) []cli.Flag {
	return join(
		under("What", more...),
		under("Which mount, and how to answer",
			stateFlag(),
			boolFlag("json", jsonUsage),
			configFlag(),
		),
	)
}

// ask is one question to a running daemon.
type ask struct {
	*reader
	client *control.Client
	json   bool
	out    io.Writer
	err    io.Writer
}

// asking reads the flags that all questions have.
func asking(f func(ctx context.Context, a *ask) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := applyConfig(c); err != nil {
			return err
		}
		r := &reader{c: c}
		dir := r.folder("state-dir")
		if r.err != nil {
			return r.err
		}
		err := f(c.Context, &ask{reader: r, client: control.NewClient(dir), json: c.Bool("json"), out: c.App.Writer, err: c.App.ErrWriter})
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted")
		}
		return err
	}
}

// arguments reads the patterns.
func (a *ask) arguments() (all []string, err error) {
	for _, v := range a.c.Args().Slice() {
		p, err := daemon.CleanPattern(v)
		if err != nil {
			return nil, usage(fmt.Errorf("%q: %w", v, err))
		}
		all = append(all, p)
	}
	return all, a.reader.err
}

// someArguments reads the arguments of a command that needs some.
func (a *ask) someArguments() ([]string, error) {
	all, err := a.arguments()
	if err == nil && len(all) == 0 {
		name := a.c.Command.Name
		err = usage(fmt.Errorf("a pattern is needed: btmount cache %s PATTERN; see btmount cache %s --help", name, name))
	}
	return all, err
}

func (a *ask) noArguments() error {
	if a.c.NArg() > 0 {
		return usage(fmt.Errorf("%q: btmount cache %s takes no argument", a.c.Args().First(), a.c.Command.Name))
	}
	return nil
}

// answer prints a result: as JSON, or as lines for people.
func (a *ask) answer(result any, lines ...string) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(result)
	}
	for _, l := range lines {
		if l != "" {
			fmt.Fprintln(a.out, l)
		}
	}
	return nil
}

// progress returns what shows how far something is, and ends that.
func (a *ask) progress(what string) (report func(control.Progress), end func()) {
	switch {
	case a.json:
		lines := json.NewEncoder(a.out)
		return func(p control.Progress) { _ = lines.Encode(map[string]control.Progress{"progress": p}) }, func() {}
	case terminal(a.err):
		set, end := bar(a.err, what)
		return func(p control.Progress) { set(p.Done, p.Total) }, end
	}
	return nil, func() {}
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

func cacheStatus(ctx context.Context, a *ask) error {
	if err := a.noArguments(); err != nil {
		return err
	}
	s, err := a.client.CacheStatus(ctx)
	if err != nil {
		return err
	}
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	statusTable(a.out, s, time.Now())
	return nil
}

// statusTable is the status for people.
func statusTable(out io.Writer, s control.CacheStatus, now time.Time) {
	fmt.Fprintf(out, "cache %s of the mount %s (process %d, started %s)\n\n", s.Dir, s.Mountpoint, s.Pid, humanize.RelTime(s.Started, now, "ago", "from now"))
	line := func(name, text string, args ...any) {
		fmt.Fprintf(out, "  %-10s %s\n", name, fmt.Sprintf(text, args...))
	}
	line("used", "%s of %s (%d%%)", size(s.Used), size(s.Limit), s.Used*100/max(1, s.Limit))
	line("pinned", "%s, there or not; never evicted", size(s.Pinned))
	line("kernel", "%s of files that the kernel reads by itself; they stay while they are open", size(s.Kept))
	line("room", "%s for what is read", size(s.Room))
	if s.Memory > 0 {
		line("memory", "%s that the disk did not take", size(s.Memory))
	}
	line("disk", "%s free; the cache leaves %s of it", size(s.DiskFree), size(s.MinFree))
	line("objects", "%d, %d of them in memory", s.Objects, s.Loaded)
	if s.Clean {
		line("last stop", "clean")
	} else {
		line("last stop", "not clean, so what was there is hashed before it is read")
	}
	if s.Unverified > 0 {
		line("to verify", "%s, when it is read or by btmount cache verify", size(s.Unverified))
	}
	if s.BTFS > 0 {
		line("btfs", "%s of objects of BTFS", size(s.BTFS))
	}
	if s.Unmounted > 0 {
		line("unmounted", "%s of torrents that are not mounted now", size(s.Unmounted))
	}
	if n := len(s.Pins) + len(s.Flags); n > 0 {
		var all []string
		for _, p := range s.Pins {
			all = append(all, fmt.Sprintf("%q", p))
		}
		for _, p := range s.Flags {
			all = append(all, fmt.Sprintf("%q (--pin)", p))
		}
		line("pins", "%s", strings.Join(all, ", "))
	}
	if s.Scrub.Rate > 0 {
		line("scrub", "%s/s; %s hashed since the start, %s of them wrong", humanize.Bytes(uint64(s.Scrub.Rate)), size(s.Scrub.Checked), size(s.Scrub.Wrong))
	}
	fmt.Fprintln(out)
	torrentTable(out, s.Torrents, now)
}

// torrentTable has the torrents of which there is something.
func torrentTable(out io.Writer, torrents []control.Torrent, now time.Time) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	shown := 0
	for _, c := range torrents {
		if c.Present == 0 && c.Pinned == 0 && c.OpenFiles == 0 {
			continue
		}
		if shown++; shown == 1 {
			fmt.Fprintln(t, "PRESENT\tOF\t\tPINNED\tOPEN\tLAST USED\t  TORRENT")
		}
		pinned, used := "-", "-"
		if c.Pinned > 0 {
			pinned = size(c.PinnedHere)
			if c.PinnedHere < c.Pinned {
				pinned += " of " + size(c.Pinned)
			}
		}
		if !c.LastUsed.IsZero() {
			used = humanize.RelTime(c.LastUsed, now, "ago", "from now")
		}
		note := ""
		if c.Unverified > 0 {
			note += fmt.Sprintf(" (to verify: %s)", size(c.Unverified))
		}
		if c.PinError != "" {
			note += " (not pinned: " + c.PinError + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%d%%\t%s\t%d\t%s\t  %s\n", size(c.Present), size(c.Size), c.Present*100/max(1, c.Size), pinned, c.OpenFiles, used, c.Name+note)
	}
	t.Flush()
	if rest := len(torrents) - shown; rest > 0 {
		fmt.Fprintf(out, "%s of which nothing is here\n", count(rest, "torrent"))
	}
}

func cachePin(ctx context.Context, a *ask) error {
	patterns, err := a.someArguments()
	if err != nil {
		return err
	}
	report, end := a.progress("pinned ")
	r, err := a.client.Pin(ctx, control.PinRequest{Patterns: patterns, Wait: a.c.Bool("wait")}, report)
	end()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("pinned %s, %s; ", count(r.Files, "file"), size(r.Bytes))
	if r.Here < r.Bytes {
		text += fmt.Sprintf("%s are here, the rest comes in the background", size(r.Here))
	} else {
		text += "all of it is here"
	}
	later := ""
	if len(r.Later) > 0 {
		later = fmt.Sprintf("%q matches nothing yet; it is kept for what is still waiting for metadata", r.Later)
	}
	return a.answer(r, text, later)
}

func cacheUnpin(ctx context.Context, a *ask) error {
	patterns, err := a.someArguments()
	if err != nil {
		return err
	}
	r, err := a.client.Unpin(ctx, control.UnpinRequest{Patterns: patterns})
	if err != nil {
		return err
	}
	return a.answer(r, fmt.Sprintf("unpinned %s, %s; %s stay pinned by other patterns", count(r.Files, "file"), size(r.Bytes), size(r.Pinned)))
}

func cacheEvict(ctx context.Context, a *ask) error {
	patterns, err := a.arguments()
	if err != nil {
		return err
	}
	q := control.EvictRequest{Patterns: patterns, Bytes: a.size("bytes"), All: a.c.Bool("all")}
	if a.reader.err != nil {
		return a.reader.err
	}
	ways := 0
	for _, given := range []bool{len(patterns) > 0, q.Bytes > 0, q.All} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return usage(errors.New("give patterns, or --bytes, or --all; see btmount cache evict --help"))
	}
	r, err := a.client.Evict(ctx, q)
	if err != nil {
		return err
	}
	text := "freed " + size(r.Freed)
	if r.Pinned > 0 {
		text += fmt.Sprintf("; %s stay: pinned", size(r.Pinned))
	}
	if r.InUse > 0 {
		text += fmt.Sprintf("; %s stay: files are open", size(r.InUse))
	}
	return a.answer(r, fmt.Sprintf("%s; %s of %s are used now", text, size(r.Used), size(r.Limit)))
}

func cacheVerify(ctx context.Context, a *ask) error {
	patterns, err := a.arguments()
	if err != nil {
		return err
	}
	q := control.VerifyRequest{Patterns: patterns, Rate: a.size("rate")}
	if a.reader.err != nil {
		return a.reader.err
	}
	report, end := a.progress("hashed ")
	r, err := a.client.Verify(ctx, q, report)
	end()
	if err != nil {
		return err
	}
	var lines []string
	for _, w := range r.Torrents {
		lines = append(lines, fmt.Sprintf("%s: %s wrong", w.Name, size(w.Bytes)))
	}
	for _, w := range r.Failed {
		lines = append(lines, fmt.Sprintf("%s: not hashed: %s", w.Name, w.Error))
	}
	if r.Wrong == 0 {
		lines = append(lines, fmt.Sprintf("hashed %s, nothing is wrong", size(r.Checked)))
	} else {
		lines = append(lines, fmt.Sprintf("hashed %s; %s were wrong and are dropped, to be fetched again", size(r.Checked), size(r.Wrong)))
	}
	if err := a.answer(r, lines...); err != nil {
		return err
	}
	if r.Wrong > 0 || len(r.Failed) > 0 {
		return saidError{1}
	}
	return nil
}

func cacheLimit(ctx context.Context, a *ask) error {
	var q control.LimitRequest
	switch a.c.NArg() {
	case 0:
	case 1:
		v := a.c.Args().First()
		n, err := humanize.ParseBytes(v)
		if err != nil || n == 0 || n > 1<<60 {
			return usage(fmt.Errorf("%q: give a size above 0, such as 500MB or 10GiB", v))
		}
		q.Limit = int64(n)
	default:
		return usage(errors.New("one size is needed: btmount cache limit BYTES"))
	}
	q.MinFree = a.size("min-free")
	if a.reader.err != nil {
		return a.reader.err
	}
	r, err := a.client.Limit(ctx, q)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("limit %s, used %s; the disk has %s free, %s stay free", size(r.Limit), size(r.Used), size(r.DiskFree), size(r.MinFree))
	if r.Freed > 0 {
		text += fmt.Sprintf("; %s were evicted", size(r.Freed))
	}
	over := ""
	if r.Used > r.Limit {
		over = fmt.Sprintf("%s are above the limit: %s are pinned, %s are read by the kernel and go when they are closed", size(r.Used-r.Limit), size(r.Pinned), size(r.Kept))
	}
	return a.answer(r, text, over)
}
