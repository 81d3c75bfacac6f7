package daemon_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs/fstest"
)

// processorTime is what a process has used, in hundredths of a second.
func processorTime(t testing.TB, p *proc) (ticks int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, s := range f[11:13] {
		n, _ := strconv.Atoi(s)
		ticks += n
	}
	return ticks
}

// With 64 descriptors, 200 complete files are open at a time while strangers call: whatever was
// opened is read, nothing spins, and one line says that it could be better.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	need(t, "prlimit", "--version")
	dir := filepath.Join(t.TempDir(), "many")
	const files = 200
	name := func(i int) string { return fmt.Sprintf("file %03d", i) }
	for i := range files {
		mustWrite(t, filepath.Join(dir, name(i)), 40_000)
	}
	p := mustTorrent(t, dir, metainfo.MakeConfig{PieceLength: 64 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := newFolders(t).mountBy(t, []string{"prlimit", "--nofile=64:64"}, append(peers(addr), p.torrent, "--log-level", "warn")...)
	m.await("few descriptors")
	for range 100 { // who calls and says nothing
		c, err := net.DialTimeout("tcp", m.listen, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 2 { // the second time all is there
		for i := range files {
			h, err := os.Open(m.path("many", name(i)))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if got, err := fstest.ReadAll(h.Name()); err != nil || got != string(mustRead(t, p.file(name(i)))) {
				t.Errorf("%s: %d bytes, %v", name(i), len(got), err)
			}
		}
	}
	before, began := processorTime(t, m.proc), time.Now()
	<-time.After(2 * time.Second)
	if used := processorTime(t, m.proc) - before; used > 100 {
		t.Errorf("%d hundredths of a second of work in %v of nothing", used, time.Since(began))
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid)); err != nil || len(fds) > 60 {
		t.Errorf("%d descriptors, %v", len(fds), err)
	} else {
		t.Logf("%d descriptors", len(fds))
	}
}
