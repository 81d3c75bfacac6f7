package discovery

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
	"golang.org/x/time/rate"
)

const (
	tokenEpoch  = 5 * time.Minute
	tokenEpochs = 3      // a token is good for ten minutes at least (BEP 5)
	putsPerSec  = 50     // signatures are costly to check
	markLength  = 8      // of answers.mark
	headLength  = 38     // of what goes before a transaction id: see wrap
	maxOwnT     = 1 << 8 // a transaction id longer than that is nobody's
)

// answers is what our node of the DHT answers beside the library: items (BEP 44) and
// samples of info-hashes (BEP 51).
//
// The library knows which nodes are good, and that is part of these answers, so it is
// asked for them: a query is made into a find_node on its way in, its own part goes into
// the transaction id, and the reply is completed on its way out. The library's own get
// and put were read and set aside: it takes the info-hash, which is not there, for the
// target of a get and of a find_node; refuses immutable items for the lack of a sequence
// number; compares cas with the wrong thing; decodes and encodes values again, so that
// their hash changes; and its store has no bound.
type answers struct {
	id     krpc.ID // ours
	mark   string  // begins the transaction ids that we make; nobody sees it
	secret [16]byte
	items  items
	peers  *peerStore
	puts   *rate.Limiter
}

func newAnswers(id krpc.ID, peers *peerStore) *answers {
	a := &answers{id: id, mark: random(markLength), peers: peers, puts: rate.NewLimiter(putsPerSec, putsPerSec)}
	rand.Read(a.secret[:])
	return a
}

// random is n bytes that nobody guesses.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

// token proves, when it comes back, that its owner receives packets at addr.
func (a *answers) token(addr netip.Addr, at time.Time) string {
	b := binary.BigEndian.AppendUint64(a.secret[:], uint64(at.Unix()/int64(tokenEpoch/time.Second)))
	sum := sha256.Sum256(append(b, addr.Unmap().AsSlice()...))
	return string(sum[:8])
}

func (a *answers) goodToken(token string, addr netip.Addr, now time.Time) bool {
	for range tokenEpochs {
		if token == a.token(addr, now) {
			return true
		}
		now = now.Add(-tokenEpoch)
	}
	return false
}

// query returns what the library is to see of a query: something else if it cannot answer
// it rightly, nil if it is not to see it at all.
func (a *answers) query(packet []byte, m *krpc.Msg) []byte {
	t := m.T
	switch m.Q {
	case "find_node":
	case "get", "sample_infohashes":
		if len(m.T) > maxOwnT {
			return nil
		}
		t = a.wrap(m)
	default:
		return packet
	}
	target := string(m.A.Target[:])
	args := map[string]any{"id": string(m.A.ID[:]), "target": target, "info_hash": target} // where the library looks for it
	if len(m.A.Want) > 0 {
		args["want"] = m.A.Want
	}
	out := map[string]any{"t": t, "y": krpc.YQuery, "q": "find_node", "a": args}
	if m.ReadOnly {
		out["ro"] = 1
	}
	return bencode.MustMarshal(out)
}

// wrap returns a transaction id with the query in it: the mark, the first letter of the
// query, its target, whether it has a sequence number, that, and its transaction id.
func (a *answers) wrap(m *krpc.Msg) string {
	b := append([]byte(a.mark), m.Q[0])
	b = append(b, m.A.Target[:]...)
	var seq int64
	if m.A.Seq != nil {
		b, seq = append(b, 1), *m.A.Seq
	} else {
		b = append(b, 0)
	}
	return string(binary.BigEndian.AppendUint64(b, uint64(seq))) + m.T
}

// finish completes a reply of the library to a query that was wrapped; others stay.
func (a *answers) finish(packet []byte, to netip.Addr) []byte {
	if !bytes.Contains(packet, []byte(a.mark)) {
		return packet
	}
	var m struct {
		T  string                   `bencode:"t"`
		Y  string                   `bencode:"y"`
		IP bencode.Bytes            `bencode:"ip"`
		R  map[string]bencode.Bytes `bencode:"r"`
	}
	if bencode.Unmarshal(packet, &m) != nil || m.Y != krpc.YResponse || m.R == nil || len(m.T) < headLength || m.T[:markLength] != a.mark {
		return packet
	}
	head, now := []byte(m.T[markLength:headLength]), time.Now()
	if head[0] == 'g' {
		m.R["token"] = bencode.MustMarshal(a.token(to, now))
		asked := int64(-1)
		if head[21] == 1 {
			asked = int64(binary.BigEndian.Uint64(head[22:]))
		}
		a.items.get(krpc.ID(head[1:21]), asked, now, m.R)
	} else {
		a.peers.sample(now, m.R)
	}
	out := map[string]any{"t": m.T[headLength:], "y": m.Y, "r": m.R}
	if m.IP != nil {
		out["ip"] = m.IP
	}
	return bencode.MustMarshal(out)
}

// put answers a packet if it is a put query; nil if it is not, or if there is no time.
func (a *answers) put(packet []byte, from netip.AddrPort) []byte {
	if !bytes.Contains(packet, []byte("1:q3:put")) {
		return nil
	}
	var m putQuery
	if err := bencode.Unmarshal(packet, &m); err != nil || m.Q != "put" || m.Y != krpc.YQuery || len(m.T) > maxOwnT || !a.puts.Allow() {
		return nil
	}
	now, ip := time.Now(), krpc.NodeAddr{}
	ip.FromAddrPort(from)
	out := map[string]any{"t": m.T, "y": krpc.YResponse, "r": map[string]any{"id": string(a.id[:])}, "ip": ip}
	var err *krpc.Error
	if !a.goodToken(m.A.Token, from.Addr(), now) {
		err = &krpc.Error{Code: krpc.ErrorCodeProtocolError, Msg: "bad token"}
	} else {
		err = a.items.put(&m.A, now)
	}
	if err != nil {
		out["y"], out["e"] = krpc.YError, []any{err.Code, err.Msg}
		delete(out, "r")
	}
	return bencode.MustMarshal(out)
}
