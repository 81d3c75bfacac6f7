package metainfo

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	anacrolix "github.com/anacrolix/torrent/metainfo"
)

// need finds a program that other people wrote; CI has them all.
func need(t *testing.T, path string, args ...string) {
	t.Helper()
	if err := exec.Command(path, args...).Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", path, err)
		}
		t.Skipf("%s: %v", path, err)
	}
}

// seen is what libtorrent says of a torrent.
type seen struct {
	V1, V2, Name string
	Pieces       int
	Files        []string // path below the root, or the name
	Sizes        []int64
	Pads         []bool
}

const pySeen = `
import json, sys, libtorrent as lt
def seen(ti):
    h = ti.info_hashes(); fs = ti.files()
    n = range(fs.num_files())
    pad = [bool(fs.file_flags(i) & 1) for i in n]
    return dict(V1=str(h.v1) if h.has_v1() else "", V2=str(h.v2) if h.has_v2() else "", Name=ti.name(), Pieces=ti.num_pieces(),
        Files=[fs.file_path(i) for i in n], Sizes=[fs.file_size(i) for i in n], Pads=pad)
`

func libtorrent(t *testing.T, script string, args ...string) []seen {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", pySeen + script}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var s []seen
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func compare(t *testing.T, name string, in *Info, s seen) {
	t.Helper()
	var v1, v2 string
	if in.V1 {
		v1 = in.Hash.String()
	}
	if in.V2 {
		v2 = hexOf(in.HashV2)
	}
	if v1 != s.V1 || v2 != s.V2 || in.Name != s.Name || in.NumPieces() != s.Pieces {
		t.Errorf("%s: we say %s %s %s %d, libtorrent %s %s %s %d", name, v1, v2, in.Name, in.NumPieces(), s.V1, s.V2, s.Name, s.Pieces)
	}
	var ours, theirs []string
	for i := range in.Files {
		if f := &in.Files[i]; !f.Pad {
			ours = append(ours, strings.Join(f.Path, "/"))
		}
	}
	for i, p := range s.Files {
		if !s.Pads[i] {
			theirs = append(theirs, strings.TrimPrefix(p, s.Name+"/"))
		}
	}
	if strings.Join(ours, "\n") != strings.Join(theirs, "\n") {
		t.Errorf("%s: files %q, libtorrent has %q", name, ours, theirs)
	}
}

func hexOf(h [32]byte) string {
	return InfoHash(h[:20]).String() + InfoHash(append(h[20:32:32], h[:8]...)).String()[:24]
}

func TestLibtorrentReadsOurs(t *testing.T) {
	need(t, "/usr/bin/python3", "-c", "import libtorrent")
	root, dir := sampleTree(t), t.TempDir()
	var metas []*Meta
	var names []string
	for name, c := range map[string]MakeConfig{"v1": {}, "hybrid": {Hybrid: true}, "hybrid64": {Hybrid: true, PieceLength: 64 << 10}, "v1_odd": {PieceLength: 48 << 10}, "v2": {V2: true}, "v2_64": {V2: true, PieceLength: 64 << 10}} {
		for _, path := range []string{root, filepath.Join(root, "big"), filepath.Join(root, "a")} {
			m, err := Make(t.Context(), path, c)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, name+filepath.Base(path)+".torrent")
			if err := os.WriteFile(file, m.Encode(), 0o644); err != nil {
				t.Fatal(err)
			}
			metas, names = append(metas, m), append(names, file)
		}
	}
	got := libtorrent(t, `print(json.dumps([seen(lt.torrent_info(p)) for p in sys.argv[1:]]))`, names...)
	for i := range got {
		compare(t, filepath.Base(names[i]), metas[i].Info, got[i])
	}
}

