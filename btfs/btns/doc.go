// Package btns verifies records of BTNS: what the owner of a key says that the key's name
// stands for just now. It does no I/O.
//
// BTNS has the records of IPNS version 1 (go-btns/pb/ipns.proto): a protobuf of value,
// validity and signature, signed over value, validity and the word EOL. There is no version
// 2 in BTFS, whose signature would cover sequence and TTL as well; so these two are only
// hints, and the TTL is capped.
//
// A name is a peer id. Those of Ed25519 and secp256k1 hold the public key; with those of
// RSA it has to stand in the record, and is checked against the id.
//
// # Rejected
//
// boxo/ipns: it takes only records with a signature of version 2.
package btns
