package bitswap_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
	"github.com/btmount/btmount/btfs/btns"
	"github.com/btmount/btmount/btfs/unixfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(t testing.TB, cfg bitswap.Config) *bitswap.Node {
	t.Helper()
	if cfg.Network.Name == "" {
		cfg.Network = bitswap.Main
	}
	if cfg.Bootstrap == nil {
		cfg.Bootstrap = []string{} // nobody in the world
	}
	if cfg.Dialer == nil {
		cfg.Dialer = &peers.Direct{}
	}
	n, err := bitswap.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// object has the blocks of one object asked for as such.
type object struct {
	n    *bitswap.Node
	root cid.Cid
}

func (o object) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	if b, ok := block.Inline(c); ok {
		return b, nil
	}
	return o.n.BlockOf(ctx, o.root, c, nil)
}

// read reads all of an object that a manifest has, up to so many files of it.
func read(t *testing.T, n *bitswap.Node, f btfstest.Fixture, most int) {
	t.Helper()
	for i, file := range f.Files {
		if i%(len(f.Files)/most+1) > 0 {
			continue
		}
		var path []string
		if file.Path != "" {
			path = strings.Split(file.Path, "/")
		}
		o, err := unixfs.Walk(t.Context(), object{n, f.CID}, f.CID, path)
		if err != nil {
			t.Errorf("%s %s: %v", f.Name, file.Path, err)
			continue
		}
		if file.Symlink != "" {
			if o.Target != file.Symlink {
				t.Errorf("%s -> %s", file.Path, o.Target)
			}
			continue
		}
		b := make([]byte, file.Size+1)
		n, err := o.ReadAt(t.Context(), b, 0)
		if err != io.EOF || int64(n) != file.Size || !file.Is(b[:n]) {
			t.Errorf("%s %s: %d bytes, %v", f.Name, file.Path, n, err)
		}
	}
}

// Every object that a real node made comes whole from one peer that was named.
func TestFixturesFromAPeer(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	p := peers.New(t, peers.Config{Store: store})
	n := node(t, bitswap.Config{Peers: []string{p.Addr()}})
	for _, f := range fixtures {
		read(t, n, f, 40)
	}
	if s := n.Status(); !s.Awake || s.Peers != 1 || s.Blocks < 100 {
		t.Errorf("%+v", s)
	}
}

// And from peers that only the DHT knows, of which the user named another member. What
// was announced is the roots.
func TestFixturesFromTheDHT(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	first := peers.New(t, peers.Config{})
	p := peers.New(t, peers.Config{Store: store, Bootstrap: first})
	for _, f := range fixtures {
		p.Provide(t, f.CID)
	}
	n := node(t, bitswap.Config{Bootstrap: []string{first.Addr()}})
	for _, f := range fixtures {
		read(t, n, f, 4)
	}
	if s := n.Status(); s.Peers != 2 {
		t.Errorf("%+v", s)
	}
}

