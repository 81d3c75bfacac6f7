package discovery

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	peer_store "github.com/anacrolix/dht/v2/peer-store"
	"github.com/anacrolix/torrent/bencode"
)

const (
	storeHashes  = 2000
	storePeers   = 100 // per torrent; a reply has room for fewer
	storeExpires = 45 * time.Minute
	maxSamples   = 20 // info-hashes in one reply
	sampleEvery  = time.Hour
)

// peerStore remembers what others announce to us as a node of the DHT (BEP 5).
// Full, it drops an arbitrary entry, so that a flood costs memory that is known
// beforehand and cannot shut out the next honest announce. The library's own
// store is unbounded, never expires and reads its keys back as wrong addresses.
type peerStore struct {
	mu     sync.Mutex
	hashes map[peer_store.InfoHash]map[netip.AddrPort]time.Time

	sampled []byte // info-hashes drawn of total
	total   int
	drawn   time.Time
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

// sample adds a sample of the torrents that peers announced to a reply (BEP 51): all, or
// as many as one packet holds, and then the same ones for a while, so that asking again
// and again does not bring the whole store.
func (s *peerStore) sample(now time.Time, r map[string]bencode.Bytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total <= maxSamples || now.Sub(s.drawn) >= sampleEvery {
		s.drawLocked(now)
	}
	r["samples"] = bencode.MustMarshal(string(s.sampled))
	r["num"] = bencode.MustMarshal(s.total)
	r["interval"] = bencode.MustMarshal(int(sampleEvery / time.Second))
}

func (s *peerStore) drawLocked(now time.Time) {
	s.sampled, s.total, s.drawn = nil, 0, now
	for hash, peers := range s.hashes { // in random order
		maps.DeleteFunc(peers, func(_ netip.AddrPort, seen time.Time) bool { return now.Sub(seen) > storeExpires })
		if len(peers) == 0 {
			delete(s.hashes, hash)
			continue
		}
		if s.total++; s.total <= maxSamples {
			s.sampled = append(s.sampled, hash[:]...)
		}
	}
}
