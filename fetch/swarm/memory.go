package swarm

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
)

// Known is a peer as it is remembered between two Torrents of one swarm, for a restart
// as well: so that who served us is called first, the fastest before others.
//
// Rejected: to take the rate for the first guess of its estimate, too, and share the first
// blocks out by it. With four peers of 5 to 0.1 MB/s, or one of 5 and seven of 0.05, the
// first byte came no sooner (0.24 s, 0.4 s): the guess that all are equal is corrected by
// asking again before it costs anything, and a wrong memory is not free.
type Known struct {
	Addr   netip.AddrPort `json:"addr"`
	Source string         `json:"source"`           // as in [Peer]
	Via    netip.Addr     `json:"via,omitzero"`     // who told of it; not valid: unknown
	Served bool           `json:"served,omitempty"` // it sent payload
	Rate   float64        `json:"rate,omitempty"`   // bytes/s when it was last busy; 0: unknown
}

const (
	// MaxKnown is how many peers are remembered of a torrent.
	MaxKnown    = 30
	mostLearned = 1e10 // bytes/s that a peer may be remembered for
)

// learn notes what a connection has shown of its peer.
func (k *candidate) learn(c *conn) {
	if c.down.Load() == 0 {
		return
	}
	k.served = true
	if c.view.Pipe.Known() {
		k.rate = c.view.Pipe.Rate()
	}
}

// remember notes the peers of another time. For who may name an address the rules are as
// they were then. What the user or the magnet named counts only if they still do: of those
// it is remembered what they did.
func (t *Torrent) remember(known []Known) {
	for _, p := range known[:min(len(known), MaxKnown)] {
		switch p.Source {
		case "tracker", "dht", "lsd", "pex":
			t.learn([]netip.AddrPort{p.Addr}, p.Source, p.Via)
		}
		k := t.pool.known_[p.Addr]
		if k == nil || k.busy || !p.Served {
			continue
		}
		t.pool.change(k, func() {
			k.served, k.rate = true, min(max(0, p.Rate), mostLearned)
		})
	}
}

// Known returns peers worth dialling first when the swarm is joined again, at most
// [MaxKnown]: those that served us, the fastest first, then others that could be reached.
// It may be called when Run has ended; Remember asks a Torrent that runs.
func (t *Torrent) Known() []Known {
	var list []*candidate
	for c := range t.conns {
		if k := t.pool.known_[c.listen]; k != nil {
			k.learn(c)
		}
	}
	for _, k := range t.pool.known_ {
		switch k.source {
		case "given", "magnet":
			if k.served {
				list = append(list, k)
			}
		case "tracker", "dht", "lsd", "pex":
			if k.fails == 0 {
				list = append(list, k)
			}
		}
	}
	slices.SortFunc(list, func(a, b *candidate) int { return cmp.Or(a.compare(b), a.addr.Compare(b.addr)) })
	out := make([]Known, 0, min(len(list), MaxKnown))
	for _, k := range list[:cap(out)] {
		out = append(out, Known{Addr: k.addr, Source: k.source, Via: k.via, Served: k.served, Rate: k.rate})
	}
	return out
}

// Remember is Known while Run runs; ok=false if it does not answer before ctx ends.
func (t *Torrent) Remember(ctx context.Context) (known []Known, ok bool) {
	return ask(ctx, t, t.Known)
}
