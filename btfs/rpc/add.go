package rpc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/source"
)

// AddOptions are how something is added.
type AddOptions struct {
	Pin         bool   // keep it until it is unpinned
	Hidden      bool   // also names that begin with a dot, below a directory
	ReedSolomon bool   // as 10 data and 20 parity shards, to be rented
	Encrypt     bool   // for the node's own key, unless one of the next says another
	PublicKey   string // hexadecimal, secp256k1
	PeerID      string // whose key it is
}

// Added is what a path became.
type Added struct {
	CID   cid.Cid
	Names int   // files, directories and symlinks
	Bytes int64 // of content that was sent
}

// Add sends a file, a symlink or a directory with all that is in it. Nothing of it is held
// in memory. sent is told of bytes of content as they go; it may be nil, and is called from
// another goroutine.
//
// What was sent when it fails or is interrupted stays at the node, unpinned, until its
// garbage is collected.
func (c *Client) Add(ctx context.Context, place string, o AddOptions, sent func(n int)) (a Added, err error) {
	name := filepath.Base(filepath.Clean(place))
	if name == "." || name == ".." || name == string(filepath.Separator) {
		abs, err := filepath.Abs(place)
		if err != nil {
			return a, err
		}
		name = filepath.Base(abs)
	}
	body, err := newUpload(place, name, o.Hidden, sent)
	if err != nil {
		return a, err
	}
	defer body.close() // after the call: it does not read any more
	opts := options("pin", strconv.FormatBool(o.Pin), "progress", "true", "recursive", "true")
	if o.ReedSolomon {
		opts.Set("chunker", "reed-solomon")
	}
	if o.Encrypt {
		opts.Set("encrypt", "true")
		opts.Set("public-key", o.PublicKey)
		opts.Set("peer-id", o.PeerID)
	}
	err = c.lines(ctx, source.Call{Command: "add", Options: opts, Body: body, Type: body.contentType()}, func(line []byte) error {
		var e struct{ Name, Hash string }
		if err := decode(line, &e); err != nil {
			return err
		}
		if e.Hash == "" {
			return nil // it tells how far it is
		}
		id, err := block.Parse(e.Hash)
		if err != nil {
			return fmt.Errorf("of %q: %w", Clean(e.Name), err)
		}
		a.Names++
		if path.Clean("/"+e.Name) == "/"+name {
			a.CID = id
		}
		return nil
	})
	if failed := body.failed(); failed != nil {
		return a, failed
	}
	if err == nil && !a.CID.Defined() {
		err = fmt.Errorf("%s: it took %d bytes, and does not say what %q became", c.Name(), body.bytes(), Clean(name))
	}
	a.Bytes = body.bytes()
	return a, err
}

// Measure adds up the bytes that Add would send of a path.
func Measure(ctx context.Context, place string, hidden bool) (n int64, err error) {
	err = filepath.WalkDir(place, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !hidden && p != place && d.Name()[0] == '.':
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.Type().IsRegular():
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		case !d.IsDir() && d.Type()&os.ModeSymlink == 0:
			return &os.PathError{Op: "add", Path: p, Err: errSpecial}
		}
		return nil
	})
	return n, err
}

var errSpecial = errors.New("neither a file nor a directory nor a symlink")
