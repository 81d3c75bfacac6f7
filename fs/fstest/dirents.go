package fstest

import (
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// dirent is what getdents64(2) tells of a name.
type dirent struct {
	name string
	ino  uint64
	off  int64
	kind uint8
}

// getdents reads a directory from where its descriptor stands, at most limit names
// (0: all). It asks for little at a time so that a listing takes many requests.
func getdents(t *testing.T, fd int, bufSize, limit int) []dirent {
	t.Helper()
	buf := make([]byte, bufSize)
	var all []dirent
	for limit == 0 || len(all) < limit {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatalf("getdents: %v", err)
		}
		if n == 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[16:])
			name := b[19:size]
			name = name[:slices.Index(name, 0)]
			all = append(all, dirent{
				name: string(name),
				ino:  binary.NativeEndian.Uint64(b),
				off:  int64(binary.NativeEndian.Uint64(b[8:])),
				kind: b[18],
			})
			b = b[size:]
		}
	}
	return all
}

func openDir(t *testing.T, p string) int {
	t.Helper()
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", p, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// testReaddir lists each directory twice, the second time perhaps from what the
// kernel kept, and holds types and inode numbers against stat.
func (m *mount) testReaddir(t *testing.T) {
	for dir, names := range m.dirs() {
		p := filepath.Join(m.root, dir)
		for _, size := range []int{max(512, len(names)/8), 64 << 10} { // 512 makes thousands of requests of a large one
			entries := getdents(t, openDir(t, p), size, 0)
			if len(entries) != len(names)+2 || entries[0].name != "." || entries[1].name != ".." {
				t.Fatalf("%q lists %d entries, want %d", dir, len(entries), len(names)+2)
			}
			m.checkDirents(t, p, entries)
		}
	}
}

func (m *mount) checkDirents(t *testing.T, dir string, entries []dirent) {
	seen := make(map[string]bool, len(entries))
	offs := make(map[int64]bool, len(entries))
	for i, e := range entries {
		if seen[e.name] || offs[e.off] {
			t.Errorf("%q or its offset %d comes twice", e.name, e.off)
		}
		seen[e.name], offs[e.off] = true, true
		if len(entries) > 1000 && i%50 != 0 {
			continue // stat is slow, and has been tested on each file
		}
		st := lstat(t, filepath.Join(dir, e.name))
		if e.name != ".." && e.ino != st.Ino {
			t.Errorf("%q has inode number %d in the listing, %d in stat", e.name, e.ino, st.Ino)
		}
		if want := uint8(st.Mode & unix.S_IFMT >> 12); e.kind != want {
			t.Errorf("%q has type %d in the listing, %d in stat", e.name, e.kind, want)
		}
	}
}

// testSeekdir goes back to offsets that the listing gave, on the descriptor that
// gave them and on another one, as NFS servers and telldir(3) do.
func (m *mount) testSeekdir(t *testing.T) {
	for dir := range m.dirs() {
		p := filepath.Join(m.root, dir)
		fd, other := openDir(t, p), openDir(t, p)
		entries := getdents(t, fd, 4096, 0)
		places := []int{0, 1, len(entries) / 2, len(entries) - 2, len(entries) - 1, len(entries) / 3}
		for i := 1; i < len(entries); i += max(1, len(entries)/20) {
			places = append(places, len(entries)-i) // and ever further back
		}
		for _, i := range places {
			for _, fd := range []int{fd, other} {
				if _, err := unix.Seek(fd, entries[i].off, unix.SEEK_SET); err != nil {
					t.Fatalf("seek to %d: %v", entries[i].off, err)
				}
				got := getdents(t, fd, 1024, 20)
				want := entries[i+1:]
				n := min(len(want), len(got))
				if len(got) < min(20, len(want)) || !slices.Equal(got[:n], want[:n]) || len(got) > len(want) {
					t.Errorf("%q after entry %d of %d: %d entries, want %d", dir, i, len(entries), len(got), len(want))
				}
			}
		}
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		if again := getdents(t, fd, 4096, 0); !slices.Equal(again, entries) {
			t.Errorf("%q: after rewinddir %d entries, want %d", dir, len(again), len(entries))
		}
	}
}
