// Package fetch decides what to bring next and by when.
//
// # The model
//
// Everything that a reader waits for or will soon read has a due time. What a
// read waits for is due now; what lies ahead of a sequential reader is due when
// that reader will get there: now + distance / rate. Priorities, the order of
// requests and "is it late" are then one number, and any number of readers of any
// number of objects share one order: earliest due first. Sequential is not the
// same as urgent (libtorrent's docs/streaming.rst makes the point): read-ahead
// must never delay what somebody waits for.
//
// # What readers really do
//
// Open files are shared, duplicated and read by several threads, players jump to
// the tail for an index and back, mmap faults arrive in windows, scanners read
// heads only. So a [Scheduler] does not believe in "the position of a handle". It
// keeps a few sequential streams per file (stream.go), matched by offset:
//
//   - the first read at a new place brings that place only;
//   - a read that continues a stream lets its read-ahead grow to twice of what it
//     has read, up to what the swarm brings in some seconds;
//   - a reader that begins a new stream puts its other streams to sleep at once,
//     their requests are withdrawn; one that is continued wakes up as it was.
//
// Who reads one file after the other, whole and in the order of their torrent, is read ahead
// of across the ends of files: see walk.go.
//
// # Who owns what
//
// One goroutine, [Scheduler.Run], owns all state; everyone else leaves a message
// in an unbounded mailbox, which never blocks a reader. A unit on its way is a
// flight: one or more calls of [Download.Fetch] under one context. Flights belong
// to the scheduler, not to a read: a read that gives up only takes its claim
// back, and the flight is cancelled some hundred milliseconds later unless someone
// else claims it (programs are interrupted and read again; Go's own runtime does
// that with every preemption signal).
//
// Whoever brings a unit commits it to the cache himself, since only he knows when
// it is verified; Fetch returning nil is the scheduler's note of it. (The first
// drawing had the scheduler commit; then a unit that arrives unasked, because it
// was requested before a seek, would be lost or need a second way in.)
package fetch
