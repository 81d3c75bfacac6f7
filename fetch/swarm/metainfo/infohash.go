package metainfo

import (
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

// InfoHash names a torrent: the SHA-1 of its info dict (BEP 3), or the first 20
// bytes of the SHA-256 when there is no v1 half (BEP 52), which is also what
// trackers, DHT and handshakes carry.
type InfoHash [20]byte

// String returns the usual 40 hex digits.
func (h InfoHash) String() string { return hex.EncodeToString(h[:]) }

// ParseInfoHash reads 40 hex digits or, as old magnet links have it, 32
// characters of base32.
func ParseInfoHash(s string) (InfoHash, error) {
	var h InfoHash
	var b []byte
	var err error
	switch len(s) {
	case 40:
		b, err = hex.DecodeString(s)
	case 32:
		b, err = base32.StdEncoding.DecodeString(strings.ToUpper(s))
	default:
		return h, fmt.Errorf("info-hash %s: must be 40 hex digits or 32 of base32", quote([]byte(s)))
	}
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("info-hash %s: must be 40 hex digits or 32 of base32", quote([]byte(s)))
	}
	copy(h[:], b)
	return h, nil
}
