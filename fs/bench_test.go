package fs_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// crowd is 20,000 small files in 200 directories.
func crowd() []fstest.File {
	files := make([]fstest.File, 20_000)
	for i := range files {
		files[i] = fstest.File{Path: fmt.Sprintf("dir %03d/file %05d.mkv", i/100, i), Data: []byte{1}}
	}
	return files
}

// BenchmarkListing is "ls -lR" and "du" of 20,000 files: on a fresh mount, again on
// the same mount, and on a copy in the host's own filesystem, which is warm.
func BenchmarkListing(b *testing.B) {
	files := crowd()
	c := fstest.Memory(files...)
	host := b.TempDir()
	for _, f := range files {
		p := filepath.Join(host, f.Path)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, command := range [][]string{{"ls", "-lR"}, {"find"}, {"du", "-a"}} {
		run := func(b *testing.B, dir string) {
			cmd := exec.Command(command[0], append(command[1:], dir)...)
			cmd.Stdout = io.Discard
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(command[0]+"/host", func(b *testing.B) {
			for b.Loop() {
				run(b, host)
			}
		})
		b.Run(command[0]+"/cold", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s, point := mount(b, c)
				b.StartTimer()
				run(b, point)
				b.StopTimer()
				unmount(b, s)
				b.StartTimer()
			}
		})
		b.Run(command[0]+"/warm", func(b *testing.B) {
			_, point := mount(b, c)
			run(b, point)
			for b.Loop() {
				run(b, point)
			}
		})
	}
}

// BenchmarkRead is one mebibyte at a time of a file whose bytes are all there.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	data := noise(size)
	for name, keep := range map[string]bool{"cold": false, "warm": true} {
		b.Run(name, func(b *testing.B) {
			var s *fs.Server
			var point string
			fresh := func() {
				if s != nil {
					unmount(b, s)
				}
				s, point = mount(b, fstest.Memory(fstest.File{Path: "f", Data: data}))
			}
			fresh()
			buf := make([]byte, 1<<20)
			b.SetBytes(size)
			for b.Loop() {
				if !keep {
					b.StopTimer()
					fresh()
					b.StartTimer()
				}
				f, err := os.Open(filepath.Join(point, "f"))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf); n != size || err != nil {
					b.Fatal(n, err)
				}
				f.Close()
			}
		})
	}
}
