// Package webseed makes a web server look like a peer: one that has the files (BEP 19), or
// a script that has the pieces (BEP 17).
//
// [Serve] is one end of a connection of the peer protocol, inside of this process. The
// engine has the other end, and treats it as a peer that has everything, never chokes
// and wants nothing: so rates, due times, second requests, silence, and who lied are
// decided by the same code for both.
//
// # From blocks to ranges
//
// Blocks are asked for one by one, and a request of HTTP costs a round trip. So a request
// takes all blocks that stand one behind the other in the queue; and if it begins where
// one before it ended, it is twice as long as that, up to maxSpan, in the belief that
// what follows is asked for while it streams. Little is lost if not: nothing is read from
// the socket that nobody asked for, and a body of which nothing is wanted any more is
// closed; but if the rest is short and comes at once, it is read and thrown away, which
// keeps the connection. Some requests are on their way at a time, so that one answers while
// the next one travels.
//
// # When it fails
//
// A file that is not there (403, 404, 410) takes its pieces from what the peer says that
// it has. Everything else ends the connection with the cause, and so gives its blocks to
// others at once; who opened it decides when to try again ([RetryError]).
//
// # Goroutines and locks
//
// One goroutine reads messages, some speak HTTP; all end with Serve. seed.mu guards the
// queue, seed.sending is held while a message is written. Neither is taken with the
// other held.
package webseed
