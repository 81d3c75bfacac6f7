package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Check reports whether Mount would find the mountpoint usable, in the same words, so that
// nobody waits for the network to hear that it is not. A stale mount of our own is taken
// away.
func Check(cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	_, err := prepare(cfg.Mountpoint, cfg.AllowOther, cfg.Logger)
	return err
}

// prepare checks everything that would make a mount fail or hide something, so
// that the error is about the cause and not about what mount(2) made of it. A stale
// mount of our own is taken away. It returns the path that the kernel knows.
func prepare(point string, allowOther bool, log *slog.Logger) (string, error) {
	if point == "" {
		return "", &mountError{`""`, "no directory is given", "name an empty one"}
	}
	point, err := resolve(point)
	if err != nil {
		return "", err
	}
	if err := clear(point, log); err != nil {
		return "", err
	}
	if err := checkDirectory(point); err != nil {
		return "", err
	}
	return point, checkFUSE(point, allowOther)
}

// resolve makes a path absolute and free of symlinks. The last name is not touched
// if something is mounted there: asking a dead or hung mount fails, or takes for ever.
func resolve(point string) (string, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return "", &mountError{point, err.Error(), "give an absolute path"}
	}
	return patiently(point, func() (string, error) {
		parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return "", missing(point, err)
		}
		real := filepath.Join(parent, filepath.Base(abs))
		if m, err := mountAt(real); err != nil || m.fstype != "" {
			return real, err
		}
		if real, err = filepath.EvalSymlinks(real); err != nil {
			return "", missing(point, err)
		}
		return real, nil
	})
}

func missing(point string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &mountError{point, "there is no such directory", "create it: mkdir -p " + point}
	}
	return &mountError{point, reason(err), "choose another directory"}
}

// reason strips the operation and the path, which the line already names.
func reason(err error) string {
	var number unix.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	return err.Error()
}

// patiently runs f, which may meet a hung filesystem, and stops waiting after a
// while. Nothing can end a system call that hangs; its goroutine is given up.
func patiently[T any](point string, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	limit := time.NewTimer(probeLimit)
	defer limit.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-limit.C:
		var none T
		return none, &mountError{
			point, "the filesystem there does not answer",
			"end the program that serves it, or: umount -l " + point,
		}
	}
}

// clear looks at what is mounted on point already. A mount of our own whose daemon
// was killed is taken away; anybody else's is not ours to touch.
func clear(point string, log *slog.Logger) error {
	for {
		m, err := mountAt(point)
		if err != nil || m.fstype == "" {
			return err
		}
		_, err = patiently(point, func() (struct{}, error) {
			var st unix.Statfs_t // unlike stat(2), never answered from the kernel's memory
			return struct{}{}, unix.Statfs(point, &st)
		})
		dead := errors.Is(err, unix.ENOTCONN)
		switch {
		case m.fstype == fsType && dead:
			log.Warn("replacing the mount of a btmount that was killed", "mount", point)
			if err := unmount(point, unix.MNT_DETACH); err != nil {
				return &mountError{
					point, "a killed btmount left its mount behind, and it cannot be removed: " + reason(err),
					"as its owner: fusermount3 -uz " + point,
				}
			}
		case dead:
			return &mountError{point, fmt.Sprintf("the program that served a %s there is gone", m.fstype), "unmount it: fusermount3 -uz " + point}
		case err != nil:
			return err
		case m.fstype == fsType:
			return &mountError{point, "a running btmount is mounted there already", "use that one, or unmount it: fusermount3 -u " + point}
		default:
			return nil
		}
	}
}

func checkDirectory(point string) error {
	_, err := patiently(point, func() (struct{}, error) { return struct{}{}, inspect(point) })
	return err
}

