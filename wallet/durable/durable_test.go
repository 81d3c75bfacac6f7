package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

type row struct{ N int }

// read opens a log, returns its rows, and appends some.
func read(t testing.TB, path string, more ...int) (all []int, err error) {
	t.Helper()
	l, err := OpenLog(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	err = l.Locked(func(b json.RawMessage) error {
		var r row
		defer func() { all = append(all, r.N) }()
		return json.Unmarshal(b, &r)
	}, func() error {
		for _, n := range more {
			if err := l.Append(row{n}); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// Wherever the last write is torn, the rows before it are there, and the next goes behind.
func TestTornTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if _, err := read(t, path, 1, 2); err != nil {
		t.Fatal(err)
	}
	two, _ := os.ReadFile(path)
	if _, err := read(t, path, 3); err != nil {
		t.Fatal(err)
	}
	three, _ := os.ReadFile(path)
	for n := len(two); n < len(three); n++ {
		for _, hole := range []bool{false, true} { // the file has its length, and the page is zeros
			text := slices.Clone(three[:n])
			if hole {
				text = append(text, make([]byte, len(three)-n-1)...)
				text = append(text, '\n')
			}
			if hole && n == len(three)-1 {
				continue // that is the whole row
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := read(t, path, 4); err != nil || !slices.Equal(got, []int{1, 2}) {
				t.Fatalf("torn at %d, hole %v: %v, %v", n, hole, got, err)
			}
			if got, err := read(t, path); err != nil || !slices.Equal(got, []int{1, 2, 4}) {
				t.Fatalf("torn at %d, hole %v: then %v, %v", n, hole, got, err)
			}
		}
	}
}

// A row that was changed, taken out or moved is noticed.
func TestDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if _, err := read(t, path, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := read(t, path)
		if torn := i == len(good)-1 && len(got) == 2 && err == nil; !torn && !errors.Is(err, ErrDamaged) {
			t.Errorf("bit of byte %d: %v, %v", i, got, err)
		}
	}
	line := len(good) / 3
	for _, bad := range [][]byte{slices.Concat(good[:line], good[2*line:]), slices.Concat(good[line:2*line], good[:line], good[2*line:])} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

// Several that append see each other's rows.
func TestTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			l, err := OpenLog(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			last := 0
			for range 20 {
				if err := l.Locked(func(b json.RawMessage) error { last++; return nil }, func() error {
					last++
					return l.Append(row{last})
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := read(t, path)
	if err != nil || len(got) != 80 || !slices.IsSorted(got) || got[79] != 80 {
		t.Error(got, err)
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inner := filepath.Join(dir, "a", "b")
	if err := Folder(inner); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(inner, "f")
	if err := WriteFile(path, []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("y"), false); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := WriteFile(path, []byte("z"), true); err != nil {
		t.Error(err)
	}
	if text, err := ReadSecret(path, 1); err != nil || string(text) != "z" {
		t.Error(string(text), err)
	}
	if all, _ := os.ReadDir(inner); len(all) != 1 {
		t.Error("left over:", all)
	}
	if err := os.WriteFile(path, []byte("too long"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(path, 3); err == nil {
		t.Error("too long a secret is read")
	}
	for mode := range os.FileMode(0o100) {
		if err := os.Chmod(path, 0o600|mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSecret(path, 100)
		_, err2 := OpenLog(path)
		if loose := mode != 0; errors.Is(err, ErrLoose) != loose || errors.Is(err2, ErrLoose) != loose {
			t.Errorf("mode %o: %v, %v", 0o600|mode, err, err2)
		}
	}
	if err := os.Symlink(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(path+"2", 10); err == nil {
		t.Error("a symlink is followed")
	}
	if err := os.Chmod(inner, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := Folder(inner); !errors.Is(err, ErrLoose) {
		t.Error(err)
	}
}

// FuzzLog: whatever is in the file, opening it ends in rows or in an error, and what is
// appended is read again.
func FuzzLog(f *testing.F) {
	f.Add([]byte(fmt.Sprintf("%08x {\"N\":1}\n", sumOf(0, []byte(`{"N":1}`)))))
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("\x00\x00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := read(t, path, 7)
		if err != nil {
			return
		}
		again, err := read(t, path)
		if err != nil || len(again) != len(got)+1 || again[len(got)] != 7 {
			t.Errorf("%v became %v, %v", got, again, err)
		}
	})
}
