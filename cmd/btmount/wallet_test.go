package main

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	gobig "math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/chaintest"
)

const (
	walletPass   = "Pässphrase of the test 7"
	walletKey    = "b71c71a67e1177ad4e901695e1b4b9ee17ae16c6668d313eac2f96dbcda3f291"
	walletOwn    = "0x71562b71999873DB5b286dF957af199Ec94617F7"
	walletPayee  = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	walletMillis = 1 // of a block
)

// walletPlace is a place with an account of 1000 BTT on a chain, on which a block is made
// whenever somebody asks for a receipt.
type walletPlace struct {
	*place
	chain *chaintest.Chain
	pass  string   // the file
	said  []string // all that was printed
}

func address(t *testing.T, s string) wallet.Address {
	t.Helper()
	a, _, err := wallet.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newWalletPlace(t *testing.T, lies ...chaintest.Lie) *walletPlace {
	t.Helper()
	p := &walletPlace{place: newPlace(t), chain: chaintest.New(t, 199, address(t, walletOwn))}
	p.pass = p.secret("pass", walletPass+"\n")
	p.use(append(lies, p.mining)...)
	p.ok("wallet", "import", "--key-file", p.secret("key", walletKey), "--passphrase-file", p.pass)
	return p
}

// mining makes a block before it tells of a receipt.
func (p *walletPlace) mining(method string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
	if method == "eth_getTransactionReceipt" {
		p.chain.Mine(1)
	}
	return next()
}

// use has the wallet ask one node.
func (p *walletPlace) use(lies ...chaintest.Lie) {
	p.t.Helper()
	p.ok("wallet", "chain", "use", p.write("chain.json", fmt.Sprintf(`{"name":"own","id":199,"rpc":[%q],"finality":3,"block_time":"%dms","max_head_age":"24h","wbtt":%q}`, p.chain.Node(lies...), walletMillis, p.chain.WBTT)))
}

func (p *walletPlace) secret(name, text string) string {
	p.t.Helper()
	path := p.path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// wallet runs a command, of which nothing may say a secret.
func (p *walletPlace) run(args ...string) outcome {
	p.t.Helper()
	got := p.place.run(args...)
	p.said = append(p.said, got.stdout, got.stderr)
	return got
}

// ok runs a command that has to work, and say some things.
func (p *walletPlace) ok(args ...string) string {
	p.t.Helper()
	got := p.run(args...)
	if got.code != 0 || got.stderr != "" {
		p.t.Fatalf("%v: %+v", args, got)
	}
	return got.stdout
}

func (p *walletPlace) pay(args ...string) string {
	p.t.Helper()
	return p.ok(append(append([]string{"wallet"}, args...), "--yes", "--passphrase-file", p.pass)...)
}

func holds(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %s", part, text)
		}
	}
}

func coins(n int64) *gobig.Int { return new(gobig.Int).Mul(gobig.NewInt(n), gobig.NewInt(1e18)) }

