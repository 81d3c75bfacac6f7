package wallet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/accounts/keystore"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"

	"github.com/btmount/btmount/wallet/durable"
)

// Errors of keys.
var (
	ErrPassphrase = errors.New("wrong passphrase")
	ErrNoAccount  = errors.New("no such account")
	ErrKnown      = errors.New("the account is there already")
	ErrKeystore   = errors.New("not a keystore file that is understood (Web3 Secret Storage, version 3)")
	ErrKey        = errors.New("not a private key: give 64 hexadecimal digits")
)

// MinPassphrase are the fewest bytes of a passphrase for a new key.
const MinPassphrase = 8

const maxKeyFile = 16 << 10 // bytes; they have about 500

// Signer signs for one account. A key in a file is one ([Key]).
type Signer interface {
	Address() Address
	// SignTx signs for the chain of that id only (EIP-155).
	SignTx(ctx context.Context, tx *types.Transaction, chain uint64) (*types.Transaction, error)
}

// Account is a key file.
type Account struct {
	Address Address `json:"address"`
	Path    string  `json:"path"`
}

// Keys is a folder of key files.
type Keys struct {
	dir string
	n   int // scrypt's cost
	p   int
	now func() time.Time
}

// OpenKeys makes the folder, of mode 0700, if it is not there. It refuses a folder that others
// may enter (durable.ErrLoose).
func OpenKeys(dir string) (*Keys, error) {
	if err := durable.Folder(dir); err != nil {
		return nil, err
	}
	return &Keys{dir, keystore.StandardScryptN, keystore.StandardScryptP, time.Now}, nil
}

// OpenLightKeys is OpenKeys for tests: keys are encrypted in no time, and guessed as fast.
func OpenLightKeys(dir string) (*Keys, error) {
	k, err := OpenKeys(dir)
	if err == nil {
		k.n, k.p = 2, 1
	}
	return k, err
}

// List returns the accounts, oldest first. It fails if one of the files can be read by others,
// or is no key file: a key that cannot be used is not passed over in silence.
func (k *Keys) List() (all []Account, err error) {
	entries, err := os.ReadDir(k.dir) // sorted by name, which begins with the time
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // a write that a crash broke off
		}
		path := filepath.Join(k.dir, e.Name())
		text, err := durable.ReadSecret(path, maxKeyFile)
		if err != nil {
			return nil, err
		}
		f, err := parseKeystore(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		a, _, err := ParseAddress("0x" + strings.TrimPrefix(f.Address, "0x"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, Account{a, path})
	}
	return all, nil
}

// Find returns the account of an address.
func (k *Keys) Find(a Address) (Account, error) {
	all, err := k.List()
	for _, acc := range all {
		if acc.Address == a {
			return acc, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", a, ErrNoAccount)
	}
	return Account{}, err
}

// New makes a key from the system's randomness.
func (k *Keys) New(passphrase []byte) (Account, error) {
	key, err := crypto.GenerateKey()
	if err != nil {
		return Account{}, err
	}
	return k.store(key, passphrase)
}

// ImportHex stores a private key of 64 hexadecimal digits, with or without 0x.
func (k *Keys) ImportHex(text, passphrase []byte) (Account, error) {
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("0x"))
	raw := make([]byte, 32)
	defer clear(raw)
	if len(text) != 64 {
		return Account{}, ErrKey
	}
	if _, err := hex.Decode(raw, text); err != nil {
		return Account{}, ErrKey // hex's error has a digit of it
	}
	key, err := crypto.ToECDSA(raw)
	if err != nil {
		return Account{}, ErrKey // 0, or beyond the order of the curve
	}
	return k.store(key, passphrase)
}

// ImportKeystore stores the key of a key file, under the same passphrase and with scrypt's
// standard cost, whatever the file had.
func (k *Keys) ImportKeystore(text, passphrase []byte) (Account, error) {
	key, err := decrypt(text, passphrase)
	if err != nil {
		return Account{}, err
	}
	return k.store(key, passphrase)
}

// ImportMnemonic stores the key of number index (m/44'/60'/0'/0/index, BIP-44) of the seed
// of English words (BIP-39).
func (k *Keys) ImportMnemonic(words []byte, index uint32, passphrase []byte) (Account, error) {
	key, err := keyOfMnemonic(words, index)
	if err != nil {
		return Account{}, err
	}
	return k.store(key, passphrase)
}

// store encrypts a key, reads back what will be written, and writes it. It wipes the key.
func (k *Keys) store(key *ecdsa.PrivateKey, passphrase []byte) (Account, error) {
	defer wipe(key)
	if len(passphrase) < MinPassphrase {
		return Account{}, fmt.Errorf("the passphrase is too short: give %d characters or more", MinPassphrase)
	}
	acc := Account{Address: crypto.PubkeyToAddress(key.PublicKey)}
	if _, err := k.Find(acc.Address); err == nil {
		return Account{}, fmt.Errorf("%s: %w", acc.Address, ErrKnown)
	} else if !errors.Is(err, ErrNoAccount) {
		return Account{}, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return Account{}, err
	}
	text, err := keystore.EncryptKey(&keystore.Key{Id: id, Address: acc.Address, PrivateKey: key}, string(passphrase), k.n, k.p)
	if err != nil {
		return Account{}, err
	}
	again, err := decrypt(text, passphrase) // a key that cannot be read is money that is lost
	if err != nil {
		return Account{}, err
	}
	defer wipe(again)
	if !again.Equal(key) {
		return Account{}, fmt.Errorf("%s: the key does not decrypt to itself; nothing was written", acc.Address)
	}
	// The name that geth gives.
	name := fmt.Sprintf("UTC--%s--%x", k.now().UTC().Format("2006-01-02T15-04-05.000000000Z"), acc.Address)
	acc.Path = filepath.Join(k.dir, name)
	return acc, durable.WriteFile(acc.Path, text, false)
}

