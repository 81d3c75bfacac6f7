package fs_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btmount/btmount/fs/fstest"
)

// Root can take "ro" from a mount. It stays one that nothing can be changed on.
func TestRemountedForWriting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can do that")
	}
	files := []fstest.File{{Path: "dir/file", Data: noise(8192)}, {Path: "dir/other", Data: []byte("x")}}
	_, point := mount(t, fstest.Memory(files...))
	if err := unix.Mount("", point, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	fstest.RunReadOnly(t, point, files)
	for _, f := range files {
		if got, err := fstest.ReadAll(point + "/" + f.Path); got != string(f.Data) || err != nil {
			t.Errorf("%s: %d bytes, %v", f.Path, len(got), err)
		}
	}
}