// inspect holds point against what a mount needs of a directory. One that is not
// empty is refused because its files would vanish behind the mount.
func inspect(point string) error {
	st, err := os.Stat(point)
	if err != nil {
		return missing(point, err)
	}
	if !st.IsDir() {
		return &mountError{point, "it is not a directory", "choose an empty directory"}
	}
	d, err := os.Open(point)
	if err != nil {
		return &mountError{point, reason(err), "choose a directory of your own"}
	}
	defer d.Close()
	if names, _ := d.Readdirnames(1); len(names) > 0 {
		return &mountError{point, fmt.Sprintf("it is not empty (there is %q)", names[0]), "choose an empty directory"}
	}
	if os.Geteuid() != 0 && unix.Access(point, unix.W_OK) != nil {
		return &mountError{point, "you may not write to it", "choose a directory of your own"}
	}
	return nil
}

// checkFUSE checks what the system has to provide.
func checkFUSE(point string, allowOther bool) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		unix.Close(fd)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return &mountError{point, "/dev/fuse is missing", "load the module (modprobe fuse), or pass the device to the container"}
	default:
		return &mountError{point, "/dev/fuse: " + reason(err), "ask root for access: chmod 666 /dev/fuse"}
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := fusermount(); err != nil {
		return &mountError{point, "fusermount3 is not installed", "install the package fuse3, or run as root"}
	}
	if allowOther && !userAllowOther("/etc/fuse.conf") {
		return &mountError{
			point, "/etc/fuse.conf does not let users share their mounts",
			"have root add the line user_allow_other, or leave out allow-other",
		}
	}
	return nil
}

func userAllowOther(file string) bool {
	conf, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct{ dev, point, fstype string }

// mountAt returns the topmost mount on exactly this path, the zero value if there
// is none. It does not touch the filesystem there.
func mountAt(point string) (mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, err
	}
	defer f.Close()
	var top mountEntry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok && m.point == point {
			top = m // later lines are on top
		}
	}
	return top, lines.Err()
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// parseMount reads "36 35 98:0 /root /point options [optional fields] - type source options".
func parseMount(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	fstype, _, _ := strings.Cut(after, " ")
	if !ok || len(fields) < 5 {
		return mountEntry{}, false
	}
	return mountEntry{dev: fields[2], point: unescapeMount.Replace(fields[4]), fstype: fstype}, true
}

// Mounted reports whether a btmount, living or dead, is mounted on path. It never
// asks the mount itself, which may hang.
func Mounted(path string) (bool, error) {
	point, err := resolve(path)
	if err != nil {
		return false, err
	}
	m, err := mountAt(point)
	return m.fstype == fsType, err
}

// Detach takes a btmount off its directory, from any process and without its
// daemon: files that are open stay open as long as the daemon lives. What is
// mounted there and is not ours is left alone.
func Detach(ctx context.Context, path string) error {
	point, err := resolve(path)
	if err != nil {
		return err
	}
	m, err := mountAt(point)
	switch {
	case err != nil:
		return err
	case m.fstype == "":
		return fmt.Errorf("unmount %s: nothing is mounted there", point)
	case m.fstype != fsType:
		return fmt.Errorf("unmount %s: a %s is mounted there, not a btmount; use umount", point, m.fstype)
	}
	done := make(chan error, 1)
	go func() { done <- unmount(point, unix.MNT_DETACH) }() // ends with the system call
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("unmount %s: %s", point, reason(err))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: %w", point, context.Cause(ctx))
	}
}

// unmount is umount2(2), or fusermount3 for those who may not call it. Of the
// flags fusermount3 only knows lazy. A mount that is in use is EBUSY either way.
func unmount(point string, flags int) error {
	err := unix.Unmount(point, flags|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	bin, err := fusermount()
	if err != nil {
		return unix.EPERM
	}
	args := []string{"-u", "--", point}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", "--", point}
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if strings.Contains(string(out), "busy") {
		return unix.EBUSY
	}
	return errors.New(strings.TrimSpace(string(out)))
}

func fusermount() (string, error) {
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		bin, err = exec.LookPath("fusermount")
	}
	return bin, err
}
