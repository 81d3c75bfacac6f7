package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/wallet"
)

// mainVar makes the test binary be btmount: so the tests run the real command, with
// the race detector in it.
const mainVar = "TEST_IS_BTMOUNT"

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	// go-ethereum's chain, which only the tests have, puts these below a heading of its own.
	cli.HelpFlag.(*cli.BoolFlag).Category = ""
	cli.VersionFlag.(*cli.BoolFlag).Category = ""
	if os.Getenv(mainVar) != "" {
		openKeys = wallet.OpenLightKeys
		main()
	}
	flag.Parse()
	// The last two are what go-ethereum's chain leaves behind when it is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"), goleak.IgnoreTopFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"))
}

// place is a folder with a home, a mountpoint and a sample torrent in it.
type place struct {
	t   *testing.T
	dir string
	env []string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	p.env = []string{mainVar + "=1", "GORACE=atexit_sleep_ms=0", "HOME=" + p.path("home"), "PATH=" + os.Getenv("PATH"), "BTMOUNT_BTFS_NETWORK=none"} // nobody in the world is asked
	for _, d := range []string{"home", "mnt"} {
		if err := os.Mkdir(p.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.nothingLeft)
	return p
}

func (p *place) path(name ...string) string {
	return filepath.Join(append([]string{p.dir}, name...)...)
}

func (p *place) write(name, text string) string {
	p.t.Helper()
	path := p.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// torrent makes a torrent of a small file.
func (p *place) torrent(name string) string {
	p.t.Helper()
	meta, err := metainfo.Make(context.Background(), p.write(name, strings.Repeat(name+"\n", 5000)), metainfo.MakeConfig{})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.write(name+".torrent", string(meta.Encode()))
}

// nothingLeft fails the test if a mount or a process below the folder is left.
func (p *place) nothingLeft() {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(p.dir)) {
		p.t.Errorf("a mount is left below %s (%v)", p.dir, err)
	}
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(p.dir)) {
			p.t.Errorf("a process is left: %s: %q", path, line)
		}
	}
}

func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

const limit = time.Minute // for everything that a test waits for

// command makes a btmount that is killed at the end of the test or after limit.
func (p *place) command(args ...string) *exec.Cmd {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	return cmd
}

type outcome struct {
	code           int
	stdout, stderr string
}

// run runs a btmount to its end.
func (p *place) run(args ...string) outcome {
	p.t.Helper()
	return p.finish(p.command(args...))
}

func (p *place) finish(cmd *exec.Cmd) outcome {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// running is a btmount under way.
type running struct {
	p      *place
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *bytes.Buffer
}

func (p *place) start(args ...string) *running {
	p.t.Helper()
	r := &running{p: p, cmd: p.command(args...), stderr: &bytes.Buffer{}}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	r.stdout, r.cmd.Stderr = bufio.NewReader(out), r.stderr
	if err := r.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// line waits for a line of output that contains text.
func (r *running) line(text string) string {
	r.p.t.Helper()
	for {
		line, err := r.stdout.ReadString('\n')
		if strings.Contains(line, text) {
			return line
		}
		if err != nil {
			_ = r.cmd.Wait()
			r.p.t.Fatalf("no line with %q: %v, %v, stderr %q", text, err, r.cmd.ProcessState, r.stderr)
		}
	}
}

// end sends a signal, if any, and waits for the end.
func (r *running) end(sig syscall.Signal) outcome {
	r.p.t.Helper()
	if sig != 0 {
		_ = r.cmd.Process.Signal(sig)
	}
	rest, _ := io.ReadAll(r.stdout)
	_ = r.cmd.Wait()
	return outcome{r.cmd.ProcessState.ExitCode(), string(rest), r.stderr.String()}
}
