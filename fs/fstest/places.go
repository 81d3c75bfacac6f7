package fstest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// visitVar tells a process that it is a visitor, and what it has to do.
const visitVar = "BTMOUNT_TEST_VISIT"

// Visit is called first by TestMain of a package that uses [RunPlaces]: this may be a process
// that has to look at a mount from somewhere else.
func Visit() {
	job := os.Getenv(visitVar)
	if job == "" {
		return
	}
	v := visit{}
	err := json.Unmarshal([]byte(job), &v)
	if err == nil {
		err = v.run()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// visit is how a process looks at a mount: it goes through the steps that are set, in this
// order, and reads all files.
type visit struct {
	Root    string
	Bind    string // bound to Work, and looked at there
	Overlay bool   // the lower layer of one
	Work    string // an empty folder of another filesystem
	Chroot  bool
	UID     int  // to become
	Denied  bool // nothing may be seen

	Files []known
}

// known is a file that has to be there.
type known struct {
	Path, Symlink string
	Sum           [sha256.Size]byte
}

func (v *visit) run() error {
	switch {
	case v.Bind != "":
		if err := unix.Mount(filepath.Join(v.Root, v.Bind), v.Work, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		v.Root = v.Work
	case v.Overlay:
		if err := v.overlay(); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
	}
	if v.Chroot {
		if err := errors.Join(unix.Chroot(v.Root), unix.Chdir("/")); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
		v.Root = "/"
	}
	if v.UID != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(v.UID), syscall.Setuid(v.UID)); err != nil {
			return err
		}
	}
	if v.Denied {
		if names, err := os.ReadDir(v.Root); !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%d names, %v", len(names), err)
		}
		return nil
	}
	for _, f := range v.Files {
		if err := v.look(&f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if v.Overlay {
		return v.above()
	}
	if err := os.WriteFile(filepath.Join(v.Root, fresh), nil, 0o600); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("writing there: %w", err)
	}
	return nil
}

func (v *visit) look(f *known) error {
	path := filepath.Join(v.Root, f.Path)
	if f.Symlink != "" {
		_, err := os.Readlink(path)
		return err
	}
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != f.Sum {
		return errors.New("wrong bytes")
	}
	if v.Overlay {
		return nil // opening it would copy it up
	}
	if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) && (v.UID == 0 || !errors.Is(err, unix.EACCES)) {
		return fmt.Errorf("opened to write: %w", err)
	}
	return nil
}

func (v *visit) dir(name string) string { return filepath.Join(v.Work, name) }

func (v *visit) overlay() error {
	if err := unix.Mount("tmpfs", v.Work, "tmpfs", 0, "mode=755"); err != nil { // an overlay cannot be the upper layer of one
		return err
	}
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(v.dir(name), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", v.Root, v.dir("upper"), v.dir("work"))
	if err := unix.Mount("overlay", v.dir("merged"), "overlay", 0, options); err != nil {
		return err
	}
	v.Root = v.dir("merged")
	return nil
}

// above changes the files in the layer above: one is appended to, which copies it up, and
// one is removed. The mount below keeps both.
func (v *visit) above() error {
	last := slices.IndexFunc(v.Files, func(f known) bool { return f.Symlink == "" })
	path := filepath.Join(v.Root, v.Files[last].Path)
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("copy up: %w", err)
	}
	_, err = f.WriteString("more")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(before)+"more" {
		return fmt.Errorf("after copy up %d bytes, %w", len(got), err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("removed above: %w", err)
	}
	return nil
}

// RunPlaces looks at a mount from other places: below a chroot, bound elsewhere, as the lower
// layer of an overlay, from a user namespace, and as another user, who sees it if shared
// says so. It needs root, and [Visit] in TestMain.
func RunPlaces(t *testing.T, root string, files []File, shared bool) {
	if os.Geteuid() != 0 {
		t.Skip("only root can chroot, and mount elsewhere")
	}
	m := newMount(t, root, files)
	all := m.known("")
	dir := filepath.Dir(m.big.Path)
	for _, f := range files {
		if d := filepath.Dir(f.Path); d != "." && len(m.known(d)) > 0 {
			dir = d // of which a part can be bound
		}
	}
	const nobody = 65534
	for name, v := range map[string]visit{
		"chroot":      {Chroot: true, Files: all},
		"bind":        {Bind: dir, Files: m.known(dir)},
		"bind chroot": {Bind: dir, Chroot: true, Files: m.known(dir)},
		"overlay":     {Overlay: true, Files: all},
		"other user":  {UID: nobody, Denied: !shared, Files: all},
		"namespace":   {Files: all, Denied: false},
	} {
		t.Run(name, func(t *testing.T) {
			v.Root, v.Work = root, t.TempDir()
			attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: unix.CLONE_NEWNS}
			if name == "namespace" { // of users
				same := []syscall.SysProcIDMap{{Size: 1}}
				attr.Cloneflags, attr.UidMappings, attr.GidMappings = unix.CLONE_NEWUSER, same, same
			}
			v.send(t, attr)
		})
	}
	// What was done above the mount, or to it elsewhere, has changed nothing here.
	v := visit{Root: root, Files: all}
	v.send(t, nil)
}

// known are the files below a directory, of many only some.
func (m *mount) known(dir string) (all []known) {
	for _, f := range m.files {
		below := f.Path
		if dir != "" && dir != "." {
			var ok bool
			if below, ok = strings.CutPrefix(f.Path, dir+"/"); !ok {
				continue
			}
		}
		if f.Open == nil && len(all) < 50 {
			all = append(all, known{below, f.Symlink, sha256.Sum256(f.Data)})
		}
	}
	return all
}

// send has another process make a visit.
func (v *visit) send(t *testing.T, attr *syscall.SysProcAttr) {
	t.Helper()
	job, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), visitVar+"="+string(job))
	cmd.SysProcAttr = attr
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
