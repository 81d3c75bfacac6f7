package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/btmount/btmount/btfs/btfstest"
	"github.com/btmount/btmount/btfs/btfstest/peers"
)

// Without a node the record of a name comes from the DHT.
func TestBTFSRecord(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	tree := btfstest.Named(t, fixtures, "tree").CID
	first := peers.New(t, peers.Config{})
	far := peers.New(t, peers.Config{Store: store, Bootstrap: first})
	far.Provide(t, tree)
	name := far.Publish(t, peers.Key(t), "/btfs/"+tree.String(), time.Now().Add(time.Hour), 1)
	p := newPlace(t)
	p.env = append(p.env, "BTMOUNT_BTFS_NETWORK=main", "BTMOUNT_BTFS_BOOTSTRAP="+first.Addr())
	if got := p.run("btfs", "name", "resolve", name); got.code != 0 || got.stdout != "/btfs/"+tree.String()+"  (signed by its owner, verified)\n" {
		t.Errorf("%+v", got)
	}
	if got := p.run("btfs", "ls", "btns://"+name+"/sub"); got.code != 0 || !strings.Contains(got.stdout, "b.bin") {
		t.Errorf("%+v", got)
	}
	const nobody = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r"
	holdsOneLine(t, p.run("btfs", "name", "resolve", nobody), []string{nobody, "nobody in the DHT has a record of it"})
}

// A name is published, resolved, and good for all that a CID is.
func TestBTFSNames(t *testing.T) {
	t.Parallel()
	fixtures, store := btfstest.Fixtures(t)
	p := newNodePlaceOf(t, store)
	tree := btfstest.Named(t, fixtures, "tree").CID.String()
	const key = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r"
	got := p.node("name", "publish", "/btfs/"+tree, "--key", "mine", "--lifetime", "48h")
	if got.code != 0 || got.stdout != "/btns/mine  /btfs/"+tree+"\n" {
		t.Errorf("%+v", got)
	}
	if call := p.rpc.Calls()[0]; !strings.Contains(call, "lifetime=48h0m0s") || !strings.Contains(call, "key=mine") {
		t.Error(call)
	}
	p.rpc.SetName(key, "/btfs/"+tree+"/sub")
	if got := p.node("name", "resolve", key); got.code != 0 || got.stdout != "/btfs/"+tree+"/sub  (says your node)\n" {
		t.Errorf("%+v", got)
	}
	var named btfsNamed
	got = p.node("name", "resolve", "btns://"+key+"/b.bin", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &named); err != nil || named.Path != "/btfs/"+tree+"/sub/b.bin" || named.Source != "node" || named.TTL != 60 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := p.node("ls", "btns://"+key); got.code != 0 || !strings.Contains(got.stdout, "b.bin") {
		t.Errorf("%+v", got)
	}
	if got := p.node("get", "/btns/"+key+"/b.bin", "--to", p.path("b")); got.code != 0 || !strings.Contains(got.stdout, "300000") && !strings.Contains(got.stdout, "293 KiB") {
		t.Errorf("%+v", got)
	}
	for _, x := range []struct {
		name  string
		code  int
		value string
		args  []string
		want  []string
	}{
		{"no name", 2, "", []string{"name", "resolve"}, []string{"btmount btfs name resolve NAME"}},
		{"no key", 1, "", []string{"ls", "btns://nodots"}, []string{"nodots", "not a peer id"}},
		{"empty", 2, "", []string{"ls", "btns://"}, []string{"btns://", "peer id or a domain"}},
		{"not published", 1, "", []string{"name", "resolve", "16Uiu2HAmF4LUfJ2nFSpC3pCFYEbMxAaDtTAHUhfNEhmJvhCc2C3b"}, []string{"could not resolve name"}},
		{"a hostile answer", 1, "/btfs/\x1b[2J", []string{"name", "resolve", key}, []string{key, "control characters"}},
		{"no CID", 1, "https://example.org/", []string{"name", "resolve", key}, []string{key, "neither"}},
		{"a CID is needed", 2, "", []string{"name", "publish", "/btns/" + key}, []string{"a CID is needed"}},
		{"a bad lifetime", 2, "", []string{"name", "publish", tree, "--lifetime", "1"}, []string{"--lifetime"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			p.rpc.SetName(key, x.value)
			got := p.node(x.args...)
			if got.code != x.code {
				t.Errorf("exit code %d, want %d", got.code, x.code)
			}
			holdsOneLine(t, got, x.want)
		})
	}
	holdsOneLine(t, p.run("btfs", "name", "resolve", key), []string{key, "nobody can be asked", "--btfs-node"})
	// Behind a proxy nobody is asked for a domain, but the node, which is reached through it.
	holdsOneLine(t, p.run("btfs", "name", "resolve", "example.org", "--proxy", "socks5://127.0.0.1:1"), []string{"example.org", "behind a proxy", "--btfs-node"})
	p.rpc.SetName("example.org", "/btfs/"+tree)
	before := len(p.rpc.Calls())
	holdsOneLine(t, p.node("name", "resolve", "example.org", "--proxy", "socks5://"+deadAddr(t)), []string{"name/resolve"})
	if len(p.rpc.Calls()) != before {
		t.Error("the node was asked around the proxy")
	}
}
