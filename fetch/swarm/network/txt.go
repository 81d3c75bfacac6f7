package network

import (
	"context"
	"fmt"
)

// LookupTXT returns the TXT records of a name. Name servers are asked as everything else
// is; behind a proxy they are not asked at all ([ErrProxied]), as SOCKS5 relays no such
// questions.
func (n *Network) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if n.Proxied() {
		return nil, fmt.Errorf("looking up TXT of %.100q: %w", name, ErrProxied)
	}
	return n.resolver.LookupTXT(ctx, name)
}
