package daemon_test

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// These tell a test that runs in a namespace its name, and the program to use.
const (
	namespaceVar = "TEST_NAMESPACE"
	programVar   = "TEST_NAMESPACE_PROGRAM"
)

// namespaced runs the test again in a network namespace of its own, and returns true
// there. The namespace ends with the process. It has lo, and wan, which is where the
// world is: nobody there answers, but what is sent is counted.
func namespaced(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceVar) == t.Name() {
		ip(t, "link set lo up")
		veth(t, "wan", "198.51.100.2/24")
		ip(t, "route add default via 198.51.100.1 dev wan")
		ip(t, "neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev wan")
		return true
	}
	// Pdeathsig is about the thread that started the process: Go may end that before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m", "-test.parallel=8")
	cmd.Env = append(os.Environ(), namespaceVar+"="+t.Name(), programVar+"="+btmount)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no network namespace: ", err)
		}
		t.Skip("no network namespace, it needs root: ", err)
	}
	if err == nil && os.Getenv("CI") != "true" && strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("%s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// bridge makes a network that boxes can be put on, with an address of ours.
func bridge(t *testing.T, name, addr string) {
	t.Helper()
	ip(t, "link add "+name+" type bridge mcast_snooping 0")
	ip(t, "addr add "+addr+" dev "+name)
	ip(t, "link set "+name+" up")
}

// boxed is a test whose programs run in a box.
type boxed struct {
	testing.TB
	box string // the process whose namespace it is
}

// box makes a machine of its own, on a bridge of that network, and runs a script there.
func box(t *testing.T, bridge, addr, script string) boxed {
	t.Helper()
	p := start(t, "unshare", "-n", "sh", "-c", "echo ready; exec sleep 1000")
	p.await("ready")
	b := boxed{t, strconv.Itoa(p.cmd.Process.Pid)}
	end := "b" + b.box
	ip(t, "link add "+end+" type veth peer name eth netns "+b.box)
	ip(t, "link set "+end+" master "+bridge+" up")
	host, _, _ := strings.Cut(addr, "/")
	output(b, patience, "sh", "-ec", "ip link set lo up; ip addr add "+addr+" dev eth; ip link set eth up; ip route add default via "+host+"\n"+script)
	return b
}

func ip(t testing.TB, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// veth makes a pair of interfaces; the second is called as the first with -end. Nothing
// is sent through them by the system itself.
func veth(t testing.TB, name, addr string) {
	t.Helper()
	ip(t, "link add "+name+" type veth peer name "+name+"-end")
	for _, n := range []string{name, name + "-end"} {
		ip(t, "link set "+n+" addrgenmode none")
		ip(t, "link set "+n+" up")
	}
	ip(t, "addr add "+addr+" dev "+name)
}

// sent is how many packets left through an interface.
func sent(t testing.TB, device string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); name == device {
			n, err := strconv.Atoi(strings.Fields(rest)[9])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no interface ", device)
	return 0
}
