package wallet

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btmount/btmount/wallet/durable"
)

// State is what is known of an entry.
type State string

// The states. An intent counts as spent.
const (
	Intent  State = "intent"  // it may be spent, or be on its way
	Paid    State = "paid"    // it is spent, and final; also what failed on the chain and cost its fee
	Refused State = "refused" // it is not spent, and never will be
)

// Entry is something that was, or may have been, spent.
type Entry struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"` // of the intent, never before that of the entry above it
	What    string    `json:"what"` // send, wrap, unwrap, cancel, offer
	Auto    bool      `json:"auto"` // spent by itself, and counted against the limits
	Chain   uint64    `json:"chain"`
	From    Address   `json:"from"`
	To      Address   `json:"to"`
	Unit    Unit      `json:"unit"` // BTT or WBTT
	Amount  Amount    `json:"amount"`
	MaxFee  Amount    `json:"max_fee"`
	Torrent string    `json:"torrent,omitempty"`
	Bytes   uint64    `json:"bytes,omitempty"` // that it was to bring
	State   State     `json:"state"`
	Paid    Amount    `json:"paid"` // once it is
	Fee     Amount    `json:"fee"`  // the same, in BTT
	Tx      string    `json:"tx,omitempty"`
	Why     string    `json:"why,omitempty"` // it was refused or failed
	Settled time.Time `json:"settled,omitzero"`
}

// spent is what counts against a limit.
func (e Entry) spent() Amount {
	a, fee := e.Amount, e.MaxFee
	switch e.State {
	case Refused:
		return Amount{}
	case Paid:
		a, fee = e.Paid, e.Fee
	}
	return plus(a, fee)
}

// plus ends at MaxAmount, which no limit is above.
func plus(a, b Amount) Amount {
	sum, err := a.Plus(b)
	if err != nil {
		return MaxAmount
	}
	return sum
}

// row is a row of the file: an intent, how it ended, or limits.
type row struct {
	Intent *Entry     `json:"intent,omitempty"`
	End    *ending    `json:"end,omitempty"`
	Limits *limitsRow `json:"limits,omitempty"`
}

type ending struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	State State     `json:"state"`
	Paid  Amount    `json:"paid"`
	Fee   Amount    `json:"fee"`
	Tx    string    `json:"tx,omitempty"`
	Why   string    `json:"why,omitempty"`
}

type limitsRow struct {
	Time time.Time `json:"time"`
	Limits
}

// ErrEnded says that an entry ended in another way already.
var ErrEnded = errors.New("the entry has ended in another way")

var errRow = errors.New("not a row of a ledger, or of a later version of btmount")

// Ledger is a file in which every wei is accounted for, and the limits. Several processes may
// use it at a time; what each decides, it decides on what all have spent.
type Ledger struct {
	now func() time.Time

	mu     sync.Mutex // held while the file is
	log    *durable.Log
	all    []Entry // times never decrease
	index  map[string]int
	limits Limits
	latest time.Time // of all rows
}

// OpenLedger opens a ledger, or makes an empty one.
func OpenLedger(path string) (*Ledger, error) {
	log, err := durable.OpenLog(path)
	if err != nil {
		return nil, err
	}
	return &Ledger{now: time.Now, log: log, index: map[string]int{}}, nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.log.Close() }

// locked runs f on the newest state.
func (l *Ledger) locked(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Locked(l.takeRow, f)
}

func (l *Ledger) takeRow(body json.RawMessage) error {
	var r row
	if err := json.Unmarshal(body, &r); err != nil {
		return errRow
	}
	return l.takeLocked(r)
}

// writeLocked makes a row durable, and takes it over.
func (l *Ledger) writeLocked(r row) error {
	if err := l.log.Append(r); err != nil {
		return err
	}
	return l.takeLocked(r)
}

