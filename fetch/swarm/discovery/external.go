package discovery

import (
	"net/netip"
	"sync"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"

	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	maxVotes = 64 // of the nodes that answered last
	minVotes = 8
)

// external gathers what nodes say our address is, in their replies (BEP 42). A network
// (/24, of IPv6 /48) has one vote, so that one liar with many addresses counts once.
type external struct {
	mu    sync.Mutex
	votes map[netip.Prefix]netip.Addr
}

func (e *external) vote(by, us netip.Addr) {
	bits := 24
	if by.Is6() {
		bits = 48
	}
	from, err := by.WithZone("").Prefix(bits)
	// Only the address that the world sees is good for an id.
	if err != nil || network.Nearer(us, netip.Addr{}) || by.Is4() != us.Is4() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.votes == nil {
		e.votes = map[netip.Prefix]netip.Addr{}
	}
	if _, ok := e.votes[from]; !ok {
		dropOne(e.votes, maxVotes)
	}
	e.votes[from] = us
}

// addr is what two thirds of those say that answered of a family, IPv4 first; not valid
// if nobody knows.
func (e *external) addr() netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v4 := range []bool{true, false} {
		n, all := map[netip.Addr]int{}, 0
		for _, us := range e.votes {
			if us.Is4() == v4 {
				n[us]++
				all++
			}
		}
		for us, n := range n {
			if n >= minVotes && 3*n >= 2*all {
				return us
			}
		}
	}
	return netip.Addr{}
}

// fitting returns id if it is right for the external address, or a new one that is. While
// nobody knows the address, every id is right.
func (e *external) fitting(id krpc.ID) krpc.ID {
	us := e.addr()
	if !us.IsValid() || dht.NodeIdSecure(id, us.AsSlice()) {
		return id
	}
	id = krpc.RandomNodeID()
	dht.SecureNodeId(&id, us.AsSlice())
	return id
}
