package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A service manager hears READY=1 when the mount can be used, and STOPPING=1 when it ends.
func TestServiceManager(t *testing.T) {
	needFUSE(t)
	for name, background := range map[string]bool{"foreground": false, "background": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			dir, err := os.MkdirTemp("", "n") // the path of a socket has to be short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			address := filepath.Join(dir, "s")
			if background {
				address = "@" + address // an abstract one
			}
			manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			if err := manager.SetReadDeadline(time.Now().Add(limit)); err != nil {
				t.Fatal(err)
			}
			heard := func() string {
				t.Helper()
				b := make([]byte, 1000)
				n, err := manager.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				return string(b[:n])
			}
			p.env = append(p.env, "NOTIFY_SOCKET="+address)
			args := []string{"mount", "mnt", p.torrent("a"), "--no-dht"}
			if background {
				if got := p.run(append(args, "--daemon")...); got.code != 0 {
					t.Fatalf("%+v", got)
				}
			} else {
				m := p.start(args...)
				defer func() {
					if got := m.end(syscall.SIGTERM); got.code != 0 || got.stderr != "" {
						t.Errorf("%+v", got)
					}
				}()
			}
			got := heard()
			if !strings.HasPrefix(got, "READY=1\nMAINPID=") || !strings.Contains(got, "\nSTATUS=mounted 1 torrent on ") {
				t.Errorf("%q", got)
			}
			if _, err := os.Stat(p.path("mnt", "torrents", "a")); err != nil {
				t.Errorf("ready, and nothing is there: %v", err)
			}
			if got := p.run("unmount", "mnt"); got != (outcome{}) {
				t.Errorf("unmount: %+v", got)
			}
			if got := heard(); got != "STOPPING=1" {
				t.Errorf("%q", got)
			}
		})
	}
}
