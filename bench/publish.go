package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// results is what benchmarks.json holds: metric, then system, then what was measured.
type results map[string]map[string]measured

type measured struct {
	Values  []float64 `json:"values"`
	Date    string    `json:"date"`
	Version string    `json:"version"`
	Load    string    `json:"load"` // of the machine when the run began
	Machine string    `json:"machine"`
}

// publish brings the results in a folder up to date with what was measured now.
func (b *bench) publish(dir, load string) error {
	all := results{}
	file := filepath.Join(dir, "benchmarks.json")
	if old, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(old, &all); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	control, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	machine := fmt.Sprintf("%d cores, Linux %s, %s, %s", runtime.NumCPU(), strings.TrimSpace(string(kernel)), strings.TrimSpace(string(control)), runtime.Version())
	for metric, systems := range b.table {
		all[metric] = map[string]measured{}
		for system, v := range systems {
			all[metric][system] = measured{v, time.Now().Format(time.DateOnly), b.version(), load, machine}
		}
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return err
	}
	var md bytes.Buffer
	fmt.Fprint(&md, `# Benchmarks

Made by `+"`bench/run -docs docs`"+` from benchmarks.json, which also has every value, its date,
version, machine and the load of the machine when the run began. Each figure is the median
[least..most] of its runs. What stands beside btmount ran in the same run, over the same links,
against the same seeders (libtorrent). Between them packets of two kernels' TCP pass links of some
rate, delay and queue ([bench/doc.go](../bench/doc.go)); rates count headers, so 7.7 of 8 MB/s are
payload.

What the daemon holds in the course of the scenario soak, in which all peers come and go and
three readers compare every byte (soak.csv has all of it):

![RSS, goroutines and open files over time](soak.svg)
`)
	t, machines := table{}, map[string]bool{}
	for metric, systems := range all {
		for system, m := range systems {
			for _, v := range m.Values {
				t.put(metric, system, v)
			}
			machines[m.Machine] = true
		}
	}
	for m := range machines {
		fmt.Fprintf(&md, "\nMachine: %s.\n", m)
	}
	t.print(&md)
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), md.Bytes(), 0o644)
}

func (b *bench) version() string {
	out, err := exec.CommandContext(b.ctx, b.bin, "version").Output()
	if err != nil {
		return "?"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
