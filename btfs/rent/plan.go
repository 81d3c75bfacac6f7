package rent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/rpc"
	"github.com/btmount/btmount/btfs/unixfs"
)

// Parts are what a node would rent of an object.
type Parts struct {
	Shards      int
	ShardSize   int64 // bytes, with the blocks around the content, as the node counts
	ReedSolomon bool
}

// ErrCopies says that copies were asked of what has its own.
var ErrCopies = errors.New("it is Reed-Solomon, which has its spare shards in it; --copies is for what is not")

// Survey looks at the blocks of an object and tells its parts: the shards of a Reed-Solomon
// file or directory, or so many copies and one of the whole.
func Survey(ctx context.Context, blocks unixfs.Blocks, c cid.Cid, copies int) (p Parts, err error) {
	o, err := unixfs.Open(ctx, blocks, c)
	if err != nil {
		return p, err
	}
	root, size, err := one(ctx, blocks, c)
	if err != nil {
		return p, err
	}
	if !strings.HasPrefix(o.Format, "Reed-Solomon") {
		return Parts{Shards: copies + 1, ShardSize: size}, nil
	}
	if copies > 0 {
		return p, ErrCopies
	}
	coded, _, err := one(ctx, blocks, root.Links[1].CID())
	if err == nil && len(coded.Links) == 0 {
		err = errors.New("it is Reed-Solomon without shards")
	}
	if err != nil {
		return p, err
	}
	_, size, err = one(ctx, blocks, coded.Links[0].CID())
	return Parts{Shards: len(coded.Links), ShardSize: size, ReedSolomon: true}, err
}

// one brings one block, and the size of it and of all that it says to lie below it.
func one(ctx context.Context, blocks unixfs.Blocks, c cid.Cid) (n *unixfs.Node, size int64, err error) {
	b, err := blocks.Block(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	if n, err = unixfs.Decode(c, b); err == nil {
		size, err = whole(n, len(b))
	}
	return n, size, err
}

// whole is the size of a block and of all that it says to lie below it.
func whole(n *unixfs.Node, size int) (int64, error) {
	sum := uint64(size)
	for i := range n.Links {
		if n.Links[i].Size > math.MaxInt64-sum {
			return 0, errors.New("it says to be larger than anything is")
		}
		sum += n.Links[i].Size
	}
	return int64(sum), nil
}

// Plan is a rental, or a renewal, with its price.
type Plan struct {
	CID cid.Cid
	Parts
	Days   int
	Copies int
	Hosts  []string
	Price  rpc.Price
	Each   rpc.Amount // of one shard
	Total  rpc.Amount
}

// NewPlan prices what is to be rented.
func NewPlan(c cid.Cid, parts Parts, days int, p rpc.Price) (Plan, error) {
	each, err := p.Shard(parts.ShardSize, days)
	if err != nil {
		return Plan{}, err
	}
	return Plan{CID: c, Parts: parts, Days: days, Price: p, Each: each, Total: each.Times(rpc.Units(int64(parts.Shards)))}, nil
}

// LimitError says that something costs more than it may.
type LimitError struct {
	Total, Limit rpc.Amount
	Token        rpc.Token
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("it costs %s, and --max is %s; nothing was spent", e.Total.In(e.Token), e.Limit.In(e.Token))
}

// Within returns a *LimitError if a plan costs more than limit.
func (p *Plan) Within(limit rpc.Amount) error {
	if p.Total.Cmp(limit) > 0 {
		return &LimitError{p.Total, limit, p.Price.Token}
	}
	return nil
}
