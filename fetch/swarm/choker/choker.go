// Package choker decides whom to serve. It is pure.
//
// While we download it is tit for tat (BEP 3): the peers that give most are served,
// and one more is tried in turn, so that newcomers get a chance. While we only seed
// it is round robin: who has been served longest makes room for who has waited
// longest, so that a fast peer does not keep the slots. The wait of those that have
// nothing yet, or almost all, counts up to twice: the first become useful to others,
// the others become seeds, while in the middle they get along with each other
// (libtorrent calls it anti-leech).
package choker

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// Round is how often Choose is called.
	Round = 10 * time.Second
	// optimistic is how many rounds a tried peer keeps its slot.
	optimistic = 3
	// turn is how long a seed serves a peer before others that wait come first.
	turn = 60 * time.Second
)

// Peer is one connection as the choker sees it.
type Peer struct {
	Interested bool
	Given      float64   // bytes/s that it sends us
	Have       float64   // of the torrent, 0 to 1
	Unchoked   bool      // served now
	Since      time.Time // of the last change of Unchoked
	Tried      int       // rounds left as the optimistic choice
	Key        int       // its identity, for a stable order
}

// Choose marks the peers to serve by setting Unchoked, at most slots of them.
func Choose(peers []*Peer, slots int, seeding bool, now time.Time) {
	var want []*Peer
	for _, p := range peers {
		if p.Interested {
			want = append(want, p)
		}
	}
	if seeding {
		byTurn(want, now)
	} else {
		slices.SortFunc(want, func(a, b *Peer) int {
			return cmp.Or(cmp.Compare(b.Given, a.Given), cmp.Compare(a.Key, b.Key))
		})
	}
	serve := map[*Peer]bool{}
	for _, p := range want[:min(len(want), max(0, slots-1))] {
		serve[p] = true
	}
	if p := try(want, serve, now); p != nil && slots > 0 {
		serve[p] = true
	}
	for _, p := range peers {
		if serve[p] != p.Unchoked {
			p.Unchoked, p.Since = serve[p], now
		}
	}
}

// patience is how long a peer has waited, weighted by what it has.
func (p *Peer) patience(now time.Time) float64 {
	return now.Sub(p.Since).Seconds() * (1 + math.Abs(2*min(max(p.Have, 0), 1)-1))
}

// byTurn sorts: those within their turn, then those that wait, longest first, then the rest.
func byTurn(want []*Peer, now time.Time) {
	rank := func(p *Peer) int {
		switch {
		case p.Unchoked && now.Sub(p.Since) < turn:
			return 0
		case !p.Unchoked:
			return 1
		}
		return 2
	}
	slices.SortFunc(want, func(a, b *Peer) int {
		ra, rb := rank(a), rank(b)
		if ra == 1 && rb == 1 {
			return cmp.Or(cmp.Compare(b.patience(now), a.patience(now)), cmp.Compare(a.Key, b.Key))
		}
		return cmp.Or(cmp.Compare(ra, rb), a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key))
	})
}

// try returns the optimistic choice: the one of before for some rounds, then who
// is the least patient.
func try(want []*Peer, serve map[*Peer]bool, now time.Time) *Peer {
	var pick *Peer
	for _, p := range want {
		if p.Tried > 0 && !serve[p] {
			p.Tried--
			return p
		}
	}
	for _, p := range want {
		if !serve[p] && (pick == nil || p.patience(now) > pick.patience(now)) {
			pick = p
		}
	}
	if pick != nil {
		pick.Tried = optimistic - 1
	}
	return pick
}
