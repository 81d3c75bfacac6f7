package daemon_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btmount/btmount/cmd/daemon"
	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/fstest"
)

// folders are what a mount needs; a second mount may use them again.
type folders struct{ point, cache, state string }

func newFolders(t testing.TB) folders {
	t.Helper()
	return folders{fstest.Point(t), t.TempDir(), t.TempDir()}
}

// mounted is a running btmount mount.
type mounted struct {
	*proc
	folders
	listen string
}

// mount runs btmount mount; sources and flags may come in any order.
func mount(t testing.TB, args ...string) *mounted {
	t.Helper()
	return newFolders(t).mount(t, args...)
}

func (f folders) mount(t testing.TB, args ...string) *mounted {
	t.Helper()
	return f.mountBy(t, nil, args...)
}

// mountBy is mount, through another program: prlimit, say.
func (f folders) mountBy(t testing.TB, by []string, args ...string) *mounted {
	t.Helper()
	m := &mounted{folders: f}
	all := append([]string{"mount", f.point, "--cache-dir", f.cache, "--state-dir", f.state, "--log-level", logLevel, "--listen", "127.0.0.1:0"}, args...)
	all = append(append(by, btmount), all...)
	m.proc = command(t, all[0], all[1:]...)
	m.cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	t.Cleanup(func() { // after the process was killed, if it had to be
		if ours, _ := fs.Mounted(f.point); ours {
			_ = syscall.Unmount(f.point, syscall.MNT_DETACH)
		}
	})
	m.start()
	t.Cleanup(m.stop)
	if logLevel != "info" {
		t.Cleanup(func() { t.Logf("%s", m.out) })
	}
	m.listen = m.await(`^mounted .* reach us at (\S+);`)[1]
	return m
}

// stop ends the mount as a user does and expects a clean end.
func (m *mounted) stop() {
	m.t.Helper()
	select {
	case <-m.done:
		return
	default:
	}
	m.signal(syscall.SIGTERM)
	select {
	case <-m.done:
		if code := m.cmd.ProcessState.ExitCode(); code != 0 {
			m.t.Errorf("btmount mount ended with %v", m.cmd.ProcessState)
		}
	case <-time.After(15 * time.Second):
		m.signal(syscall.SIGQUIT) // with a trace of what hangs
		<-m.done
		m.t.Error("btmount mount did not end within 15 s of SIGTERM")
	}
	if ours, _ := fs.Mounted(m.point); ours {
		m.t.Errorf("%s is still mounted", m.point)
	}
}

func (f folders) path(elem ...string) string {
	return filepath.Join(append([]string{f.point, "torrents"}, elem...)...)
}

