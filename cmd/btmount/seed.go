package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

func seedCommand() *cli.Command {
	return &cli.Command{
		Name:      "seed",
		Usage:     "make a .torrent of a file or folder, print its magnet link and seed it, until Ctrl-C",
		ArgsUsage: "PATH",
		Description: `The .torrent is written to the current folder as NAME.torrent. Seeding the same
unchanged PATH again uses it again.`,
		Flags: join(
			under("Torrent",
				stringFlag("out", "", "`FILE` to write the .torrent to; NAME.torrent in the current folder if not given"),
				boolFlag("force", "replace a .torrent of other content"),
				boolFlag("hybrid", "make a torrent for BitTorrent v1 and v2 (BEP 52)"),
				boolFlag("v2", "make a torrent for BitTorrent v2 alone (BEP 52)"),
				boolFlag("private", "peers come from its trackers only (BEP 27)"),
				stringFlag("piece-length", "", "`BYTES` of a piece, a power of two from 16KiB to 64MiB; chosen by size if not given"),
				stringFlag("comment", "", "`TEXT` to put in"),
			),
			swarmFlags(), under("Disk", stateFlag()), settingFlags(),
		),
		Action: seed,
	}
}

func seed(c *cli.Context) error {
	if err := applyConfig(c); err != nil {
		return err
	}
	if c.NArg() != 1 {
		return usage(errors.New("one file or folder is needed: btmount seed PATH"))
	}
	path, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	r := reader{c: c}
	cfg := r.swarmConfig()
	pieceLength := r.pieceLength()
	if r.err != nil {
		return r.err
	}
	if c.Bool("v2") && c.Bool("hybrid") {
		return usage(errors.New("--v2 is for BitTorrent v2 alone, --hybrid for both; choose one"))
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s: %w; give a file or folder of yours", path, bare(err))
	}
	out := c.String("out")
	if out == "" {
		out = filepath.Base(path) + ".torrent"
	}
	meta, err := makeMeta(c, path, pieceLength, cfg.Trackers)
	if err != nil {
		return err
	}
	if meta, err = writeMeta(out, meta, c.Bool("force")); err != nil {
		return err
	}
	s, err := daemon.NewSeed(cfg, meta, path)
	if err != nil {
		return err
	}
	magnet := meta.Magnet()
	at := "through the proxy, no peer can call"
	if s.Addr().IsValid() {
		at = "on " + where(s.Addr())
	}
	fmt.Fprintf(c.App.Writer, "%s\n%s\nseeding %s (%s, %s) %s; Ctrl-C stops\n",
		out, magnet, path, count(len(meta.Info.Files), "file"), humanize.IBytes(uint64(meta.Info.Length)), at)
	defer service(c.Context, c.App.ErrWriter, "seeding "+path)()
	if err = s.Run(c.Context); errors.Is(err, daemon.ErrSated) {
		fmt.Fprintf(c.App.Writer, "%s was seeded as much as --seed-ratio or --seed-time say; done\n", path)
		return nil
	}
	return err
}

// pieceLength reads --piece-length; 0 if it is not given.
func (r *reader) pieceLength() int64 {
	v := r.c.String("piece-length")
	if v == "" {
		return 0
	}
	n, err := humanize.ParseBytes(v)
	if err != nil || n < 16<<10 || n > 64<<20 || n&(n-1) != 0 {
		r.wrong("piece-length", v, "give a power of two from 16KiB to 64MiB")
	}
	return int64(n)
}

// makeMeta hashes path, with a bar on a terminal.
func makeMeta(c *cli.Context, path string, pieceLength int64, trackers []string) (*metainfo.Meta, error) {
	mc := metainfo.MakeConfig{
		Hybrid: c.Bool("hybrid"), V2: c.Bool("v2"), Private: c.Bool("private"), Comment: c.String("comment"),
		CreatedBy: "btmount " + version, Created: time.Now().Truncate(time.Second),
		PieceLength: pieceLength,
	}
	for _, t := range trackers {
		mc.Trackers = append(mc.Trackers, []string{t})
	}
	if terminal(c.App.ErrWriter) {
		set, end := bar(c.App.ErrWriter, "hashing ")
		defer end()
		mc.Progress = set
	}
	return metainfo.Make(c.Context, path, mc)
}

// writeMeta writes a .torrent, or uses the one that is there if it is of the same
// content: its creation date and its trackers stay as they are.
func writeMeta(path string, meta *metainfo.Meta, force bool) (*metainfo.Meta, error) {
	if old, err := os.ReadFile(path); err == nil && !force {
		have, err := metainfo.Parse(old)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: exists and is no .torrent (%w); choose another with --out, or --force", path, err)
		case !bytes.Equal(have.Info.Raw, meta.Info.Raw):
			return nil, fmt.Errorf("%s: exists and is of other content; choose another with --out, or --force", path)
		}
		return have, nil
	}
	tmp := path + ".tmp"
	err := os.WriteFile(tmp, meta.Encode(), 0o644)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return nil, fmt.Errorf("%s: %w; choose another with --out", path, bare(err))
	}
	return meta, nil
}