// libtorrent hashes the same tree itself; v1 pieces and v2 roots must be equal.
func TestWeReadLibtorrents(t *testing.T) {
	need(t, "/usr/bin/python3", "-c", "import libtorrent")
	root, dir := sampleTree(t), t.TempDir()
	const script = `
out = []
root, dir = sys.argv[1:3]
import os
for name, flags in (("v1", lt.create_torrent.v1_only), ("hybrid", 0), ("v2", lt.create_torrent.v2_only)):
    for path in (root, root + "/big", root + "/a"):
        fs = lt.file_storage()
        lt.add_files(fs, path, lambda p: True, flags | lt.create_torrent.symlinks)
        ct = lt.create_torrent(fs, piece_size=32768, flags=flags | lt.create_torrent.symlinks)
        lt.set_piece_hashes(ct, os.path.dirname(path))
        ct.add_url_seed("http://w/x?sig=1")
        ct.add_http_seed("http://s/seed.php")
        ct.add_collection("linux")
        ct.add_similar_torrent(lt.sha1_hash(b"s" * 20))
        b = lt.bencode(ct.generate())
        open("%s/%s-%s" % (dir, name, os.path.basename(path)), "wb").write(b)
        out.append(seen(lt.torrent_info(b)))
print(json.dumps(out))
`
	got := libtorrent(t, script, root, dir)
	i := 0
	for _, name := range []string{"v1", "hybrid", "v2"} {
		for _, path := range []string{"sample", "big", "a"} {
			b, err := os.ReadFile(filepath.Join(dir, name+"-"+path))
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(b)
			if err != nil {
				t.Fatalf("%s-%s: %v", name, path, err)
			}
			compare(t, name+"-"+path, m.Info, got[i])
			// BEP 38's hints are in the info dictionary, and so in its hash.
			if !bytes.Contains(m.Info.Raw, []byte("11:collections")) || !bytes.Contains(m.Info.Raw, []byte("7:similar")) {
				t.Errorf("%s-%s: no hints of BEP 38", name, path)
			}
			again, err := Parse(m.Encode())
			if err != nil || !slices.Equal(m.WebSeeds, []string{"http://w/x?sig=1"}) || !slices.Equal(m.WebPieces, []string{"http://s/seed.php"}) ||
				!slices.Equal(again.WebSeeds, m.WebSeeds) || !slices.Equal(again.WebPieces, m.WebPieces) {
				t.Errorf("%s-%s: web seeds %q and %q, %v", name, path, m.WebSeeds, m.WebPieces, err)
			}
			compareRoots(t, filepath.Join(root, map[bool]string{true: "", false: path}[path == "sample"]), m)
			i++
		}
	}
}

// compareRoots checks a v2 torrent of others against what Make computes.
func compareRoots(t *testing.T, path string, m *Meta) {
	t.Helper()
	ours, err := Make(t.Context(), path, MakeConfig{Hybrid: true, PieceLength: m.Info.PieceLength})
	if err != nil {
		t.Fatal(err)
	}
	roots := map[string][32]byte{}
	for _, f := range ours.Info.Files {
		roots[strings.Join(f.Path, "/")] = f.Root
	}
	for _, f := range m.Info.Files {
		if m.Info.V2 && !f.Pad && roots[strings.Join(f.Path, "/")] != f.Root {
			t.Errorf("%s: pieces root of %q differs", path, f.Path)
		}
	}
	if m.Info.V2 && len(m.PieceLayers) != len(ours.PieceLayers) {
		t.Errorf("%s: %d piece layers, ours has %d", path, len(m.PieceLayers), len(ours.PieceLayers))
	}
}

// Only v1: transmission 3.00 refuses every hybrid, libtorrent's too.
func TestTransmissionReadsOurs(t *testing.T) {
	need(t, "transmission-show", "--version")
	m, err := Make(t.Context(), sampleTree(t), MakeConfig{Private: true, Trackers: [][]string{{"http://h/a"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.torrent")
	if err := os.WriteFile(file, m.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("transmission-show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"Hash: " + m.Info.Hash.String(), "Name: sample", "Private torrent", "sample/d/e/empty", "http://h/a"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// The library that stands behind the firewall must agree on what passes it.
func TestAnacrolixAgrees(t *testing.T) {
	for _, c := range corpus() {
		if c.reason != "" || len(c.data) > 1<<20 {
			continue
		}
		switch c.name {
		case "path_utf8_broken", "attr_int", "v2_depth_90":
			continue // it insists on types that do not matter, and on a depth of 64
		}
		m, err := Parse([]byte(c.data))
		if err != nil {
			t.Fatal(err)
		}
		mi, err := anacrolix.Load(strings.NewReader(string(m.Encode())))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if h := mi.HashInfoBytes(); m.Info.V1 && h.HexString() != m.Info.Hash.String() {
			t.Errorf("%s: hash %s", c.name, h.HexString())
		}
		if info, err := mi.UnmarshalInfo(); err != nil || info.TotalLength() != m.Info.Length && !m.Info.V2 { // it leaves pads out of a hybrid
			t.Errorf("%s: %d bytes, %v", c.name, info.TotalLength(), err)
		}
	}
}
