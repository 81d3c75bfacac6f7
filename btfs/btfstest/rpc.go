package btfstest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
)

// SecretKey is the private key of the fake's wallet. It stands in every answer in which a
// real node has it, and in some more. Nothing that btmount prints, logs or stores may hold it.
const SecretKey = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e7dead"

// Addresses of the fake. Nobody has a key to them.
const (
	PeerID    = "16Uiu2HAmQ3vpd4YXzTcUtmBbJTwH1Hzt8RJhBTdbZWyqgNiVhnHC"
	VaultAddr = "0x00000000000000000000000000000000000000Fa"
)

// RPC is a fake of go-btfs 4.1.0's RPC, for tests of what changes something at a node. It
// keeps to what was measured on a real node: only POST (405), 401 and its exceptions for a
// token and a User-Agent, errors as JSON with 500, nothing but silence for what is not
// there, simple mode's refusal, 404 for commands that there are not; and for what needs
// full mode, which could not be measured, to the shapes in its source. It makes CIDs as a
// real node does for files below 45 MB and for directories without shards.
//
// It is no node: nothing is signed, priced or stored, and a rental goes one step further
// each time it is asked for its status.
type RPC struct {
	*Node
	URL string
	t   testing.TB

	mu       sync.Mutex
	how      Behaviour
	calls    []string
	pins     map[string]string
	sessions map[string]*session
	renewals []string
	names    map[string]string
	quit     chan struct{}
	more     chan struct{} // closed, and another, with each call
}

// Behaviour is what a test makes of the fake.
type Behaviour struct {
	Full     bool
	NoChain  bool              // full mode whose chain does not answer
	Hang     map[string]bool   // commands that never answer
	Answers  map[string]string // instead of its own, with 200; what follows "error:" goes into the trailer
	Fails    map[string]string // messages of errors
	Price    string            // per GiB and day, before the rate
	Rate     string
	FailAt   string // session state in which a rental ends with an error
	OnUpload func() // runs when a rental or a renewal has begun and nobody was told yet
}

