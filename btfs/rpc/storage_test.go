package rpc

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/btmount/btmount/btfs/btfstest"
)

// The price is what the node computes in floating point, to the last unit. want is of the
// node's own expression, which stands here as it is there.
func TestShardPrice(t *testing.T) {
	whole := func(bytes, price int64, days int) int64 {
		return max(1, int64(float64(bytes)/float64(1<<30)*float64(price)*float64(days)))
	}
	round := func(bytes, price int64, days int) int64 {
		return int64(math.Floor(float64(bytes)/float64(1<<30)*float64(price)*float64(days) + 0.5))
	}
	n := int64(1)
	for i := range 20000 {
		n = n*6364136223846793005 + 1442695040888963407
		bytes, price, days := n>>20&(1<<42-1)+1, n>>5&(1<<20-1)+1, i%400+1
		if got, err := (Price{"WBTT", Units(price), Units(1000)}).Shard(bytes, days); err != nil || got.Cmp(Units(whole(bytes, price, days)).Times(Units(1000))) != 0 {
			t.Fatalf("%d bytes at %d for %d days: %v, %v, want %d", bytes, price, days, got, err, whole(bytes, price, days))
		}
		want := round(bytes, price, days)
		if got, err := (Price{"TRX", Units(price), Units(1)}).Shard(bytes, days); want >= 1 && (err != nil || got.Cmp(Units(want)) != 0) || want < 1 && err == nil {
			t.Fatalf("%d bytes at %d for %d days: %v, %v, want %d", bytes, price, days, got, err, want)
		}
	}
	for _, x := range []struct {
		price, rate string
		bytes       int64
		days        int
		want        string
	}{
		{"125000", "1000000000000", 70014, 30, "244000000000000"},
		{"1", "1000000000000", 1, 1, "1000000000000"},
		{"1", "1", 1, 1, "smallest unit"},
		{"9223372036854775807", "2", math.MaxInt64, 3650, "beyond"},
		{"9223372036854775808", "2", 1, 1, "cannot be computed"},
		{"5", "2", 0, 1, "cannot be computed"},
		{"5", "2", -1, 1, "cannot be computed"},
	} {
		var p Price
		if p.PerGiBDay.UnmarshalJSON([]byte(x.price)) != nil || p.Rate.UnmarshalJSON([]byte(x.rate)) != nil {
			t.Fatal(x)
		}
		got, err := p.Shard(x.bytes, x.days)
		if err == nil && got.String() != x.want || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: %v, %v", x, got, err)
		}
	}
}

// Whatever a node answers to what is asked about money is understood, or refused.
func TestMoneyAnswers(t *testing.T) {
	node := btfstest.NewRPC(t, btfstest.NewStore())
	c := client(t, node.URL, "")
	ask := map[string]func() error{
		"cheque/price-all": func() error { _, err := c.Price(t.Context(), "WBTT"); return err },
		"storage/upload": func() error {
			_, err := c.Rent(t.Context(), Upload{CID: node.Leaf(nil).CID, Days: 30, Token: "WBTT"})
			return err
		},
		"storage/upload/status":  func() error { _, err := c.Session(t.Context(), "x"); return err },
		"storage/upload/renew":   func() error { _, err := c.Renew(t.Context(), node.Leaf(nil).CID, 30, Price{}); return err },
		"storage/hosts/info":     func() error { _, err := c.Hosts(t.Context()); return err },
		"storage/contracts/list": func() error { _, err := c.Contracts(t.Context(), "renter"); return err },
		"stake/query":            func() error { _, err := c.Stake(t.Context()); return err },
		"cheque/receivelist":     func() error { _, err := c.Cheques(t.Context(), true, "WBTT"); return err },
		"cheque/stats-all":       func() error { _, _, err := c.Earnings(t.Context()); return err },
		"name/publish":           func() error { _, _, err := c.Publish(t.Context(), "/btfs/x", "", 1); return err },
		"pin/ls":                 func() error { _, err := c.Pins(t.Context()); return err },
	}
	for command, f := range ask {
		for _, answer := range []string{"", "[]", "null", "7", `"x"`, "<html>", `{"ID":7,"Nodes":7,"Contracts":{},"Cheques":"x","WBTT":[],"Keys":[],"Amount":"1.5","Status":{},"Name":[],"Success":"yes","amount":1e9}`, strings.Repeat("[", 20000), `{"a":"` + strings.Repeat("x", maxAnswer) + `"}`} {
			node.Set(btfstest.Behaviour{Full: true, Answers: map[string]string{command: answer}})
			if err := f(); err != nil && (len(err.Error()) > 400 || !strings.Contains(err.Error(), command) || strings.Contains(err.Error(), "xxxx")) {
				t.Errorf("%s, %.20s: %.400v", command, answer, err)
			} else if err == nil && (answer == "" || answer == "<html>" || answer == "7") {
				t.Errorf("%s: %q is taken", command, answer)
			}
		}
		node.Set(btfstest.Behaviour{})
		if err := f(); command != "name/publish" && command != "pin/ls" && !errors.Is(err, ErrSimpleMode) {
			t.Errorf("%s: %v", command, err)
		}
	}
}
