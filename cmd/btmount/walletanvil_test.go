//go:build anvil

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	gobig "math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/btmount/btmount/wallet"
)

// TestWalletOnAnvil is a life at BTTC's rules: Berlin, no base fee, its chain id and gas price.
// It takes anvil (npm install @foundry-rs/anvil@1.7.1) in the PATH, which is no part of CI:
//
//	go test -tags anvil -run TestWalletOnAnvil ./cmd/btmount
func TestWalletOnAnvil(t *testing.T) {
	t.Parallel()
	exe, err := exec.LookPath("anvil")
	if err != nil {
		t.Fatal(err)
	}
	p := &walletPlace{place: newPlace(t)}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	node := exec.CommandContext(ctx, exe, "--port", "0", "--chain-id", "199", "--hardfork", "berlin", "--block-time", "1", "--gas-price", "9000000000000000", "--balance", "100000000")
	out, err := node.StdoutPipe()
	if err == nil {
		err = node.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = node.Wait() }()
	url, lines := "", bufio.NewScanner(out)
	for url == "" && lines.Scan() {
		if m := regexp.MustCompile(`Listening on (127\.0\.0\.1:\d+)`).FindStringSubmatch(lines.Text()); m != nil {
			url = "http://" + m[1]
		}
	}
	go func() { // ends with anvil
		for lines.Scan() {
		}
	}()
	ask := func(result any, method string, params ...any) {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
		resp, err := http.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		var a struct {
			Result json.RawMessage
			Error  any
		}
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || a.Error != nil {
			t.Fatal(method, a.Error, err)
		}
		if err := json.Unmarshal(a.Result, result); err != nil {
			t.Fatal(method, err)
		}
	}
	creation, err := os.ReadFile(filepath.Join("..", "..", "wallet", "chaintest", "WBTT.hex"))
	if err != nil {
		t.Fatal(err)
	}
	var code string
	var any any
	ask(&code, "eth_call", map[string]string{"data": "0x" + strings.TrimSpace(string(creation))}, "latest") // what the constructor returns
	const wbtt, own, payee = "0x23181F21DEa5936e24163FFABa4Ea3B316B57f3C", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x1111111111111111111111111111111111111111"
	ask(&any, "anvil_setCode", wbtt, code)
	p.pass = p.secret("pass", walletPass)
	p.ok("wallet", "import", "--passphrase-file", p.pass, "--mnemonic-file", p.secret("words", "test test test test test test test test test test test junk"))
	p.ok("wallet", "chain", "use", p.write("chain.json", fmt.Sprintf(`{"name":"anvil","id":199,"rpc":[%q],"finality":2,"block_time":"100ms","wbtt":%q}`, url, wbtt)))
	holds(t, p.ok("wallet", "chain", "check"), "no base fee")
	holds(t, p.pay("send", payee, "12.5"), "fee    at most 189 BTT (21000 gas at 9000000000000000 wei)", ": final, fee 189 BTT")
	holds(t, p.pay("wrap", "1000"), ": final")
	holds(t, p.pay("send", payee, "300", "--token", "WBTT"), ": final")
	holds(t, p.pay("unwrap", "200"), ": final")
	holds(t, p.ok("wallet", "balance"), "  500 WBTT")
	var ledger struct{ Entries []wallet.Entry }
	if err := json.Unmarshal([]byte(p.ok("wallet", "ledger", "--json")), &ledger); err != nil || len(ledger.Entries) != 4 {
		t.Fatal(ledger, err)
	}
	left := coins(100_000_000)
	for _, e := range ledger.Entries {
		t.Log(e.What, e.Fee.In(wallet.BTT))
		left.Sub(left, e.Fee.Big())
		switch {
		case e.What == "unwrap":
			left.Add(left, e.Paid.Big())
		case e.Unit == wallet.BTT:
			left.Sub(left, e.Paid.Big())
		}
	}
	var have string
	ask(&have, "eth_getBalance", own, "latest")
	if n, ok := new(gobig.Int).SetString(have, 0); !ok || n.Cmp(left) != 0 {
		t.Errorf("the ledger says %s, the chain %s", left, have)
	}
	p.noSecrets()
}
