package network

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const namespaceVar = "BTMOUNT_TEST_NAMESPACE"

// namespaced runs the test again in a network namespace of its own, where it may make
// interfaces and addresses, and returns true there. The namespace ends with the process.
func namespaced(t *testing.T, setup ...string) bool {
	t.Helper()
	if os.Getenv(namespaceVar) == t.Name() {
		ip(t, "link set lo up")
		for _, s := range setup {
			ip(t, s)
		}
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		impossible(t, err)
	}
	// Pdeathsig is about the thread that started the process: Go may end that before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceVar+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		impossible(t, err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// impossible skips a test that needs a network namespace; CI has them.
func impossible(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("no network namespace: ", err)
	}
	t.Skip("no network namespace, it needs root or user namespaces, and ip: ", err)
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}
