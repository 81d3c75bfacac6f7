package names

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

const (
	maxKey    = 128 // characters of a peer id
	maxDomain = 253
	maxLabel  = 63
)

// ParseKey reads a peer id as people write it: base58 (16Uiu2…, 12D3…, Qm…), or a CID of
// codec libp2p-key in any base (k51…, bafz…).
func ParseKey(text string) (peer.ID, error) {
	if len(text) > maxKey {
		return "", fmt.Errorf("%.24q…: %d characters; a peer id has 46 to 70", text, len(text))
	}
	id, err := peer.Decode(text)
	if err != nil {
		return "", fmt.Errorf("%q: not a peer id; one begins with 16Uiu2, k51 or Qm, check that it is whole", text)
	}
	return id, checkID(id)
}

// checkID returns an error unless an id is the hash of a key, or a key.
func checkID(id peer.ID) error {
	h, err := multihash.Decode([]byte(id))
	if err != nil || h.Code != multihash.SHA2_256 && h.Code != multihash.IDENTITY || h.Code == multihash.SHA2_256 && h.Length != 32 {
		return errors.New("a peer id with another hash than sha2-256")
	}
	return nil
}

// FormatKey writes a peer id as go-btfs prints names: base36, k51… or k2k4….
func FormatKey(id peer.ID) string {
	c := peer.ToCid(id)
	s, err := c.StringOfBase('k')
	if err != nil {
		return id.String()
	}
	return s
}

// isDomain reports whether a text can be looked up in DNS. Peer ids have no dots.
func isDomain(text string) bool { return strings.Contains(text, ".") }

// checkDomain returns an error unless a text is a domain. It has to be one of ASCII, as a
// resolver sees no other.
func checkDomain(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > maxDomain {
		return "", fmt.Errorf("%.24q…: a domain of %d characters; at most %d", text, len(name), maxDomain)
	}
	for label := range strings.SplitSeq(name, ".") {
		ok := label != "" && len(label) <= maxLabel
		for _, c := range []byte(label) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			return "", fmt.Errorf("%q: not a domain; one with other letters than a to z is written as xn--…", text)
		}
	}
	return name, nil
}
