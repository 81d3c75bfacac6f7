package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/rent"
)

// rentPlace is a place whose fake node has a wallet, and an object to be rented.
type rentPlace struct {
	*nodePlace
	cid string
}

func newRentPlace(t *testing.T) *rentPlace {
	p := &rentPlace{nodePlace: newNodePlace(t)}
	p.cid = p.store.Leaf([]byte("rented")).CID.String()
	p.rpc.Set(btfstest.Behaviour{Full: true})
	return p
}

func (p *rentPlace) rentals(args ...string) (all []rent.Rental) {
	p.t.Helper()
	got := p.run(append([]string{"btfs", "rentals", "--json"}, args...)...)
	var v struct{ Rentals []rent.Rental }
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || got.code != 0 {
		p.t.Errorf("%+v, %v", got, err)
	}
	return v.Rentals
}

// The price comes first; nothing is spent without a limit, above it, or without a yes.
func TestBTFSRentPrice(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	p := &rentPlace{nodePlace: newNodePlaceOf(t, store)}
	p.rpc.Set(btfstest.Behaviour{Full: true})
	coded := btfstest.Named(t, fixtures, "file-reed-solomon").CID.String()
	plain := btfstest.Named(t, fixtures, "file-balanced").CID.String()
	// 70014 bytes in each shard: 70014/2^30 * 125000 * 30 = 244.5, so 244 times 10^12.
	got := p.node("rent", coded, "--days", "30", "--dry-run")
	for _, want := range []string{coded + ", 30 shards of 70014 bytes, for 30 days", "price   0.00732 WBTT, 0.000244 WBTT for each shard", "30 hosts that your node chooses"} {
		if got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in %+v", want, got)
		}
	}
	var plan struct{ Plan btfsPlan }
	got = p.node("rent", plain, "--copies", "2", "--dry-run", "--json", "--max", "1WBTT")
	if err := json.Unmarshal([]byte(got.stdout), &plan); err != nil || plan.Plan.Shards != 3 || plan.Plan.ShardSize != 1500380 || plan.Plan.Total.String() != "15720000000000000" {
		t.Errorf("%+v, %v", got, err)
	}
	got = p.node("rent", coded, "--max", "0.007319999999999999WBTT", "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "it costs 0.00732 WBTT, and --max is 0.007319999999999999 WBTT; nothing was spent") {
		t.Errorf("%+v", got)
	}
	for _, x := range []struct {
		name string
		code int
		args []string
		want []string
		how  btfstest.Behaviour
	}{
		{"no limit", 2, []string{coded}, []string{"--max AMOUNT", "--dry-run"}, btfstest.Behaviour{Full: true}},
		{"nobody to ask", 2, []string{coded, "--max", "1WBTT"}, []string{"--yes"}, btfstest.Behaviour{Full: true}},
		{"no unit", 2, []string{coded, "--max", "1", "--yes"}, []string{`--max "1"`, "its unit"}, btfstest.Behaviour{Full: true}},
		{"not exact", 2, []string{coded, "--max", "1e18WBTT", "--yes"}, []string{"--max"}, btfstest.Behaviour{Full: true}},
		{"another unit", 2, []string{coded, "--max", "1TRX", "--yes"}, []string{"it is paid in WBTT"}, btfstest.Behaviour{Full: true}},
		{"unknown token", 2, []string{coded, "--token", "BTC", "--dry-run"}, []string{`--token "BTC"`, "USDT"}, btfstest.Behaviour{Full: true}},
		{"no days", 2, []string{coded, "--days", "0", "--dry-run"}, []string{"--days"}, btfstest.Behaviour{Full: true}},
		{"copies of shards", 1, []string{coded, "--copies", "1", "--dry-run"}, []string{"Reed-Solomon"}, btfstest.Behaviour{Full: true}},
		{"too few hosts", 2, []string{coded, "--host", "16Uiu2x", "--max", "1WBTT", "--yes"}, []string{"--host", "30 shards"}, btfstest.Behaviour{Full: true}},
		{"simple mode", 1, []string{coded, "--dry-run"}, []string{"simple mode, where it has no wallet", "--simple-mode"}, btfstest.Behaviour{}},
		{"no chain", 1, []string{coded, "--dry-run"}, []string{"does not reach its chain"}, btfstest.Behaviour{Full: true, NoChain: true}},
		{"a price that is none", 1, []string{coded, "--dry-run"}, []string{"tells no price in WBTT"}, btfstest.Behaviour{Full: true, Price: "-5", Rate: "1"}},
		{"a price with a point", 1, []string{coded, "--dry-run"}, []string{"not a whole number"}, btfstest.Behaviour{Full: true, Price: "1.5", Rate: "1"}},
		{"a price beyond", 1, []string{coded, "--dry-run"}, []string{"cannot be computed"}, btfstest.Behaviour{Full: true, Price: strings.Repeat("9", 40), Rate: "1"}},
		{"it hangs", 1, []string{coded, "--dry-run", "--btfs-node-timeout", "100ms"}, []string{"nothing came from it for 100ms"}, btfstest.Behaviour{Full: true, Hang: map[string]bool{"cheque/price-all": true}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			p.rpc.Set(x.how)
			got := p.node(append([]string{"rent"}, x.args...)...)
			if got.code != x.code {
				t.Errorf("exit code %d, want %d", got.code, x.code)
			}
			holdsOneLine(t, got, x.want)
		})
	}
	if n := p.rpc.Count("storage/upload"); n > 0 {
		t.Errorf("%d rentals were begun", n)
	}
	if all := p.rentals(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

// On a terminal it is asked whether to spend it, and only yes is yes.
func TestBTFSRentAsks(t *testing.T) {
	t.Parallel()
	p := newRentPlace(t)
	for answer, code := range map[string]int{"\n": 1, "n\n": 1, "yess\n": 1, "Y\n": 0} {
		ptmx, tty := newTerminal(t)
		cmd := p.command(p.args("rent", p.cid, "--max", "1WBTT")...)
		cmd.Stdin = tty
		if _, err := ptmx.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		got := p.finish(cmd)
		tty.Close()
		if got.code != code || !strings.Contains(got.stderr, "Rent it? [y/N] ") || code == 1 && !strings.Contains(got.stderr, "nothing was spent") {
			t.Errorf("%q: %+v", answer, got)
		}
	}
	if n := p.rpc.Count("storage/upload"); n != 1 {
		t.Errorf("%d rentals", n)
	}
}

// A whole rental, step by step, and what is left of it.
func TestBTFSRent(t *testing.T) {
	t.Parallel()
	p := newRentPlace(t)
	got := p.node("rent", p.cid, "--days", "30", "--copies", "2", "--max", "1WBTT", "--yes")
	for _, want := range []string{"limit   1 WBTT", "has begun: session 00000000-", ": contract, 0 of 3 shards complete", "shard 2 at " + btfstest.PeerID + ": wait-upload", "is complete: 3 shards, 0.000003 WBTT"} {
		if got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in %+v", want, got)
		}
	}
	all := p.rentals()
	if len(all) != 1 || all[0].State != rent.Complete || all[0].Done != 3 || all[0].Limit.String() != "1000000000000000000" {
		t.Fatalf("%+v", all)
	}
	files, _ := filepath.Glob(p.path("home/.local/state/btmount/rentals/*"))
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 || strings.HasSuffix(f, ".busy") {
			t.Error(f, st.Mode(), err)
		}
	}
	var call string
	for _, c := range p.rpc.Calls() {
		if strings.HasPrefix(c, "storage/upload?") {
			call = c
		}
	}
	if !strings.Contains(call, "copy=2") || !strings.Contains(call, "storage-length=30") || !strings.Contains(call, "token-type=WBTT") {
		t.Error(call)
	}
	// What is complete can be renewed, and rented again.
	got = p.node("renew", all[0].ID, "--days", "60", "--max", "1WBTT", "--yes")
	if got.code != 0 || !strings.Contains(got.stdout, p.cid+", 3 shards") || !strings.Contains(got.stdout, "is renewed for 60 days: 0.000077 WBTT") {
		t.Errorf("%+v", got)
	}
	if n := p.rpc.Count("storage/upload/renew"); n != 1 {
		t.Error(n)
	}
	holdsOneLine(t, p.node("renew", "nothing", "--max", "1WBTT", "--yes"), []string{"not a CID", "rentals"})
	if got := p.node("rent", p.cid, "--max", "1WBTT", "--yes", "--json"); got.code != 0 || !strings.Contains(got.stdout, `"state":"complete"`) {
		t.Errorf("%+v", got)
	}
	if got := p.run("btfs", "rentals"); got.code != 0 || strings.Count(got.stdout, "complete") != 3 {
		t.Errorf("%+v", got)
	}
}

