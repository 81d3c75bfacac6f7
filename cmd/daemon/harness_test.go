package daemon_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/fs/fstest"
)

// These tests are of the whole: the program as it is built, real mounts, and the
// clients of other people. Everything stays on 127.0.0.1. Where a test has to look
// into the daemon (goroutines, heap), it runs one in its own process; readers are
// other processes always, since a process must not read from a mount it serves.

var (
	btmount string // the program under test
	scratch string // a folder that is removed in the end
)

// soak asks for more rounds and larger files.
var soak = os.Getenv("BTMOUNT_SOAK") == "1"

func TestMain(m *testing.M) {
	fstest.Visit()
	if role := os.Getenv("BTMOUNT_TEST_ROLE"); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "btmount-test-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	btmount = filepath.Join(scratch, "btmount")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", btmount, "github.com/btmount/btmount/cmd/btmount")
	build.Stderr = os.Stderr
	if built := os.Getenv(programVar); built != "" {
		btmount = built
	} else if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building btmount:", err)
		return 1
	}
	// Nothing of the user's settings may reach the programs that are started here.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "BTMOUNT_") {
			os.Unsetenv(name)
		}
	}
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"} {
		os.Setenv(v, filepath.Join(scratch, "home"))
	}
	os.Setenv("BTMOUNT_BTFS_NETWORK", "none") // nobody in the world is asked
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// need finds a program that other people wrote. CI has them all.
func need(t testing.TB, name string, args ...string) {
	t.Helper()
	_, err := exec.LookPath(name)
	if err == nil && len(args) > 0 {
		err = exec.Command(name, args...).Run()
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", name, err)
	}
	t.Skipf("%s: %v", name, err)
}

// patience bounds every wait that is no figure of its own; the machine may be busy.
const patience = 40 * time.Second

// eventually asks until ok says yes.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

// transcript is what a program prints, to wait for.
type transcript struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

func (s *transcript) look() (string, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.changed
}

func (s *transcript) String() string { text, _ := s.look(); return text }

// proc is a program that runs until it ends, or the test does.
type proc struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *transcript // standard output and error
	done chan struct{}
}

func command(t testing.TB, name string, args ...string) *proc {
	if b, ok := t.(boxed); ok {
		name, args = "nsenter", append([]string{"-t", b.box, "-n", name}, args...)
	}
	p := &proc{t: t, cmd: exec.Command(name, args...), out: &transcript{changed: make(chan struct{})}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = 5 * time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

func (p *proc) start() *proc {
	p.t.Helper()
	started := make(chan error)
	go func() { // the thread that starts it must live as long: Pdeathsig is of the thread
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		p.kill()
		if p.t.Failed() {
			text := p.out.String()
			p.t.Logf("%s said:\n%s", filepath.Base(p.cmd.Path), text[max(0, len(text)-2000):])
		}
	})
	return p
}

func start(t testing.TB, name string, args ...string) *proc {
	t.Helper()
	return command(t, name, args...).start()
}

func (p *proc) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *proc) kill() { p.signal(syscall.SIGKILL); <-p.done }

// await waits until the output matches and returns the submatches.
func (p *proc) await(pattern string) []string {
	p.t.Helper()
	return p.awaitFor(patience, pattern)
}

func (p *proc) awaitFor(limit time.Duration, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	deadline := time.After(limit)
	for {
		text, changed := p.out.look()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-changed:
		case <-p.done:
			if re.FindStringSubmatch(p.out.String()) == nil {
				p.t.Fatalf("%s ended before it said %q: %v", p.cmd.Path, pattern, p.cmd.ProcessState)
			}
		case <-deadline:
			p.t.Fatalf("%s did not say %q within %v", p.cmd.Path, pattern, limit)
		}
	}
}

// ended waits for the end and returns how long it took.
func (p *proc) ended(limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%v still runs after %v", p.cmd.Args, limit)
	}
	return time.Since(began)
}

// succeed waits for the end of a program that must not fail.
func (p *proc) succeed(limit time.Duration) string {
	p.t.Helper()
	p.ended(limit)
	if !p.cmd.ProcessState.Success() {
		p.t.Fatalf("%v: %v\n%s", p.cmd.Args, p.cmd.ProcessState, p.out)
	}
	return p.out.String()
}

// output runs a program to its end, which must be a good one.
func output(t testing.TB, limit time.Duration, name string, args ...string) string {
	t.Helper()
	return start(t, name, args...).succeed(limit)
}

// within runs f and fails the test if it takes too long; f then keeps its goroutine.
func within(t testing.TB, limit time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(limit):
		t.Fatalf("%s takes longer than %v", what, limit)
	}
	return time.Since(began)
}

// logLevel is of the daemons that are started.
var logLevel = cmp.Or(os.Getenv("BTMOUNT_TEST_LOG"), "info")
