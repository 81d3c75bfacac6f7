// Package fs serves a [Catalog] of immutable trees to the kernel as a read-only
// FUSE filesystem. It is the only package that knows go-fuse, and it owns what the
// kernel sees: inodes, handles, timeouts, and the one table that turns errors into
// errno ([errno]).
//
// # Where to start
//
// seams.go says what a catalog and the content of an open file have to do;
// [Mount] puts a catalog on a directory. A read goes like this:
//
//	kernel → fileHandle.Read (read.go) → Content.ReadAt(ctx, dest, off) → kernel
//
// dest is the buffer that go-fuse sends to the kernel: one copy is made, by the
// Content. Handing out pages of a cache instead was rejected for now: it saves
// nothing that can be measured above the noise, and go-fuse may call Done before
// the pages are sent.
//
// # Waiting
//
// Only reads wait. Each has its own context, which ends when the reader gets a
// signal (EINTR), when Config.ReadTimeout is over (ETIMEDOUT), or when the mount
// goes away (ENODEV); context.Cause tells which. The mount uses synchronous reads
// (one at a time for each open file), because only then does the kernel tell of
// interrupts; read-ahead over the network is the business of whoever serves Content.
//
// A file that is complete on disk is not read through us at all: see backing.go.
//
// # Memory of the kernel
//
// Contents never change, so the kernel may keep what it knows: pages for ever,
// names and the absence of names for an hour, attributes for an hour once an entry
// is Settled and for a second before. When a catalog reports a [Change], the kernel
// is told to forget that name (notify.go). Nodes are made when the kernel asks for
// them and dropped when it forgets them; all of their state is a tree.ID.
//
// # Traps of go-fuse and the kernel that this package steps around
//
//   - Without the option "ro", rm succeeds silently.
//   - ENOSYS as the answer to a request switches that request off for the whole
//     mount; no error of a Content may become one.
//   - A RELEASE is not sent when a connection is aborted: the server closes what
//     is still open itself.
//   - auto_unmount makes go-fuse hang. A mount that a killed daemon left behind is
//     replaced by the next [Mount] instead.
//   - The process that serves a mount must not use files on it, nor start programs
//     from there: it may deadlock with itself.
//
// Locks: Server.mu guards the set of open files and nothing else; fileHandle.mu
// guards one note about the last timeout. Both are leaves: nothing is called with
// them held.
package fs
