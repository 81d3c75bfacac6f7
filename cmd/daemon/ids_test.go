package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Each knows the other: we by the name that it tells (BEP 10), it by our peer id (BEP 20).
func TestClientsKnowEachOther(t *testing.T) {
	t.Parallel()
	meet := func(t *testing.T, p *payload, addr, name string) (greeting dict) {
		t.Helper()
		r, err := dialRaw(addr, p.meta)
		if err != nil {
			t.Fatal(err)
		}
		greeting, err = r.handshakeOf()
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		ids, _ := greeting["m"].(dict)
		for _, lacks := range []string{"lt_donthave", "ut_holepunch"} {
			if ids[lacks] != nil {
				t.Errorf("it speaks %s now, which docs/protocol.md denies", lacks)
			}
		}
		m := mount(t, p.torrent, "--no-dht", "--no-lsd", "--peer", addr)
		eventually(t, patience, "its name", func() bool {
			s := m.torrent(t).Swarm
			return len(s) == 1 && s[0].Client == name
		})
		return greeting
	}
	t.Run("transmission", func(t *testing.T) {
		t.Parallel()
		p := single(t, "film", 1<<20, metainfo.MakeConfig{})
		tr := startTransmission(t, p.torrent, p.parent())
		tr.complete()
		// Of a seed alone it says that it wants nothing (BEP 21), which its pieces say too.
		if h := meet(t, p, tr.addr, "Transmission 3.00"); h["upload_only"] != int64(1) {
			t.Error(h)
		}
		eventually(t, patience, "our id", func() bool { // another program of that name has it too
			return strings.Contains(output(t, patience, "transmission-remote", tr.rpc, "-t", "1", "-ip"), "BitMagnet 0.0.1.0")
		})
	})
	t.Run("aria2", func(t *testing.T) {
		t.Parallel()
		p := single(t, "film", 1<<20, metainfo.MakeConfig{})
		rpc := fetchtest.FreePort(t)
		addr, _ := startAria2(t, p.torrent, p.parent(), "--check-integrity=true", "--seed-ratio=0.0", "--seed-time=1000", "--enable-rpc", "--rpc-listen-port="+strconv.Itoa(rpc))
		listens(t, addr)
		if h := meet(t, p, addr, "aria2/1.36.0"); h["upload_only"] != nil {
			t.Error("it speaks BEP 21 now, which docs/protocol.md denies")
		}
		ask := func(method, params string, into any) {
			t.Helper()
			r, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/jsonrpc", rpc), "application/json", strings.NewReader(`{"jsonrpc": "2.0", "id": "1", "method": "aria2.`+method+`", "params": [`+params+`]}`))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if err := json.NewDecoder(r.Body).Decode(into); err != nil {
				t.Fatal(err)
			}
		}
		var active struct{ Result []struct{ GID string } }
		ask("tellActive", "", &active)
		if len(active.Result) != 1 {
			t.Fatal(active)
		}
		eventually(t, patience, "our id", func() bool {
			var peers struct{ Result []struct{ PeerID string } }
			ask("getPeers", strconv.Quote(active.Result[0].GID), &peers)
			if len(peers.Result) != 1 {
				return false
			}
			id, err := url.PathUnescape(peers.Result[0].PeerID)
			return err == nil && strings.HasPrefix(id, "-BM0010-")
		})
	})
}
