package wallet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"math/big"

	"github.com/cosmos/go-bip39"
	"github.com/ethereum/go-ethereum/crypto"
)

// ErrMnemonic says that words are no mnemonic.
var ErrMnemonic = errors.New("not a mnemonic of BIP-39: give 12, 15, 18, 21 or 24 English words; their checksum has to be right")

const hardened = 1 << 31 // of an index, BIP-32

// keyOfMnemonic derives m/44'/60'/0'/0/index (BIP-44, coin 60, which BTTC shares with
// Ethereum). Seeds with a passphrase of their own (BIP-39's 25th word) are not supported.
func keyOfMnemonic(words []byte, index uint32) (*ecdsa.PrivateKey, error) {
	text := string(bytes.Join(bytes.Fields(words), []byte(" ")))
	// Its IsMnemonicValid does not look at the checksum; this does.
	if _, err := bip39.MnemonicToByteArray(text); err != nil || index >= hardened {
		return nil, ErrMnemonic // the library's error names a word of it
	}
	// English words are ASCII, so there is nothing to normalize (NFKD).
	seed, err := pbkdf2.Key(sha512.New, text, []byte("mnemonic"), 2048, 64)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return derive(seed, 44|hardened, 60|hardened, 0|hardened, 0, index)
}

// derive is BIP-32's derivation of private keys.
func derive(seed []byte, path ...uint32) (*ecdsa.PrivateKey, error) {
	order := crypto.S256().Params().N
	key, chain := split(hmac512([]byte("Bitcoin seed"), seed))
	if key.Sign() == 0 || key.Cmp(order) >= 0 {
		return nil, ErrMnemonic // of 2^127 seeds one
	}
	for _, i := range path {
		raw := make([]byte, 37)
		if i >= hardened {
			key.FillBytes(raw[1:33])
		} else {
			parent, err := crypto.ToECDSA(key.FillBytes(make([]byte, 32)))
			if err != nil {
				return nil, err
			}
			copy(raw, crypto.CompressPubkey(&parent.PublicKey))
			wipe(parent)
		}
		binary.BigEndian.PutUint32(raw[33:], i)
		tweak, next := split(hmac512(chain, raw))
		clear(raw)
		if tweak.Cmp(order) >= 0 {
			return nil, ErrMnemonic
		}
		key.Add(key, tweak).Mod(key, order)
		if key.Sign() == 0 {
			return nil, ErrMnemonic
		}
		chain = next
	}
	raw := key.FillBytes(make([]byte, 32))
	defer clear(raw)
	defer clear(key.Bits())
	return crypto.ToECDSA(raw)
}

func hmac512(key, text []byte) []byte {
	h := hmac.New(sha512.New, key)
	h.Write(text)
	return h.Sum(nil)
}

func split(sum []byte) (key *big.Int, chain []byte) {
	return new(big.Int).SetBytes(sum[:32]), sum[32:]
}
