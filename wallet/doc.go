// Package wallet owns keys, limits and the ledger, and decides every offer.
//
// Nothing is spent by itself until the user has set a limit ([Limits]): a fresh wallet
// refuses every [Offer]. What the user sends by hand is agreed to each time and counts
// against no limit, but stands in the same ledger.
//
// Money is only ever an [Amount], a whole number of wei. No float is near it, as 0.1 BTT is
// none, and no uint64, which ends at 18.4 BTT.
//
// The order of everything that costs money is: intent durable in the [Ledger], then sign,
// then the signed transaction durable (wallet/chain), then send, then settle. An intent
// counts as spent until it is known what became of it, so a crash anywhere can make the
// wallet believe that it spent more than it did, and never less.
//
// Keys lie in files of the Web3 Secret Storage format, version 3, as go-ethereum writes
// them, so geth and clef can use the same folder ([Keys]). What signs is a [Signer].
package wallet
