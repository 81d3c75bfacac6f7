package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/btmount/btmount/cmd/daemon"
)

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// bar shows on a terminal how many bytes of how many are done, until end is called.
func bar(w io.Writer, what string) (set func(done, total int64), end func()) {
	bars := mpb.New(mpb.WithOutput(w))
	b := bars.AddBar(0, mpb.PrependDecorators(decor.Name(what), decor.Counters(decor.SizeB1024(0), "% .1f / % .1f")),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f")), mpb.BarRemoveOnComplete())
	set = func(done, total int64) {
		b.SetTotal(total, false)
		b.SetCurrent(done)
	}
	return set, func() { b.Abort(true); bars.Wait() }
}

// repeat calls f now and then until the function that it returns was called; f does not
// run any more after that.
func repeat(d time.Duration, f func()) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { // ends with end
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				f()
			}
		}
	})
	return func() { cancel(); all.Wait() }
}

// progress keeps one line about the swarm up to date on a terminal; elsewhere it is
// silent. The function that it returns ends it and clears the line.
func progress(ctx context.Context, w io.Writer, d *daemon.Daemon) (stop func()) {
	if !terminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(w, "\r\x1b[K%s", summary(d.Status()))
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// summary is one line about everything.
func summary(s daemon.Status) string {
	var peers, seeders, resolving, fetching int
	var down, up float64
	var present, size int64
	for _, t := range s.Torrents {
		peers += t.Peers
		seeders += t.Seeders
		down += t.DownRate
		up += t.UpRate
		present += t.Present
		size += t.Size
		switch t.State {
		case "resolving":
			resolving++
		case "fetching":
			fetching++
		}
	}
	line := fmt.Sprintf("%s (%d seeders) | down %s/s, up %s/s | %s of %s here", count(peers, "peer"), seeders,
		humanize.Bytes(uint64(down)), humanize.Bytes(uint64(up)), humanize.IBytes(uint64(present)), humanize.IBytes(uint64(size)))
	if resolving > 0 {
		line += fmt.Sprintf(" | %d waiting for metadata", resolving)
	}
	if fetching > 0 {
		line += fmt.Sprintf(" | %d fetching", fetching)
	}
	return line
}
