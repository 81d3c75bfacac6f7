package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// demoPlace makes the demo's folder be below the place, where nothingLeft looks.
func demoPlace(t *testing.T) *place {
	needFUSE(t)
	p := newPlace(t)
	p.env = append(p.env, "TMPDIR="+p.dir, "BTMOUNT_CACHE_SIZE=nonsense", "BTMOUNT_NO_UPLOAD=true") // settings that must not matter
	t.Cleanup(func() {
		list, err := os.ReadDir(p.dir)
		if err != nil || len(list) != 2 { // home and mnt
			t.Errorf("left behind: %v, %v", list, err)
		}
	})
	return p
}

func TestDemo(t *testing.T) {
	got := demoPlace(t).run("demo")
	if got.code != 0 || got.stderr != "" || strings.Count(got.stdout, "\n") > 60 {
		t.Errorf("%+v", got)
	}
	for _, part := range []string{"1,011 of 1,011 files are equal", "\nequal\n", "67108864 bytes, 128 blocks", "All sums are equal", "wrong 0 B"} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("the demo does not say %q: %s", part, got.stdout)
		}
	}
}

// Wherever it is interrupted, it cleans up.
func TestDemoInterrupted(t *testing.T) {
	for _, at := range []string{"seeding ", "mounted 1", "# Everything"} {
		t.Run(at, func(t *testing.T) {
			r := demoPlace(t).start("demo")
			r.line(at)
			got := r.end(syscall.SIGINT)
			if got.code != 1 || got.stderr != "btmount: demo interrupted; everything is cleaned up\n" {
				t.Errorf("%d: %s", got.code, got.stderr)
			}
		})
	}
}
