package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/btmount/btmount/btfs/source"
)

// How long a node may be silent while it looks for hosts and pays them: as long as
// go-btfs 4.1.0 gives itself (RunTimeout of storage/upload and of renew), and a bit.
const (
	uploadQuiet = 16 * time.Minute
	renewQuiet  = 11 * time.Minute
)

// Price is what storage costs in a token, as the node's oracle says just now.
type Price struct {
	Token     Token
	PerGiBDay Amount // before the rate
	Rate      Amount // smallest units of the token
}

// Price asks for it.
func (c *Client) Price(ctx context.Context, t Token) (p Price, err error) {
	type price struct{ Price, Rate Amount }
	var all struct{ WBTT, TRX, USDD, USDT *price } // and nothing else that may be in it
	if err := c.call(ctx, &all, source.Call{Command: "cheque/price-all"}); err != nil {
		return p, err
	}
	one := map[Token]*price{"WBTT": all.WBTT, "TRX": all.TRX, "USDD": all.USDD, "USDT": all.USDT}[t]
	if one == nil || one.Price.Sign() <= 0 || one.Rate.Sign() <= 0 {
		return p, fmt.Errorf("%s: cheque/price-all: it tells no price in %s", c.Name(), t)
	}
	return Price{t, one.Price, one.Rate}, nil
}

// Shard is what one shard of so many bytes costs for so many days, in smallest units.
//
// The node computes it as float64(bytes) / GiB * price * days, makes a whole number of that,
// and multiplies with the rate; and only what the node computes is paid. So it is computed
// here in the same steps and with the same rounding, in numbers of 53 bits (upload_helper.go).
func (p Price) Shard(bytes int64, days int) (Amount, error) {
	if !p.PerGiBDay.int().IsInt64() || bytes <= 0 || days <= 0 {
		return Amount{}, errors.New("a price that cannot be computed")
	}
	f := func(x int64) *big.Float { return new(big.Float).SetPrec(53).SetInt64(x) }
	x := f(bytes)
	x.SetMantExp(x, -30)
	x.Mul(x, f(p.PerGiBDay.int().Int64()))
	x.Mul(x, f(int64(days)))
	least := int64(1)
	if p.Rate.Cmp(Units(1)) <= 0 {
		x.Add(x, big.NewFloat(0.5).SetPrec(53))
		least = 0
	}
	pay, _ := x.Int(nil)
	switch {
	case !pay.IsInt64() || pay.Int64() == math.MaxInt64:
		return Amount{}, errors.New("a price beyond all measure")
	case pay.Sign() == 0 && least == 0:
		return Amount{}, fmt.Errorf("it costs less than the smallest unit of %s: pay in WBTT, or for more days", p.Token)
	case pay.Sign() == 0:
		pay.SetInt64(1)
	}
	return Amount{pay}.Times(p.Rate), nil
}

// Upload says what is rented.
type Upload struct {
	CID    cid.Cid
	Days   int
	Copies int // beside the first, of what is not Reed-Solomon
	Token  Token
	Hosts  []string // peer ids, one for each shard; nil: the node chooses
}

var sessionID = regexp.MustCompile(`^[0-9A-Za-z-]{8,64}$`)

// Rent has the node find hosts, sign contracts with them and pay them. It returns as soon
// as the node has begun, with the session by which it can be watched; that may take minutes.
// An error for which [Refused] is false leaves open whether it has.
//
// go-btfs 4.1.0 takes no limit: it pays what its oracle says at that moment, and ignores
// the option price.
func (c *Client) Rent(ctx context.Context, u Upload) (session string, err error) {
	opts := options("storage-length", strconv.Itoa(u.Days), "token-type", string(u.Token), "copy", strconv.Itoa(u.Copies))
	if u.Hosts != nil {
		opts.Set("host-select-mode", "custom")
		opts.Set("host-selection", strings.Join(u.Hosts, ","))
	}
	var e struct{ ID string }
	err = c.call(ctx, &e, source.Call{Command: "storage/upload", Args: []string{u.CID.String()}, Options: opts, Quiet: uploadQuiet})
	if err == nil && !sessionID.MatchString(e.ID) {
		err = fmt.Errorf("%s: storage/upload: it answers without the ID of a session", c.Name())
	}
	return e.ID, err
}

// Session is how far a rental is.
type Session struct {
	State   string // init, submit, contract, wait-upload, pay, complete, error, or one of their steps
	Message string
	Found   bool // false: the node knows of no such session
	Shards  []Shard
}

// Shard is one part of what is rented, at one host.
type Shard struct {
	ID      string
	Host    string
	State   string
	Message string
}

// Session asks how far a rental is.
func (c *Client) Session(ctx context.Context, id string) (s Session, err error) {
	var e struct {
		Status, Message Text
		Shards          map[string]struct{ Host, Status, Message, AdditionalInfo Text }
	}
	if err := c.call(ctx, &e, source.Call{Command: "storage/upload/status", Args: []string{id}}); err != nil {
		return s, err
	}
	s = Session{State: string(e.Status), Message: string(e.Message), Found: len(e.Shards) > 0 || e.Status != "init"}
	for _, key := range slices.Sorted(maps.Keys(e.Shards)) {
		v := e.Shards[key]
		state := string(v.Status)
		if v.AdditionalInfo != "" {
			state += " (" + string(v.AdditionalInfo) + ")"
		}
		s.Shards = append(s.Shards, Shard{Clean(key), string(v.Host), state, string(v.Message)})
	}
	if s.State == "" {
		err = fmt.Errorf("%s: storage/upload/status: it does not tell how far it is", c.Name())
	}
	return s, err
}

