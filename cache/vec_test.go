package cache

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzVec cuts bytes into parts and asks for a range of them, and writes that to a file.
func FuzzVec(f *testing.F) {
	f.Add([]byte("some bytes in parts"), []byte{4, 0, 6}, uint8(3), uint8(9))
	f.Add([]byte{}, []byte{}, uint8(0), uint8(0))
	f.Add([]byte("more parts than one call takes"), make([]byte, 2*maxVec), uint8(0), uint8(20))
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, all, cuts []byte, off, n uint8) {
		var v vec
		rest := all
		for _, c := range cuts {
			k := min(int(c), len(rest))
			v, rest = append(v, rest[:k]), rest[k:]
		}
		v = append(v, rest)
		from := min(int(off), len(all))
		to := min(from+int(n), len(all))
		got := v.part(int64(from), int64(to-from))
		if v.len() != int64(len(all)) || !bytes.Equal(bytes.Join(got, nil), all[from:to]) {
			t.Fatalf("%q of %q [%d, %d)", got, v, from, to)
		}
		w, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := got.writeTo(w, 7); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || to > from && !bytes.Equal(b, append(make([]byte, 7), all[from:to]...)) {
			t.Fatal(b, err)
		}
	})
}
