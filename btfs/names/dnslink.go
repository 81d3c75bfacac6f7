package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// DNS looks up TXT records. ttl is how long they may be kept, 0 if nobody says. A name that
// there is not is a *net.DNSError with IsNotFound.
type DNS interface {
	TXT(ctx context.Context, name string) (texts []string, ttl time.Duration, err error)
}

const (
	maxDomain = 253
	maxLabel  = 63
	maxTexts  = 100  // TXT records that are looked at
	maxText   = 4096 // bytes of one
	linkMark  = "dnslink="
)

// ErrNoLink says that a domain stands for nothing now.
var ErrNoLink = errors.New("has no DNSLink")

// dnslink asks what a domain says that it stands for, and for how long.
//
// _dnslink.NAME is asked first, and NAME itself only if there is nothing there: an error
// of the first must not make the second's word count.
func dnslink(ctx context.Context, dns DNS, domain string) (value string, ttl time.Duration, err error) {
	for _, name := range []string{"_dnslink." + domain, domain} {
		texts, ttl, err := dns.TXT(ctx, name+".") // absolute: no search list of the system
		if de := (*net.DNSError)(nil); errors.As(err, &de) && de.IsNotFound {
			continue
		}
		if err != nil {
			return "", 0, fmt.Errorf("looking up %s: %w", name, brief(err))
		}
		if value, ok := linkOf(texts); ok {
			return value, ttl, nil
		}
	}
	return "", 0, fmt.Errorf("%s %w: no TXT record dnslink=/btfs/… or dnslink=/btns/… at _dnslink.%s or at itself", domain, ErrNoLink, domain)
}

// linkOf finds a link in TXT records. Of several it is always the same one, whatever order
// they come in.
func linkOf(texts []string) (value string, ok bool) {
	var links []string
	for _, t := range texts[:min(len(texts), maxTexts)] {
		if len(t) > maxText {
			continue
		}
		if v, ok := strings.CutPrefix(t, linkMark); ok && (strings.HasPrefix(v, "/btfs/") || strings.HasPrefix(v, "/btns/")) {
			links = append(links, v)
		}
	}
	if len(links) == 0 {
		return "", false
	}
	return slices.Min(links), true
}

// brief is an error of DNS without the name, which stands before it.
func brief(err error) error {
	if de := (*net.DNSError)(nil); errors.As(err, &de) {
		return errors.New(de.Err)
	}
	return err
}

// isDomain reports whether a text can be looked up in DNS. Peer ids have no dots.
func isDomain(text string) bool { return strings.Contains(text, ".") }

// checkDomain returns an error unless a text is a domain. It has to be one of ASCII, as a
// resolver sees no other.
func checkDomain(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > maxDomain {
		return "", fmt.Errorf("%.24q…: a domain of %d characters; at most %d", text, len(name), maxDomain)
	}
	for label := range strings.SplitSeq(name, ".") {
		ok := label != "" && len(label) <= maxLabel
		for _, c := range []byte(label) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			return "", fmt.Errorf("%q: not a domain; one with other letters than a to z is written as xn--…", text)
		}
	}
	return name, nil
}