// A whole life by command line, and the ledger's sums are the chain's.
func TestWalletLife(t *testing.T) {
	t.Parallel()
	p := newWalletPlace(t)
	holds(t, p.ok("wallet", "list"), walletOwn, p.path("home/.local/state/btmount/wallet/keys/UTC--"))
	if got := p.ok("wallet", "address"); got != walletOwn+"\n" {
		t.Error(got)
	}
	holds(t, p.ok("wallet", "chain", "list"), "bttc   199   rpc.bt.io", "donau  1029", "own    199   127.0.0.1", "in use")
	holds(t, p.ok("wallet", "chain", "check"), "good", "base fee")
	holds(t, p.ok("wallet", "balance"), walletOwn+"  1000 BTT  0 WBTT", "on own (199), block 1, asked of 1 node")
	// Nothing is signed to look at it.
	holds(t, p.ok("wallet", "send", walletPayee, "12.5", "--dry-run"), "what   send 12.5 BTT", "to     "+walletPayee+"\n", "from   "+walletOwn+", which has 1000 BTT", "fee    at most 0.000", "(21000 gas at ", "chain  own (199), asked of 1 node")
	if p.chain.Nonce(address(t, walletOwn)) != 0 || p.ok("wallet", "ledger") != "" || p.ok("wallet", "tx", "--all") != "" {
		t.Error("a dry run did something")
	}
	holds(t, p.pay("send", strings.ToLower(walletPayee), "12.5"), "no checksum", "signed  0x", ", nonce 0", ": in block ", ": final, fee 0.000")
	holds(t, p.pay("wrap", "100"), "what   wrap 100 BTT", ": final")
	holds(t, p.pay("send", walletPayee, "30WBTT", "--json"), `"plan":{"what":"send"`, `"signed":`, `"state":"final"`)
	holds(t, p.pay("unwrap", "20000000000000000001wei"), "what   unwrap 20.000000000000000001 WBTT")
	holds(t, p.ok("wallet", "balance", "--all"), " BTT  49.999999999999999999 WBTT")
	if got := p.chain.Balance(address(t, walletPayee)); got.Cmp(new(gobig.Int).Div(coins(25), gobig.NewInt(2))) != 0 {
		t.Error(got)
	}
	rows, err := csv.NewReader(strings.NewReader(p.ok("wallet", "ledger", "--csv", "--since", "1w"))).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatal(rows, err)
	}
	left := coins(1000)
	for _, r := range rows[1:] {
		what, unit, paid, fee := r[2], r[7], new(gobig.Int), new(gobig.Int)
		paid.SetString(r[11], 10)
		fee.SetString(r[12], 10)
		if left.Sub(left, fee); what == "unwrap" {
			left.Add(left, paid)
		} else if unit == "BTT" {
			left.Sub(left, paid)
		}
	}
	if got := p.chain.Balance(address(t, walletOwn)); left.Cmp(got) != 0 {
		t.Errorf("the ledger says %s, the chain %s", left, got)
	}
	holds(t, p.ok("wallet", "ledger"), "send    paid  12.5 BTT", "wrap    paid  100 BTT", "send    paid  30 WBTT")
	if n := strings.Count(p.ok("wallet", "tx", "--all"), "final"); n != 4 {
		t.Errorf("%d are final", n)
	}
	// Limits are off, until they are set.
	if got := p.ok("wallet", "limit", "show"); got != "off: nothing is spent by itself\n" {
		t.Error(got)
	}
	holds(t, p.ok("wallet", "limit", "set", "--per-hour", "10", "--per-day", "100BTT", "--max-price", "2/GiB"), "per hour  at most 10 BTT, 0 BTT spent", "price     at most 2 BTT for a GiB")
	holds(t, p.ok("wallet", "limit", "set", "--per-torrent", "5", "--json"), `"on":true`, `"per_hour":"10000000000000000000"`, `"per_torrent":"5000000000000000000"`)
	holds(t, p.ok("wallet", "limit", "off"), "off")
}

// Killed while it sends, whether the node has it or not, the wallet pays once.
func TestWalletKilled(t *testing.T) {
	t.Parallel()
	for _, passes := range []bool{true, false} {
		t.Run(fmt.Sprint(passes), func(t *testing.T) {
			t.Parallel()
			sending, works := make(chan bool), atomic.Bool{}
			p := newWalletPlace(t, func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
				if m != "eth_sendRawTransaction" || works.Load() {
					return next()
				}
				if passes {
					if _, err := next(); err != nil {
						t.Error(err)
					}
				}
				sending <- true
				return nil, chaintest.ErrHang
			})
			r := p.start("wallet", "send", walletPayee, "7", "--yes", "--passphrase-file", p.pass)
			<-sending
			// What others can see of the process is no secret.
			for _, name := range []string{"cmdline", "environ"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.cmd.Process.Pid, name))
				if err != nil || len(text) == 0 || bytes.Contains(text, []byte(walletPass)) || bytes.Contains(text, []byte(walletKey)) {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
			got := r.end(syscall.SIGKILL)
			p.said = append(p.said, got.stdout, got.stderr)
			works.Store(true)
			holds(t, p.ok("wallet", "ledger"), "intent  7 BTT")
			again := p.run("wallet", "send", walletPayee, "7", "--yes", "--passphrase-file", p.pass)
			if again.code != 1 || !strings.Contains(again.stderr, "the same is on its way already") {
				t.Errorf("%+v", again)
			}
			holds(t, p.ok("wallet", "tx", "--wait"), ": final")
			if got := p.chain.Balance(address(t, walletPayee)); got.Cmp(coins(7)) != 0 || p.chain.Nonce(address(t, walletOwn)) != 1 {
				t.Errorf("the payee has %s", got)
			}
			holds(t, p.ok("wallet", "ledger"), "paid  7 BTT")
			p.noSecrets()
		})
	}
}

