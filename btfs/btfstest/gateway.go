package btfstest

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// Gateway behaves as that of go-btfs 4.1.0: format=raw fails with 500, format=car sends
// the whole tree whatever dag-scope says, and what it does not have it looks for until the
// client hangs up. Fields change that; they are set before it is asked.
type Gateway struct {
	*Store
	Raw      bool // format=raw works
	NotFound bool // what is not there is 404
	Scope    bool // dag-scope=block is obeyed
	// Fault may answer instead, and returns true if it did.
	Fault func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool

	mu   sync.Mutex
	raws int // requests by kind
	cars int
}

// Requests returns how many of each kind there were.
func (g *Gateway) Requests() (raws, cars int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.raws, g.cars
}

func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := strings.CutPrefix(r.URL.Path, "/btfs/")
	if !ok {
		http.Error(w, "please login", http.StatusUnauthorized) // as measured, on this port too
		return
	}
	c, err := cid.Decode(text)
	if err != nil {
		http.Error(w, "invalid path", http.StatusBadRequest)
		return
	}
	format := r.URL.Query().Get("format")
	g.mu.Lock()
	if format == "raw" {
		g.raws++
	} else {
		g.cars++
	}
	g.mu.Unlock()
	if g.Fault != nil && g.Fault(w, r, c) {
		return
	}
	if format == "raw" && !g.Raw {
		http.Error(w, "seeker can't seek", http.StatusInternalServerError)
		return
	}
	b, err := g.Block(r.Context(), c)
	switch {
	case err != nil && g.NotFound:
		http.Error(w, "not found", http.StatusNotFound)
	case err != nil:
		<-r.Context().Done() // it asks the network, and has no timeout
	case format == "raw":
		w.Header().Set("Content-Type", "application/vnd.ipld.raw")
		_, _ = w.Write(b)
	case format == "car":
		w.Header().Set("Content-Type", "application/vnd.ipld.car; version=1")
		_, _ = w.Write(CARHeader(c))
		g.send(w, r, c, g.Scope && r.URL.Query().Get("dag-scope") == "block")
	default:
		_, _ = w.Write([]byte("bytes of a file, which nobody can verify"))
	}
}

// send writes a tree of blocks, depth first.
func (g *Gateway) send(w http.ResponseWriter, r *http.Request, c cid.Cid, one bool) {
	b, err := g.Block(r.Context(), c)
	if err != nil {
		return
	}
	if _, err := w.Write(CARBlock(c, b)); err != nil || one {
		return
	}
	if c.Prefix().Codec != cid.Raw {
		for _, l := range linksOf(b) {
			g.send(w, r, l, false)
		}
	}
}

// CARHeader is the header of a CAR with one root.
func CARHeader(root cid.Cid) []byte {
	b := append([]byte{0xa2, 0x65}, "roots"...)
	id := root.Bytes()
	b = append(b, 0x81, 0xd8, 0x2a, 0x58, byte(len(id)+1), 0)
	b = append(append(b, id...), 0x67)
	b = append(append(b, "version"...), 1)
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// CARBlock is one block of a CAR.
func CARBlock(c cid.Cid, b []byte) []byte {
	id := c.Bytes()
	return append(append(binary.AppendUvarint(nil, uint64(len(id)+len(b))), id...), b...)
}

// linksOf reads the links of a good block.
func linksOf(b []byte) (all []cid.Cid) {
	for len(b) > 2 && b[0] == 2<<3|2 {
		size, n := binary.Uvarint(b[1:])
		l := b[1+n : 1+n+int(size)]
		if _, c, err := cid.CidFromBytes(l[2:]); err == nil {
			all = append(all, c)
		}
		b = b[1+n+int(size):]
	}
	return all
}

// Node behaves as the RPC of go-btfs 4.1.0: only POST; 401 without a token, unless it is
// asked at the address of its config by what calls itself Go-http-client/1.1; errors in
// JSON with 500; an absent block is looked for as long as the request says.
type Node struct {
	*Store
	Config string // Addresses.API of its config: host:port
	Token  string // that its login gave; "" if nobody logged in
	Fault  func(w http.ResponseWriter, r *http.Request, c cid.Cid) bool
	// Commands answers what is not block/get, and returns true if it did: see RPC.
	Commands func(w http.ResponseWriter, r *http.Request, command string) bool

	mu     sync.Mutex
	others []string
}

// Others are the calls that were neither block/get nor harmless.
func (n *Node) Others() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.others
}

func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	command, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	q := r.URL.Query()
	trusted := r.Host == n.Config && (r.UserAgent() == "Go-http-client/1.1" || r.UserAgent() == "go-btfs-cmds/http")
	switch {
	case !trusted && command != "id" && command != "config/show" && (n.Token == "" || q.Get("token") != n.Token):
		http.Error(w, "please login", http.StatusUnauthorized)
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodPost:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case command != "block/get":
		if n.Commands != nil && n.Commands(w, r, command) {
			return
		}
		n.mu.Lock()
		n.others = append(n.others, command)
		n.mu.Unlock()
		n.fail(w, "no such command")
	default:
		n.get(w, r)
	}
}

func (n *Node) get(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, err := cid.Decode(q.Get("arg"))
	if err != nil {
		n.fail(w, "invalid path")
		return
	}
	if n.Fault != nil && n.Fault(w, r, c) {
		return
	}
	b, err := n.Block(r.Context(), c)
	if err == nil {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(b)
		return
	}
	if q.Get("offline") == "true" {
		n.fail(w, "block was not found locally (offline): btfs: not found")
		return
	}
	var over <-chan time.Time
	if d, err := time.ParseDuration(q.Get("timeout")); err == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-over:
		n.fail(w, "context deadline exceeded")
	case <-r.Context().Done():
	}
}

func (n *Node) fail(w http.ResponseWriter, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	_ = json.NewEncoder(w).Encode(map[string]any{"Message": message, "Code": 0, "Type": "error"})
}
