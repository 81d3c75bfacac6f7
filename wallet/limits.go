package wallet

import (
	"errors"
	"fmt"
)

// Errors of offers that are not taken. Both are ordinary answers.
var (
	ErrOff    = errors.New("nothing is spent by itself until a limit is set: btmount wallet limit set")
	ErrBudget = errors.New("over the limit")
)

// Limits are what may be spent without asking. What is nil is not limited; but without
// PerHour and PerDay nothing is spent at all. Fees count.
type Limits struct {
	PerHour    *Amount `json:"per_hour,omitempty"` // in any 60 minutes
	PerDay     *Amount `json:"per_day,omitempty"`  // in any 24 hours
	PerTorrent *Amount `json:"per_torrent,omitempty"`
	MaxPrice   *Amount `json:"max_price,omitempty"` // wei for each GiB, without fees
}

// On reports whether anything may be spent at all.
func (l Limits) On() bool { return l.PerHour != nil || l.PerDay != nil }

// Offer is something that could be bought.
type Offer struct {
	Torrent string // what for: an info-hash or a CID
	To      Address
	Chain   uint64
	Amount  Amount // most that is paid, without fees
	MaxFee  Amount // most that the chain takes for it
	Bytes   uint64 // that it brings
}

// Tally is what counts as spent already.
type Tally struct {
	Hour    Amount `json:"hour"` // in the last 60 minutes, its first instant included
	Day     Amount `json:"day"`
	Torrent Amount `json:"torrent"` // for the torrent of the offer, ever
}

// Decision is the answer to an offer; Why is nil if it is taken.
type Decision struct {
	Why error // ErrOff or ErrBudget, with the reason
}

// decide answers an offer. It is pure: all that it looks at are its arguments.
func decide(l Limits, spent Tally, o Offer) Decision {
	if !l.On() {
		return Decision{ErrOff}
	}
	cost, err := o.Amount.Plus(o.MaxFee)
	if err != nil {
		return Decision{fmt.Errorf("%w: %w", ErrBudget, err)}
	}
	for _, c := range []struct {
		name  string
		limit *Amount
		spent Amount
	}{{"per hour", l.PerHour, spent.Hour}, {"per day", l.PerDay, spent.Day}, {"per torrent", l.PerTorrent, spent.Torrent}} {
		if c.limit == nil {
			continue
		}
		if sum, err := c.spent.Plus(cost); err != nil || sum.Cmp(*c.limit) > 0 {
			return Decision{fmt.Errorf("%w %s: %s of %s is spent, and this costs %s", ErrBudget, c.name, c.spent.In(BTT), c.limit.In(BTT), cost.In(BTT))}
		}
	}
	if l.MaxPrice != nil && dearer(o.Amount, o.Bytes, *l.MaxPrice) {
		return Decision{fmt.Errorf("%w of price: %s for %d bytes is more than %s for each GiB", ErrBudget, o.Amount.In(BTT), o.Bytes, l.MaxPrice.In(BTT))}
	}
	return Decision{}
}

// dearer reports whether so many bytes cost more than price for each GiB, exactly.
func dearer(cost Amount, bytes uint64, price Amount) bool {
	have, err := cost.Times(1 << 30)
	if err != nil {
		return true
	}
	may, err := price.Times(bytes)
	return err == nil && have.Cmp(may) > 0
}
