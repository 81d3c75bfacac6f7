package tree

import (
	"fmt"
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// spec reads "a/b" as a path of two components.
func spec(p string, size int64, tag int) Spec {
	return Spec{Path: strings.Split(p, "/"), Size: size, Tag: tag}
}

func symlink(p, target string) Spec {
	return Spec{Path: strings.Split(p, "/"), Symlink: strings.Split(target, "/"), Tag: 99}
}

// draw writes a tree as one line per node.
func draw(t *Tree) []string {
	var lines []string
	for i, n := range t.All() {
		switch n.Kind {
		case File:
			lines = append(lines, fmt.Sprintf("%s %d #%d", t.Path(i), n.Size, n.Tag))
		case Symlink:
			lines = append(lines, fmt.Sprintf("%s -> %s", t.Path(i), n.Target))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name  string
		specs []Spec
		want  []string
	}{
		{"none", nil, nil},
		{"single file", []Spec{{Size: 7, Tag: 3}}, []string{" 7 #3"}},
		{
			"nested",
			[]Spec{spec("b/x", 1, 0), spec("a", 2, 1), spec("b/a/z", 3, 2)},
			[]string{"a 2 #1", "b/a/z 3 #2", "b/x 1 #0"},
		},
		{
			"equal names",
			[]Spec{spec("a.mkv", 1, 0), spec("a.mkv", 2, 1), spec("a.mkv", 3, 2)},
			[]string{"a.mkv 1 #0", "a~2.mkv 2 #1", "a~3.mkv 3 #2"},
		},
		{
			"the suffix is taken",
			[]Spec{spec("a~2", 1, 0), spec("a", 2, 1), spec("a", 3, 2)},
			[]string{"a 2 #1", "a~2 1 #0", "a~3 3 #2"},
		},
		{
			"the suffix comes to be taken",
			[]Spec{spec("a", 1, 0), spec("a", 2, 1), spec("a~2", 3, 2)},
			[]string{"a 1 #0", "a~2 2 #1", "a~2~2 3 #2"},
		},
		{
			"equal once clean",
			[]Spec{spec("a\x01", 1, 0), spec("a\x02", 2, 1)},
			[]string{"a_ 1 #0", "a_~2 2 #1"},
		},
		{"case differs", []Spec{spec("a", 1, 0), spec("A", 2, 1)}, []string{"A 2 #1", "a 1 #0"}},
		{
			"a file where a directory is",
			[]Spec{spec("a/x", 1, 0), spec("a", 2, 1), spec("a/y", 3, 2)},
			[]string{"a/x 1 #0", "a/y 3 #2", "a~2 2 #1"},
		},
		{
			"a directory where a file is",
			[]Spec{spec("a.b", 1, 0), spec("a.b/x", 2, 1), spec("a.b/y", 3, 2)},
			[]string{"a.b 1 #0", "a.b~2/x 2 #1", "a.b~2/y 3 #2"},
		},
		{
			"directories become one",
			[]Spec{spec("a\x01/x", 1, 0), spec("a\x02/x", 2, 1)},
			[]string{"a_/x 1 #0", "a_/x~2 2 #1"},
		},
		{
			"empty and dotted names",
			[]Spec{spec("../x", 1, 0), spec("./x", 2, 1), spec("/x", 3, 2), {Size: 4, Tag: 3}},
			[]string{"_/x 2 #1", "_/x~2 3 #2", "__/x 1 #0", "_~2 4 #3"},
		},
		{"negative size", []Spec{spec("a", -5, 0)}, []string{"a 0 #0"}},

		{
			"symlink to a file",
			[]Spec{spec("d/f", 1, 0), symlink("l", "d/f"), symlink("e/l", "d/f"), symlink("d/l", "d/f")},
			[]string{"d/f 1 #0", "d/l -> f", "e/l -> ../d/f", "l -> d/f"},
		},
		{
			"symlink to a directory, the root, its own directory",
			[]Spec{spec("d/f", 1, 0), symlink("l", "d"), symlink("d/r", "."), symlink("d/s", "d"), symlink("r", "")},
			[]string{"d/f 1 #0", "d/r -> ..", "d/s -> .", "l -> d", "r -> ."},
		},
		{
			"symlink to a cleaned name",
			[]Spec{spec("b\x01/c\x02", 3, 2), symlink("m", "b\x01/c\x02")},
			[]string{"b_/c_ 3 #2", "m -> b_/c_"},
		},
		{
			"symlinks that lead on, as in a macOS framework",
			[]Spec{symlink("Foo", "Versions/Current/Foo"), symlink("Versions/Current", "Versions/A"), spec("Versions/A/Foo", 1, 0)},
			[]string{"Foo -> Versions/A/Foo", "Versions/A/Foo 1 #0", "Versions/Current -> A"},
		},
		{"dots inside", []Spec{spec("a/b/c", 1, 0), symlink("l", "a/b/../b/./c")}, []string{"a/b/c 1 #0", "l -> a/b/c"}},
		{
			"symlinks that leave",
			[]Spec{spec("a/b", 1, 0), symlink("l", "../etc/passwd"), symlink("m", "a/../../x"), symlink("n", "/etc/passwd")},
			[]string{"a/b 1 #0", "l 0 #-1", "m 0 #-1", "n 0 #-1"},
		},
		{
			"symlinks to nothing",
			[]Spec{symlink("l", "gone"), spec("a", 1, 0), symlink("m", "a/b")},
			[]string{"a 1 #0", "l 0 #-1", "m 0 #-1"},
		},
		{
			"symlinks in a circle",
			[]Spec{symlink("a", "b"), symlink("b", "c/x"), symlink("c", "a"), symlink("self", "self")},
			[]string{"a 0 #-1", "b 0 #-1", "c 0 #-1", "self 0 #-1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := Build(c.specs)
			check(t, tree, len(c.specs))
			if got := draw(tree); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// check holds a tree against the rules that every tree obeys.
func check(t *testing.T, tree *Tree, specs int) {
	t.Helper()
	leaves := 0
	for i, n := range tree.All() {
		p := tree.Path(i)
		if i > 0 && !obeys(n.Name) {
			t.Errorf("%q breaks the name rules", n.Name)
		}
		if len(p) > maxPath || strings.Count(p, "/") >= maxDepth {
			t.Errorf("path of %d bytes and %d names", len(p), strings.Count(p, "/")+1)
		}
		if j, ok := tree.Find(p); !ok || j != i {
			t.Errorf("Find(%q) = %d, %v, want %d", p, j, ok, i)
		}
		if n.Kind == Dir {
			checkDir(t, tree, i)
			continue
		}
		leaves++
		if n.Kind == Symlink {
			checkLink(t, tree, p, n)
		}
	}
	if leaves != specs || tree.Files() != specs {
		t.Errorf("%d specs made %d files, Files() = %d", specs, leaves, tree.Files())
	}
}

func checkDir(t *testing.T, tree *Tree, dir int) {
	t.Helper()
	first, count := tree.Children(dir)
	total := int64(0)
	for i := first; i < first+count; i++ {
		if tree.Parent(i) != dir {
			t.Errorf("node %d has parent %d, want %d", i, tree.Parent(i), dir)
		}
		if i > first && tree.Node(i-1).Name >= tree.Node(i).Name {
			t.Errorf("%q and %q are not in order", tree.Node(i-1).Name, tree.Node(i).Name)
		}
		total = addSaturating(total, tree.Total(i))
	}
	if total != tree.Total(dir) {
		t.Errorf("total of %q is %d, want %d", tree.Path(dir), tree.Total(dir), total)
	}
}

func checkLink(t *testing.T, tree *Tree, p string, n Node) {
	t.Helper()
	if n.Size != int64(len(n.Target)) || n.Target == "" || len(n.Target) > 4095 || path.IsAbs(n.Target) {
		t.Errorf("%q has target %q and size %d", p, n.Target, n.Size)
	}
	meant := path.Join("/", path.Dir(p), n.Target)
	if climbs := path.Join("x", path.Dir(p), n.Target); climbs != "x" && !strings.HasPrefix(climbs, "x/") {
		t.Errorf("%q leaves the tree by %q", p, n.Target)
	}
	to, ok := tree.Find(meant)
	if !ok || tree.Node(to).Kind == Symlink {
		t.Errorf("%q -> %q means %q: found %v", p, n.Target, meant, ok)
	}
}

func TestLongAndDeepPathsAreShortened(t *testing.T) {
	deep := make([]string, 1000)
	for i := range deep {
		deep[i] = fmt.Sprint(i)
	}
	long := slices.Repeat([]string{strings.Repeat("n", 250)}, 30)
	specs := []Spec{
		{Path: append(slices.Clone(deep), "one"), Tag: 0, Size: 1},
		{Path: append(slices.Clone(deep), "two"), Tag: 1, Size: 2},
		{Path: append(slices.Clone(deep), "one"), Tag: 2, Size: 3},
		{Path: append(slices.Clone(long), strings.Repeat("f", 300)+".mkv"), Tag: 3, Size: 4},
		{Path: append(append(slices.Clone(long), "other"), "x"), Tag: 4, Size: 5},
		{Path: []string{"plain"}, Tag: 5, Size: 6},
	}
	tree := Build(specs)
	check(t, tree, len(specs))
	parents := map[int]int{}
	for i, n := range tree.All() {
		if n.Kind == File {
			parents[n.Tag] = tree.Parent(i)
		}
	}
	if parents[0] != parents[1] || parents[0] != parents[2] || parents[3] == parents[4] {
		t.Errorf("files of one directory must stay together, others apart: %v", parents)
	}
	if !slices.Equal(draw(tree), draw(Build(specs))) {
		t.Error("two builds of the same specs differ")
	}
}

// A million equal names, or long names that become equal once cut, must not take
// time that grows with their square.
func TestManyCollisions(t *testing.T) {
	const n = 60_000
	specs := make([]Spec, 0, 2*n)
	for i := range n {
		specs = append(specs, spec("same.mkv", 1, i))
		specs = append(specs, spec(strings.Repeat("x", 250)+fmt.Sprintf("%05d", i/2), 1, i))
	}
	tree := Build(specs)
	if tree.Files() != 2*n {
		t.Fatalf("%d files of %d", tree.Files(), 2*n)
	}
	if _, ok := tree.Find(fmt.Sprintf("same~%d.mkv", n)); !ok {
		t.Error("the last of the equal names is missing")
	}
}

func TestTotalsSaturate(t *testing.T) {
	tree := Build([]Spec{spec("a", math.MaxInt64, 0), spec("b", math.MaxInt64, 1)})
	if got := tree.Total(0); got != math.MaxInt64 {
		t.Errorf("total %d", got)
	}
}

func TestZeroTree(t *testing.T) {
	var tree Tree
	if _, ok := tree.Lookup(0, "x"); ok || tree.Node(0).Kind != Dir || tree.Total(0) != 0 || tree.Len() != 1 {
		t.Error("the zero tree is not an empty directory")
	}
}

func TestBytesPerFile(t *testing.T) {
	const n = 200_000
	measure := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := measure()
	tree := func() *Tree {
		specs := make([]Spec, n)
		for i := range specs {
			specs[i] = spec(fmt.Sprintf("season %d/episode %06d.mkv", i/1000, i), 1<<30, i)
		}
		return Build(specs)
	}()
	got := (measure() - before) / n
	t.Logf("%d bytes a file, of which %d are its name", got, len("episode 000000.mkv"))
	if got > 80 {
		t.Errorf("%d bytes a file", got)
	}
	runtime.KeepAlive(tree)
}

func FuzzBuild(f *testing.F) {
	f.Add("a\nb/c\nb\nl>b/c")
	f.Add("x>y\ny>x\n\xff/\x00\n..\n../..\n>")
	f.Add(strings.Repeat("d/", 300) + "f\n" + strings.Repeat("n", 400))
	f.Fuzz(func(t *testing.T, text string) {
		var specs []Spec
		for line := range strings.SplitSeq(text, "\n") {
			s := Spec{Tag: len(specs), Size: int64(len(line))}
			p, target, isLink := strings.Cut(line, ">")
			s.Path = strings.Split(p, "/")
			if isLink {
				s.Symlink = strings.Split(target, "/")
			}
			specs = append(specs, s)
		}
		tree := Build(specs)
		check(t, tree, len(specs))
		tags := map[int]bool{}
		for _, n := range tree.All() {
			if n.Tag != NoTag {
				tags[n.Tag] = true
			}
		}
		for _, s := range specs {
			if s.Symlink == nil && !tags[s.Tag] {
				t.Errorf("%q was dropped", s.Path)
			}
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	specs := make([]Spec, 100_000)
	for i := range specs {
		specs[i] = spec(fmt.Sprintf("d%d/f%d", i/1000, i), 1, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		Build(specs)
	}
}

func BenchmarkLookup(b *testing.B) {
	specs := make([]Spec, 100_000)
	for i := range specs {
		specs[i] = spec(fmt.Sprintf("f%06d", i), 1, i)
	}
	tree := Build(specs)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tree.Lookup(0, "f054321"); !ok {
			b.Fatal("lost")
		}
	}
}
