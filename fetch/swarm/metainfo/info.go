package metainfo

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
)

const (
	minPieceLength = 16 << 10
	maxPieceLength = 64 << 20
	// maxPieces bounds what the engine keeps per piece. A v1 torrent brings 20
	// bytes for each, but a v2 one can claim 2^48 pieces in a hundred bytes.
	maxPieces = 1 << 21
)

// Info is a checked info dict. It is immutable and shares nothing with the
// input that it was parsed from.
type Info struct {
	Hash   InfoHash // v1, or truncated v2 if there is no v1
	HashV2 [32]byte // zero unless V2
	V1, V2 bool     // which halves exist; both in a hybrid
	Raw    []byte   // the bencoded dict exactly as hashed

	Name        string // untrusted bytes, never empty; "name.utf-8" preferred
	PieceLength int64
	// Length is the byte space that the pieces cut up: all files one after the
	// other, pad files included.
	Length  int64
	Single  bool // one file and no directory around it; its Path is Name alone
	Private bool // BEP 27

	// Files tile [0, Length) in order, pads and symlinks included. The gaps that
	// BEP 52 leaves between the files of a v2-only torrent are shown as pads.
	Files []File

	pieces []byte // v1: 20 bytes each, part of Raw
}

// File is one file of a torrent.
type File struct {
	Path           []string // untrusted, below Info.Name; never empty
	Offset, Length int64    // in the byte space of the pieces
	Pad            bool     // holds zeros for alignment only, not to be shown
	Exec, Hidden   bool
	Symlink        []string // target, from the torrent's root; nil unless a symlink
	Root           [32]byte // v2: pieces root; zero if empty, a symlink, or no v2
}

// NumPieces is the number of pieces.
func (in *Info) NumPieces() int {
	return int((in.Length + in.PieceLength - 1) / in.PieceLength)
}

// PieceHash is the v1 SHA-1 of piece n. It is all zeros for a v2-only torrent
// (V1 false): those pieces are checked by Merkle tree against File.Root.
func (in *Info) PieceHash(n int) (h [20]byte) {
	if in.V1 {
		copy(h[:], in.pieces[n*20:])
	}
	return h
}

// PieceSize is the number of bytes of piece n, shorter only for the last one.
func (in *Info) PieceSize(n int) int64 {
	return min(in.PieceLength, in.Length-int64(n)*in.PieceLength)
}

// Short is the v2 info-hash as handshakes, trackers and the DHT have it: cut to 20
// bytes. It is zero without a v2 half, and Hash without a v1 half.
func (in *Info) Short() (h InfoHash) {
	copy(h[:], in.HashV2[:])
	return h
}

// ParseInfo reads an info dict alone, as it comes from a peer (BEP 9). The
// caller still has to compare Hash or HashV2 with what it asked for.
func ParseInfo(b []byte) (*Info, error) {
	v, end, err := scan(b, infoLimits)
	if err != nil {
		return nil, err
	}
	if end != len(b) {
		return nil, fmt.Errorf("%d bytes follow the info dict", len(b)-end)
	}
	return parseInfo(v)
}

func parseInfo(v value) (*Info, error) {
	if v.kind() != 'd' {
		return nil, errors.New("info is not a dict")
	}
	in := &Info{Raw: bytes.Clone(v.raw())}
	if err := in.parseHead(v); err != nil {
		return nil, err
	}
	if err := in.parseFiles(v); err != nil {
		return nil, err
	}
	if err := in.checkLength(); err != nil {
		return nil, err
	}
	if in.V2 {
		in.HashV2 = sha256.Sum256(in.Raw)
		copy(in.Hash[:], in.HashV2[:])
	}
	if in.V1 {
		in.Hash = sha1.Sum(in.Raw)
	}
	return in, nil
}

// parseHead reads everything but the files, and decides which halves exist.
func (in *Info) parseHead(v value) error {
	var ok bool
	if in.Name, ok = v.get("name.utf-8").str(); !ok || in.Name == "" {
		if in.Name, ok = v.get("name").str(); !ok || in.Name == "" {
			return errors.New("info has no name")
		}
	}
	pl := v.get("piece length")
	if in.PieceLength, ok = pl.integer(); !ok {
		return errors.New("piece length is missing or not a number")
	}
	if in.PieceLength < minPieceLength || in.PieceLength > maxPieceLength {
		return fmt.Errorf("piece length %d: must be 16 KiB to 64 MiB", in.PieceLength)
	}
	private, _ := v.get("private").integer()
	in.Private = private != 0 // the careful reading of a value that should be 0 or 1
	if err := in.parseVersion(v); err != nil {
		return err
	}
	if p := v.get("pieces"); p.kind() != 0 {
		b, ok := p.bytes()
		if !ok || len(b)%20 != 0 {
			return errors.New("pieces is not a string of 20-byte hashes")
		}
		in.V1, in.pieces = true, bytes.Clone(b)
	}
	if !in.V1 && !in.V2 {
		return errors.New("pieces is missing")
	}
	return nil
}

func (in *Info) parseVersion(v value) error {
	mv := v.get("meta version")
	if mv.kind() == 0 {
		if v.get("file tree").kind() != 0 {
			return errors.New("file tree without a meta version")
		}
		return nil
	}
	switch n, ok := mv.integer(); {
	case !ok:
		return errors.New("meta version is not a number")
	case n == 2:
		in.V2 = true
	case n != 1:
		return fmt.Errorf("meta version %d: only 1 and 2 are known", n)
	case v.get("file tree").kind() != 0:
		return errors.New("file tree in a torrent of meta version 1")
	}
	if in.V2 && bits.OnesCount64(uint64(in.PieceLength)) != 1 {
		return fmt.Errorf("piece length %d: must be a power of two in a v2 torrent", in.PieceLength)
	}
	return nil
}

// parseFiles reads the one or two file lists. In a hybrid the v1 list is kept,
// because it has the pads, and gets the roots of the v2 one.
func (in *Info) parseFiles(v value) error {
	var tree []File
	var err error
	if in.V2 {
		if tree, err = in.parseTree(v.get("file tree")); err != nil {
			return err
		}
	}
	if !in.V1 {
		if v.get("files").kind() != 0 || v.get("length").kind() != 0 {
			return errors.New("v1 files without pieces")
		}
		in.Files = in.addPads(tree)
		in.Single = len(tree) == 1 && len(tree[0].Path) == 1 && tree[0].Path[0] == in.Name
		in.Length = end(in.Files)
		return nil
	}
	if err = in.parseV1(v); err != nil || !in.V2 {
		return err
	}
	return in.matchHybrid(tree)
}

func (in *Info) checkLength() error {
	if in.Length == 0 {
		return errors.New("torrent has no content: all its files are empty")
	}
	if n := (in.Length-1)/in.PieceLength + 1; n > maxPieces {
		return fmt.Errorf("%d pieces: at most %d are accepted", n, maxPieces)
	}
	if have := len(in.pieces) / 20; in.V1 && have != in.NumPieces() {
		return fmt.Errorf("%d piece hashes: %d bytes in pieces of %d need %d", have, in.Length, in.PieceLength, in.NumPieces())
	}
	for i := range in.Files {
		if !in.Files[i].Pad {
			return nil
		}
	}
	return errors.New("torrent has no content: all its files are padding")
}

// end is where the byte space of files ends.
func end(files []File) int64 {
	if len(files) == 0 {
		return 0
	}
	f := &files[len(files)-1]
	return f.Offset + f.Length
}
