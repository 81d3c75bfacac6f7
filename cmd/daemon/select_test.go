package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// A magnet with so= shows the files that libtorrent has under these numbers, pad files
// counted; over a restart too, when the metadata is there already. What is beyond the end
// is left out. Without so= the same state folder shows everything.
func TestMagnetSelectsFiles(t *testing.T) {
	for _, hybrid := range []bool{true, false} {
		t.Run(fmt.Sprintf("hybrid=%v", hybrid), func(t *testing.T) {
			p := treeLibrary(t, hybrid)
			s := startLibtorrent(t, "--torrent", p.torrent, "--save", p.parent(), "--seed")
			var so []string
			for i, f := range p.meta.Info.Files {
				if name := strings.Join(f.Path, "/"); name == "mmap" || name == "tree/7/file 0107" {
					so = append(so, fmt.Sprint(i))
				}
			}
			const script = `import sys, libtorrent as lt
fs = lt.torrent_info(sys.argv[1]).files()
print("\n".join(fs.file_path(int(i)) for i in sys.argv[2:]))`
			theirs := output(t, patience, python, append([]string{"-c", script, p.torrent}, so...)...)
			if strings.TrimSpace(theirs) != "library/mmap\nlibrary/tree/7/file 0107" {
				t.Fatalf("%v are for libtorrent\n%s", so, theirs)
			}
			total := len(listing(t, p.dir))
			at, link := newFolders(t), p.magnet()+"&so="+strings.Join(so, ",")
			for range 2 {
				m := at.mount(t, link+",99999-100000", "--no-dht", "--peer", s.addr())
				eventually(t, patience, "the metadata is here", func() bool { return m.torrent(t).Files > 0 })
				if got := listing(t, m.path("library")); fmt.Sprint(got) != "[mmap tree/7/file 0107]" {
					t.Errorf("shown are %q", got)
				}
				for _, name := range []string{"mmap", "tree/7/file 0107"} {
					same(t, "sequential", m.path("library", name), p.file(name))
				}
				if st := m.torrent(t); st.Files != 2 || st.FilesOf != total {
					t.Errorf("%d files of %d, want 2 of %d", st.Files, st.FilesOf, total)
				}
				if n := strings.Count(m.out.String(), "left_out=2"); n != 1 {
					t.Errorf("%d warnings", n)
				}
				m.stop()
			}
			m := at.mount(t, p.magnet(), "--no-dht")
			if got := listing(t, m.path("library")); len(got) != total {
				t.Errorf("%d files, want %d", len(got), total)
			}
		})
	}
}

// A magnet that selects nothing that is there is one error: at once if the metadata is
// known, else where the torrent would be.
func TestMagnetSelectsNothing(t *testing.T) {
	p := single(t, "file", 100_000, metainfo.MakeConfig{})
	peer, _ := seed(t, p)
	at, link := newFolders(t), p.magnet()+"&so=1-3"
	const want = "none of the files that so= selects is in the torrent"
	m := at.mount(t, link, "--no-dht", "--peer", peer)
	m.await(want)
	if st := m.torrent(t); st.State != "bad" || !strings.Contains(st.Error, want) {
		t.Errorf("%+v", st)
	}
	m.stop()
	out, err := exec.Command(btmount, "mount", at.point, "--cache-dir", at.cache, "--state-dir", at.state, "--no-dht", "--listen", "127.0.0.1:0", link).CombinedOutput()
	if err == nil || strings.Count(string(out), want) != 1 {
		t.Errorf("%v: %s", err, out)
	}
}

// listing returns the files below a folder.
func listing(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