// Renew has the node pay the hosts of an object for more days, each of its contracts, at
// the price that was asked for. As with Rent, only an error for which [Refused] is true says
// that nothing was paid; and even then the first hosts may have been. cost is in smallest
// units.
func (c *Client) Renew(ctx context.Context, id cid.Cid, days int, p Price) (cost Amount, err error) {
	opts := options("duration", strconv.Itoa(days), "renew-token", string(p.Token), "renew-price", p.PerGiBDay.String())
	var e struct {
		Success   bool
		TotalCost Amount `json:"total_cost"`
	}
	err = c.call(ctx, &e, source.Call{Command: "storage/upload/renew", Args: []string{id.String()}, Options: opts, Quiet: renewQuiet})
	if err == nil && !e.Success {
		err = fmt.Errorf("%s: storage/upload/renew: it does not say that it was done", c.Name())
	}
	return e.TotalCost.Times(p.Rate), err
}

// Host is a node that stores for others, as the hub told the user's node.
type Host struct {
	ID      Text `json:"node_id"`
	Score   Text `json:"score"`
	Price   Text `json:"storage_price_ask"` // per GiB and day, before the rate
	MinDays Text `json:"storage_time_min"`
}

// Hosts lists the hosts that the node knows.
func (c *Client) Hosts(ctx context.Context) (all []Host, err error) {
	var e struct{ Nodes []Host }
	err = c.call(ctx, &e, source.Call{Command: "storage/hosts/info"})
	return e.Nodes, err
}

// Contract is one shard's storage at one host.
type Contract struct {
	ID        Text `json:"contract_id"`
	FileHash  Text `json:"file_hash"`
	ShardHash Text `json:"shard_hash"`
	Host      Text `json:"host_id"`
	Renter    Text `json:"renter_id"`
	Status    Text `json:"status"` // a name, or the number of one
	Start     Text `json:"start_time"`
	End       Text `json:"end_time"`
	UnitPrice Text `json:"unit_price"`
	ShardSize Text `json:"shard_size"` // bytes
}

const maxContracts = 10000

// Contracts lists contracts of a role, renter or host, as the node keeps them.
func (c *Client) Contracts(ctx context.Context, role string) (all []Contract, err error) {
	var e struct{ Contracts []Contract }
	opts := options("status", "all", "size", strconv.Itoa(maxContracts))
	err = c.call(ctx, &e, source.Call{Command: "storage/contracts/list", Args: []string{role}, Options: opts})
	return e.Contracts, err
}

// Stake is what a host has put up on the chain.
type Stake struct {
	Amount Amount    `json:"amount"` // of BTT, in its smallest units
	Until  time.Time `json:"locked_until,omitzero"`
}

// Stake asks for it.
func (c *Client) Stake(ctx context.Context) (s Stake, err error) {
	var e struct{ Amount, LockTime Amount }
	err = c.call(ctx, &e, source.Call{Command: "stake/query"})
	s.Amount = e.Amount
	if n := e.LockTime.int(); n.Sign() > 0 && n.BitLen() < 40 {
		s.Until = time.Unix(n.Int64(), 0).UTC()
	}
	return s, err
}

// Cheque is the last of one peer: cheques are cumulative.
type Cheque struct {
	Peer   Text   `json:"peer"`
	Vault  Text   `json:"vault"`
	Payout Amount `json:"payout"` // of all so far, in smallest units of the token
	Cashed Amount `json:"cashed"` // of it
}

// Cheques lists the last cheque of each peer in a token; received, or sent.
func (c *Client) Cheques(ctx context.Context, received bool, t Token) (all []Cheque, err error) {
	command := "cheque/sendlist"
	if received {
		command = "cheque/receivelist"
	}
	var e struct {
		Cheques []struct {
			PeerID, Vault        Text
			Payout, CashedAmount Amount
		}
	}
	err = c.call(ctx, &e, source.Call{Command: command, Args: []string{"0", strconv.Itoa(maxContracts), string(t)}})
	for _, q := range e.Cheques {
		all = append(all, Cheque{q.PeerID, q.Vault, q.Payout, q.CashedAmount})
	}
	return all, err
}

// Earnings sums up a token's cheques, in smallest units.
type Earnings struct {
	Token    Token  `json:"token"`
	Received Amount `json:"received"`
	Uncashed Amount `json:"received_uncashed"`
	Sent     Amount `json:"sent"`
	Cashed   Amount `json:"sent_cashed"`
}

// Earnings lists them, and what the vault holds of WBTT.
func (c *Client) Earnings(ctx context.Context) (all []Earnings, vault Amount, err error) {
	type stats struct {
		TotalIssued           Amount `json:"total_issued"`
		TotalIssuedCashed     Amount `json:"total_issued_cashed"`
		TotalReceived         Amount `json:"total_received"`
		TotalReceivedUncashed Amount `json:"total_received_uncashed"`
	}
	var e struct{ WBTT, TRX, USDD, USDT *stats }
	if err := c.call(ctx, &e, source.Call{Command: "cheque/stats-all"}); err != nil {
		return nil, vault, err
	}
	for _, x := range []struct {
		t Token
		s *stats
	}{{"WBTT", e.WBTT}, {"TRX", e.TRX}, {"USDD", e.USDD}, {"USDT", e.USDT}} {
		if x.s != nil {
			all = append(all, Earnings{x.t, x.s.TotalReceived, x.s.TotalReceivedUncashed, x.s.TotalIssued, x.s.TotalIssuedCashed})
		}
	}
	var v struct{ Balance Amount }
	err = c.call(ctx, &v, source.Call{Command: "vault/balance"})
	return all, v.Balance, err
}
