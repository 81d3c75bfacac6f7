package btns

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

const maxKey = 128 // characters of a peer id

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
