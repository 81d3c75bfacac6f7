package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/btmount/btmount/"

// rooms are our packages and what each may import of us: a package, or with "/..."
// everything below one. Arrows only go down: no room may name one of a higher row,
// and fetch, fetch/swarm, btfs and fs do not know each other.
var rooms = []struct {
	name string
	row  int
	may  []string
}{
	{"cmd/btmount", 4, []string{"cmd/daemon", "cmd/control", "fetch/swarm/metainfo", "fs", "fs/tree", "btfs/...", "wallet/..."}},
	{"cmd/daemon", 3, []string{"cmd/control", "cmd/objects", "fs/...", "fetch/...", "btfs/...", "cache/..."}},
	{"cmd/objects", 3, []string{"fs", "fs/tree", "fetch", "btfs/...", "cache/..."}}, // cmd/daemon grafts it
	{"cmd/control", 3, nil}, // what it serves comes from cmd/daemon, through its interface
	{"cmd/arch", 3, nil},
	{"bench", 4, []string{"fetch/swarm/metainfo"}},                  // the info-hash, for peers that it plays itself
	{"bench/scale", 4, []string{"fetch/swarm/...", "cache/extent"}}, // the engine alone

	{"fs/catalog", 2, []string{"fs", "fs/tree"}},
	{"fs", 2, []string{"fs/tree"}},
	{"fetch", 2, []string{"cache", "cache/extent"}},
	{"fetch/swarm/...", 2, []string{"fetch/swarm/...", "cache/extent"}},
	{"btfs/...", 2, []string{"btfs/..."}},
	{"wallet/...", 2, []string{"wallet/..."}},

	{"cache", 1, []string{"cache/extent"}},

	{"fs/tree", 0, nil},
	{"cache/extent", 0, nil},
}

// testRooms help tests and nothing else.
var testRooms = map[string][]string{
	"fs/fstest":       {"fs", "fs/tree"},
	"fetch/fetchtest": {"fetch", "cache", "cache/extent"},
	"btfs/btfstest":   {"btfs/block", "btfs/car"},

	"wallet/chaintest":    nil,
	"btfs/btfstest/peers": {"btfs/btfstest", "btfs/bitswap", "btfs/btns"},
}

// homes are the third-party modules and the rooms that may import them.
var homes = map[string][]string{
	"github.com/hanwen/go-fuse":     {"fs"},
	"github.com/anacrolix":          {"fetch/swarm/..."},
	"github.com/ipfs":               {"btfs/..."}, // go-cid, and boxo's bitswap
	"github.com/libp2p":             {"btfs/..."},
	"github.com/gorilla":            {"btfs/bitswap"}, // WebSocket, as libp2p has it
	"github.com/multiformats":       {"btfs/..."},     // multihash, which go-cid stands on
	"github.com/klauspost":          {"btfs/unixfs"},
	"google.golang.org/protobuf":    {"btfs/..."}, // its wire format
	"github.com/spaolacci/murmur3":  {"btfs/unixfs"},
	"github.com/ethereum":           {"wallet/..."},
	"github.com/holiman/uint256":    {"wallet", "wallet/chain"},
	"github.com/cosmos/go-bip39":    {"wallet"},
	"github.com/google/uuid":        {"wallet"}, // of key files
	"github.com/urfave/cli":         {"cmd/btmount"},
	"gopkg.in/natefinch":            {"cmd/btmount"},
	"github.com/knadh/koanf":        {"cmd/btmount"},
	"github.com/pelletier/go-toml":  {"cmd/btmount"},
	"github.com/vbauerster/mpb":     {"cmd/btmount"},
	"github.com/dustin/go-humanize": {"cmd/btmount"},
	"golang.org/x/net":              {"fetch/swarm/network"}, // its SOCKS5
	"golang.org/x/term":             {"cmd/btmount"},
	"golang.org/x/time":             {"cmd/daemon", "fetch/swarm/..."},
	"golang.org/x/sys":              {"fs/...", "cache", "fetch/swarm/...", "cmd/btmount", "bench"},
	"go.uber.org/goleak":            {}, // tests only
}

// testHomes are rooms whose tests may use a library beside its home: hostile peers in
// the tests of the whole speak the protocol themselves.
var testHomes = map[string][]string{"github.com/anacrolix": {"cmd/daemon"}, "golang.org/x/sys": {"cmd/daemon"}, "github.com/hanwen/go-fuse": {"cache"}, "github.com/ipfs": {"cmd/btmount", "cmd/daemon"}}

// source is one Go file.
type source struct {
	path    string // from the top of the repository
	room    string // its folder
	test    bool
	ast     *ast.File
	imports []string
}

