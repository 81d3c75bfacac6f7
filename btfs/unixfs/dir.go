package unixfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

// goodName returns an error for what cannot be a name in any directory.
func goodName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case name == "." || name == "..":
		return fmt.Errorf("the name %q", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the name %.40q, with a slash or NUL in it", name)
	}
	return nil
}

func about(size uint64) int64 { return int64(min(size, math.MaxInt64)) }

func sortEntries(all []Entry) {
	slices.SortStableFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
}

// basic is a directory in one block.
type basic struct {
	blocks Blocks
	cid    cid.Cid
	node   *Node
}

func (d *basic) list(context.Context) ([]Entry, error) {
	all := make([]Entry, 0, len(d.node.Links))
	for _, l := range d.node.Links {
		if err := goodName(l.Name); err != nil {
			return nil, &LieError{d.cid, -1, err}
		}
		c := l.CID()
		if !c.Defined() {
			return nil, &LieError{d.cid, -1, fmt.Errorf("%.40q leads to what is no CID", l.Name)}
		}
		all = append(all, Entry{Name: l.Name, CID: c, Size: about(l.Size)})
	}
	sortEntries(all)
	return all, nil
}

// lookup takes the first of equal names, as all implementations do.
func (d *basic) lookup(ctx context.Context, name string) (*Object, error) {
	if goodName(name) == nil {
		for _, l := range d.node.Links {
			if l.Name == name {
				return Open(ctx, d.blocks, l.CID())
			}
		}
	}
	return nil, ErrNotFound
}
