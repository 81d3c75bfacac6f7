package swarm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"sync"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// priority is BEP 40's order of peers: a number that both ends of a connection come to,
// and nobody else can choose. A swarm in which everybody calls those with the highest
// first is connected evenly, and who floods it with addresses gains little.
func priority(a, b netip.AddrPort) uint32 {
	x, y := a.Addr().Unmap().AsSlice(), b.Addr().Unmap().AsSlice()
	if len(x) != len(y) || len(x) == 0 {
		return 0 // of two families, or unknown
	}
	if bytes.Equal(x, y) {
		x = binary.BigEndian.AppendUint16(nil, a.Port())
		y = binary.BigEndian.AppendUint16(nil, b.Port())
	} else {
		mask(x, y)
	}
	if bytes.Compare(x, y) > 0 {
		x, y = y, x
	}
	return crc32.Checksum(append(bytes.Clone(x), y...), castagnoli)
}

// mask leaves of two addresses what the nearness of their networks makes count.
func mask(x, y []byte) {
	whole := 2 // bytes that count as they are
	if len(x) == 16 {
		whole = 6
	}
	for whole < len(x) && bytes.Equal(x[:whole], y[:whole]) {
		whole++
	}
	for i := whole; i < len(x); i++ {
		x[i] &= 0x55
		y[i] &= 0x55
	}
}

// outer is what peers say that our addresses are, one of each family. One peer alone is
// not believed.
type outer struct {
	mu    sync.Mutex
	votes map[netip.Addr]int
	four  netip.Addr // of those with the most votes; not valid: unknown
	six   netip.Addr
}

const (
	maxVotes = 64 // addresses that are counted; then all are forgotten
	minVotes = 2
)

// vote counts what a peer says.
func (o *outer) vote(yourIP string) {
	a, ok := netip.AddrFromSlice([]byte(yourIP))
	if a = a.Unmap(); !ok || a.IsUnspecified() || a.IsMulticast() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.votes == nil || len(o.votes) >= maxVotes && o.votes[a] == 0 {
		o.votes = map[netip.Addr]int{}
	}
	o.votes[a]++
	best := &o.four
	if a.Is6() {
		best = &o.six
	}
	if n := o.votes[a]; n >= minVotes && n > o.votes[*best] {
		*best = a
	}
}

// like returns our address of the family of a.
func (o *outer) like(a netip.Addr) netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a.Is6() {
		return o.six
	}
	return o.four
}