// Key is a key in memory, decrypted.
type Key struct {
	address Address
	private *ecdsa.PrivateKey
}

// Unlock decrypts the key of an account. Close it soon. The error is ErrPassphrase if that is
// it; scrypt makes every try cost the same.
func (k *Keys) Unlock(a Address, passphrase []byte) (*Key, error) {
	acc, err := k.Find(a)
	if err != nil {
		return nil, err
	}
	text, err := durable.ReadSecret(acc.Path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := decrypt(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", acc.Path, err)
	}
	if got := crypto.PubkeyToAddress(key.PublicKey); got != a {
		wipe(key)
		return nil, fmt.Errorf("%s: it holds the key of %s", acc.Path, got)
	}
	return &Key{a, key}, nil
}

// Address returns the account.
func (k *Key) Address() Address { return k.address }

// SignTx signs a transaction for one chain.
func (k *Key) SignTx(_ context.Context, tx *types.Transaction, chain uint64) (*types.Transaction, error) {
	return types.SignTx(tx, types.LatestSignerForChainID(new(big.Int).SetUint64(chain)), k.private)
}

// Hex returns the private key in 64 hexadecimal digits, for export.
func (k *Key) Hex() []byte {
	raw := crypto.FromECDSA(k.private)
	defer clear(raw)
	return hex.AppendEncode(nil, raw)
}

// Close wipes the key. Copies that the libraries made while they computed stay until the
// memory is used again: Go has no way to reach them.
func (k *Key) Close() { wipe(k.private) }

func wipe(key *ecdsa.PrivateKey) {
	//lint:ignore SA1019 there is no other way to the words of the number
	clear(key.D.Bits())
}

// keystoreFile is what we look at before we let go-ethereum read a key file.
type keystoreFile struct {
	Address string `json:"address"`
	ID      string `json:"id"`
	Version int    `json:"version"`
	Crypto  struct {
		Cipher       string `json:"cipher"`
		CipherText   string `json:"ciphertext"`
		CipherParams struct {
			IV string `json:"iv"`
		} `json:"cipherparams"`
		KDF       string `json:"kdf"`
		KDFParams struct {
			N     int    `json:"n"`
			R     int    `json:"r"`
			P     int    `json:"p"`
			C     int    `json:"c"`
			PRF   string `json:"prf"`
			DKLen int    `json:"dklen"`
			Salt  string `json:"salt"`
		} `json:"kdfparams"`
		MAC string `json:"mac"`
	} `json:"crypto"`
}

// parseKeystore checks a key file. go-ethereum v1.17.10 panics on parameters of other types
// and on a short dklen, and takes as much memory as a file says.
func parseKeystore(text []byte) (f keystoreFile, err error) {
	if len(text) > maxKeyFile || json.Unmarshal(text, &f) != nil || f.Version != 3 {
		return f, ErrKeystore
	}
	c, p := f.Crypto, f.Crypto.KDFParams
	if c.Cipher != "aes-128-ctr" || p.DKLen != 32 || !isHex(c.CipherText, 32, 32) || !isHex(c.CipherParams.IV, 16, 16) || !isHex(c.MAC, 32, 32) || !isHex(p.Salt, 1, 256) {
		return f, ErrKeystore
	}
	if _, err := uuid.Parse(f.ID); err != nil {
		return f, ErrKeystore
	}
	switch c.KDF {
	case "scrypt": // 128*n*r bytes of memory, at most 512 MiB
		if p.N < 2 || p.N > 1<<22 || p.N&(p.N-1) != 0 || p.R < 1 || p.R > 64 || p.N*p.R > 1<<22 || p.P < 1 || p.P > 16 {
			return f, ErrKeystore
		}
	case "pbkdf2":
		if p.PRF != "hmac-sha256" || p.C < 1 || p.C > 10_000_000 {
			return f, ErrKeystore
		}
	default:
		return f, ErrKeystore
	}
	return f, nil
}

func isHex(s string, least, most int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) >= least && len(b) <= most
}

// decrypt reads the key of a key file. What we did not look at is not passed on: the JSON
// that go-ethereum reads is written anew from what we did, so no name that stands there
// twice, or in other letters, is read in two ways.
func decrypt(text, passphrase []byte) (*ecdsa.PrivateKey, error) {
	f, err := parseKeystore(text)
	if err != nil {
		return nil, err
	}
	clean, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	key, err := keystore.DecryptKey(clean, string(passphrase))
	switch {
	case errors.Is(err, keystore.ErrDecrypt):
		return nil, ErrPassphrase
	case err != nil:
		return nil, ErrKeystore
	}
	return key.PrivateKey, nil
}

// Only returns the one account, or that of the address if one is given.
func (k *Keys) Only(from *Address) (Account, error) {
	if from != nil {
		return k.Find(*from)
	}
	all, err := k.List()
	switch {
	case err != nil:
		return Account{}, err
	case len(all) == 0:
		return Account{}, fmt.Errorf("%w: make one with btmount wallet new", ErrNoAccount)
	case len(all) > 1:
		var names []string
		for _, a := range all {
			names = append(names, a.Address.Hex())
		}
		slices.Sort(names)
		return Account{}, fmt.Errorf("there are several accounts; say which with --from: %s", strings.Join(names, ", "))
	}
	return all[0], nil
}
