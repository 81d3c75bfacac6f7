package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
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
		return fmt.Errorf("say what to measure: known; see go doc ./bench/scale")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "known":
		n := f.Int("n", 10000, "torrents")
		active := f.Int("active", 64, "of them, those that are read")
		starts := f.Int("starts", 3, "how often to mount; the first finds no state")
		bin := f.String("bin", "bin/btmount", "the binary to measure")
		dir := f.String("dir", filepath.Join(os.TempDir(), "btmount-scale"), "folder for the torrents, which are kept")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return known(ctx, *n, *active, *starts, *bin, *dir)
	}
	return fmt.Errorf("nothing is known of %q; say known", args[0])
}
