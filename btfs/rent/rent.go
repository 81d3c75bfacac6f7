package rent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/rpc"
)

// Node is the user's node.
type Node interface {
	Rent(ctx context.Context, u rpc.Upload) (session string, err error)
	Renew(ctx context.Context, id cid.Cid, days int, p rpc.Price) (cost rpc.Amount, err error)
	Session(ctx context.Context, id string) (rpc.Session, error)
}

// line is a plan as it stands in the account.
func (p *Plan) line(kind, node string, limit rpc.Amount) Rental {
	return Rental{
		Kind: kind, Node: node, CID: p.CID.String(), Days: p.Days, Shards: p.Shards,
		Token: p.Price.Token, Price: p.Total, Limit: limit,
	}
}

// Rent asks a node for a rental within a limit, once. node is its peer id. The error is
// nil only if it has a session; what is known in the other cases stands in the rental.
func (l *Ledger) Rent(ctx context.Context, n Node, node string, p Plan, limit rpc.Amount, again bool) (Rental, error) {
	return l.ask(p, "rent", node, limit, again, func(e *Entry) error {
		session, err := n.Rent(ctx, rpc.Upload{CID: p.CID, Days: p.Days, Copies: p.Copies, Token: p.Price.Token, Hosts: p.Hosts})
		if err == nil {
			e.State, e.Session = Running, session
		}
		return err
	})
}

// Renew has a node pay for more days, within a limit, once.
func (l *Ledger) Renew(ctx context.Context, n Node, node string, p Plan, limit rpc.Amount, again bool) (Rental, error) {
	return l.ask(p, "renew", node, limit, again, func(e *Entry) error {
		cost, err := n.Renew(ctx, p.CID, p.Days, p.Price)
		if err == nil {
			e.State, e.Price, e.Done = Complete, cost, p.Shards
			if cost.Cmp(limit) > 0 {
				e.Said = fmt.Sprintf("the node paid %s, which is above the limit of %s", cost.In(p.Price.Token), limit.In(p.Price.Token))
			}
		}
		return err
	})
}

// ask writes the intent, asks, and writes the answer.
func (l *Ledger) ask(p Plan, kind, node string, limit rpc.Amount, again bool, ask func(e *Entry) error) (Rental, error) {
	if err := p.Within(limit); err != nil {
		return Rental{}, err
	}
	e, err := l.Begin(p.line(kind, node, limit), again)
	if err != nil {
		return Rental{}, err
	}
	defer e.Close()
	err = ask(e)
	if err != nil {
		e.State, e.Said = Unknown, rpc.Clean(err.Error())
		// A renewal pays one host after the other, so its refusal may come late.
		if kind == "rent" && rpc.Refused(err) {
			e.State = Failed
		}
	}
	if saved := e.Save(); saved != nil {
		return e.Rental, fmt.Errorf("%s %s, session %q: it cannot be written down (%w): keep that number", kind, e.ID, e.Session, saved)
	}
	return e.Rental, err
}

// Look asks a node how far a rental is, and writes it down.
func (l *Ledger) Look(ctx context.Context, n Node, r Rental) (Rental, rpc.Session, error) {
	s, err := n.Session(ctx, r.Session)
	if err != nil {
		return r, s, err
	}
	before := r
	r.Step, r.Said, r.Done = s.State, s.Message, 0
	for _, sh := range s.Shards {
		if strings.HasPrefix(sh.State, "complete") {
			r.Done++
		}
	}
	switch {
	case !s.Found:
		r.State, r.Said = Unknown, "the node knows no such session; see btmount btfs node contracts"
	case s.State == "complete":
		r.State, r.Done = Complete, max(r.Done, len(s.Shards))
	case s.State == "error":
		r.State = Broken
	}
	if r == before {
		return r, s, nil
	}
	e := l.Take(r)
	err = e.Save()
	return e.Rental, s, err
}

const (
	soonest   = 100 * time.Millisecond
	latest    = 15 * time.Second
	maxFailed = 10 // questions after each other
)

// Watch asks until a rental is not running any more, more often when something changes.
// report is told of every answer. When ctx ends, the rental goes on at the node.
func (l *Ledger) Watch(ctx context.Context, n Node, r Rental, report func(Rental, rpc.Session)) (Rental, error) {
	failed := 0
	for wait := soonest; r.State == Running; wait = min(2*wait, latest) {
		next, s, err := l.Look(ctx, n, r)
		switch {
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case err != nil:
			if failed++; failed == maxFailed {
				return r, err
			}
		default:
			if failed = 0; next.Step != r.Step || next.Done != r.Done {
				wait = soonest
			}
			r = next
			report(r, s)
			if r.State != Running {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
	return r, nil
}
