package bitswap

import (
	"context"
	"fmt"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/btmount/btmount/btfs/btns"
)

const (
	recordFor     = 20 * time.Second // a search for a record
	recordMore    = 2 * time.Second  // for newer ones, after the first
	recordAnswers = 16               // that are valid, of which the newest counts
)

// Record brings the newest record of a BTNS name that is found in the DHT, which is valid.
// btns.ErrNoRecord says that those who should know have none. It implements names.Records.
func (n *Node) Record(ctx context.Context, id peer.ID) ([]byte, error) {
	a, err := n.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer n.leave()
	if err := a.reach(ctx); err != nil {
		return nil, err
	}
	timed, cancel := context.WithTimeout(ctx, recordFor)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	if !a.routed(timed) {
		return nil, a.noRecord(ctx, "the DHT was not reached")
	}
	found, err := a.dht.SearchValue(timed, btns.RecordKey(id), dht.Quorum(recordAnswers))
	if err != nil {
		return nil, fmt.Errorf("the DHT: %w", err)
	}
	var best []byte
	enough := time.AfterFunc(recordFor, cancel)
	defer enough.Stop()
	for best = range found { // each is better than the one before
		enough.Reset(recordMore)
	}
	switch {
	case best != nil:
		return best, nil
	case timed.Err() != nil:
		return nil, a.noRecord(ctx, fmt.Sprintf("the DHT did not say within %v", recordFor))
	}
	return nil, btns.ErrNoRecord
}

// noRecord is why a search ended early.
func (a *awake) noRecord(ctx context.Context, why string) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case a.ctx.Err() != nil:
		return ErrClosed
	}
	return fmt.Errorf("%s: %w", why, context.DeadlineExceeded)
}