// Killed at any question that it asks a node, the wallet pays once for each order.
func TestWalletKilledAnywhere(t *testing.T) {
	t.Parallel()
	asked, at := make(chan bool), atomic.Int64{} // questions until it is killed; below 0 it is not
	p := newWalletPlace(t, func(_ string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
		if at.Add(-1) == 0 {
			asked <- true
			return nil, chaintest.ErrHang
		}
		return next()
	})
	for k := int64(1); ; k++ {
		at.Store(k)
		cmd, ended := p.command("wallet", "send", walletPayee, "1", "--yes", "--passphrase-file", p.pass), make(chan error, 1)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- cmd.Wait() }() // ends with the process
		done := false
		select {
		case <-asked:
			_ = cmd.Process.Kill()
			<-ended
		case err := <-ended: // it asked fewer questions
			if done = true; err != nil {
				t.Fatal(err)
			}
		}
		at.Store(-1)
		if !done {
			p.ok("wallet", "tx", "--wait")
			if p.chain.Nonce(address(t, walletOwn)) < uint64(k) {
				p.pay("send", walletPayee, "1") // it was not signed, as the user can see
			}
		}
		if got, n := p.chain.Balance(address(t, walletPayee)), p.chain.Nonce(address(t, walletOwn)); got.Cmp(coins(k)) != 0 || n != uint64(k) {
			t.Fatalf("after %d orders the payee has %s, nonce %d", k, got, n)
		}
		if done {
			if k < 15 {
				t.Errorf("it asked %d questions", k)
			}
			break
		}
	}
	if text := p.ok("wallet", "ledger"); strings.Contains(text, "intent") {
		t.Error(text)
	}
}

// noSecrets looks for passphrase and key in all that was printed and written.
func (p *walletPlace) noSecrets() {
	p.t.Helper()
	raw, _ := new(gobig.Int).SetString(walletKey, 16)
	secrets := []string{walletPass, walletKey, strings.ToUpper(walletKey), raw.String(), string(raw.Bytes()), base64.StdEncoding.EncodeToString([]byte(walletPass)), base64.StdEncoding.EncodeToString(raw.Bytes()), fmt.Sprintf("%x", walletPass)}
	look := func(where, text string) {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				p.t.Errorf("%s says a secret: %q", where, text)
			}
		}
	}
	for _, text := range p.said {
		look("the output", text)
	}
	files := 0
	err := filepath.WalkDir(p.path("home"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if strings.Contains(path, "/wallet") {
			if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; st.Mode().Perm() != want {
				p.t.Errorf("%s: mode %o", path, st.Mode().Perm())
			}
		}
		if e.IsDir() {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		look(path, string(text))
		return err
	})
	if err != nil || files < 4 {
		p.t.Error(files, err)
	}
}