// What comes first from one peer does not keep others from being looked for: here each
// object is at another one, and nothing says which blocks belong together.
func TestManyProviders(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	first := peers.New(t, peers.Config{})
	n := node(t, bitswap.Config{Bootstrap: []string{first.Addr()}})
	for _, name := range []string{"file-mode", "file-mtime-mode"} {
		c := btfstest.Named(t, fixtures, name).CID
		b, err := store.Block(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		own := btfstest.NewStore()
		own.Put(cid.DagProtobuf, b)
		peers.New(t, peers.Config{Store: own, Bootstrap: first}).Provide(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		if _, err := n.Block(ctx, c, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// Many blocks that are wanted at a time come over the one connection: no more answers are
// asked for than it may have streams.
func TestManyAnswers(t *testing.T) {
	t.Parallel()
	store := btfstest.NewStore()
	var all []cid.Cid
	for i := range 300 {
		all = append(all, store.Leaf(append(make([]byte, 100_000), byte(i), byte(i>>8))).CID)
	}
	p := peers.New(t, peers.Config{Store: store})
	d := &peers.Direct{Delay: 20 * time.Millisecond}
	n := node(t, bitswap.Config{Peers: []string{p.Addr()}, Dialer: d})
	var readers sync.WaitGroup
	for _, c := range all {
		readers.Go(func() {
			if _, err := n.BlockOf(t.Context(), all[0], c, nil); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
	if len(d.Dialed()) != 1 {
		t.Errorf("dialled %d times", len(d.Dialed()))
	}
}

// Peers that answer nothing, or other bytes than they were asked for, cost moments: what
// comes is true, and comes from the one that is honest.
func TestFaultyPeers(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	honest := peers.New(t, peers.Config{Store: store})
	silent := peers.New(t, peers.Config{Fault: peers.Silent})
	liar := peers.New(t, peers.Config{Fault: peers.Liar})
	n := node(t, bitswap.Config{Peers: []string{silent.Addr(), liar.Addr(), honest.Addr()}})
	read(t, n, btfstest.Named(t, fixtures, "file-balanced"), 1)
	read(t, n, btfstest.Named(t, fixtures, "tree"), 4)
}

// Of a liar alone nothing comes, and the error says who was asked.
func TestLiarAlone(t *testing.T) {
	t.Parallel()
	fixtures, _ := btfstest.Fixtures(t)
	liar := peers.New(t, peers.Config{Fault: peers.Liar})
	n := node(t, bitswap.Config{Peers: []string{liar.Addr()}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := n.Block(ctx, fixtures[0].CID, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 peers connected, the DHT ") {
		t.Error(err)
	}
}

// A peer that goes on to send other bytes is not spoken to any more.
func TestLiarIsBanned(t *testing.T) {
	t.Parallel()
	fixtures, _ := btfstest.Fixtures(t)
	liar := peers.New(t, peers.Config{Fault: peers.Liar})
	d := &peers.Direct{}
	n := node(t, bitswap.Config{Peers: []string{liar.Addr()}, Dialer: d})
	hamt := btfstest.Named(t, fixtures, "dir-hamt")
	_, store := btfstest.Fixtures(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i, c := range store.CIDs() {
		if i == 30 {
			break
		}
		all.Go(func() {
			if _, err := n.BlockOf(ctx, hamt.CID, c, nil); err == nil {
				t.Error("a block came of a liar")
			}
		})
	}
	for n.Status().Left == 0 || n.Status().Peers > 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%+v", n.Status())
		}
	}
	cancel()
	all.Wait()
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	p := peers.New(t, peers.Config{Store: store, WebSocket: true})
	d := &peers.Direct{}
	n := node(t, bitswap.Config{Peers: []string{p.Addr()}, Dialer: d})
	read(t, n, btfstest.Named(t, fixtures, "file-balanced"), 1)
	if len(d.Dialed()) != 1 {
		t.Errorf("dialled: %v; there is a socket that is not the Dialer's", d.Dialed())
	}
}

// A peer of another network is told with the question whose key is wrong, in time.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	key := "/key/swarm/psk/1.0.0/\n/base16/\n" + strings.Repeat("01", 32) + "\n"
	file := filepath.Join(t.TempDir(), "swarm.key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := bitswap.ParseNetwork(file)
	if err != nil {
		t.Fatal(err)
	}
	fixtures, store := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-mode")
	p := peers.New(t, peers.Config{Store: store, Key: key})
	read(t, node(t, bitswap.Config{Network: own, Peers: []string{p.Addr()}}), f, 1)

	_, err = node(t, bitswap.Config{Peers: []string{p.Addr()}}).Block(t.Context(), f.CID, nil)
	unreachable := (*bitswap.UnreachableError)(nil)
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), p.Addr()+": it was reached, and nothing it says makes sense; wrong swarm key?") {
		t.Error(err)
	}
}

// What cannot be reached is told with what it answered.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	const id = "/p2p/16Uiu2HAmVeJwSMkeaEXEZdDAtxM6mngAALjTPwq4w2suehMVPwA5"
	fixtures, _ := btfstest.Fixtures(t)
	n := node(t, bitswap.Config{
		Peers:     []string{"/ip4/127.0.0.1/tcp/1" + id, "/dns4/nowhere.invalid/tcp/4001" + id},
		Bootstrap: []string{"/ip4/127.0.0.1/tcp/2" + id, "/ip4/127.0.0.1/tcp/3" + id},
	})
	_, err := n.Block(t.Context(), fixtures[0].CID, nil)
	for _, want := range []string{
		"no node could be reached: /ip4/127.0.0.1/tcp/1" + id + ": cannot connect: ", "connection refused",
		"/dns4/nowhere.invalid/tcp/4001" + id + ": its name cannot be looked up", "(and 1 more of 2 nodes to begin with)",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The newest record of a name that the DHT has is brought, if it is valid.
func TestRecords(t *testing.T) {
	t.Parallel()
	first := peers.New(t, peers.Config{})
	p, q := peers.New(t, peers.Config{Bootstrap: first}), peers.New(t, peers.Config{Bootstrap: first})
	key, until := peers.Key(t), time.Now().Add(time.Hour)
	name := p.Publish(t, key, "/btfs/old", until, 1)
	q.Publish(t, key, "/btfs/new", until, 2)
	n := node(t, bitswap.Config{Bootstrap: []string{first.Addr()}})
	id, err := btns.ParseKey(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Record(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := btns.Verify(id, b, time.Now()); err != nil || r.Value != "/btfs/new" {
		t.Errorf("%+v, %v", r, err)
	}
	other, err := peer.IDFromPrivateKey(peers.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Record(t.Context(), other); !errors.Is(err, btns.ErrNoRecord) {
		t.Error(err)
	}
	alone := node(t, bitswap.Config{Bootstrap: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + other.String()}})
	unreachable := (*bitswap.UnreachableError)(nil)
	if _, err := alone.Record(t.Context(), id); !errors.As(err, &unreachable) {
		t.Error(err)
	}
	alone.Close()
	if _, err := alone.Record(t.Context(), id); !errors.Is(err, bitswap.ErrClosed) {
		t.Error(err)
	}
}

var errNear = errors.New("too near")

// Addresses that the DHT names are dialled if the policy lets them, and it is told of whom
// they are; those that the user typed are marked as such. Names are looked up by the Dialer.
func TestPolicy(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-mode")
	first := peers.New(t, peers.Config{})
	p := peers.New(t, peers.Config{Store: store, Bootstrap: first})
	p.Provide(t, f.CID)
	port := func(p *peers.Peer) string { return strings.Split(p.Addr(), "/")[4] }
	local := netip.MustParseAddr("127.0.0.1")
	d := &peers.Direct{
		Names: map[string]netip.AddrPort{"first.example:" + port(first): netip.MustParseAddrPort("127.0.0.1:" + port(first))},
		Policy: func(a bitswap.Ask) error {
			switch {
			case a.Typed:
				return nil
			case len(a.Via) != 1 || a.Via[0] != local:
				t.Errorf("%+v", a)
			}
			return errNear
		},
	}
	named := strings.Replace(first.Addr(), "/ip4/127.0.0.1/", "/dns4/first.example/", 1)
	n := node(t, bitswap.Config{Bootstrap: []string{named}, Dialer: d})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := n.Block(ctx, f.CID, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if all := d.Dialed(); len(all) != 1 || all[0] != d.Names["first.example:"+port(first)] {
		t.Errorf("dialled: %v", all)
	}
}

// A node that nobody asks has nothing open, and wakes when somebody does.
func TestSleeps(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	f := btfstest.Named(t, fixtures, "file-mode")
	p := peers.New(t, peers.Config{Store: store})
	d := &peers.Direct{}
	n := node(t, bitswap.Config{Peers: []string{p.Addr()}, Dialer: d, Idle: 50 * time.Millisecond})
	if s := n.Status(); s.Awake || len(d.Dialed()) > 0 {
		t.Errorf("%+v before anything was asked", s)
	}
	for range 2 {
		read(t, n, f, 1)
		for n.Status().Awake || len(p.Host.Network().Peers()) > 0 {
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("it does not sleep")
			}
		}
	}
	n.Close()
	if _, err := n.Block(t.Context(), f.CID, nil); !errors.Is(err, bitswap.ErrClosed) {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	const id = "/p2p/16Uiu2HAmVeJwSMkeaEXEZdDAtxM6mngAALjTPwq4w2suehMVPwA5"
	for text, good := range map[string]bool{
		"/ip4/192.0.2.1/tcp/4001" + id:             true,
		"/ip6/2001:db8::1/tcp/4001" + id:           true,
		"/dns4/node.example/tcp/4001" + id:         true,
		"/ip4/192.0.2.1/tcp/4001/ws" + id:          true,
		"/ip4/192.0.2.1/tcp/4001":                  false,
		"/ip4/192.0.2.1/udp/4001/quic-v1" + id:     false,
		"/ip4/192.0.2.1/tcp/4001/p2p-circuit" + id: false,
		"/unix/socket" + id:                        false,
		"/dnsaddr/node.example" + id:               false,
		id:                                         false,
		"192.0.2.1:4001":                           false,
		"":                                         false,
		"/ip4/192.0.2.1/tcp/4001/p2p/QmNope":       false,
		"/ip4/192.0.2.1/tcp/4001/" + strings.Repeat("ws/", 999): false,
	} {
		if err := bitswap.CheckPeer(text); (err == nil) != good {
			t.Errorf("%.80q: %v", text, err)
		}
	}
	for _, n := range []bitswap.Network{bitswap.Main, bitswap.Test} {
		if _, err := bitswap.New(bitswap.Config{Network: n}); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swarm.key")
	for text, good := range map[string]bool{
		peers.MainKey: true, strings.TrimSpace(peers.MainKey): true,
		"": false, "/key/swarm/psk/1.0.0/\n/base16/\n0102\n": false, "/key/swarm/psk/2.0.0/\n/base16/\n": false,
		peers.MainKey[:60] + "zz" + peers.MainKey[62:]: false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := bitswap.ParseNetwork(file)
		if (err == nil) != good || err != nil && len(text) > 60 && strings.Contains(err.Error(), text[40:50]) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			continue
		}
	}
	own, err := bitswap.ParseNetwork(file + "-absent")
	if err == nil {
		t.Error(own)
	}
	if err := os.WriteFile(file, []byte(peers.MainKey), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err = bitswap.ParseNetwork(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bitswap.New(bitswap.Config{Network: own}); err == nil {
		t.Error("a network that begins nowhere")
	}
}

// What the user, the DHT and peers say of addresses is parsed without harm.
func FuzzAddress(f *testing.F) {
	f.Add("/ip4/192.0.2.1/tcp/4001/p2p/16Uiu2HAmVeJwSMkeaEXEZdDAtxM6mngAALjTPwq4w2suehMVPwA5")
	f.Add("/dns4/node.example/tcp/4001/ws/p2p/QmWJWGxKKaqZUW4xga2BCzT5FBtYDL8Cc5Q5jywd6xPt1g")
	f.Fuzz(func(t *testing.T, text string) {
		if bitswap.CheckPeer(text) != nil {
			return
		}
		if _, err := bitswap.New(bitswap.Config{Network: bitswap.Main, Peers: []string{text}}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// A file of a swarm key is read without harm, whatever is in it, and not repeated in errors.
func FuzzKey(f *testing.F) {
	f.Add(peers.MainKey)
	f.Add("/key/swarm/psk/1.0.0/\n/base64/\nZO+VKJprmYx3aSftbuM8jJIC7kffkBQdCfX/7rZLimY=\n")
	f.Add("/key/swarm/psk/1.0.0/\n/bin/\n0123456789012345678901234567890123456789")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "swarm.key")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := bitswap.ParseNetwork(file)
		if err == nil {
			if _, err := bitswap.New(bitswap.Config{Network: n, Peers: []string{"/ip4/192.0.2.1/tcp/4001/p2p/16Uiu2HAmVeJwSMkeaEXEZdDAtxM6mngAALjTPwq4w2suehMVPwA5"}}); err != nil {
				t.Error(err)
			}
			return
		}
		for line := range strings.SplitSeq(text, "\n") {
			if len(line) > 30 && strings.Contains(err.Error(), line) {
				t.Errorf("%v repeats %q", err, line)
			}
		}
	})
}
