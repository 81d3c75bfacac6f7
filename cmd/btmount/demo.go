package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/cmd/daemon"
	btfs "github.com/btmount/btmount/fs"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "seed, mount, read and compare a sample on this machine; needs no internet",
		Description: `Everything happens in a temporary folder that is removed at the end, also after
Ctrl-C. The exit code is 0 only if every byte read through the mount was right.`,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usage(fmt.Errorf("%q: demo takes no arguments; see btmount demo --help", c.Args().First()))
			}
			return demo(c.Context, c.App.Writer)
		},
	}
}

// show is the demo under way. Its commands are real: each line after a "$" is run as
// it stands, by the shell or as a btmount of its own, and what follows is its output.
type show struct {
	ctx      context.Context
	out      io.Writer
	dir      string // all paths shown are below it
	env      []string
	peers    []string // addresses of the seeders
	children []*child
	titles   int
}

// demo shows btmount at work.
func demo(ctx context.Context, out io.Writer) (err error) {
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("/dev/fuse: %w; load the module (modprobe fuse), run as root, or give the container --device /dev/fuse --cap-add SYS_ADMIN", bare(err))
	}
	fuse.Close()
	s := &show{ctx: ctx, out: out}
	if s.dir, err = os.MkdirTemp("", "btmount-demo-"); err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil { // then what failed because of it is not worth telling
			err = errors.New("demo interrupted; everything is cleaned up")
		}
		if cerr := s.clean(); cerr != nil {
			err = cerr
		}
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	for _, act := range []func() error{s.share, s.mount, s.look, s.seek, s.readAll, s.tell, s.end} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes "btmount" mean this program for everything below the folder, and
// keeps the user's own settings out of it.
func (s *show) prepare() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Join(s.dir, ".bin")
	for _, dir := range []string{bin, filepath.Join(s.dir, "mnt")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(exe, filepath.Join(bin, "btmount")); err != nil {
		return err
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BTMOUNT_") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+s.dir, "LC_ALL=C.UTF-8", "BTMOUNT_BTFS_NETWORK=none")
	return nil
}

func (s *show) title(text string) {
	if s.titles++; s.titles > 1 {
		fmt.Fprintln(s.out)
	}
	fmt.Fprintln(s.out, "#", text)
}

// run shows a shell command, runs it, and returns how long it took.
func (s *show) run(command string) (time.Duration, error) {
	fmt.Fprintln(s.out, "$", command)
	cmd := exec.CommandContext(s.ctx, "/bin/sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, s.out, s.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", command, err)
	}
	return time.Since(start), nil
}

// child is a btmount that runs beside the demo.
type child struct {
	*exec.Cmd
	gone chan struct{} // closed when it has ended
	err  error
}

// start shows a btmount command and starts it; it returns when a line of its output
// matches ready, with the first group.
func (s *show) start(ready *regexp.Regexp, args ...string) (string, error) {
	line := "$ btmount"
	for _, a := range args {
		if i := strings.LastIndex(line, "\n"); len(line)-i+len(a) > 90 {
			line += " \\\n     "
		}
		line += " " + a
	}
	fmt.Fprintln(s.out, line, "&")
	c := &child{Cmd: exec.Command(filepath.Join(s.dir, ".bin", "btmount"), args...), gone: make(chan struct{})}
	c.Dir, c.Env = s.dir, s.env
	// Ctrl-C is for the demo, which ends its children in order; if it is killed, they
	// end by themselves.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var complaints bytes.Buffer
	c.Stderr = &complaints
	stdout, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	c.Stdout = w
	started := make(chan error)
	go func() { // ends with the child; Pdeathsig is about the thread that starts it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			c.err = c.Wait()
			close(c.gone)
		}
	}()
	err = <-started
	w.Close()
	if err != nil {
		stdout.Close()
		return "", err
	}
	s.children = append(s.children, c)
	stop := context.AfterFunc(s.ctx, func() { _ = c.Process.Signal(syscall.SIGTERM) })
	defer stop()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line := lines.Text()
		if m := ready.FindStringSubmatch(line); m != nil {
			fmt.Fprintln(s.out, strings.ReplaceAll(line, s.dir+"/", ""))
			go func() { _, _ = io.Copy(io.Discard, stdout); stdout.Close() }() // ends with the child
			return m[1], nil
		}
	}
	stdout.Close()
	<-c.gone
	said := strings.TrimPrefix(strings.TrimSpace(complaints.String()), "btmount: ")
	return "", fmt.Errorf("btmount %s: %w", args[0], errors.New(cmp.Or(said, fmt.Sprint(c.err))))
}

// share makes the sample and seeds it, twice, so that there is a choice of peers.
func (s *show) share() error {
	s.title("A sample: a web site with pictures, a 64 MiB file, 1,000 small files")
	if err := makeSample(filepath.Join(s.dir, "sample")); err != nil {
		return err
	}
	if _, err := s.run("du -sh --apparent-size sample/*"); err != nil {
		return err
	}
	s.title("Seeded on loopback by two other processes, as two peers somewhere would")
	for range 2 {
		addr, err := s.start(regexp.MustCompile(`^seeding .* on (\S+:\d+);`), "seed", "sample", "--listen", "127.0.0.1:0", "--no-dht")
		if err != nil {
			return err
		}
		s.peers = append(s.peers, addr)
	}
	return nil
}

func (s *show) mount() error {
	s.title("Mounted, with an empty cache")
	_, err := s.start(regexp.MustCompile(`^mounted (.*)`), "mount", "mnt", "sample.torrent", "--no-dht", "--listen", "127.0.0.1:0",
		"--peer", s.peers[0], "--peer", s.peers[1], "--cache-dir", "cache", "--state-dir", "state")
	return err
}