// status reads status.json.
func (f folders) status(t testing.TB) daemon.Status {
	t.Helper()
	var s daemon.Status
	within(t, 5*time.Second, "reading status.json", func() error {
		b, err := os.ReadFile(filepath.Join(f.point, ".btmount", "status.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &s)
	})
	return s
}

func (f folders) torrent(t testing.TB) daemon.TorrentStatus {
	t.Helper()
	s := f.status(t)
	if len(s.Torrents) != 1 {
		t.Fatalf("%d torrents", len(s.Torrents))
	}
	return s.Torrents[0]
}

// seed runs btmount seed with a .torrent that is there already and returns its address.
func seed(t testing.TB, data *payload, args ...string) (addr string, p *proc) {
	t.Helper()
	all := append([]string{
		"seed", data.dir, "--out", data.torrent, "--state-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--log-level", logLevel,
		fmt.Sprintf("--piece-length=%dB", data.pieces), fmt.Sprintf("--hybrid=%v", data.meta.Info.V1 && data.meta.Info.V2), fmt.Sprintf("--v2=%v", !data.meta.Info.V1), fmt.Sprintf("--private=%v", data.meta.Info.Private),
	}, args...)
	p = start(t, btmount, all...)
	return p.await(`^seeding .* on (\S+);`)[1], p
}

const python = "/usr/bin/python3" // Debian's, which has the bindings

// libtorrent is a running client of it.
type libtorrent struct {
	*proc
	stdin io.WriteCloser
}

type libtorrentStatus struct {
	Port, Progress, Peers int
	Up, Down              int64
	State                 string
	Metadata              bool
}

func needLibtorrent(t testing.TB) {
	t.Helper()
	need(t, python, "-c", "import libtorrent")
}

func startLibtorrent(t testing.TB, args ...string) *libtorrent {
	t.Helper()
	needLibtorrent(t)
	l := &libtorrent{proc: command(t, python, append([]string{"testdata/lt.py"}, args...)...)}
	var err error
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	l.start()
	l.await(`"port": [1-9]`)
	return l
}

func (l *libtorrent) status() (s libtorrentStatus) {
	l.t.Helper()
	text := strings.TrimSuffix(l.out.String(), "\n")
	if i := strings.LastIndexByte(text, '{'); i >= 0 {
		_ = json.Unmarshal([]byte(text[i:]), &s)
	}
	return s
}

func (l *libtorrent) addr() string {
	return "127.0.0.1:" + l.await(`"port": ([1-9]\d*)`)[1]
}

// transmission is a running transmission-daemon with one torrent.
type transmission struct {
	*proc
	rpc  string
	addr string
}

// startTransmission runs it with dir as the folder of the data.
func startTransmission(t testing.TB, source, dir string) *transmission {
	t.Helper()
	return startTransmissionWith(t, source, dir, nil)
}

// startTransmissionWith has more settings; encryption is 0 if it must, 1 if it may, 2 always.
func startTransmissionWith(t testing.TB, source, dir string, set map[string]any) *transmission {
	t.Helper()
	return startTransmissionIn(t, t.TempDir(), source, dir, set)
}

// startTransmissionIn runs it with a folder of its own files, which may have some.
func startTransmissionIn(t testing.TB, conf, source, dir string, set map[string]any) *transmission {
	t.Helper()
	need(t, "transmission-daemon")
	need(t, "transmission-remote")
	rpc, port := fetchtest.FreePort(t), fetchtest.FreePort(t)
	all := map[string]any{
		"rpc-port": rpc, "rpc-bind-address": "127.0.0.1", "rpc-whitelist-enabled": false, "rpc-authentication-required": false,
		"peer-port": port, "bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "port-forwarding-enabled": false,
		"dht-enabled": false, "lpd-enabled": false, "utp-enabled": false, "encryption": 1, "download-dir": dir,
		"ratio-limit-enabled": false, "idle-seeding-limit-enabled": false, "speed-limit-up-enabled": false,
	}
	maps.Copy(all, set)
	settings, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(filepath.Join(conf, "settings.json"), settings, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	tr := &transmission{proc: start(t, "transmission-daemon", "-f", "-g", conf), rpc: fmt.Sprint("127.0.0.1:", rpc), addr: fmt.Sprint(all["bind-address-ipv4"], ":", port)}
	tr.await("Using settings from") // a torrent that is added earlier is loaded twice
	output(t, patience, "transmission-remote", tr.rpc, "-a", source, "-w", dir)
	listens(t, tr.addr)
	return tr
}

// complete waits until it has everything.
func (tr *transmission) complete() {
	tr.t.Helper()
	tr.until("it has it all", func(text string) bool { return strings.Contains(text, "Percent Done: 100%") })
}

// until waits until it has looked at its data, and tells something of its torrent.
func (tr *transmission) until(what string, ok func(text string) bool) {
	tr.t.Helper()
	tick := time.NewTicker(500 * time.Millisecond) // asked more often, it does nothing but answer
	defer tick.Stop()
	eventually(tr.t, 2*patience, "transmission: "+what, func() bool {
		<-tick.C
		text := output(tr.t, patience, "transmission-remote", tr.rpc, "-t", "1", "-i")
		return ok(text) && !strings.Contains(text, "State: Verifying") && !strings.Contains(text, "State: Will Verify")
	})
}

func listens(t testing.TB, addr string) {
	t.Helper()
	eventually(t, patience, addr+" listens", func() bool {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// startAria2 runs aria2 with dir as the folder of the data.
func startAria2(t testing.TB, source, dir string, args ...string) (addr string, p *proc) {
	t.Helper()
	need(t, "aria2c")
	port := fetchtest.FreePort(t)
	all := append([]string{
		"--no-conf", "--dir=" + dir, "--listen-port=" + strconv.Itoa(port), "--enable-dht=false", "--enable-dht6=false", "--disable-ipv6",
		"--bt-enable-lpd=false", "--enable-peer-exchange=false", "--file-allocation=none", "--summary-interval=1",
		"--show-console-readout=false", "--bt-stop-timeout=0",
	}, args...)
	p = start(t, "aria2c", append(all, source)...)
	addr = fmt.Sprint("127.0.0.1:", port)
	return addr, p
}

// naming runs a tracker that names one peer: its client calls, and is called by nobody.
func naming(t testing.TB, peer string) string {
	t.Helper()
	b, err := netip.MustParseAddrPort(peer).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	end := len(b) - 2
	b[end], b[end+1] = b[end+1], b[end] // Go has the port the other way round
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "d8:intervali1800e5:peers%d:%se", len(b), b)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/announce"
}

// opentracker runs Debian's tracker for some torrents and returns its host:port.
func opentracker(t testing.TB, hashes ...string) string {
	t.Helper()
	need(t, "opentracker")
	dir, port := t.TempDir(), strconv.Itoa(fetchtest.FreePort(t))
	if err := os.WriteFile(filepath.Join(dir, "white"), []byte(strings.Join(hashes, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-i", "127.0.0.1", "-p", port, "-P", port, "-w", "white"}
	if os.Geteuid() == 0 { // then it changes its root, and its user to nobody
		args = append(args, "-d", dir)
		for d := dir; d != "/"; d = filepath.Dir(d) {
			if st, err := os.Stat(d); err == nil && st.Mode()&0o005 == 0 && strings.HasPrefix(d, os.TempDir()+"/") {
				_ = os.Chmod(d, 0o755)
			}
		}
	}
	p := command(t, "opentracker", args...)
	p.cmd.Dir = dir
	p.start()
	addr := "127.0.0.1:" + port
	for _, h := range hashes { // it reads its list a while after it began to listen
		hash, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		authorizes := func(event string) bool {
			r, err := http.Get("http://" + addr + "/announce?info_hash=" + strings.ReplaceAll(url.QueryEscape(string(hash)), "+", "%20") + "&peer_id=-XX0000-000000000000&port=1&left=0&uploaded=0&downloaded=0" + event)
			if err != nil {
				return false
			}
			defer r.Body.Close()
			text, err := io.ReadAll(r.Body)
			return err == nil && !strings.Contains(string(text), "failure")
		}
		eventually(t, patience, "opentracker knows the torrent", func() bool { return authorizes("") && authorizes("&event=stopped") })
	}
	return addr
}
