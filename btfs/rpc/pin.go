package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/source"
)

// maxPins is how many pins are taken of one answer.
const maxPins = 1 << 20

// Pin has the node fetch an object and keep it. blocks is told how many it has so far; it
// may be nil.
func (c *Client) Pin(ctx context.Context, id cid.Cid, blocks func(n int64)) error {
	done := false
	k := source.Call{Command: "pin/add", Args: []string{id.String()}, Options: options("recursive", "true", "progress", "true")}
	err := c.lines(ctx, k, func(line []byte) error {
		var e struct {
			Pins     []string
			Progress int64
		}
		if err := decode(line, &e); err != nil {
			return err
		}
		if len(e.Pins) > 0 {
			done = same(e.Pins, id)
		} else if blocks != nil {
			blocks(e.Progress)
		}
		return nil
	})
	if err == nil && !done {
		err = fmt.Errorf("%s: pin/add: it does not say that %s is pinned", c.Name(), id)
	}
	return err
}

// Unpin takes a pin back.
func (c *Client) Unpin(ctx context.Context, id cid.Cid) error {
	var e struct{ Pins []string }
	err := c.call(ctx, &e, source.Call{Command: "pin/rm", Args: []string{id.String()}, Options: options("recursive", "true")})
	if err == nil && !same(e.Pins, id) {
		err = fmt.Errorf("%s: pin/rm: it does not say that %s is unpinned", c.Name(), id)
	}
	return err
}

// same reports whether a CID is in a node's list, whatever its base and version.
func same(all []string, id cid.Cid) bool {
	return slices.ContainsFunc(all, func(s string) bool {
		c, err := block.Parse(s)
		return err == nil && block.Same(c, id)
	})
}

// Pinned is a pin at the node.
type Pinned struct {
	CID  cid.Cid
	Type string // recursive or direct
}

// Pins lists what somebody pinned, and not the blocks that are kept for its sake.
func (c *Client) Pins(ctx context.Context) (all []Pinned, err error) {
	for _, kind := range []string{"recursive", "direct"} {
		var e struct {
			Keys map[string]struct{ Type Text }
		}
		if err := c.call(ctx, &e, source.Call{Command: "pin/ls", Options: options("type", kind)}); err != nil {
			return nil, err
		}
		if len(e.Keys) > maxPins {
			return nil, fmt.Errorf("%s: pin/ls: %d pins, which is more than can be shown", c.Name(), len(e.Keys))
		}
		for _, key := range slices.Sorted(maps.Keys(e.Keys)) {
			id, err := block.Parse(key)
			if err != nil {
				return nil, fmt.Errorf("%s: pin/ls: %w", c.Name(), err)
			}
			all = append(all, Pinned{id, string(e.Keys[key].Type)})
		}
	}
	slices.SortFunc(all, func(a, b Pinned) int { return strings.Compare(a.CID.String(), b.CID.String()) })
	return all, nil
}