// Set changes how it behaves from now on.
func (r *RPC) Set(b Behaviour) {
	if b.Price == "" {
		b.Price, b.Rate = "125000", "1000000000000"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.how = b
}

func (r *RPC) behaviour() Behaviour {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.how
}

type session struct {
	cid    string
	shards int
	asked  int
}

// steps are states of a session, as in sessions/user_sessions.go.
var steps = []string{"init", "submit", "contract", "contract:file-meta-signed", "wait-upload", "pay", "complete"}

// NewRPC starts a fake in simple mode. It trusts who asks at its address as Go does.
func NewRPC(t testing.TB, s *Store) *RPC {
	r := &RPC{
		Node: &Node{Store: s}, t: t,
		pins: map[string]string{}, sessions: map[string]*session{}, names: map[string]string{}, quit: make(chan struct{}), more: make(chan struct{}),
	}
	r.Set(Behaviour{})
	r.Commands = r.command
	srv := httptest.NewUnstartedServer(r.Node)
	r.Config = srv.Listener.Addr().String()
	srv.Start()
	r.URL = srv.URL
	t.Cleanup(func() { close(r.quit); srv.Close() })
	return r
}

// Calls are the commands that were asked for, with their arguments, in order.
func (r *RPC) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Count is how often a command was asked for.
func (r *RPC) Count(command string) (n int) {
	for _, c := range r.Calls() {
		if name, _, _ := strings.Cut(c, "?"); name == command {
			n++
		}
	}
	return n
}

// Sessions are the rentals that were begun.
func (r *RPC) Sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// SetToken is a login. It is before the first question.
func (r *RPC) SetToken(token string) { r.Token = token }

// SetName says what a name means.
func (r *RPC) SetName(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = value
}

// full are the commands that simple mode refuses.
func full(command string) bool {
	first, _, _ := strings.Cut(command, "/")
	return slices.Contains([]string{"storage", "cheque", "vault", "bttc", "settlement", "stake"}, first)
}

func (r *RPC) command(w http.ResponseWriter, q *http.Request, command string) bool {
	args := q.URL.Query()
	args.Del("token")
	r.mu.Lock()
	r.calls = append(r.calls, command+"?"+args.Encode())
	close(r.more)
	r.more = make(chan struct{})
	how := r.how
	r.mu.Unlock()
	answer, answered := how.Answers[command]
	switch {
	case command == "dag/import":
		r.t.Error("dag/import, on which a real node crashes")
	case how.Hang[command] || command == "storage/announce":
		r.wait(q)
	case how.Fails[command] != "":
		_, _ = io.Copy(io.Discard, q.Body)
		r.fail(w, how.Fails[command])
	case answered:
		body, trailer, _ := strings.Cut(answer, "error:")
		w.Header().Set("Trailer", "X-Stream-Error")
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(w, body)
		if trailer != "" {
			w.Header().Set("X-Stream-Error", trailer)
		}
	case full(command) && !how.Full:
		r.fail(w, "this api is not support in simple mode, please check the node's simple mode! ")
	case full(command) && how.NoChain:
		r.fail(w, "Post \"https://rpc.bt.io/\": dial tcp: lookup rpc.bt.io: no such host")
	default:
		return r.simple(w, q, command) || r.rented(w, q, command) || r.wallet(w, q, command)
	}
	return true
}

// wait is how a node looks for what it does not have.
func (r *RPC) wait(q *http.Request) {
	select {
	case <-q.Context().Done():
	case <-r.quit:
	}
}

// answer sends an object, to which a key is added that no reader wants.
func answer(w http.ResponseWriter, fields map[string]any) {
	fields["wallet_import_prv_key"] = SecretKey
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(fields)
}

// simple are the commands of both modes.
func (r *RPC) simple(w http.ResponseWriter, q *http.Request, command string) bool {
	arg := q.URL.Query().Get("arg")
	switch command {
	case "version":
		answer(w, map[string]any{"Version": "4.1.0", "Commit": "", "Repo": "10", "System": "amd64/linux", "Golang": "go1.23"})
	case "id":
		answer(w, map[string]any{"ID": PeerID, "BttcAddress": VaultAddr, "Addresses": nil, "AgentVersion": "go-btfs/4.1.0/"})
	case "config/show":
		answer(w, map[string]any{"Identity": map[string]string{"PrivKey": SecretKey, "Mnemonic": SecretKey}})
	case "swarm/peers":
		answer(w, map[string]any{"Peers": []map[string]string{{"Peer": "a"}, {"Peer": "b"}, {"Peer": "c"}}})
	case "repo/stat":
		answer(w, map[string]any{"RepoSize": 123456789, "StorageMax": json.Number("10000000000"), "NumObjects": 0})
	case "add":
		r.add(w, q)
	case "pin/add", "pin/rm", "pin/ls":
		r.pin(w, q, command)
	case "name/publish":
		name := cmp.Or(q.URL.Query().Get("key"), PeerID)
		r.SetName(name, arg)
		answer(w, map[string]any{"Name": name, "Value": arg})
	case "name/resolve":
		r.mu.Lock()
		value := r.names[strings.TrimPrefix(arg, "/btns/")]
		r.mu.Unlock()
		if value == "" {
			r.fail(w, "could not resolve name")
			return true
		}
		answer(w, map[string]any{"Path": value})
	default:
		return false
	}
	return true
}

func (r *RPC) pin(w http.ResponseWriter, q *http.Request, command string) {
	arg := q.URL.Query().Get("arg")
	c, err := cid.Decode(arg)
	if err != nil && command != "pin/ls" {
		r.fail(w, "invalid path \""+arg+"\"")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch command {
	case "pin/add":
		if _, err := r.Block(q.Context(), c); err != nil {
			r.mu.Unlock()
			answer(w, map[string]any{"Progress": 0})
			_ = http.NewResponseController(w).Flush()
			r.wait(q)
			r.mu.Lock()
			return
		}
		r.pins[c.String()] = "recursive"
		answer(w, map[string]any{"Progress": 1})
		answer(w, map[string]any{"Pins": []string{c.String()}})
	case "pin/rm":
		if r.pins[c.String()] == "" {
			r.fail(w, "not pinned or pinned indirectly")
			return
		}
		delete(r.pins, c.String())
		answer(w, map[string]any{"Pins": []string{c.String()}})
	case "pin/ls":
		keys := map[string]any{}
		for c, kind := range r.pins {
			if kind == q.URL.Query().Get("type") {
				keys[c] = map[string]string{"Type": kind}
			}
		}
		answer(w, map[string]any{"Keys": keys})
	}
}

// add reads a tree of parts and makes of it the blocks that a node makes by default.
func (r *RPC) add(w http.ResponseWriter, q *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	_, params, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	if err != nil {
		r.fail(w, "expected a file argument")
		return
	}
	w.Header().Set("Trailer", "X-Stream-Error")
	parts := multipart.NewReader(q.Body, params["boundary"])
	a := &adding{r: r, w: w, dirs: map[string][]Link{}, opts: q.URL.Query()}
	for err == nil {
		var p *multipart.Part
		if p, err = parts.NextPart(); err == nil {
			err = a.part(p)
		}
	}
	if err == io.EOF {
		err = a.close("")
	}
	// What follows the last part is read too: in full duplex nobody else does before the
	// connection's next request is read.
	_, _ = io.Copy(io.Discard, q.Body)
	if err != nil {
		w.Header().Set("X-Stream-Error", err.Error())
	}
}

// adding is one add: the directories that are open, each with its links.
type adding struct {
	r    *RPC
	w    http.ResponseWriter
	opts url.Values
	open []string
	dirs map[string][]Link
}

func (a *adding) part(p *multipart.Part) error {
	name, err := url.QueryUnescape(p.FileName())
	if err != nil || p.FormName() != "file" {
		return fmt.Errorf("part %q called %q", p.FileName(), p.FormName())
	}
	if err := a.close(path.Dir(name)); err != nil {
		return err
	}
	switch kind := p.Header.Get("Content-Type"); kind {
	case "application/x-directory":
		a.open = append(a.open, name)
		return nil
	case "application/symlink":
		to, err := io.ReadAll(p)
		b := Encode(PB{}.Num(1, 4).Bytes(2, to))
		return cmp.Or(err, a.done(name, Link{CID: a.r.Put(cid.DagProtobuf, b), Tsize: uint64(len(b))}))
	case "application/octet-stream":
		l, err := a.file(p)
		if err != nil {
			return err
		}
		return a.done(name, l)
	default:
		return fmt.Errorf("a part of type %q", kind)
	}
}

// file makes a balanced file of one level.
func (a *adding) file(p io.Reader) (Link, error) {
	var leaves []Link
	for {
		b := make([]byte, 256<<10)
		n, err := io.ReadFull(p, b)
		if n > 0 || len(leaves) == 0 {
			if a.opts.Get("encrypt") == "true" { // no ECIES, but no plaintext either
				for i := range b[:n] {
					b[i] ^= 0x5a
				}
			}
			if leaves = append(leaves, a.r.Leaf(b[:n])); n == 0 { // which has no content at all
				b := Encode(PB{}.Num(1, 2).Num(3, 0))
				leaves[0] = Link{CID: a.r.Put(cid.DagProtobuf, b), Tsize: uint64(len(b))}
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if len(leaves) == 1 {
				return leaves[0], nil
			}
			return a.r.Tree(leaves...), nil
		case err != nil:
			return Link{}, err
		case len(leaves) == 174:
			_, err := io.Copy(io.Discard, p) // more than one level can hold
			return Link{}, cmp.Or(err, fmt.Errorf("more than this fake takes"))
		}
		answer(a.w, map[string]any{"Name": "", "Bytes": n})
	}
}

// done tells of a name, and puts it into its directory.
func (a *adding) done(name string, l Link) error {
	l.Name = path.Base(name)
	a.dirs[path.Dir(name)] = append(a.dirs[path.Dir(name)], l)
	answer(a.w, map[string]any{"Name": name, "Hash": l.CID.String(), "Size": strconv.FormatUint(l.Tsize, 10)})
	if a.opts.Get("pin") == "true" && !strings.Contains(name, "/") {
		a.r.mu.Lock()
		a.r.pins[l.CID.String()] = "recursive"
		a.r.mu.Unlock()
	}
	return http.NewResponseController(a.w).Flush()
}

// close ends the directories that name is not in.
func (a *adding) close(name string) error {
	for len(a.open) > 0 {
		dir := a.open[len(a.open)-1]
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return nil
		}
		a.open = a.open[:len(a.open)-1]
		links := a.dirs[dir]
		slices.SortFunc(links, func(x, y Link) int { return strings.Compare(x.Name, y.Name) })
		tsize := uint64(0)
		for _, l := range links {
			tsize += l.Tsize
		}
		c := a.r.Dir(links...)
		b, err := a.r.Block(a.r.context(), c)
		if err != nil {
			return err
		}
		if err := a.done(dir, Link{CID: c, Tsize: tsize + uint64(len(b))}); err != nil {
			return err
		}
	}
	return nil
}

// Await waits until a command was asked for, after so many calls.
func (r *RPC) Await(t testing.TB, after int, command string) {
	t.Helper()
	for {
		r.mu.Lock()
		more := r.more
		for _, c := range r.calls[after:] {
			if name, _, _ := strings.Cut(c, "?"); name == command {
				r.mu.Unlock()
				return
			}
		}
		r.mu.Unlock()
		select {
		case <-more:
		case <-t.Context().Done():
			return
		}
	}
}
