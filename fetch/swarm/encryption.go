package swarm

import (
	"errors"
	"fmt"

	"github.com/anacrolix/torrent/mse"
)

// Encryption says whether connections use the obfuscated handshake (MSE/PE) and RC4.
// It hides from who looks at the line that this is BitTorrent. It is no secret from who
// knows the info-hash, and proves nothing of anybody.
type Encryption uint8

// The kinds of Encryption, as --encryption names them.
const (
	// EncryptionAllow speaks in the clear first, which costs one round trip and no work
	// for a processor, and obfuscates if a peer hangs up on that. Who calls may do both.
	EncryptionAllow Encryption = iota
	// EncryptionPrefer obfuscates first and chooses RC4 where there is a choice, and
	// speaks in the clear with those who know nothing else.
	EncryptionPrefer
	// EncryptionRequire speaks RC4 or not at all.
	EncryptionRequire
	// EncryptionForbid speaks in the clear or not at all.
	EncryptionForbid
)

var encryptions = []string{"allow", "prefer", "require", "forbid"}

// ParseEncryption reads the name of a kind; "" is allow.
func ParseEncryption(s string) (Encryption, error) {
	for i, name := range encryptions {
		if s == name || s == "" {
			return Encryption(i), nil
		}
	}
	return 0, fmt.Errorf("encryption %.40q: give allow, prefer, require or forbid", s)
}

var (
	errClear   = errors.New("not encrypted, and that is required")
	errEncrypt = errors.New("encrypted, and that is forbidden")
)

// tries are the handshakes to dial with, in order: obfuscated or not.
func (e Encryption) tries() []bool {
	return [][]bool{{false, true}, {true, false}, {true}, {false}}[e]
}

// provide is what is offered to a peer that is dialled.
func (e Encryption) provide() mse.CryptoMethod {
	if e == EncryptionRequire {
		return mse.CryptoMethodRC4
	}
	return mse.AllSupportedCrypto
}

// choose chooses of what a peer offers that calls. 0 ends the handshake.
func (e Encryption) choose(offered mse.CryptoMethod) mse.CryptoMethod {
	rc4, clear := offered&mse.CryptoMethodRC4, offered&mse.CryptoMethodPlaintext
	switch {
	case e == EncryptionRequire, e == EncryptionPrefer && rc4 != 0, clear == 0:
		return rc4
	}
	return clear
}
