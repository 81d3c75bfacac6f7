package wallet

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"github.com/holiman/uint256"
)

// Unit is what an amount is written in.
type Unit string

// The units. One BTT and one WBTT, which is BTT wrapped as an ERC-20 token, are 10^18 wei.
const (
	BTT  Unit = "BTT"
	WBTT Unit = "WBTT"
	Wei  Unit = "wei"
)

const decimals = 18 // of BTT and WBTT

// Amount is an amount of money in wei, from 0 to 2^256-1, exact. It can be compared with ==
// and copied. Its JSON is a string of decimal digits, as numbers of JSON are floats to many.
type Amount struct{ n uint256.Int }

// Errors of amounts.
var (
	ErrAmount   = errors.New("not an amount")
	ErrOverflow = errors.New("more than there is: over 2^256-1 wei")
)

// MaxAmount is the most there is, 2^256-1 wei.
var MaxAmount = Amount{uint256.Int{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}}

// FromWei makes an amount of n wei.
func FromWei(n uint64) Amount { return Amount{*uint256.NewInt(n)} }

// FromBig makes an amount of n wei. It refuses what is nil, negative or over 2^256-1.
func FromBig(n *big.Int) (Amount, error) {
	if n == nil || n.Sign() < 0 {
		return Amount{}, ErrAmount
	}
	v, over := uint256.FromBig(n)
	if over {
		return Amount{}, ErrOverflow
	}
	return Amount{*v}, nil
}

// Big returns the wei as a new integer.
func (a Amount) Big() *big.Int { return a.n.ToBig() }

// Bytes32 returns the wei big-endian, as the ABI of contracts has a uint256.
func (a Amount) Bytes32() [32]byte { return a.n.Bytes32() }

// String returns the wei in decimal digits.
func (a Amount) String() string { return a.n.Dec() }

// IsZero reports whether it is nothing.
func (a Amount) IsZero() bool { return a.n.IsZero() }

// Cmp returns -1, 0 or 1, as a is less than, the same as or more than b.
func (a Amount) Cmp(b Amount) int { return a.n.Cmp(&b.n) }

// Plus fails with ErrOverflow beyond 2^256-1.
func (a Amount) Plus(b Amount) (sum Amount, err error) {
	if _, over := sum.n.AddOverflow(&a.n, &b.n); over {
		return Amount{}, ErrOverflow
	}
	return sum, nil
}

// Minus fails if b is more than a.
func (a Amount) Minus(b Amount) (rest Amount, err error) {
	if _, under := rest.n.SubOverflow(&a.n, &b.n); under {
		return Amount{}, fmt.Errorf("%w: below 0", ErrAmount)
	}
	return rest, nil
}

// Times fails with ErrOverflow beyond 2^256-1.
func (a Amount) Times(n uint64) (product Amount, err error) {
	if _, over := product.n.MulOverflow(&a.n, uint256.NewInt(n)); over {
		return Amount{}, ErrOverflow
	}
	return product, nil
}

// In writes the amount exactly in a unit, such as "12.5 BTT", which ParseAmount reads.
func (a Amount) In(u Unit) string {
	digits := a.String()
	if u == Wei {
		return digits + " wei"
	}
	if pad := decimals + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	whole, part := digits[:len(digits)-decimals], strings.TrimRight(digits[len(digits)-decimals:], "0")
	if part != "" {
		whole += "." + part
	}
	return whole + " " + string(u)
}

var amounts = regexp.MustCompile(`^(0|[1-9][0-9]*)(?:\.([0-9]+))? ?(BTT|WBTT|wei)?$`)

const maxDigits = 78 // of 2^256-1

// ParseAmount reads an amount such as "12.5BTT", "0.1 WBTT" or "1000 wei". One without a
// unit is in the unit or, if that is "", refused. It takes nothing that is not exact: no
// exponent, sign, hexadecimal, leading zeros, or more than 18 digits behind the point (none
// of wei). Errors are ErrAmount and ErrOverflow.
func ParseAmount(s string, unit Unit) (Amount, Unit, error) {
	m := amounts.FindStringSubmatch(s[:min(len(s), 4*maxDigits)])
	if m == nil || len(s) > 4*maxDigits {
		return Amount{}, "", fmt.Errorf("%w: give a number and its unit, such as 12.5BTT", ErrAmount)
	}
	if m[3] != "" {
		unit = Unit(m[3])
	}
	places := decimals
	switch unit {
	case "":
		return Amount{}, "", fmt.Errorf("%w without its unit: give BTT, WBTT or wei, such as 12.5BTT", ErrAmount)
	case Wei:
		places = 0
	}
	if len(m[2]) > places {
		return Amount{}, "", fmt.Errorf("%w: %s has %d digits behind the point", ErrAmount, unit, places)
	}
	digits := strings.TrimLeft(m[1]+m[2]+strings.Repeat("0", places-len(m[2])), "0")
	if digits == "" {
		return Amount{}, unit, nil
	}
	n, err := uint256.FromDecimal(digits)
	if err != nil {
		return Amount{}, "", ErrOverflow
	}
	return Amount{*n}, unit, nil
}

// MarshalText writes the wei in decimal digits.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

var wholes = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

// UnmarshalText reads what MarshalText writes and nothing else.
func (a *Amount) UnmarshalText(text []byte) error {
	if len(text) > maxDigits || !wholes.Match(text) {
		return ErrAmount
	}
	n, err := uint256.FromDecimal(string(text))
	if err != nil {
		return ErrOverflow
	}
	a.n = *n
	return nil
}
