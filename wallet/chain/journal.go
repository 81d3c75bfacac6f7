package chain

import (
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/durable"
)

// Hash is that of a transaction or a block.
type Hash = common.Hash

// State is what is known of a transaction.
type State string

// The states. All but Signed are the end.
const (
	Signed   State = "signed"   // it may be sent, wait, or be in a block that is not final
	Final    State = "final"    // it is done
	Failed   State = "failed"   // it is final, and the chain undid it: it cost its fee
	Replaced State = "replaced" // another one of its nonce is final: it did nothing
)

// Tx is a signed transaction.
type Tx struct {
	Entry    string         `json:"entry"` // of the ledger
	What     string         `json:"what"`  // send, wrap, unwrap, cancel
	Chain    uint64         `json:"chain"`
	From     wallet.Address `json:"from"`
	Nonce    uint64         `json:"nonce"`
	To       wallet.Address `json:"to"`   // who gets it; the contract is in Raw
	Unit     wallet.Unit    `json:"unit"` // BTT or WBTT
	Amount   wallet.Amount  `json:"amount"`
	Fee      wallet.Amount  `json:"fee"` // most, then what it was
	Hash     Hash           `json:"hash"`
	Replaces *Hash          `json:"replaces,omitempty"`
	Raw      hexutil.Bytes  `json:"raw"` // as it is sent
	Signed   time.Time      `json:"signed"`
	State    State          `json:"state"`
	Block    uint64         `json:"block,omitempty"` // in which it is final
}

type txEnd struct {
	Hash  Hash          `json:"hash"`
	State State         `json:"state"`
	Fee   wallet.Amount `json:"fee"`
	Block uint64        `json:"block,omitempty"`
	Time  time.Time     `json:"time"`
}

type journalRow struct {
	Signed *Tx    `json:"signed,omitempty"`
	End    *txEnd `json:"end,omitempty"`
}

var errJournal = errors.New("not a row of a journal, or of a later version of btmount")

// Journal is a file of every transaction that was signed, written before it was sent.
type Journal struct {
	mu  sync.Mutex // held while the file is
	log *durable.Log
	all []Tx
}

// OpenJournal opens a journal, or makes an empty one.
func OpenJournal(path string) (*Journal, error) {
	log, err := durable.OpenLog(path)
	if err != nil {
		return nil, err
	}
	return &Journal{log: log}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.log.Close() }

// locked runs f on the newest state, while no other process signs.
func (j *Journal) locked(f func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Locked(j.takeRow, f)
}

func (j *Journal) takeRow(body json.RawMessage) error {
	var r journalRow
	if err := json.Unmarshal(body, &r); err != nil {
		return errJournal
	}
	return j.takeLocked(r)
}

func (j *Journal) writeLocked(r journalRow) error {
	if err := j.log.Append(r); err != nil {
		return err
	}
	return j.takeLocked(r)
}

func (j *Journal) takeLocked(r journalRow) error {
	switch {
	case r.Signed != nil:
		t := *r.Signed
		if j.findLocked(t.Hash) >= 0 || t.State != Signed || t.check() != nil {
			return errJournal
		}
		j.all = append(j.all, t)
	case r.End != nil:
		i := j.findLocked(r.End.Hash)
		if i < 0 || j.all[i].State != Signed || r.End.State == Signed {
			return errJournal
		}
		j.all[i].State, j.all[i].Block = r.End.State, r.End.Block
		j.all[i].Fee = r.End.Fee
	default:
		return errJournal
	}
	return nil
}

// check holds the bytes that are sent against what is said of them.
func (t Tx) check() error {
	var tx types.Transaction
	if err := tx.UnmarshalBinary(t.Raw); err != nil {
		return err
	}
	from, err := types.Sender(types.LatestSignerForChainID(new(big.Int).SetUint64(t.Chain)), &tx)
	if err != nil || from != t.From || tx.Hash() != t.Hash || tx.Nonce() != t.Nonce || !tx.Protected() {
		return errJournal
	}
	return nil
}

func (j *Journal) findLocked(h Hash) int {
	return slices.IndexFunc(j.all, func(t Tx) bool { return t.Hash == h })
}

// Transactions returns all, oldest first.
func (j *Journal) Transactions() (all []Tx, err error) {
	err = j.locked(func() error {
		all = slices.Clone(j.all)
		return nil
	})
	return all, err
}

// openLocked returns those of an account that have not ended, or of all.
func (j *Journal) openLocked(chain uint64, from *wallet.Address) (out []Tx) {
	for _, t := range j.all {
		if t.State == Signed && t.Chain == chain && (from == nil || *from == t.From) {
			out = append(out, t)
		}
	}
	return out
}

// nextLocked is the nonce behind all that were signed, those that ended included: a node that
// is behind must not make us use one twice.
func (j *Journal) nextLocked(chain uint64, from wallet.Address) (next uint64) {
	for _, t := range j.all {
		if t.Chain == chain && t.From == from {
			next = max(next, t.Nonce+1)
		}
	}
	return next
}
