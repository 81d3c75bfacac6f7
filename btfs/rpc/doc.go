// Package rpc has a user's own BTFS node do what a reader cannot: add files, pin, publish
// names, and rent storage. Shapes and quirks are those of go-btfs 4.1.0. Of add, pin,
// name, id and the errors they were measured on a real node; what needs full mode (storage,
// cheque, vault, stake) was read in its source, as no chain could be reached.
//
// The node is the user's, so its answers are believed; but it may be another program at
// that address, or be lied to by its network. So every answer is bounded before it is
// read, numbers are exact integers, CIDs have to be CIDs, and texts are fit for one line.
//
// # What is never asked
//
// dag/import, on which go-btfs 4.1.0 crashes. config/show, cheque/chaininfo and guide-info,
// which answer with the wallet's private key: nothing here needs what else they say. And of
// every answer only named fields are decoded, so a key that stands in another can neither
// be printed nor logged.
//
// # Time
//
// A node that does not have something looks for it for ever, and storage/announce never
// answers at all. So each call ends when nothing came for the time that [New] is given, and
// those that have to wait for hosts have a time of their own.
//
// # Rejected
//
// The client of go-btfs-api: it is bound to modules that cannot be had, retries what spends
// money, and decodes whole answers. Retrying in general: of a call that pays, nobody knows
// after a lost connection whether it was done. Package rent knows what to do then.
package rpc