// look shows that everything is there at once and takes no room.
func (s *show) look() error {
	s.title("Every file is there at its full size, and none is on disk yet")
	for _, command := range []string{
		"ls -l mnt/torrents/sample",
		"du -sh --apparent-size mnt/torrents/sample; du -sh mnt/torrents/sample",
	} {
		if _, err := s.run(command); err != nil {
			return err
		}
	}
	return nil
}

const big = "sample/film.bin"

// seek reads from the middle of a file that is not there.
func (s *show) seek() error {
	s.title("A seek: 64 KiB from the middle of the 64 MiB file brings what is read and no more")
	command := "dd if=mnt/torrents/" + big + " bs=64K skip=600 count=1 status=none | cmp - part && echo equal"
	part, err := readAt(filepath.Join(s.dir, big), 600*64<<10, 64<<10)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "part"), part, 0o644)
	}
	if err != nil {
		return err
	}
	took, err := s.run(command)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "(%v, from peers)\n", took.Round(100*time.Microsecond))
	took, err = s.run(command)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "(%v, from the cache)\n", took.Round(100*time.Microsecond))
	if _, err := s.run("stat --cached=never -c '%n: %s bytes, %b blocks of 512 on disk' mnt/torrents/" + big); err != nil {
		return err
	}
	const name = "user.btmount.progress"
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(s.dir, "mnt/torrents", big), name, value)
	if err != nil {
		return fmt.Errorf("xattr %s: %w", name, err)
	}
	fmt.Fprintf(s.out, "xattr %s = %s\n", name, value[:n])
	return nil
}

func readAt(path string, off, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, size)
	_, err = f.ReadAt(p, off)
	return p, err
}

// readAll compares every file with its original.
func (s *show) readAll() error {
	s.title("Everything is read through the mount and compared with the originals (SHA-256)")
	start := time.Now()
	got, err := sums(s.ctx, filepath.Join(s.dir, "mnt/torrents/sample"))
	if err != nil {
		return err
	}
	took := time.Since(start)
	want, err := sums(s.ctx, filepath.Join(s.dir, "sample"))
	if err != nil {
		return err
	}
	for _, name := range []string{"film.bin", "site/pictures/1.png"} {
		fmt.Fprintf(s.out, "%x  %s\n", got[name], name)
	}
	equal := 0
	for name, sum := range want {
		if got[name] == sum {
			equal++
		} else {
			fmt.Fprintln(s.out, "DIFFERENT:", name)
		}
	}
	fmt.Fprintf(s.out, "%s of %s files are equal, read in %v\n", humanize.Comma(int64(equal)), humanize.Comma(int64(len(want))), took.Round(time.Millisecond))
	if !maps.Equal(got, want) {
		return fmt.Errorf("%d of %d files differ from their originals", max(len(want), len(got))-equal, len(want))
	}
	_, err = s.run("du -sh mnt/torrents/sample cache")
	return err
}

// sums returns the SHA-256 of every file below dir.
func sums(ctx context.Context, dir string) (map[string][32]byte, error) {
	out := map[string][32]byte{}
	return out, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || ctx.Err() != nil {
			return cmp.Or(err, ctx.Err())
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		out[strings.TrimPrefix(path, dir+"/")] = [32]byte(h.Sum(nil))
		return nil
	})
}

// tell shows what came from where and when.
func (s *show) tell() error {
	s.title("What came from where, and when (mnt/.btmount/status.json)")
	b, err := os.ReadFile(filepath.Join(s.dir, "mnt/.btmount/status.json"))
	if err != nil {
		return err
	}
	var status daemon.Status
	if err := json.Unmarshal(b, &status); err != nil || len(status.Torrents) != 1 {
		return fmt.Errorf("status.json: %d torrents, want 1: %w", len(status.Torrents), err)
	}
	t := status.Torrents[0]
	for _, p := range t.Swarm {
		fmt.Fprintf(s.out, "peer %s (%s): %s, round trip %v\n", p.Addr, p.Client, humanize.IBytes(uint64(p.Down)), p.RTT.Round(10*time.Microsecond))
	}
	fmt.Fprintf(s.out, "verified %s in %d pieces; came twice %s; wrong %s\n",
		humanize.IBytes(uint64(t.Downloaded)), t.Pieces, humanize.IBytes(uint64(t.Wasted)), humanize.IBytes(uint64(t.Corrupt)))
	for _, r := range t.Recent[max(0, len(t.Recent)-3):] {
		var from []string
		for _, addr := range slices.Sorted(maps.Keys(r.From)) {
			from = append(from, fmt.Sprintf("%s from %s", count(r.From[addr], "block"), addr))
		}
		fmt.Fprintf(s.out, "piece %4d came %.3f s after the start: %s\n", r.Piece, r.At.Sub(status.Started).Seconds(), strings.Join(from, ", "))
	}
	return nil
}

func (s *show) end() error {
	s.title("Unmounted")
	_, err := s.run("btmount unmount mnt && ls -A mnt | wc -l")
	if err == nil {
		fmt.Fprintln(s.out, "\nAll sums are equal.")
	}
	return err
}

const patience = 10 * time.Second // for a child to end

// clean ends the children, the last one first, and removes the folder once nothing
// is mounted in it.
func (s *show) clean() error {
	for _, c := range slices.Backward(s.children) {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-c.gone:
		case <-time.After(patience):
			_ = c.Process.Kill()
			<-c.gone
		}
	}
	point := filepath.Join(s.dir, "mnt")
	if mounted, _ := btfs.Mounted(point); mounted {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := btfs.Detach(ctx, point); err != nil {
			return fmt.Errorf("%s stays: %w", s.dir, err)
		}
	}
	return os.RemoveAll(s.dir)
}