// Keys come and go, by file, descriptor, stdin and terminal; what is printed is no secret.
func TestWalletKeys(t *testing.T) {
	t.Parallel()
	p := newWalletPlace(t)
	p.ok("wallet", "export", "--to", p.path("home/backup.json"), "--passphrase-file", p.pass, "--json")
	other := p.path("home/other")
	holds(t, p.ok("wallet", "import", "--state-dir", other, "--keystore", p.path("home/backup.json"), "--passphrase-file", p.pass), walletOwn)
	words := p.secret("words", "test test test test test test test test test test test junk\n")
	holds(t, p.ok("wallet", "import", "--state-dir", other, "--mnemonic-file", words, "--index", "1", "--passphrase-file", p.pass), walletPayee)
	holdsOneLine(t, p.run("wallet", "address", "--state-dir", other), []string{"several accounts", "--from", walletOwn, walletPayee})
	holds(t, p.ok("wallet", "address", "--state-dir", other, "--from", walletPayee), walletPayee)
	// From stdin, with the passphrase from a descriptor.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := write.WriteString(walletPass + "\n"); err != nil {
		t.Fatal(err)
	}
	write.Close()
	cmd := p.command("wallet", "import", "--state-dir", p.path("home/third"), "--key-file", "-", "--passphrase-fd", "3")
	cmd.Stdin, cmd.ExtraFiles = strings.NewReader(walletKey), []*os.File{read}
	if got := p.finish(cmd); got.code != 0 || !strings.Contains(got.stdout, walletOwn) {
		t.Errorf("%+v", got)
	}
	// By terminal, which shows nothing of it; two that differ make no account.
	for answers, code := range map[string]int{walletPass + "\n" + walletPass + "\n": 0, walletPass + "\n" + walletPass + "x\n": 1, "\n": 1} {
		ptmx, tty := newTerminal(t)
		cmd := p.command("wallet", "new", "--state-dir", p.path("home", "terminal", fmt.Sprint(len(answers))))
		cmd.Stdin = tty
		if _, err := ptmx.WriteString(answers); err != nil {
			t.Fatal(err)
		}
		got := p.finish(cmd)
		p.said = append(p.said, got.stdout, got.stderr)
		tty.Close()
		if got.code != code || !strings.Contains(got.stderr, "Passphrase for the new account: ") {
			t.Errorf("%q: %+v", answers, got)
		}
	}
	p.noSecrets()
	// Only --reveal writes the key.
	got := p.run("wallet", "export", "--to", p.path("revealed"), "--reveal", "--passphrase-file", p.pass)
	text, err := os.ReadFile(p.path("revealed"))
	if st, serr := os.Stat(p.path("revealed")); err != nil || serr != nil || string(text) != walletKey+"\n" || st.Mode() != 0o600 || got.stderr != "who has the file has the money\n" {
		t.Errorf("%+v, %v", got, err)
	}
	p.noSecrets()
}

