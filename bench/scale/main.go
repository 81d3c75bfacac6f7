package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to measure: known or peers; see go doc ./bench/scale")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "known":
		n := f.Int("n", 10000, "torrents")
		active := f.Int("active", 64, "of them, those that are read")
		files := f.Int("files", 0, "files of each torrent that is not read; 0: 1 to 20, and some have 5,000")
		starts := f.Int("starts", 3, "how often to mount; the first finds no state")
		bin := f.String("bin", "bin/btmount", "the binary to measure")
		dir := f.String("dir", filepath.Join(os.TempDir(), "btmount-scale"), "folder for the torrents, which are kept")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return known(ctx, *n, *active, *files, *starts, *bin, *dir)
	case "peers", "seeders":
		n := f.Int("peers", 1000, "connections")
		torrents := f.Int("torrents", 50, "that they are spread over")
		rate := f.Float64("rate", 100, "of all seeders together, MB/s; 0 is no limit")
		length := f.Duration("for", 15*time.Second, "how long to measure")
		profile := f.String("cpuprofile", "", "file for a profile of the engine")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		if args[0] == "seeders" { // started by peers
			return serveSwarms(*torrents, *rate)
		}
		return peers(ctx, *n, *torrents, *rate, *length, *profile)
	}
	return fmt.Errorf("nothing is known of %q; say known or peers", args[0])
}
