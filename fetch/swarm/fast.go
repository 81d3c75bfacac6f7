package swarm

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

const (
	maxFast      = 10      // pieces that a peer may have while it is choked, as BEP 6 proposes
	maxFastBytes = 4 << 20 // and bytes, whatever the length of a piece: nobody gives for them
)

// fastSet is the allowed fast set of a peer (BEP 6): k pieces that its network of IPv4
// gets without being served otherwise, so that a newcomer soon has something to give. It
// is always the same, so that calling again brings nothing new. There is none for IPv6.
func fastSet(ip netip.Addr, hash metainfo.InfoHash, pieces, k int) (set []int) {
	if ip = ip.Unmap(); !ip.Is4() || pieces <= 0 {
		return nil
	}
	net := ip.As4()
	net[3] = 0
	x := append(net[:], hash[:]...)
	for k = min(k, pieces); len(set) < k; {
		sum := sha1.Sum(x)
		x = sum[:]
		for i := 0; i < len(x) && len(set) < k; i += 4 {
			p := int(binary.BigEndian.Uint32(x[i:]) % uint32(pieces))
			if !slices.Contains(set, p) {
				set = append(set, p)
			}
		}
	}
	return set
}

// giveFast tells a newcomer which pieces it may have while it is choked. A peer with more
// than that has something to give already.
func (t *Torrent) giveFast(c *conn) {
	if !c.fast || t.store == nil || t.client.cfg.NoUpload || t.shared() || c.haveAll || c.haveCount >= maxFast {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gift != nil || !c.choking {
		return
	}
	c.gift = map[int]int{}
	k := min(maxFast, int(maxFastBytes/t.info.PieceLength))
	for _, p := range fastSet(c.addr.Addr(), c.hash.name, t.info.NumPieces(), k) {
		if t.stock.has(p) && !c.has(p) {
			c.gift[p] = 2 * int(t.info.PieceSize(p)) // a block may be asked for twice
			c.out = wire.AppendIndex(c.out, pp.AllowedFast, p)
		}
	}
	c.wake()
}

// giftLocked takes a request out of what a choked peer may have; false: it may not.
func (c *conn) giftLocked(k blockKey) bool {
	if c.gift[k.piece] < k.size {
		return false
	}
	c.gift[k.piece] -= k.size
	return true
}

// noGift takes back what a choked peer may have, for good.
func (c *conn) noGift() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gift = map[int]int{}
}
