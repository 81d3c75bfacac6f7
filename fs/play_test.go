package fs_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// play is the life of a process that a test started in a role.
func play(role, point string) {
	switch role {
	case "daemon": // mounts, says so, and serves until it is killed
		_, err := fs.Mount(fs.Config{Catalog: fstest.Memory(fstest.File{Path: "file", Data: []byte("old")}), Mountpoint: point})
		fmt.Println("mounted", err)
		select {}
	case "reader": // reads once, with a handler for SIGINT, and says what came of it
		runtime.LockOSThread()
		signal.Notify(make(chan os.Signal, 1), unix.SIGINT)
		fmt.Println(unix.Gettid())
		fd, err := unix.Open(point, unix.O_RDONLY, 0)
		if err == nil {
			_, err = unix.Read(fd, make([]byte, 1<<20))
		}
		fmt.Println("read", err)
		os.Exit(0)
	case "crowd": // reads what never comes in many threads
		for i := range crowdThreads {
			go func() {
				f, err := os.Open(fmt.Sprintf("%s%d", point, i))
				if err == nil {
					_, err = f.Read(make([]byte, 100))
				}
				fmt.Println("read", err)
			}()
		}
		select {}
	case "holder": // keeps a file open until it is killed
		_, err := unix.Open(point, unix.O_RDONLY, 0)
		fmt.Println("holding", err)
		select {}
	}
}

// process is a child that plays a role, or any other command.
type process struct {
	*exec.Cmd
	lines *bufio.Reader
}

func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, lines: bufio.NewReader(out)}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	return p
}

func actor(t testing.TB, role, point string) *process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BTMOUNT_TEST_ROLE="+role, "BTMOUNT_TEST_POINT="+point)
	return start(t, cmd)
}

// line waits for a line of output.
func (p *process) line() string {
	s, _ := p.lines.ReadString('\n')
	return strings.TrimSpace(s)
}

// gone sends a signal and returns how long the process took to end.
func (p *process) gone(t testing.TB, sig os.Signal) time.Duration {
	t.Helper()
	start := time.Now()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { p.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("process %d is still there 20 s after %v", p.Process.Pid, sig)
	}
	return time.Since(start)
}

// hung makes files whose bytes never come: "hung 0" and so on. arrived gets a value
// for each read that reaches one. Two readers of one file make only one read: the
// second waits in the kernel for the page that the first has asked for.
func hung(n int) (files []fstest.File, arrived chan struct{}) {
	arrived = make(chan struct{}, 1000)
	content := &fstest.Content{ReadAtFunc: func(ctx context.Context, _ []byte, _ int64) (int, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}}
	for i := range n {
		files = append(files, fstest.File{
			Path: fmt.Sprintf("hung %d", i), Size: 10 << 20,
			Open: func(context.Context) (fs.Content, error) { return content, nil },
		})
	}
	return files, arrived
}

// cats starts a reader of each hung file, and waits until all of them hang.
func cats(t testing.TB, point string, n int, arrived chan struct{}) []*process {
	var all []*process
	for i := range n {
		all = append(all, start(t, exec.Command("cat", filepath.Join(point, fmt.Sprintf("hung %d", i)))))
	}
	for range n {
		<-arrived
	}
	return all
}

func TestReaderDiesAtOnce(t *testing.T) {
	const readers = 10
	files, arrived := hung(readers)
	_, point := mount(t, fstest.Memory(append(files, fstest.File{Path: "fine", Data: noise(1 << 20)})...))
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
		all := cats(t, point, readers, arrived)
		all = append(all, start(t, exec.Command("cat", filepath.Join(point, "hung 0")))) // a second reader
		if got, err := os.ReadFile(filepath.Join(point, "fine")); err != nil || len(got) != 1<<20 {
			t.Errorf("another file, meanwhile: %d, %v", len(got), err)
		}
		longest := time.Duration(0)
		for _, cat := range all {
			longest = max(longest, cat.gone(t, sig))
		}
		t.Logf("%v: the slowest of %d readers was gone after %v", sig, len(all), longest)
		if longest > 5*time.Second {
			t.Errorf("%v: %v", sig, longest)
		}
		for len(arrived) > 0 {
			<-arrived
		}
	}
}

// crowdThreads is how many reads a process of the crowd has under way.
const crowdThreads = 100

