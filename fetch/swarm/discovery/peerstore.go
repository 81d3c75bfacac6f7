package discovery

import (
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
	peer_store "github.com/anacrolix/dht/v2/peer-store"
)

const (
	storeHashes  = 2000
	storePeers   = 100 // per torrent; a reply has room for fewer
	storeExpires = 45 * time.Minute
)

// peerStore remembers what others announce to us as a node of the DHT (BEP 5).
// Full, it drops an arbitrary entry, so that a flood costs memory that is known
// beforehand and cannot shut out the next honest announce. The library's own
// store is unbounded, never expires and reads its keys back as wrong addresses.
type peerStore struct {
	mu     sync.Mutex
	hashes map[peer_store.InfoHash]map[netip.AddrPort]time.Time
}

func (s *peerStore) AddPeer(hash peer_store.InfoHash, na krpc.NodeAddr) {
	addr, ok := netip.AddrFromSlice(na.IP)
	if !ok || na.Port < 1 || na.Port > 65535 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hashes == nil {
		s.hashes = make(map[peer_store.InfoHash]map[netip.AddrPort]time.Time)
	}
	peers := s.hashes[hash]
	if peers == nil {
		dropOne(s.hashes, storeHashes)
		peers = make(map[netip.AddrPort]time.Time)
		s.hashes[hash] = peers
	}
	at := netip.AddrPortFrom(addr.Unmap(), uint16(na.Port))
	if _, known := peers[at]; !known {
		dropOne(peers, storePeers)
	}
	peers[at] = time.Now()
}

func (s *peerStore) GetPeers(hash peer_store.InfoHash) (list []krpc.NodeAddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, seen := range s.hashes[hash] {
		if time.Since(seen) > storeExpires {
			delete(s.hashes[hash], at)
			continue
		}
		list = append(list, krpc.NodeAddr{IP: at.Addr().AsSlice(), Port: int(at.Port())})
	}
	if len(s.hashes[hash]) == 0 {
		delete(s.hashes, hash)
	}
	return list
}

func dropOne[K comparable, V any](m map[K]V, most int) {
	if len(m) < most {
		return
	}
	for k := range m { // in random order
		delete(m, k)
		return
	}
}

// noItems refuses to keep arbitrary data of strangers (BEP 44): we do not use
// it, and the library's store has no bound.
type noItems struct{}

func (noItems) Put(*bep44.Item) error                 { return krpc.ErrorMethodUnknown }
func (noItems) Get(bep44.Target) (*bep44.Item, error) { return nil, bep44.ErrItemNotFound }
func (noItems) Del(bep44.Target) error                { return nil }
