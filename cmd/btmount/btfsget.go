package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/crawl"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/fs/tree"
)

// Limits on what a stranger's directory may make of a disk.
const (
	maxGetFiles = 1 << 20
	maxGetDepth = 128
)

// atATime are the files that are fetched at a time, and the names that may wait.
var atATime = crawl.Limits{Width: 8, Pending: maxGetFiles}

// getting is one btfs get.
type getting struct {
	ask    *btfsAsk
	copier *btfs.Copier
	root   *os.Root // of the directory that is written; nothing leaves it

	mu       sync.Mutex
	done     int64 // bytes
	total    int64 // about
	files    int
	names    int
	problems []string
}

type btfsGot struct {
	Path     string   `json:"path"`
	To       string   `json:"to"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Problems []string `json:"problems,omitempty"`
}

func btfsGet(ctx context.Context, a *btfsAsk) (err error) {
	g := &getting{ask: a, copier: btfs.NewCopier(), total: a.object.Size}
	to := a.c.String("to")
	if to == "-" {
		if a.object.Kind != unixfs.File {
			return usage(fmt.Errorf("%s is a %s: only a file can go to stdout", a.path, a.object.Kind))
		}
		return g.stream(ctx)
	}
	if to == "" {
		to = shown(a.path.Name())
	}
	to = filepath.Clean(to)
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s: exists; choose another place with --to", to)
	}
	dir, name := filepath.Split(to)
	// What is not whole has a name of its own, in the same folder: so the last step is
	// only to rename it.
	partly := filepath.Join(dir, "."+name+".btmount-part")
	end := g.progress()
	switch a.object.Kind {
	case unixfs.Symlink:
		err = fmt.Errorf("%s: it is a symlink to %q; give the path of what it leads to", a.path, a.object.Target)
	case unixfs.Dir:
		err = g.directory(ctx, partly)
	default:
		err = g.single(ctx, partly)
	}
	end()
	if err == nil {
		err = os.Rename(partly, to)
	}
	if err != nil {
		if a.object.Kind != unixfs.Symlink && !errors.Is(err, os.ErrExist) {
			os.RemoveAll(partly)
		}
		return elsewhere(err)
	}
	return g.told(to)
}

// elsewhere says of an error of the disk how to choose another place.
func elsewhere(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s: exists, of another btmount or one that was killed; remove it, or choose another place with --to", pe.Path)
		}
		return fmt.Errorf("%s: %w; choose another place with --to", pe.Path, pe.Err)
	}
	return err
}

// told prints what was got, and what was not.
func (g *getting) told(to string) error {
	got := btfsGot{g.ask.path.String(), to, g.files, g.done, g.problems}
	switch {
	case g.ask.json:
		if err := json.NewEncoder(g.ask.out).Encode(got); err != nil {
			return err
		}
	default:
		fmt.Fprintf(g.ask.out, "%s: %s, %s\n", to, count(got.Files, "file"), size(got.Bytes))
	}
	for _, p := range got.Problems {
		fmt.Fprintln(g.ask.err, "btmount:", oneLine(errors.New(p)))
	}
	if len(got.Problems) > 0 {
		return saidError{1}
	}
	return nil
}

// stream writes a file to stdout.
func (g *getting) stream(ctx context.Context) error {
	end := func() {}
	if !terminal(g.ask.out) {
		end = g.progressOn(g.ask.err)
	}
	defer end()
	return g.copier.Copy(ctx, g.ask.out, g.ask.object, g.wrote)
}

func (g *getting) wrote(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done += int64(n)
}

// progress shows how far it is: a bar on a terminal, lines in JSON.
func (g *getting) progress() (end func()) {
	if !g.ask.json {
		return g.progressOn(g.ask.err)
	}
	lines := json.NewEncoder(g.ask.out)
	return g.every(time.Second, func(done, total int64) {
		_ = lines.Encode(map[string]any{"progress": map[string]int64{"done": done, "total": total}})
	})
}

func (g *getting) progressOn(w io.Writer) (end func()) {
	if !terminal(w) {
		return func() {}
	}
	set, remove := bar(w, "got ")
	still := g.every(time.Second/10, set)
	return func() { still(); remove() }
}

// every reports until the function that it returns was called.
func (g *getting) every(d time.Duration, report func(done, total int64)) (end func()) {
	return repeat(d, func() {
		g.mu.Lock()
		done, total := g.done, max(g.done, g.total)
		g.mu.Unlock()
		report(done, total)
	})
}

// single writes one file.
func (g *getting) single(ctx context.Context, name string) error {
	dir, base := filepath.Split(name)
	root, err := os.OpenRoot(filepath.Clean(dir)) // "" becomes "."
	if err != nil {
		return err
	}
	defer root.Close()
	g.root = root
	return g.file(ctx, base, g.ask.path.String(), g.ask.object)
}

// directory writes a directory and all that is in it.
func (g *getting) directory(ctx context.Context, name string) error {
	if err := os.Mkdir(name, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return err
	}
	defer root.Close()
	g.root = root
	return crawl.Run(ctx, atATime, []getTask{{in: g.ask.object}}, g.visit)
}

// getTask is a name of a directory that is to be written, or with no name all that is in
// one.
type getTask struct {
	in    *unixfs.Object
	name  string // as the directory has it
	to    string // below the root; "" is the root
	depth int
}

func (g *getting) visit(ctx context.Context, t getTask, push func(...getTask)) error {
	if t.name == "" {
		tasks, err := g.list(ctx, t)
		push(tasks...)
		return g.judge(t.to, err)
	}
	o, err := t.in.Lookup(ctx, t.name)
	if err != nil {
		return g.judge(t.to, err)
	}
	switch o.Kind {
	case unixfs.Dir:
		if err := g.root.Mkdir(t.to, 0o777); err != nil {
			return err
		}
		push(getTask{in: o, to: t.to, depth: t.depth + 1})
		return nil
	case unixfs.Symlink:
		return g.symlink(t, o)
	}
	return g.judge(t.to, g.file(ctx, t.to, path.Join(g.ask.path.String(), t.to), o))
}

// judge keeps what is broken in the object for the end. Anything else would be the same
// for the next file.
func (g *getting) judge(name string, err error) error {
	if lie := (*unixfs.LieError)(nil); !errors.As(err, &lie) {
		return err
	}
	g.problem(name, err.Error())
	return nil
}

func (g *getting) problem(name, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	const most = 100
	if len(g.problems) < most {
		g.problems = append(g.problems, fmt.Sprintf("%s: %s; it is not written", path.Join(g.ask.path.String(), name), text))
	}
}

// list makes tasks of the names in a directory, under names that harm nobody.
func (g *getting) list(ctx context.Context, t getTask) (tasks []getTask, err error) {
	if t.depth > maxGetDepth {
		return nil, fmt.Errorf("%s: more than %d directories in each other; get a part of it", g.ask.path, maxGetDepth)
	}
	entries, err := t.in.List(ctx)
	if err != nil {
		return nil, err
	}
	specs := make([]tree.Spec, len(entries))
	var sum int64
	for i, e := range entries {
		specs[i] = tree.Spec{Path: []string{e.Name}, Tag: i}
		sum += min(e.Size, 1<<50)
	}
	g.mu.Lock()
	if g.names += len(entries); t.depth == 0 {
		g.total = sum
	}
	names := g.names
	g.mu.Unlock()
	if names > maxGetFiles {
		return nil, fmt.Errorf("%s: more than %d files; get a part of it", g.ask.path, maxGetFiles)
	}
	for _, n := range tree.Build(specs).All() {
		if n.Tag >= 0 {
			tasks = append(tasks, getTask{t.in, entries[n.Tag].Name, path.Join(t.to, n.Name), t.depth})
		}
	}
	return tasks, nil
}

// symlink makes a symlink that stays below the root: one that climbs first, and not
// further than to the root, and then only goes down. What it goes down through cannot
// lead out either.
func (g *getting) symlink(t getTask, o *unixfs.Object) error {
	target := path.Clean(o.Target)
	rest, climbs := target, 0
	for rest == ".." || strings.HasPrefix(rest, "../") {
		rest, climbs = strings.TrimPrefix(strings.TrimPrefix(rest, ".."), "/"), climbs+1
	}
	if path.IsAbs(target) || climbs > strings.Count(t.to, "/") {
		g.problem(t.to, fmt.Sprintf("a symlink to %q, which leads out of the object", o.Target))
		return nil
	}
	return g.root.Symlink(target, t.to)
}

// file writes one file below the root; label is its path in the object.
func (g *getting) file(ctx context.Context, name, label string, o *unixfs.Object) (err error) {
	if err := g.room(o.Size); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	f, err := g.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = g.root.Remove(name)
			return
		}
		g.mu.Lock()
		g.files++
		g.mu.Unlock()
	}()
	if err := g.copier.Copy(ctx, f, o, g.wrote); err != nil {
		return err
	}
	if o.Mode != 0 { // a stranger does not say that others may write
		if err := f.Chmod(o.Mode&^0o022 | 0o600); err != nil {
			return err
		}
	}
	if !o.ModTime.IsZero() {
		return g.root.Chtimes(name, time.Time{}, o.ModTime)
	}
	return nil
}

// room returns an error if the disk can not take n bytes: a few blocks can say that they
// are a file of an exabyte.
func (g *getting) room(n int64) error {
	d, err := g.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &s); err != nil {
		return err
	}
	if free := int64(s.Bavail) * s.Bsize; n > free {
		return fmt.Errorf("it has %s, and the disk has %s free; choose another place with --to", size(n), size(free))
	}
	return nil
}
