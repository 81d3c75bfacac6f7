package discovery

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha1"
	"strconv"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
)

// The bounds of BEP 44, and ours.
const (
	maxItemValue = 1000
	maxItemSalt  = 64
	itemExpires  = 2 * time.Hour
	maxItems     = 700 // 900 KB of the largest
)

// items keeps what strangers put into the DHT (BEP 44). Full, it drops an arbitrary one,
// as peerStore does.
type items struct {
	mu sync.Mutex
	of map[krpc.ID]item
}

// item is a value with its proof. An immutable one has no key: its target is its hash.
type item struct {
	v, k, sig string
	seq       int64
	at        time.Time
}

// putQuery is decoded anew, because the value counts as it came: its bytes are signed.
type putQuery struct {
	Q string  `bencode:"q"`
	T string  `bencode:"t"`
	Y string  `bencode:"y"`
	A putArgs `bencode:"a"`
}

type putArgs struct {
	Token string        `bencode:"token"`
	V     bencode.Bytes `bencode:"v"`
	K     string        `bencode:"k"`
	Salt  string        `bencode:"salt"`
	Sig   string        `bencode:"sig"`
	Seq   *int64        `bencode:"seq"`
	Cas   *int64        `bencode:"cas"`
}

func refuse(code int, why string) *krpc.Error { return &krpc.Error{Code: code, Msg: why} }

// put keeps an item, or tells why not. Its token has been checked.
func (s *items) put(a *putArgs, now time.Time) *krpc.Error {
	switch {
	case len(a.V) == 0:
		return refuse(krpc.ErrorCodeProtocolError, "no value")
	case len(a.V) > maxItemValue:
		return refuse(krpc.ErrorCodeMessageValueFieldTooBig, "message (v field) too big")
	case len(a.Salt) > maxItemSalt:
		return refuse(krpc.ErrorCodeSaltFieldTooBig, "salt (salt field) too big")
	}
	it := item{v: string(a.V), at: now}
	target := krpc.ID(sha1.Sum(a.V))
	if a.K != "" {
		if a.Seq == nil || *a.Seq < 0 || len(a.K) != ed25519.PublicKeySize || len(a.Sig) != ed25519.SignatureSize {
			return refuse(krpc.ErrorCodeProtocolError, "a mutable item needs k of 32 bytes, sig of 64, and seq")
		}
		if !ed25519.Verify(ed25519.PublicKey(a.K), signed(a), []byte(a.Sig)) {
			return refuse(krpc.ErrorCodeInvalidSignature, "invalid signature")
		}
		it.k, it.sig, it.seq = a.K, a.Sig, *a.Seq
		target = sha1.Sum([]byte(a.K + a.Salt))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.of[target]
	if ok = ok && now.Sub(old.at) < itemExpires; ok && it.k != "" {
		switch {
		case a.Cas != nil && *a.Cas != old.seq:
			return refuse(krpc.ErrorCodeCasHashMismatched, "the CAS number does not match: read the value again")
		case it.seq < old.seq || it.seq == old.seq && it.v != old.v:
			return refuse(krpc.ErrorCodeSequenceNumberLessThanCurrent, "sequence number less than current")
		}
	}
	if s.of == nil {
		s.of = map[krpc.ID]item{}
	}
	if !ok {
		dropOne(s.of, maxItems)
	}
	s.of[target] = it
	return nil
}

// signed is what the signature of a mutable item is of.
func signed(a *putArgs) []byte {
	var b bytes.Buffer
	if a.Salt != "" {
		b.WriteString("4:salt" + strconv.Itoa(len(a.Salt)) + ":" + a.Salt)
	}
	b.WriteString("3:seqi" + strconv.FormatInt(*a.Seq, 10) + "e1:v")
	b.Write(a.V)
	return b.Bytes()
}

// get adds the item of a target to a reply, if there is one; without its value if whoever
// asks has the sequence number known, or a later one. -1: none.
func (s *items) get(target krpc.ID, known int64, now time.Time, r map[string]bencode.Bytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.of[target]
	if !ok {
		return
	}
	if now.Sub(it.at) >= itemExpires {
		delete(s.of, target)
		return
	}
	if it.k != "" {
		r["seq"] = bencode.MustMarshal(it.seq)
		if it.seq <= known {
			return
		}
		r["k"], r["sig"] = bencode.MustMarshal(it.k), bencode.MustMarshal(it.sig)
	}
	r["v"] = bencode.Bytes(it.v)
}
