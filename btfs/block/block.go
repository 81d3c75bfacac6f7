// Package block knows what a DAG block of BTFS is: bytes that a CID names by their hash,
// and that are worth nothing until they were checked against it.
//
// A CID says which hash, and of what the bytes are a form. Both are words of a stranger,
// so only what BTFS itself writes passes: sha2-256, or bytes that stand in the CID
// (identity) up to 128 of them, and the codecs dag-pb and raw. Rejected: every hash that
// the libraries know. Nothing needs them, several are broken, and one that is cut to 20
// bits would verify whatever a gateway likes.
//
// It is a leaf below package btfs: it does no I/O.
package block

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Limits on blocks and on CIDs.
const (
	MaxSize     = 2 << 20 // of a block: what BTFS nodes send each other at most
	MaxIdentity = 128     // of a block that stands in its CID
	maxText     = 512     // of a CID as text
)

// Errors that somebody decides on.
var (
	ErrWrongBytes = errors.New("the bytes are not those of the CID")
	ErrTooLarge   = errors.New("larger than 2 MiB, which no BTFS block is")
)

// Parse reads a CID as people write it, and checks that it is one of ours.
func Parse(text string) (cid.Cid, error) {
	if len(text) > maxText {
		return cid.Undef, fmt.Errorf("%q…: not a CID: %d characters; one begins with Qm or baf and has 46 to 60", text[:24], len(text))
	}
	c, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, fmt.Errorf("%q: not a CID (%w); one begins with Qm or baf, check that it is whole", text, plain(err))
	}
	if err := Check(c); err != nil {
		return cid.Undef, fmt.Errorf("%s: %w", text, err)
	}
	return c, nil
}

// plain drops what the library says before each of its errors.
func plain(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "invalid cid: "))
}

// Check returns an error unless blocks of c can be verified and understood.
func Check(c cid.Cid) error {
	if !c.Defined() {
		return errors.New("a link to what is no CID")
	}
	switch p := c.Prefix(); {
	case p.Codec != cid.DagProtobuf && p.Codec != cid.Raw:
		return fmt.Errorf("codec 0x%x: BTFS files are dag-pb or raw", p.Codec)
	case p.MhType == multihash.SHA2_256 && p.MhLength == sha256.Size:
		return nil
	case p.MhType == multihash.IDENTITY && p.MhLength <= MaxIdentity:
		return nil
	case p.MhType == multihash.IDENTITY:
		return fmt.Errorf("an identity CID of %d bytes: at most %d", p.MhLength, MaxIdentity)
	case p.MhType == multihash.SHA2_256:
		return fmt.Errorf("a hash of %d bytes: sha2-256 has %d", p.MhLength, sha256.Size)
	default:
		return fmt.Errorf("hash %s: only sha2-256 can be verified", hashName(p.MhType))
	}
}

func hashName(code uint64) string {
	if name, ok := multihash.Codes[code]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", code)
}

// Verify returns an error unless data are the bytes that c names.
func Verify(c cid.Cid, data []byte) error {
	if err := Check(c); err != nil {
		return err
	}
	if len(data) > MaxSize {
		return ErrTooLarge
	}
	if want, ok := Inline(c); ok {
		if !bytes.Equal(want, data) {
			return ErrWrongBytes
		}
		return nil
	}
	if h := sha256.Sum256(data); !bytes.Equal(digest(c), h[:]) {
		return ErrWrongBytes
	}
	return nil
}

// Inline returns the bytes of an identity CID, which is its own block.
func Inline(c cid.Cid) ([]byte, bool) {
	if !c.Defined() || c.Prefix().MhType != multihash.IDENTITY || Check(c) != nil {
		return nil, false
	}
	return digest(c), true
}

// CID is a content identifier, for packages that only pass it on.
type CID = cid.Cid

// Digest returns the SHA-256 in a CID; ok is false if its bytes need no source, or if Check
// has something against it.
func Digest(c CID) (d [sha256.Size]byte, ok bool) {
	if Check(c) != nil || c.Prefix().MhType != multihash.SHA2_256 {
		return d, false
	}
	return [sha256.Size]byte(digest(c)), true
}

// Canonical returns the text of a CID in version 1: the same for all forms of one CID, and a
// file name.
func Canonical(c CID) string { return cid.NewCidV1(c.Type(), c.Hash()).String() }

// Leads reports whether the bytes of a block lead to others: dag-pb is written with its
// links first. They are not checked.
func Leads(c CID, b []byte) bool { return c.Type() == cid.DagProtobuf && len(b) > 0 && b[0] == 0x12 }

// Same reports whether two CIDs name the same bytes: they may differ in version, base
// and codec.
func Same(a, b cid.Cid) bool { return bytes.Equal(a.Hash(), b.Hash()) }

// digest is the hash in a CID that passed Check.
func digest(c cid.Cid) []byte {
	d, err := multihash.Decode(c.Hash())
	if err != nil {
		panic("block: a CID with a broken hash: " + err.Error()) // package cid checked it
	}
	return d.Digest
}
