// Package rent keeps account of storage that a user's node was told to rent, so that money
// is never spent twice because something was not known.
//
// The node has no idea of "the same rental": asked twice, it rents and pays twice. And the
// answer to the first question may be lost, with btmount, the node or the connection. So
//
//  1. what is about to be rented is priced, and refused above the user's limit;
//  2. the intent is written to disk, and only then
//  3. the node is asked, once;
//  4. its answer is written: a session, a refusal, or that it is not known.
//
// An intent that has no answer when nobody works on it any more is [Unknown]. Nothing here
// ever asks again by itself: the user looks at the node's contracts and decides. Until then
// the same object is not rented again at that node.
//
// # Rejected
//
// Giving the node a number that makes the second question harmless: its RPC takes none.
// Finding out by listing the node's sessions: there is no such list. A journal of one file:
// files of their own need no compaction, and one that is broken takes no other with it.
package rent
