package discovery

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/anacrolix/dht/v2/krpc"
)

const maxSavedNodes = 500

// savedNodes is what outlives a restart: our own id, so that others keep their
// entry of us (or one that is right for our address, see external), and nodes to begin with, so that no bootstrap server is needed.
// The file has one "id address" per line, ours without address first.
type savedNodes struct {
	id    krpc.ID
	nodes []krpc.NodeInfo
}

// loadNodes reads the file; lines that do not parse are skipped, since the
// worst that a damaged file may do is a slower start.
func loadNodes(path string) (s savedNodes, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() && len(s.nodes) < maxSavedNodes {
		idText, at, _ := strings.Cut(lines.Text(), " ")
		id, err := hex.DecodeString(idText)
		if err != nil || len(id) != 20 {
			continue
		}
		if at == "" {
			s.id = krpc.ID(id)
			continue
		}
		if addr, err := netip.ParseAddrPort(at); err == nil && usableNode(addr) {
			n := krpc.NodeInfo{ID: krpc.ID(id)}
			n.Addr.FromAddrPort(addr)
			s.nodes = append(s.nodes, n)
		}
	}
	return s, lines.Err()
}

// save replaces the file in one step.
func (s savedNodes) save(path string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%x\n", s.id[:])
	for _, n := range s.nodes[:min(len(s.nodes), maxSavedNodes)] {
		fmt.Fprintf(&b, "%x %v\n", n.ID[:], n.Addr.UDP().AddrPort())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".nodes-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func usableNode(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}
