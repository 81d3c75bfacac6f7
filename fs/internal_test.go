package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

type noSource bool

func (noSource) Error() string    { return "source" }
func (n noSource) NoSource() bool { return bool(n) }

type corrupt bool

func (corrupt) Error() string   { return "corrupt" }
func (c corrupt) Corrupt() bool { return bool(c) }

func TestErrno(t *testing.T) {
	stopped, stop := context.WithCancelCause(context.Background())
	stop(errUnmounting)
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{context.Canceled, syscall.EINTR},
		{fmt.Errorf("x: %w", context.Canceled), syscall.EINTR},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{os.ErrDeadlineExceeded, syscall.EIO},
		{context.Cause(stopped), syscall.ENODEV},
		{iofs.ErrNotExist, syscall.ENOENT},
		{fmt.Errorf("%w, %w", syscall.ESTALE, iofs.ErrNotExist), syscall.ESTALE},
		{noSource(true), syscall.ENODATA},
		{noSource(false), syscall.EIO},
		{fmt.Errorf("%w after %w", noSource(true), context.DeadlineExceeded), syscall.ENODATA},
		{corrupt(true), syscall.EIO},
		{fmt.Errorf("%w, %w", corrupt(true), noSource(true)), syscall.EIO},
		{corrupt(false), syscall.EIO},
		{syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
		{&iofs.PathError{Err: syscall.EACCES}, syscall.EACCES},
		{syscall.ENOSYS, syscall.EIO},
		{io.ErrUnexpectedEOF, syscall.EIO},
		{errors.New("?"), syscall.EIO},
	} {
		if got := errno(c.err); got != c.want {
			t.Errorf("errno(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestContentErrno(t *testing.T) {
	for _, c := range []struct {
		err, cause error
		want       syscall.Errno
	}{
		{context.Canceled, nil, syscall.EIO},
		{context.Canceled, context.Canceled, syscall.EINTR},
		{context.Canceled, context.DeadlineExceeded, syscall.ETIMEDOUT},
		{context.Canceled, errUnmounting, syscall.ENODEV},
		{syscall.EINTR, nil, syscall.EIO},
		{iofs.ErrNotExist, nil, syscall.EIO},
		{syscall.EAGAIN, nil, syscall.EIO},
		{noSource(true), context.DeadlineExceeded, syscall.ENODATA},
	} {
		if got := contentErrno(c.err, c.cause); got != c.want {
			t.Errorf("contentErrno(%v, %v) = %v, want %v", c.err, c.cause, got, c.want)
		}
	}
}

// newTestRequest is a request that can be interrupted, on a server that can stop.
func newTestRequest(timeout time.Duration) (r *request, interrupt func(), stop func()) {
	interrupted := make(chan struct{})
	server, cancel := context.WithCancelCause(context.Background())
	caller := &fuse.Context{Caller: fuse.Caller{Pid: 7}, Cancel: interrupted}
	return newRequest(caller, server, timeout), func() { close(interrupted) }, func() { cancel(errUnmounting) }
}

func TestRequestEnds(t *testing.T) {
	for _, c := range []struct {
		name       string
		err, cause error
		end        func(r *request, interrupt, stop func())
	}{
		{"interrupt", context.Canceled, context.Canceled, func(_ *request, interrupt, _ func()) { interrupt() }},
		{"unmount", context.Canceled, errUnmounting, func(_ *request, _, stop func()) { stop() }},
		{"deadline", context.DeadlineExceeded, context.DeadlineExceeded, func(*request, func(), func()) { time.Sleep(time.Minute) }},
	} {
		for _, waits := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, waits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, interrupt, stop := newTestRequest(time.Minute)
					defer r.finish()
					if waits {
						select {
						case <-r.Done():
							t.Fatal("it ended by itself")
						default:
						}
					}
					if r.Err() != nil || r.cause() != nil {
						t.Errorf("before: %v, %v", r.Err(), r.cause())
					}
					c.end(r, interrupt, stop)
					if waits {
						<-r.Done()
					}
					if r.Err() != c.err || r.cause() != c.cause {
						t.Errorf("%v, cause %v; want %v, cause %v", r.Err(), r.cause(), c.err, c.cause)
					}
				})
			})
		}
	}
}

func TestRequestHasNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, interrupt, _ := newTestRequest(-1)
		if _, ok := r.Deadline(); ok {
			t.Error("there is a deadline")
		}
		done := r.Done()
		time.Sleep(time.Hour)
		select {
		case <-done:
			t.Error("it ended")
		default:
		}
		interrupt()
		<-done
		r.finish()
	})
}

// What derives from a request ends with it, and knows why and for whom.
func TestRequestAsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, stop := newTestRequest(time.Hour)
		child, cancel := context.WithCancel(r)
		defer cancel()
		if Pid(child) != 7 {
			t.Errorf("pid %d", Pid(child))
		}
		stop()
		<-child.Done()
		if context.Cause(child) != errUnmounting {
			t.Errorf("cause %v", context.Cause(child))
		}
		r.finish()
	})
}

func TestRequestAfterItsAnswer(t *testing.T) {
	r, _, _ := newTestRequest(time.Hour)
	r.finish()
	<-r.Done() // does not wait for ever, and leaves no goroutine
	r.finish()
}

func TestRequestThatNeverWaitsCostsLittle(t *testing.T) {
	server, caller := context.Background(), &fuse.Context{}
	if n := testing.AllocsPerRun(100, func() {
		r := newRequest(caller, server, time.Minute)
		if r.Err() != nil {
			t.Fatal("ended")
		}
		r.finish()
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// Each change is told at once, and once more after a while.
func TestChangesAreToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		begin := time.Now()
		q := newNotifier()
		go q.run(ctx, func(c Change) { told = append(told, fmt.Sprint(c.Name, " ", time.Since(begin))) })
		q.add(Change{Name: "a"})
		time.Sleep(600 * time.Millisecond)
		q.add(Change{Name: "b"})
		time.Sleep(10 * time.Second)
		q.add(Change{Name: "c"})
		time.Sleep(10 * time.Second)
		cancel()
		synctest.Wait()
		want := []string{"a 0s", "b 600ms", "a 2s", "b 2s", "c 10.6s", "c 12.6s"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		line string
		want mountEntry
		ok   bool
	}{
		{`36 35 0:31 / /mnt/a\040b\134c rw,noatime shared:1 master:2 - fuse.btmount btmount rw`, mountEntry{"0:31", `/mnt/a b\c`, "fuse.btmount"}, true},
		{`36 35 8:1 / / rw - ext4 /dev/root rw`, mountEntry{"8:1", "/", "ext4"}, true},
		{"", mountEntry{}, false},
		{"36 35", mountEntry{}, false},
		{"36 35 - ext4", mountEntry{}, false},
	} {
		got, ok := parseMount(c.line)
		if got != c.want || ok != c.ok {
			t.Errorf("%q: %+v, %v", c.line, got, ok)
		}
	}
}

func TestUserAllowOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fuse.conf")
	for content, want := range map[string]bool{
		"": false, "#user_allow_other\n": false, "# x\n user_allow_other \nmount_max = 3\n": true, "user_allow_other": true,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := userAllowOther(file); got != want {
			t.Errorf("%q: %v", content, got)
		}
	}
	if userAllowOther(file + ".missing") {
		t.Error("a missing file allows")
	}
}

// However many threads list directories, few are remembered, and those that did last.
func TestWalkersAreForgotten(t *testing.T) {
	var w walkers
	for thread := range uint32(10 * maxWalkers) {
		for range 2 * firstListed {
			w.lists(thread)
		}
		w.gave(thread)
		w.looks(thread)
		w.looks(thread)
		if k := w.known[thread]; k == nil || k.looked != 1 {
			t.Fatalf("%+v", k)
		}
	}
	if _, old := w.known[0]; old || len(w.known) != maxWalkers {
		t.Errorf("%d are remembered, the first: %v", len(w.known), old)
	}
}
