package wallet

import (
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"12.5BTT": "12500000000000000000", "12.5 WBTT": "12500000000000000000", "7": "7000000000000000000", "7wei": "7", "0": "0", "0.0": "0", "0wei": "0",
		"0.000000000000000001BTT": "1", "1.000000000000000001": "1000000000000000001",
		"115792089237316195423570985008687907853269984665640564039457584007913129639935wei": MaxAmount.String(),
		"115792089237316195423570985008687907853269984665640564039457.584007913129639935":   MaxAmount.String(),
	} {
		a, unit, err := ParseAmount(in, BTT)
		if err != nil || a.String() != want {
			t.Errorf("%s: %s %s, %v", in, a, unit, err)
		}
		if again, _, err := ParseAmount(a.In(unit), ""); err != nil || again != a {
			t.Errorf("%s: %s became %s, %v", in, a.In(unit), again, err)
		}
	}
	for _, in := range []string{
		"", " ", "-1", "+1", "1e18", "1E18BTT", "0x1", "0x", "1.0000000000000000001", "1.", ".5", "01", "1,5", "1_000", "1 2", "1.5wei", "1btt", "1TRX", "1  BTT", " 1", "1\n", "NaN", "∞", "١",
		"115792089237316195423570985008687907853269984665640564039457584007913129639936wei",
		"115792089237316195423570985008687907853269984665640564039457.584007913129639936", strings.Repeat("9", 78), strings.Repeat("9", 10000),
	} {
		if a, _, err := ParseAmount(in, BTT); !errors.Is(err, ErrAmount) && !errors.Is(err, ErrOverflow) {
			t.Errorf("%q: %s, %v", in, a, err)
		}
	}
	if _, _, err := ParseAmount("1", ""); !errors.Is(err, ErrAmount) {
		t.Error("an amount without a unit:", err)
	}
}

func TestAmountEdges(t *testing.T) {
	t.Parallel()
	one := FromWei(1)
	if _, err := MaxAmount.Plus(one); !errors.Is(err, ErrOverflow) {
		t.Error(err)
	}
	if _, err := one.Minus(FromWei(2)); !errors.Is(err, ErrAmount) {
		t.Error(err)
	}
	if _, err := MaxAmount.Times(2); !errors.Is(err, ErrOverflow) {
		t.Error(err)
	}
	for _, n := range []*big.Int{nil, big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 256)} {
		if a, err := FromBig(n); err == nil {
			t.Error(n, a)
		}
	}
	for _, text := range []string{`"-1"`, `"01"`, `""`, `"1e3"`, `"0x1"`, `1`, `"1.0"`, `"` + strings.Repeat("9", 78) + `"`} {
		var a Amount
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s is %s", text, a)
		}
	}
}

// FuzzAmount holds what is read against exact fractions, and reads what is written.
func FuzzAmount(f *testing.F) {
	for _, s := range []string{"12.5BTT", "0.000000000000000001 WBTT", "1000wei", "1e18", "-1", "0x10", "00.1", "1.0000000000000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, unit, err := ParseAmount(s, BTT)
		if err != nil {
			return
		}
		number := strings.TrimSpace(strings.TrimRight(s, "BTWwei"))
		want, ok := new(big.Rat).SetString(number)
		if !ok {
			t.Fatalf("%q is read as %s", s, a)
		}
		if unit != Wei {
			want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(18), nil)))
		}
		if want.Cmp(new(big.Rat).SetInt(a.Big())) != 0 {
			t.Errorf("%q is %s wei, want %s", s, a, want)
		}
		for _, u := range []Unit{BTT, WBTT, Wei} {
			if again, v, err := ParseAmount(a.In(u), ""); err != nil || again != a || v != u {
				t.Errorf("%q: %q is %s, %v", s, a.In(u), again, err)
			}
		}
		text, _ := json.Marshal(a)
		var b Amount
		if err := json.Unmarshal(text, &b); err != nil || b != a {
			t.Errorf("%s became %s, %v", text, b, err)
		}
		if c, err := FromBig(a.Big()); err != nil || c != a {
			t.Error(c, err)
		}
	})
}