// Whatever is wrong is one line, and nothing is signed.
func TestWalletRefuses(t *testing.T) {
	t.Parallel()
	p := newWalletPlace(t)
	wrong := p.secret("wrong", "another passphrase\n")
	loose := p.write("loose", walletPass+"\n")
	send := func(args ...string) []string {
		return append([]string{"send"}, append(args, "--yes", "--passphrase-file", p.pass)...)
	}
	for _, c := range []struct {
		name string
		code int
		args []string
		want []string
	}{
		{"an exponent", 2, send(walletPayee, "1e18"), []string{`"1e18"`, "such as 12.5BTT"}},
		{"below 0", 2, send("--", walletPayee, "-1")[:4], []string{"amount", "not an amount"}},
		{"nothing", 2, send(walletPayee, "0"), []string{"it is nothing"}},
		{"too many digits", 2, send(walletPayee, "1.0000000000000000001"), []string{"18 digits"}},
		{"2^256", 2, send(walletPayee, "115792089237316195423570985008687907853269984665640564039457584007913129639936wei"), []string{"more than there is"}},
		{"a checksum", 2, send("0x70997970C51812dc3A010C7d01b50e0d17dc79c8", "1"), []string{"checksum (EIP-55)"}},
		{"nobody", 2, send("0x0000000000000000000000000000000000000000", "1"), []string{"lost"}},
		{"another token", 2, send(walletPayee, "1", "--token", "USDT"), []string{`--token "USDT"`, "BTT or WBTT"}},
		{"two units", 2, send(walletPayee, "1BTT", "--token", "WBTT"), []string{"the amount is in BTT"}},
		{"too few arguments", 2, send(walletPayee), []string{"ADDRESS AMOUNT"}},
		{"not so much", 1, send(walletPayee, "1000"), []string{"not enough", "1000 BTT", "with a fee of up to"}},
		{"no WBTT", 1, send(walletPayee, "1WBTT"), []string{"not enough", "has 0 WBTT"}},
		{"another passphrase", 1, []string{"send", walletPayee, "1", "--yes", "--passphrase-file", wrong}, []string{"wrong passphrase"}},
		{"a loose passphrase", 1, []string{"send", walletPayee, "1", "--yes", "--passphrase-file", loose}, []string{"others may read", "chmod 600"}},
		{"two passphrases", 2, []string{"send", walletPayee, "1", "--yes", "--passphrase-file", wrong, "--passphrase-fd", "3"}, []string{"not both"}},
		{"an unknown account", 1, send(walletPayee, "1", "--from", walletPayee), []string{"no such account"}},
		{"the account again", 1, []string{"import", "--key-file", p.path("key"), "--passphrase-file", p.pass}, []string{"is there already"}},
		{"no key", 1, []string{"import", "--key-file", wrong, "--passphrase-file", p.pass}, []string{"64 hexadecimal digits"}},
		{"no mnemonic", 1, []string{"import", "--mnemonic-file", wrong, "--passphrase-file", p.pass}, []string{"BIP-39"}},
		{"no keystore", 1, []string{"import", "--keystore", wrong, "--passphrase-file", p.pass}, []string{"Web3 Secret Storage"}},
		{"over a file", 1, []string{"export", "--json", "--to", wrong, "--passphrase-file", p.pass}, []string{"file exists"}},
		{"no chain", 2, []string{"chain", "use", "ethereum"}, []string{"no chain that is known"}},
		{"a chain that is none", 1, []string{"chain", "use", wrong}, []string{"not a profile of a chain"}},
		{"no limit", 2, []string{"limit", "set"}, []string{"--per-hour"}},
		{"a limit of nonsense", 2, []string{"limit", "set", "--per-day", "all"}, []string{`--per-day "all"`}},
		{"no time", 2, []string{"ledger", "--since", "yesterday"}, []string{`--since "yesterday"`, "2026-01-31"}},
		{"no hash", 2, []string{"tx", "--cancel", "0x12"}, []string{"no hash"}},
		{"no such transaction", 1, []string{"tx", "--cancel", "0x" + strings.Repeat("1", 64)}, []string{"no such transaction"}},
		{"nothing below", 2, []string{"lock"}, []string{`"lock" is no command of btmount wallet`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := p.run(append([]string{"wallet"}, c.args...)...)
			if i := strings.Index(got.stdout, "what "); i == 0 { // the plan was shown first
				got.stdout = ""
			}
			if got.code != c.code {
				t.Errorf("exit code %d, want %d", got.code, c.code)
			}
			holdsOneLine(t, got, c.want)
		})
	}
	got := p.run("wallet", "send", walletPayee, "1", "--passphrase-file", p.pass)
	if got.code != 2 || !strings.Contains(got.stderr, "--yes") {
		t.Errorf("nobody agreed: %+v", got)
	}
	if n := p.chain.Nonce(address(t, walletOwn)); n != 0 || strings.Contains(p.ok("wallet", "ledger"), "paid") {
		t.Errorf("%d were sent", n)
	}
	// A node of another chain.
	p.use(func(m string, _ []any, next func() (json.RawMessage, error)) (json.RawMessage, error) {
		if m == "eth_chainId" {
			return json.RawMessage(`"0x1"`), nil
		}
		return next()
	})
	holdsOneLine(t, p.run("wallet", "send", walletPayee, "1", "--yes", "--passphrase-file", p.pass), []string{"no node can be used", "it is of another chain: 1, and own is 199"})
	// A folder that others may enter.
	if err := os.Chmod(p.path("home/.local/state/btmount/wallet/keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	holdsOneLine(t, p.run("wallet", "address"), []string{"others may read", "chmod 700"})
	if err := os.Chmod(p.path("home/.local/state/btmount/wallet/keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.noSecrets()
}