func (l *Ledger) takeLocked(r row) error {
	switch {
	case r.Intent != nil:
		e := *r.Intent
		if _, ok := l.index[e.ID]; ok || e.ID == "" || e.State != Intent {
			return errRow
		}
		l.index[e.ID] = len(l.all)
		l.all = append(l.all, e)
		l.latest = later(l.latest, e.Time)
	case r.End != nil:
		i, ok := l.index[r.End.ID]
		if !ok || l.all[i].State != Intent || r.End.State != Paid && r.End.State != Refused {
			return errRow
		}
		e, end := &l.all[i], r.End
		e.State, e.Paid, e.Fee, e.Why, e.Settled = end.State, end.Paid, end.Fee, end.Why, end.Time
		e.Tx = end.Tx
		l.latest = later(l.latest, end.Time)
	case r.Limits != nil:
		l.limits = r.Limits.Limits
		l.latest = later(l.latest, r.Limits.Time)
	default:
		return errRow
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// clockLocked is the time, which a clock that is set back does not set back: else it would
// open a window again that is used up.
func (l *Ledger) clockLocked() time.Time { return later(l.latest, l.now().UTC().Round(0)) }

// tallyLocked counts what was spent by itself. A window of an hour before t is closed on
// both sides, so that no window anywhere, open or closed, holds more than the limit.
func (l *Ledger) tallyLocked(t time.Time, torrent string) (s Tally) {
	for _, e := range slices.Backward(l.all) {
		if !e.Auto {
			continue
		}
		if !e.Time.Before(t.Add(-time.Hour)) {
			s.Hour = plus(s.Hour, e.spent())
		}
		if !e.Time.Before(t.Add(-24 * time.Hour)) {
			s.Day = plus(s.Day, e.spent())
		}
		if e.Torrent == torrent {
			s.Torrent = plus(s.Torrent, e.spent())
		}
	}
	return s
}

// Reserve takes an offer if it is within the limits. When it returns, the disk has the
// intent, and it counts as spent until Settle or Refuse. Else the error is ErrOff or
// ErrBudget.
func (l *Ledger) Reserve(o Offer) (e Entry, err error) {
	err = l.locked(func() error {
		now := l.clockLocked()
		if d := decide(l.limits, l.tallyLocked(now, o.Torrent), o); d.Why != nil {
			return d.Why
		}
		e = Entry{ID: newID(), Time: now, What: "offer", Auto: true, Chain: o.Chain, To: o.To, Unit: BTT, Amount: o.Amount, MaxFee: o.MaxFee, Torrent: o.Torrent, Bytes: o.Bytes, State: Intent}
		return l.writeLocked(row{Intent: &e})
	})
	return e, err
}

// Intend writes down what the user has agreed to, before it is signed. It counts against no
// limit. ID, Time and State are set here.
func (l *Ledger) Intend(e Entry) (Entry, error) {
	err := l.locked(func() error {
		e.ID, e.Time, e.State, e.Auto = newID(), l.clockLocked(), Intent, false
		return l.writeLocked(row{Intent: &e})
	})
	return e, err
}

func newID() string { return strings.ToLower(rand.Text()[:10]) }

// Settle says what an intent cost in the end, and of which transaction it is known; failed
// is why nothing but a fee was paid. To say the same again is nothing; to say another thing
// is ErrEnded. What was spent by itself cannot cost more than was reserved.
func (l *Ledger) Settle(id string, paid, fee Amount, tx, failed string) error {
	return l.end(ending{ID: id, State: Paid, Paid: paid, Fee: fee, Tx: tx, Why: failed})
}

// Refuse says that an intent is not spent and never will be, and why.
func (l *Ledger) Refuse(id, why string) error {
	return l.end(ending{ID: id, State: Refused, Why: why})
}

func (l *Ledger) end(r ending) error {
	return l.locked(func() error {
		i, ok := l.index[r.ID]
		if !ok {
			return fmt.Errorf("ledger: no entry %q", r.ID)
		}
		e := l.all[i]
		switch {
		case e.State == r.State && e.Paid == r.Paid && e.Fee == r.Fee && e.Tx == r.Tx:
			return nil
		case e.State != Intent:
			return fmt.Errorf("ledger: %s: %w", r.ID, ErrEnded)
		case e.Auto && plus(r.Paid, r.Fee).Cmp(e.spent()) > 0:
			return fmt.Errorf("ledger: %s: %w: more is paid than was reserved", r.ID, ErrBudget)
		}
		r.Time = l.clockLocked()
		return l.writeLocked(row{End: &r})
	})
}

// SetLimits replaces the limits; without any nothing is spent by itself any more.
func (l *Ledger) SetLimits(change func(Limits) Limits) (now Limits, err error) {
	err = l.locked(func() error {
		now = change(l.limits)
		return l.writeLocked(row{Limits: &limitsRow{l.clockLocked(), now}})
	})
	return now, err
}

// Limits returns the limits, and what of them is used up now.
func (l *Ledger) Limits() (limits Limits, spent Tally, err error) {
	err = l.locked(func() error {
		limits, spent = l.limits, l.tallyLocked(l.clockLocked(), "")
		return nil
	})
	return limits, spent, err
}

// Entries returns those that began at a time or after it, oldest first.
func (l *Ledger) Entries(since time.Time) (out []Entry, err error) {
	err = l.locked(func() error {
		i, _ := slices.BinarySearchFunc(l.all, since, func(e Entry, t time.Time) int { return e.Time.Compare(t) })
		out = slices.Clone(l.all[i:])
		return nil
	})
	return out, err
}