// A thousand reads hang. Others go on meanwhile; when the readers are killed, nothing is left
// of them: no goroutine, no open file, no descriptor.
func TestThousandHungReaders(t *testing.T) {
	const processes = 10
	arrived, closed := make(chan struct{}, processes*crowdThreads), make(chan struct{}, processes*crowdThreads)
	files := []fstest.File{{Path: "fine", Data: noise(4 << 20)}}
	content := &fstest.Content{
		ReadAtFunc: func(ctx context.Context, _ []byte, _ int64) (int, error) {
			arrived <- struct{}{}
			<-ctx.Done()
			return 0, ctx.Err()
		},
		CloseFunc: func() error { closed <- struct{}{}; return nil },
	}
	for i := range processes * crowdThreads {
		files = append(files, fstest.File{
			Path: fmt.Sprintf("hung/%d/%d", i/crowdThreads, i%crowdThreads), Size: 1 << 20,
			Open: func(context.Context) (fs.Content, error) { return content, nil },
		})
	}
	_, point := mount(t, fstest.Memory(files...))
	fine := func() time.Duration {
		began := time.Now()
		out, err := exec.CommandContext(t.Context(), "dd", "if="+filepath.Join(point, "fine"), "of=/dev/null", "iflag=direct", "bs=64K").CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return time.Since(began)
	}
	alone := fine()
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	var crowd []*process
	for i := range processes {
		crowd = append(crowd, actor(t, "crowd", filepath.Join(point, "hung", strconv.Itoa(i))+"/"))
	}
	for range processes * crowdThreads {
		<-arrived
	}
	among := fine()
	longest := time.Duration(0)
	for _, p := range crowd {
		longest = max(longest, p.gone(t, unix.SIGKILL))
	}
	for range processes * crowdThreads {
		<-closed
	}
	t.Logf("4 MiB in %v, among 1,000 hung readers in %v; the slowest to go needed %v", alone, among, longest)
	if longest > 5*time.Second || among > 10*alone+time.Second {
		t.Errorf("too slow")
	}
	// What was answered last is on its way out still.
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+5 || openFDs(t) > fds; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d descriptors are left of %d and %d", runtime.NumGoroutine(), openFDs(t), goroutines, fds)
		}
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestInterruptedReadReturnsEINTR(t *testing.T) {
	files, arrived := hung(1)
	_, point := mount(t, fstest.Memory(files...))
	reader := actor(t, "reader", filepath.Join(point, "hung 0"))
	tid, err := strconv.Atoi(reader.line())
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	start := time.Now()
	// To the thread that reads: one sent to the process may find another thread.
	if err := unix.Tgkill(reader.Process.Pid, tid, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := reader.line(); got != "read interrupted system call" {
		t.Errorf("%q", got)
	}
	t.Logf("EINTR after %v", time.Since(start))
}

func TestReadTimeout(t *testing.T) {
	const timeout = 500 * time.Millisecond
	files, _ := hung(1)
	_, point := mount(t, fstest.Memory(files...), func(c *fs.Config) { c.ReadTimeout = timeout })
	for range 2 { // the second read has its own time
		f, err := os.Open(filepath.Join(point, "hung 0"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for range 2 {
			start := time.Now()
			_, err = unix.Pread(int(f.Fd()), make([]byte, 100), 0)
			took := time.Since(start)
			t.Logf("%v after %v", err, took)
			if err != unix.ETIMEDOUT || took < timeout || took > 2*timeout {
				t.Errorf("%v after %v", err, took)
			}
		}
	}
}

// A panic is one failed request.
func TestPanic(t *testing.T) {
	bad := fstest.File{Path: "bad", Size: 100, Open: func(context.Context) (fs.Content, error) {
		return &fstest.Content{ReadAtFunc: func(context.Context, []byte, int64) (int, error) { panic("bug") }}, nil
	}}
	worse := fstest.File{Path: "worse", Size: 100, Open: func(context.Context) (fs.Content, error) { panic("bug") }}
	_, point := mount(t, fstest.Memory(bad, worse, fstest.File{Path: "fine", Data: []byte("x")}),
		func(c *fs.Config) { c.Logger = nil })
	for _, name := range []string{"bad", "worse"} {
		if _, err := fstest.ReadAll(filepath.Join(point, name)); !isErrno(err, unix.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := fstest.ReadAll(filepath.Join(point, "fine")); got != "x" || err != nil {
		t.Errorf("after a panic: %q, %v", got, err)
	}
}

// Content that returns less than it was asked for must not show as zeroes.
func TestShortContent(t *testing.T) {
	short := fstest.File{Path: "short", Size: 1 << 20, Open: func(context.Context) (fs.Content, error) {
		return fstest.Bytes(noise(1000)), nil
	}}
	_, point := mount(t, fstest.Memory(short), func(c *fs.Config) { c.Logger = nil })
	if got, err := fstest.ReadAll(filepath.Join(point, "short")); !isErrno(err, unix.EIO) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestUnmountEndsWaitingReads(t *testing.T) {
	const readers = 32
	files, arrived := hung(readers)
	closed := make(chan struct{}, readers)
	for i := range files {
		open := files[i].Open
		files[i].Open = func(ctx context.Context) (fs.Content, error) {
			c, err := open(ctx)
			return &fstest.Content{ReadAtFunc: c.ReadAt, CloseFunc: func() error { closed <- struct{}{}; return nil }}, err
		}
	}
	s, point := mount(t, fstest.Memory(files...))
	all := cats(t, point, readers, arrived)
	began := time.Now()
	unmount(t, s)
	t.Logf("unmounted under %d hung readers after %v", readers, time.Since(began))
	for _, cat := range all {
		if cat.Wait() == nil {
			t.Error("cat thinks that it has read the file")
		}
	}
	for range readers {
		<-closed // each Content is closed, although no RELEASE may have come
	}
	unmount(t, s) // again does nothing
}

// Somebody who does not let go holds up Unmount for its grace, and no longer.
func TestUnmountDespiteOpenFiles(t *testing.T) {
	if control, _ := os.ReadDir("/sys/fs/fuse/connections"); os.Geteuid() != 0 && len(control) == 0 {
		t.Skip("only root can abort a connection here")
	}
	s, point := mount(t, fstest.Memory(fstest.File{Path: "dir/file", Data: []byte("x")}))
	holder := actor(t, "holder", filepath.Join(point, "dir/file"))
	if got := holder.line(); got != "holding <nil>" {
		t.Fatal(got)
	}
	began := time.Now()
	unmount(t, s)
	t.Logf("unmounted with an open file after %v", time.Since(began))
}

// Whoever else unmounts ends the server as well.
func TestUnmountFromOutside(t *testing.T) {
	s, point := mount(t, fstest.Memory(fstest.File{Path: "file", Data: []byte("x")}))
	if ours, err := fs.Mounted(point); !ours || err != nil {
		t.Errorf("Mounted: %v, %v", ours, err)
	}
	if err := fs.Detach(context.Background(), point); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if err := fs.Detach(context.Background(), point); err == nil || !strings.Contains(err.Error(), "nothing is mounted") {
		t.Errorf("again: %v", err)
	}
}

func TestMountOfAKilledDaemonIsReplaced(t *testing.T) {
	point := fstest.Point(t)
	for range 2 {
		daemon := actor(t, "daemon", point)
		if got := daemon.line(); got != "mounted <nil>" {
			t.Fatal(got)
		}
		if _, err := fs.Mount(fs.Config{Catalog: fstest.Memory(), Mountpoint: point}); err == nil || !strings.Contains(err.Error(), "running btmount") {
			t.Fatalf("mounted over a living one: %v", err)
		}
		daemon.gone(t, unix.SIGKILL)
		if err := unix.Statfs(point, new(unix.Statfs_t)); err != unix.ENOTCONN {
			t.Fatalf("after the daemon was killed: %v", err)
		}
	}
	began := time.Now()
	s, err := fs.Mount(fs.Config{Catalog: fstest.Memory(fstest.File{Path: "file", Data: []byte("new")}), Mountpoint: point})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("replaced after %v", time.Since(began))
	defer unmount(t, s)
	if got, err := fstest.ReadAll(filepath.Join(point, "file")); got != "new" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDetachAfterTheDaemonDied(t *testing.T) {
	point := fstest.Point(t)
	daemon := actor(t, "daemon", point)
	daemon.line()
	daemon.gone(t, unix.SIGKILL)
	if err := fs.Detach(context.Background(), point); err != nil {
		t.Error(err)
	}
	if ours, err := fs.Mounted(point); ours || err != nil {
		t.Errorf("still there: %v, %v", ours, err)
	}
}

// A daemon that is stopped for a while answers when it goes on: readers notice nothing.
func TestStoppedDaemonGoesOn(t *testing.T) {
	point := fstest.Point(t)
	daemon := actor(t, "daemon", point)
	if got := daemon.line(); got != "mounted <nil>" {
		t.Fatal(got)
	}
	suspend(t, daemon)
	began := time.Now()
	cat := exec.Command("cat", filepath.Join(point, "file"))
	var out strings.Builder
	cat.Stdout = &out
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cat.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("read from a daemon that is stopped: %q, %v", out.String(), err)
	case <-time.After(time.Second):
	}
	if err := daemon.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil || out.String() != "old" {
			t.Errorf("%q, %v", out.String(), err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the read does not go on")
	}
	t.Logf("read after %v", time.Since(began))
	daemon.gone(t, unix.SIGKILL)
	if err := fs.Detach(context.Background(), point); err != nil {
		t.Error(err)
	}
}

// suspend stops a process, and returns when all of its threads have stopped.
func suspend(t *testing.T, p *process) {
	t.Helper()
	if err := p.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(p.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatal(status, err)
	}
}

// A daemon that is stopped does not answer; nobody may wait for it for ever.
func TestMountOnAHungMount(t *testing.T) {
	point := fstest.Point(t)
	daemon := actor(t, "daemon", point)
	if got := daemon.line(); got != "mounted <nil>" {
		t.Fatal(got)
	}
	suspend(t, daemon)
	began := time.Now()
	_, err := fs.Mount(fs.Config{Catalog: fstest.Memory(), Mountpoint: point})
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
	t.Logf("refused after %v: %v", time.Since(began), err)
	daemon.gone(t, unix.SIGKILL)
	if err := fs.Detach(context.Background(), point); err != nil {
		t.Error(err)
	}
}
