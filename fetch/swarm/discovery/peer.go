package discovery

import (
	"encoding/binary"
	"log/slog"
	"net/netip"

	"github.com/btmount/btmount/fetch/swarm/network"
)

// Peer is an address at which somebody is said to have the torrent.
type Peer struct {
	Addr   netip.AddrPort
	Source string     // "tracker", "dht" or "lsd"
	Via    netip.Addr // of the tracker or node that said so; not valid: unknown
}

// Stats is what trackers want to know of our part in a torrent.
type Stats struct {
	Uploaded, Downloaded, Left int64
	Port                       uint16 // on which we accept peers
}

// Config is what all trackers of a process share.
type Config struct {
	PeerID    [20]byte
	UserAgent string
	Logger    *slog.Logger     // nil: nothing is logged
	Network   *network.Network // opens the sockets
}

const maxPeers = 200 // taken from one reply

// peerSet collects the usable peers of one reply.
type peerSet struct {
	source string
	peers  []Peer
	seen   map[netip.AddrPort]bool
}

// full reports that further peers would be dropped.
func (s *peerSet) full() bool { return len(s.peers) >= maxPeers }

func (s *peerSet) add(addr netip.Addr, port uint16) {
	addr = addr.Unmap().WithZone("")
	if s.full() || port == 0 || !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast {
		return
	}
	at := netip.AddrPortFrom(addr, port)
	if s.seen[at] {
		return
	}
	if s.seen == nil {
		s.seen = make(map[netip.AddrPort]bool)
	}
	s.seen[at] = true
	s.peers = append(s.peers, Peer{Addr: at, Source: s.source})
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// addCompact reads addresses of size bytes with two of port each (BEP 23, 7).
// A rest that is too short is ignored: the peers before it may be good.
func (s *peerSet) addCompact(b []byte, size int) {
	for ; len(b) >= size+2 && !s.full(); b = b[size+2:] {
		addr, _ := netip.AddrFromSlice(b[:size])
		s.add(addr, binary.BigEndian.Uint16(b[size:]))
	}
}

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
