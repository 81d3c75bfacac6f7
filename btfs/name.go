package btfs

import (
	"errors"
	"fmt"
	"strings"
)

// Name is an object that is named by BTNS: a peer id or a domain, and names below what it
// stands for. Package names looks it up.
type Name struct {
	Key   string // a peer id (16Uiu2…, Qm…, k51…), or a domain
	Names []string
}

// ErrIsName says that a text names an object by BTNS, and not by its CID.
var ErrIsName = errors.New("it is a name of BTNS, and a CID is needed: btmount btfs name resolve tells it")

// IsName reports whether a text is written as a name of BTNS: /btns/NAME or btns://NAME.
// Whether it is a good one, [ParseName] tells.
func IsName(text string) bool {
	return strings.HasPrefix(text, "/btns/") || strings.HasPrefix(text, "btns://")
}

// ParseName reads /btns/NAME[/path], btns://NAME[/path] or NAME[/path]. What NAME is, is
// looked at when it is looked up.
func ParseName(text string) (Name, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(text, "/btns/"), "btns://")
	if len(text) > maxPath {
		return Name{}, fmt.Errorf("%q…: a path of %d bytes; at most %d", text[:40], len(text), maxPath)
	}
	key, below, _ := strings.Cut(rest, "/")
	if key == "" {
		return Name{}, fmt.Errorf("%q: a name of BTNS is needed, a peer id or a domain, such as btns://k51… or btns://example.org", text)
	}
	names, err := splitPath(text, below)
	return Name{key, names}, err
}

// String is the name as a path, /btns/NAME/path.
func (n Name) String() string {
	return "/btns/" + strings.Join(append([]string{n.Key}, n.Names...), "/")
}

// splitPath reads the names below an object.
func splitPath(text, below string) (names []string, err error) {
	for name := range strings.SplitSeq(below, "/") {
		switch name {
		case "": // a slash at the end, or two
		case ".", "..":
			return nil, fmt.Errorf("%q: a path without . and .. is needed", text)
		default:
			names = append(names, name)
		}
	}
	return names, nil
}