// sources parses every Go file of the repository.
func sources(t *testing.T) (out []source) {
	t.Helper()
	top := os.DirFS("../..")
	err := fs.WalkDir(top, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return fs.SkipDir
		case e.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(top, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: name, room: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: f}
		for _, spec := range f.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
		return nil
	})
	if err != nil || len(out) < 50 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

// within reports whether a package is one of the patterns.
func within(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, ok := strings.CutSuffix(p, "/...")
		return pkg == p || ok && (pkg == below || strings.HasPrefix(pkg, below+"/"))
	})
}

// room finds the rules of a package.
func room(pkg string) (may []string, row int, ok bool) {
	if may, ok = testRooms[pkg]; ok {
		return may, 2, true
	}
	for _, r := range rooms {
		if within(pkg, []string{r.name}) {
			return r.may, r.row, true
		}
	}
	return nil, 0, false
}

// The table itself must not let an arrow go up, or sideways between the groups of
// row 2.
func TestTableGoesDown(t *testing.T) {
	for _, r := range rooms {
		for _, m := range r.may {
			target := strings.TrimSuffix(m, "/...")
			_, row, ok := room(target)
			if !ok {
				t.Errorf("%s may import %s, which is no room", r.name, m)
			}
			if row > r.row || row == r.row && group(target) != group(r.name) {
				t.Errorf("%s (row %d) may import %s (row %d): arrows go down", r.name, r.row, m, row)
			}
		}
	}
}

// group is what a room belongs to: rooms of one row see each other only within it.
func group(pkg string) string {
	if strings.HasPrefix(pkg, "fetch/swarm") {
		return "fetch/swarm"
	}
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		may, row, ok := room(s.room)
		if !ok {
			t.Errorf("%s: the package %s is not in the drawing: write it into this test and into README.md", s.path, s.room)
			continue
		}
		for _, p := range s.imports {
			of, ours := strings.CutPrefix(p, module)
			_, testOnly := testRooms[of]
			_, below, _ := room(of)
			switch {
			case !ours:
			case testOnly && !s.test && testRooms[s.room] == nil:
				t.Errorf("%s imports %s, which is for tests", s.path, of)
			case testOnly, within(of, may):
			case s.test && (of == s.room || below < row): // tests stand on real parts
			default:
				t.Errorf("%s: %s may not import %s", s.path, s.room, of)
			}
		}
	}
}

func TestHomes(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, p := range s.imports {
			first, _, _ := strings.Cut(p, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(p, module) {
				continue
			}
			home := ""
			for h := range homes {
				if p == h || strings.HasPrefix(p, h+"/") {
					home = h
				}
			}
			used[home] = true
			switch {
			case home == "":
				t.Errorf("%s imports %s, which has no home", s.path, p)
			case s.test && (len(homes[home]) == 0 || within(s.room, testHomes[home])):
			case !within(s.room, homes[home]):
				t.Errorf("%s imports %s, whose home is %v", s.path, p, homes[home])
			}
		}
	}
	for h := range homes {
		if !used[h] {
			t.Errorf("nobody imports %s any more", h)
		}
	}
}

// Every package has a doc that begins with its name.
func TestPackageDocs(t *testing.T) {
	docs := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		start := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			start = "Command " + path.Base(s.room) + " "
		}
		docs[s.room] = docs[s.room] || s.ast.Doc != nil && strings.HasPrefix(s.ast.Doc.Text(), start)
	}
	for pkg, ok := range docs {
		if !ok {
			t.Errorf("package %s has no doc that begins with its name", pkg)
		}
	}
}

// README's drawing shows every package.
func TestReadmeDrawsEveryRoom(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, s := range sources(t) {
		if !told[s.room] && !bytes.Contains(readme, []byte("\n"+s.room+" ")) {
			t.Errorf("README.md draws no room %s", s.room)
		}
		told[s.room] = true
	}
}

// A test that sleeps is slow on good days and fails on bad ones. In a bubble of
// testing/synctest time costs nothing, so files that use it may.
func TestNoSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test || slices.Contains(s.imports, "testing/synctest") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s sleeps; wait for what happens instead, or use testing/synctest", s.path)
				}
			}
			return true
		})
	}
}

// Nothing in the repository knows on whose machine it was written.
func TestNoPathsOfOneMachine(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("not a git repository:", err)
	}
	var roots [][]byte
	for _, name := range []string{"work", "farm", "workspace", "builds", "Users", "home/runner"} {
		roots = append(roots, []byte("/"+name+"/"))
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			continue // deleted, and not yet committed
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			for _, root := range roots {
				if bytes.Contains(line, root) {
					t.Errorf("%s:%d: %s is a place on somebody's machine", name, i+1, root)
				}
			}
		}
	}
}