// All shards of a Reed-Solomon object, at the hosts that the user names.
func TestBTFSRentShards(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	p := &rentPlace{nodePlace: newNodePlaceOf(t, store)}
	p.rpc.Set(btfstest.Behaviour{Full: true})
	args := []string{"rent", btfstest.Named(t, fixtures, "dir-reed-solomon").CID.String(), "--max", "1WBTT", "--yes"}
	for range 30 {
		args = append(args, "--host", btfstest.PeerID)
	}
	got := p.node(args...)
	if got.code != 0 || !strings.Contains(got.stdout, "is complete: 30 shards") || !strings.Contains(got.stdout, "shard 30 at "+btfstest.PeerID+": complete\n") {
		t.Errorf("%+v", got)
	}
	if all := p.rentals(); len(all) != 1 || all[0].Done != 30 {
		t.Errorf("%+v", all)
	}
}

// What a node refuses costs nothing; what breaks off is told, whatever the node says.
func TestBTFSRentFails(t *testing.T) {
	t.Parallel()
	p := newRentPlace(t)
	got := p.node("rent", p.cid, "--days", "5", "--max", "1WBTT", "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "invalid storage len. want: >= 30, got: 5") {
		t.Errorf("%+v", got)
	}
	p.rpc.Set(btfstest.Behaviour{Full: true, FailAt: "pay"})
	got = p.node("rent", p.cid, "--max", "1WBTT", "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "broken: not enough hosts ?[31mreached?it") || !strings.Contains(got.stderr, "may be paid") {
		t.Errorf("%+v", got)
	}
	p.rpc.Set(btfstest.Behaviour{Full: true, Answers: map[string]string{"storage/upload": `{"ID":"../../x"}`}})
	got = p.node("rent", p.cid, "--max", "1WBTT", "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "whether the node rents is not known") {
		t.Errorf("%+v", got)
	}
	var states []string
	for _, r := range p.rentals() {
		states = append(states, string(r.State))
	}
	if fmt.Sprint(states) != "[failed broken unknown]" {
		t.Error(states)
	}
}

// btmount is killed at each point of a rental. However that goes, the object is not rented
// twice by itself, and what is not known is told.
func TestBTFSRentIsKilled(t *testing.T) {
	t.Parallel()
	p := newRentPlace(t)
	kill := func(at string) {
		t.Helper()
		reached, killed := make(chan struct{}), make(chan struct{})
		stop := func() { reached <- struct{}{}; <-killed }
		how := btfstest.Behaviour{Full: true}
		switch at {
		case "price":
			how.Hang = map[string]bool{"cheque/price-all": true}
		case "upload":
			how.OnUpload = stop
		case "status":
			how.Hang = map[string]bool{"storage/upload/status": true}
		}
		p.rpc.Set(how)
		before := len(p.rpc.Calls())
		r := p.start(p.args("rent", p.cid, "--max", "1WBTT", "--yes")...)
		if at == "upload" {
			<-reached
		} else {
			p.rpc.Await(t, before, map[string]string{"price": "cheque/price-all", "status": "storage/upload/status"}[at])
		}
		if got := r.end(syscall.SIGKILL); got.code == 0 {
			t.Errorf("%s: %+v", at, got)
		}
		close(killed)
		p.rpc.Set(btfstest.Behaviour{Full: true})
	}
	kill("price")
	if all := p.rentals(); len(all) > 0 || p.rpc.Sessions() > 0 {
		t.Errorf("before it began: %+v", all)
	}
	kill("upload")
	all := p.rentals("--btfs-node", p.rpc.URL)
	if len(all) != 1 || all[0].State != rent.Unknown || p.rpc.Sessions() != 1 {
		t.Fatalf("while the node was asked: %+v", all)
	}
	if got := p.node("rentals"); got.code != 0 || !strings.Contains(got.stderr, "its answer was not heard") || !strings.Contains(got.stderr, "it shows 1 contract of this object") {
		t.Errorf("%+v", got)
	}
	p.rpc.SetToken("t") // the same node at another address is the same node
	other := []string{"btfs", "rent", p.cid, "--max", "1WBTT", "--yes", "--btfs-node", strings.Replace(p.rpc.URL, "127.0.0.1", "localhost", 1), "--btfs-token-file", p.write("token", "t\n")}
	got := p.run(other...)
	if got.code != 1 || !strings.Contains(got.stderr, "the node's answer was not heard") || !strings.Contains(got.stderr, "--again") || p.rpc.Sessions() != 1 {
		t.Errorf("%+v", got)
	}
	if got := p.node("node", "contracts"); got.code != 0 || !strings.Contains(got.stdout, p.cid) {
		t.Errorf("%+v", got)
	}
	if got := p.run("btfs", "rentals", "--forget", all[0].ID); got.code != 0 {
		t.Errorf("%+v", got)
	}
	kill("status")
	if all = p.rentals(); len(all) != 1 || all[0].State != rent.Running || all[0].Session == "" {
		t.Fatalf("while it was watched: %+v", all)
	}
	got = p.node("rent", p.cid, "--max", "1WBTT", "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, "under way (running)") {
		t.Errorf("%+v", got)
	}
	if got := p.node("rentals", "--wait"); got.code != 0 || !strings.Contains(got.stdout, "is complete") {
		t.Errorf("%+v", got)
	}
	if n := p.rpc.Sessions(); n != 2 {
		t.Errorf("%d sessions", n)
	}
	// Ctrl-C leaves it to the node, and says so.
	p.rpc.Set(btfstest.Behaviour{Full: true, Hang: map[string]bool{"storage/upload/status": true}})
	before := len(p.rpc.Calls())
	r := p.start(p.args("rent", p.cid, "--max", "1WBTT", "--yes")...)
	p.rpc.Await(t, before, "storage/upload/status")
	if got := r.end(syscall.SIGINT); got.code != 1 || !strings.Contains(got.stderr, "goes on at the node: btmount btfs rentals --wait") {
		t.Errorf("%+v", got)
	}
}

func TestBTFSNodeMoney(t *testing.T) {
	t.Parallel()
	p := newRentPlace(t)
	const amount = "123456789.012345678901234567 WBTT"
	for command, want := range map[string]string{
		"hosts":                 btfstest.PeerID + "  97.5",
		"contracts --role host": "CONTRACT",
		"stake":                 "123456789012345678901234567 smallest units of BTT",
		"cheques":               "received  " + btfstest.PeerID + "  " + amount + "  0.000000000000000005 WBTT",
		"cheques --token TRX":   "123456789012345678901.234567 TRX",
		"earnings":              "vault     " + amount,
	} {
		args := append([]string{"node"}, strings.Fields(command)...)
		if got := p.node(args...); got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: %q is not in %+v", command, want, got)
		}
		if got := p.node(append(args, "--json")...); got.code != 0 || !json.Valid([]byte(got.stdout)) || strings.Contains(got.stdout, "null") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	p.rpc.Set(btfstest.Behaviour{})
	for _, command := range []string{"hosts", "contracts", "stake", "cheques", "earnings"} {
		holdsOneLine(t, p.node("node", command), []string{"simple mode"})
	}
}
