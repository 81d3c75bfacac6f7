package wallet

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/wallet/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	pass   = "correct horse battery"
	aKey   = "b71c71a67e1177ad4e901695e1b4b9ee17ae16c6668d313eac2f96dbcda3f291"
	aPlace = "0x71562b71999873DB5b286dF957af199Ec94617F7"
)

func newKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := OpenLightKeys(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeys(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	acc, err := k.New([]byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(acc.Path); err != nil || st.Mode() != 0o600 {
		t.Error(st.Mode(), err)
	}
	key, err := k.Unlock(acc.Address, []byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	tx := types.NewTx(&types.LegacyTx{To: &acc.Address, Gas: 21000, GasPrice: big.NewInt(1), Value: big.NewInt(1)})
	signed, err := key.SignTx(context.Background(), tx, 199)
	if err != nil {
		t.Fatal(err)
	}
	if from, err := types.Sender(types.NewEIP155Signer(big.NewInt(199)), signed); err != nil || from != acc.Address {
		t.Error(from, err)
	}
	if _, err := types.Sender(types.NewEIP155Signer(big.NewInt(1029)), signed); err == nil {
		t.Error("it is good on another chain")
	}
	key.Close()
	if hex := string(key.Hex()); strings.Trim(hex, "0") != "" {
		t.Error("the key is not wiped")
	}
	if _, err := k.Unlock(acc.Address, []byte(pass+"r")); !errors.Is(err, ErrPassphrase) {
		t.Error(err)
	}
	if _, err := k.New([]byte("short")); err == nil {
		t.Error("a short passphrase is taken")
	}
	// What a crash leaves of a write is no account.
	if err := os.WriteFile(filepath.Join(k.dir, ".new-1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := k.List(); err != nil || len(all) != 1 || all[0] != acc {
		t.Error(all, err)
	}
	// A loose file, or one that is no key, is not passed over.
	for _, c := range []struct {
		mode os.FileMode
		text string
		want error
	}{{0o640, "", durable.ErrLoose}, {0o600, "{}", ErrKeystore}} {
		path := filepath.Join(k.dir, "other")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := k.List(); !errors.Is(err, c.want) {
			t.Error(err)
		}
		os.Remove(path)
	}
	// Somebody puts another key into the file.
	other, err := newKeys(t).New([]byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(other.Path)
	swapped := strings.Replace(string(text), strings.ToLower(other.Address.Hex()[2:]), strings.ToLower(acc.Address.Hex()[2:]), 1)
	if err := os.WriteFile(acc.Path, []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unlock(acc.Address, []byte(pass)); err == nil || !strings.Contains(err.Error(), "it holds the key of "+other.Address.Hex()) {
		t.Error(err)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	for _, bad := range []string{"", aKey[1:], aKey + "0", "0x" + aKey[2:], strings.Repeat("0", 64), strings.Repeat("f", 64), "zz" + aKey[2:]} {
		if _, err := k.ImportHex([]byte(bad), []byte(pass)); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	acc, err := k.ImportHex([]byte("0x"+aKey+"\n"), []byte(pass))
	if err != nil || acc.Address.Hex() != aPlace {
		t.Fatal(acc, err)
	}
	if _, err := k.ImportHex([]byte(aKey), []byte(pass)); !errors.Is(err, ErrKnown) {
		t.Error(err)
	}
	text, _ := os.ReadFile(acc.Path)
	if strings.Contains(string(text), aKey) || strings.Contains(string(text), pass) {
		t.Error("a secret is in the file")
	}
	other := newKeys(t)
	if _, err := other.ImportKeystore(text, []byte(pass+" ")); !errors.Is(err, ErrPassphrase) {
		t.Error(err)
	}
	if again, err := other.ImportKeystore(text, []byte(pass)); err != nil || again.Address != acc.Address {
		t.Error(again, err)
	}
}

// The test vectors of Web3 Secret Storage, with scrypt and PBKDF2.
func TestKeystoreVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/v3_test_vector.json") // go-ethereum's
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		JSON           json.RawMessage
		Password, Priv string
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for name, v := range all {
		key, err := decrypt(v.JSON, []byte(v.Password))
		if err != nil {
			if name == "31_byte_key" || name == "30_byte_key" {
				continue // keys that are cut short: no wallet writes them
			}
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tried++; hex.EncodeToString(crypto.FromECDSA(key)) != v.Priv {
			t.Error(name)
		}
	}
	if tried < 2 {
		t.Error(tried)
	}
}

// BIP-32's first test vector, and the accounts that every test node derives from these words.
func TestMnemonic(t *testing.T) {
	t.Parallel()
	seed, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f")
	key, err := derive(seed, 0|hardened, 1, 2|hardened, 2, 1000000000)
	if err != nil || hex.EncodeToString(crypto.FromECDSA(key)) != "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8" {
		t.Error(err)
	}
	k := newKeys(t)
	const words = "test test test test test test test test test test test junk"
	for i, want := range []string{"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"} {
		if acc, err := k.ImportMnemonic([]byte(" "+strings.ReplaceAll(words, " ", "\n")+"\n"), uint32(i), []byte(pass)); err != nil || acc.Address.Hex() != want {
			t.Error(acc, err)
		}
	}
	for _, bad := range []string{"", "test", words + " junk", strings.Replace(words, "junk", "test", 1), strings.ToUpper(words), strings.Replace(words, "junk", "jünk", 1)} {
		if _, err := k.ImportMnemonic([]byte(bad), 0, []byte(pass)); !errors.Is(err, ErrMnemonic) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := k.ImportMnemonic([]byte(words), hardened, []byte(pass)); !errors.Is(err, ErrMnemonic) {
		t.Error(err)
	}
}

// EIP-55's own examples, and what becomes of them with one letter changed.
func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"0x52908400098527886E0F7030069857D2E4169EE7", "0xde709f2102306220921060314715629080e2fb77", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"} {
		if a, checked, err := ParseAddress(good); err != nil || !checked || a.Hex() != good {
			t.Error(good, checked, err)
		}
		if _, checked, err := ParseAddress(strings.ToLower(good)); err != nil || checked != (good == strings.ToLower(good)) {
			t.Error(strings.ToLower(good), checked, err)
		}
	}
	for _, bad := range []string{
		"", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg", "0x0000000000000000000000000000000000000000", "vitalik.eth",
	} {
		if a, _, err := ParseAddress(bad); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %s, %v", bad, a, err)
		}
	}
}

// FuzzKeystore: no key file makes us panic, or take more memory or time than we allow.
func FuzzKeystore(f *testing.F) {
	k := newKeys(f)
	acc, err := k.ImportHex([]byte(aKey), []byte(pass))
	if err != nil {
		f.Fatal(err)
	}
	text, _ := os.ReadFile(acc.Path)
	f.Add(text)
	f.Add([]byte(strings.Replace(string(text), `"dklen":32`, `"dklen":8`, 1)))
	f.Add([]byte(strings.Replace(string(text), `"n":2`, `"n":"2","N":4`, 1)))
	f.Add([]byte(strings.Replace(string(text), `"scrypt"`, `"pbkdf2"`, 1)))
	f.Add([]byte(`{"version":"1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parseKeystore(text)
		if err != nil || p.Crypto.KDFParams.N > 1024 || p.Crypto.KDFParams.C > 10000 {
			return // allowed, and slow
		}
		if key, err := decrypt(text, []byte(pass)); err == nil && key == nil {
			t.Error("neither a key nor an error")
		}
	})
}
