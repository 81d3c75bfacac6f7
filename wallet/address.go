package wallet

import (
	"errors"
	"regexp"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

// Address is an account or a contract.
type Address = common.Address

// ErrAddress says that a text is no address.
var ErrAddress = errors.New("not an address")

var addresses = regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)

// ParseAddress reads an address: 0x and 40 hexadecimal digits. If they are of mixed case, the
// case is a checksum (EIP-55) and has to be right. All of one case has no checksum, and
// checked is false: an error of typing could not be noticed. The zero address is refused, as
// what is sent there is lost.
func ParseAddress(s string) (a Address, checked bool, err error) {
	if !addresses.MatchString(s) {
		return a, false, errors.Join(ErrAddress, errors.New("give 0x and 40 hexadecimal digits"))
	}
	a = common.HexToAddress(s)
	if a == (Address{}) {
		return a, false, errors.Join(ErrAddress, errors.New("what is sent to the zero address is lost"))
	}
	digits := s[2:]
	if strings.ToLower(digits) == digits || strings.ToUpper(digits) == digits {
		return a, a.Hex() == s, nil // digits alone are their own checksum
	}
	if a.Hex() != s {
		return a, false, errors.Join(ErrAddress, errors.New("its checksum (EIP-55) is wrong, so at least one character is"))
	}
	return a, true, nil
}
