// Package source brings DAG blocks from where they can be had over HTTP, gateways and a
// user's own node, and chooses between these and other sources. None of them is believed: a block is verified before it is returned,
// and who sends other bytes is not asked again.
//
// # A gateway
//
// A [Gateway] is asked for single blocks (?format=raw). Not all can: the gateway of
// go-btfs 4.1.0 fails with 500. So the first block is a probe, and if that fails but a CAR
// of the same block comes, all further ones are asked for as CARs. Such a CAR holds the
// whole tree below the block, whatever dag-scope says; it is read block by block, and
// hung up on after the first, unless all of it is small: then the rest is verified and
// kept, and the connection with it. Of leaves, which most blocks are, that is one block
// and a hundred bytes. A gateway that does not have a block looks for it, and answers late
// or never.
//
// Ranges of files are not asked for: nothing in them can be verified.
//
// # A node
//
// A [Node] is asked by RPC (block/get) and is told how long to look. It wants a token,
// unless it is asked at just the address that its config has, and by a client that calls
// itself Go-http-client/1.1: so requests have no User-Agent of ours. Nothing but the
// message of an error is repeated of what it answers: other answers at its port hold keys.
// dag/import is never called: it ends the process of go-btfs 4.1.0.
//
// # Several
//
// A [Pool] asks for what is due first first, over everything that waits, and asks the
// source that would have it first: by how far away the source is, by what one more block
// took it beside others, and by what it has to do now. Each may have as many requests at a
// time as it answers without making them wait for each other, at most 64 and 16 MiB: that
// fills a line of 50 MB/s over 50 ms. What the fast ones would still have first waits for
// them, so that a slow one is given what they would come to later.
//
// If a block takes much longer than its source used to take, or fails, the next is asked
// too, and the first true answer wins. If the first is not silent but slow the block may
// come twice; that is done as long as it is a thirty-second of all that came, and a MiB.
// So load goes to all by their speed, one that hangs costs a moment once, and one that lies
// costs a few blocks: it is banned until the end. Sources that fail rest for a while and are
// asked last, but are asked: if all fail, the error names each with its answer.
//
// Rejected: asking all at once, which has every byte come as often as there are sources.
//
// Locks: Pool.mu and Gateway.mu are leaves; no source is called with them held.
package source
