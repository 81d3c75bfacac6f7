package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
)

// Amount is a whole number of the smallest units of a token, or of whatever else a node
// counts. It is exact: 2^53 is passed by a fraction of a WBTT. The zero value is 0.
type Amount struct{ n *big.Int } // never changed once it is set; nil is 0

var (
	errAmount = errors.New("not a whole number")
	integer   = regexp.MustCompile(`^-?[0-9]{1,78}$`)
	amount    = regexp.MustCompile(`^([0-9]{1,78})(?:\.([0-9]{1,78}))?\s*([A-Za-z]{1,10})$`)
	max256    = new(big.Int).Lsh(big.NewInt(1), 256)
)

// Units makes an amount of a small number.
func Units(n int64) Amount { return Amount{big.NewInt(n)} }

func (a Amount) int() *big.Int {
	if a.n == nil {
		return new(big.Int)
	}
	return a.n
}

// String is the number in decimal.
func (a Amount) String() string { return a.int().String() }

// Cmp compares as big.Int does.
func (a Amount) Cmp(b Amount) int { return a.int().Cmp(b.int()) }

// Sign is -1, 0 or 1.
func (a Amount) Sign() int { return a.int().Sign() }

// Times is a product.
func (a Amount) Times(b Amount) Amount { return Amount{new(big.Int).Mul(a.int(), b.int())} }

// Plus is a sum.
func (a Amount) Plus(b Amount) Amount { return Amount{new(big.Int).Add(a.int(), b.int())} }

// Minus is a difference.
func (a Amount) Minus(b Amount) Amount { return Amount{new(big.Int).Sub(a.int(), b.int())} }

// In is the amount with its unit, such as "1.5 WBTT".
func (a Amount) In(t Token) string {
	n := a.int()
	digits := new(big.Int).Abs(n).String()
	d := t.Decimals()
	if len(digits) <= d {
		digits = strings.Repeat("0", d+1-len(digits)) + digits
	}
	whole, rest := digits[:len(digits)-d], strings.TrimRight(digits[len(digits)-d:], "0")
	if rest != "" {
		whole += "." + rest
	}
	if n.Sign() < 0 {
		whole = "-" + whole
	}
	return whole + " " + string(t)
}

// MarshalJSON writes a text, as most readers of JSON make a float of a number.
func (a Amount) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// UnmarshalJSON takes a number or a text, in decimal and without fraction or exponent, of
// less than 2^256. null is 0.
func (a *Amount) UnmarshalJSON(b []byte) error {
	s := string(b)
	if s == "null" {
		*a = Amount{}
		return nil
	}
	if strings.HasPrefix(s, `"`) {
		if err := unquote(b, &s); err != nil {
			return err
		}
	}
	if !integer.MatchString(s) {
		return errAmount
	}
	n, _ := new(big.Int).SetString(s, 10)
	if n.CmpAbs(max256) >= 0 {
		return errAmount
	}
	*a = Amount{n}
	return nil
}

func unquote(b []byte, s *string) error {
	if json.Unmarshal(b, s) != nil {
		return errors.New("a text that is none")
	}
	return nil
}

// Token is what storage is paid in.
type Token string

// Tokens that go-btfs 4.1.0 knows on BTTC, and the digits behind the point that people
// write them with.
var tokens = map[Token]int{"WBTT": 18, "TRX": 6, "USDD": 18, "USDT": 6}

// Tokens lists them.
func Tokens() (all []string) {
	for t := range tokens {
		all = append(all, string(t))
	}
	slices.Sort(all)
	return all
}

// Decimals is how many smallest units are one token, as a power of ten.
func (t Token) Decimals() int { return tokens[t] }

// ParseToken reads the name of a token.
func ParseToken(s string) (Token, error) {
	t := Token(strings.ToUpper(s))
	if _, ok := tokens[t]; !ok {
		return "", fmt.Errorf("give one of %s", strings.Join(Tokens(), ", "))
	}
	return t, nil
}

// ParseAmount reads an amount of a token with its unit, such as 12.5WBTT. It takes nothing
// that is not exact: no exponents, no signs, no more digits than the token has.
func ParseAmount(s string) (Amount, Token, error) {
	m := amount.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return Amount{}, "", errors.New("give a number and its unit, such as 12.5WBTT")
	}
	t, err := ParseToken(m[3])
	if err != nil {
		return Amount{}, "", err
	}
	if len(m[2]) > t.Decimals() {
		return Amount{}, "", fmt.Errorf("%s has %d digits behind the point, not %d", t, t.Decimals(), len(m[2]))
	}
	n, _ := new(big.Int).SetString(m[1]+m[2]+strings.Repeat("0", t.Decimals()-len(m[2])), 10)
	if n.Cmp(max256) >= 0 {
		return Amount{}, "", errors.New("more than there is")
	}
	return Amount{n}, t, nil
}
