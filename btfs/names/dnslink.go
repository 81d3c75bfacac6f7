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
	maxTexts = 100  // TXT records that are looked at
	maxText  = 4096 // bytes of one
	linkMark = "dnslink="
)

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
	return "", 0, fmt.Errorf("%s has no DNSLink: no TXT record dnslink=/btfs/… or dnslink=/btns/… at _dnslink.%s or at itself", domain, domain)
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
