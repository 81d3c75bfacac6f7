package btns

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

// Limits on records.
const (
	MaxRecord = 10 << 10  // bytes: as many as libp2p takes of one of IPNS
	MaxTTL    = time.Hour // whatever it says
)

// prefix of the key of a record in the DHT; the bytes of the peer id follow it.
const prefix = "/btns/"

// RecordKey is the key of a name's record in the DHT.
func RecordKey(id peer.ID) string { return prefix + string(id) }

// What is wrong with a record.
var (
	ErrSignature = errors.New("its signature is not that of the name's key")
	ErrExpired   = errors.New("it has expired")
	ErrNoKey     = errors.New("the public key of the name is not in it")
	ErrOtherKey  = errors.New("the public key in it is not that of the name")
)

// ErrNoRecord says that nobody who should know a record of a name has one.
var ErrNoRecord = errors.New("nobody in the DHT has a record of it")

// Record is what the owner of a name says, verified.
type Record struct {
	Value    string        // as it was signed: /btfs/CID… or /btns/NAME…
	Until    time.Time     // end of its validity
	Sequence uint64        // not signed
	TTL      time.Duration // not signed; 0 if it has none
}

// entry is the protobuf message IpnsEntry of go-btns. Fields that it has not are skipped,
// and of fields that come twice the last counts, as protobuf says.
type entry struct {
	value, signature, validity, key []byte
	kind, sequence, ttl             uint64
}

func decode(b []byte) (e entry, err error) {
	if len(b) > MaxRecord {
		return e, fmt.Errorf("a record of %d bytes; at most %d", len(b), MaxRecord)
	}
	texts := map[protowire.Number]*[]byte{1: &e.value, 2: &e.signature, 4: &e.validity, 7: &e.key}
	numbers := map[protowire.Number]*uint64{3: &e.kind, 5: &e.sequence, 6: &e.ttl}
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return e, protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case texts[number] != nil && wire == protowire.BytesType:
			*texts[number], n = protowire.ConsumeBytes(b)
		case numbers[number] != nil && wire == protowire.VarintType:
			*numbers[number], n = protowire.ConsumeVarint(b)
		case number <= 7:
			return e, fmt.Errorf("field %d has wire type %d", number, wire)
		default:
			n = protowire.ConsumeFieldValue(number, wire, b)
		}
		if n < 0 {
			return e, protowire.ParseError(n)
		}
		b = b[n:]
	}
	if len(e.value) == 0 || len(e.signature) == 0 {
		return e, errors.New("a record without value or signature")
	}
	return e, nil
}

// Verify reads a record and checks that the owner of id signed it, and that it is valid at
// now. Whoever sent it need not be trusted.
func Verify(id peer.ID, b []byte, now time.Time) (r Record, err error) {
	e, err := decode(b)
	if err != nil {
		return r, err
	}
	key, err := e.publicKey(id)
	if err != nil {
		return r, err
	}
	if e.kind != 0 {
		return r, fmt.Errorf("validity type %d, and there is only EOL", e.kind)
	}
	signed := bytes.Join([][]byte{e.value, e.validity, []byte("EOL")}, nil)
	if ok, err := key.Verify(signed, e.signature); err != nil || !ok {
		return r, ErrSignature
	}
	r = Record{Value: string(e.value), Sequence: e.sequence, TTL: ttl(e.ttl)}
	if r.Until, err = time.Parse(time.RFC3339Nano, string(e.validity)); err != nil {
		return r, errors.New("its end is no time")
	}
	if now.After(r.Until) {
		return r, ErrExpired
	}
	return r, nil
}

// publicKey finds the key of a name: in the record, or in the id, where there is room for
// those of Ed25519 and secp256k1.
func (e *entry) publicKey(id peer.ID) (crypto.PubKey, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if e.key == nil {
		key, err := id.ExtractPublicKey()
		if err != nil {
			return nil, ErrNoKey
		}
		return key, nil
	}
	key, err := crypto.UnmarshalPublicKey(e.key)
	if err != nil {
		return nil, errors.New("the public key in it is none")
	}
	if !id.MatchesPublicKey(key) {
		return nil, ErrOtherKey
	}
	return key, nil
}

// ttl makes a time of nanoseconds.
func ttl(ns uint64) time.Duration { return time.Duration(min(ns, uint64(MaxTTL))) }

// Sign makes a record: that the name of key means value until a time. ttl is 0 for none.
// The name is the id of the key.
func Sign(key crypto.PrivKey, value string, until time.Time, sequence uint64, ttl time.Duration) (id peer.ID, record []byte, err error) {
	if id, err = peer.IDFromPrivateKey(key); err != nil {
		return "", nil, err
	}
	validity := until.UTC().Format(time.RFC3339Nano)
	signature, err := key.Sign([]byte(value + validity + "EOL"))
	if err != nil {
		return "", nil, err
	}
	text := func(number protowire.Number, b []byte) {
		record = protowire.AppendBytes(protowire.AppendTag(record, number, protowire.BytesType), b)
	}
	number := func(n protowire.Number, v uint64) {
		record = protowire.AppendVarint(protowire.AppendTag(record, n, protowire.VarintType), v)
	}
	text(1, []byte(value))
	text(2, signature)
	number(3, 0)
	text(4, []byte(validity))
	number(5, sequence)
	if ttl > 0 {
		number(6, uint64(ttl))
	}
	if _, err := id.ExtractPublicKey(); err != nil {
		public, err := crypto.MarshalPublicKey(key.GetPublic())
		if err != nil {
			return "", nil, err
		}
		text(7, public)
	}
	return id, record, nil
}

// newer reports whether a is newer than b, as go-btns says: by sequence, then by end.
func (a *entry) newer(b *entry) bool {
	if a.sequence != b.sequence {
		return a.sequence > b.sequence
	}
	at, err := time.Parse(time.RFC3339Nano, string(a.validity))
	bt, err2 := time.Parse(time.RFC3339Nano, string(b.validity))
	return err == nil && err2 == nil && at.After(bt)
}

// Validator decides which records the DHT takes. It has the shape of
// go-libp2p-record.Validator, for the namespace btns.
type Validator struct{}

// Validate returns an error unless value is a good record for key, which is "/btns/" and
// the bytes of a peer id.
func (Validator) Validate(key string, value []byte) error {
	id, ok := bytes.CutPrefix([]byte(key), []byte(prefix))
	if !ok {
		return errors.New("not a key of BTNS")
	}
	_, err := Verify(peer.ID(id), value, time.Now())
	return err
}

// Select returns the index of the newest of records that were validated.
func (Validator) Select(_ string, values [][]byte) (int, error) {
	best, found := -1, entry{}
	for i, v := range values {
		e, err := decode(v)
		if err != nil {
			continue
		}
		if best < 0 || e.newer(&found) || !found.newer(&e) && bytes.Compare(v, values[best]) > 0 {
			best, found = i, e
		}
	}
	if best < 0 {
		return -1, errors.New("no record among them")
	}
	return best, nil
}
