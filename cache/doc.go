// Package cache keeps verified bytes on disk within a budget, answers reads that
// hit, and parks the reads that miss.
//
// # Parts
//
//   - [Store] is one cache folder: its budget, its lock, its session record.
//   - [Object] is the byte space of one thing (a torrent, a BTFS file), cut into
//     units that are verified as a whole. Every file of it has one sparse body.
//   - [Reader] is one open file: a span of an object. Its ReadAt is the read path.
//   - [Source] is told what readers want. The cache never fetches by itself.
//
// # What is on disk
//
//	lock               flock(2): one daemon per folder
//	session            session number, whether the last one ended cleanly, which to distrust
//	objects/KEY/body/N sparse body of file N
//	gone/KEY           being removed
//	objects/KEY/units  the journal: which units are verified, append only, checksummed
//	objects/KEY/lent   there if a body was handed out to be read without us: see backing.go
//
// Whoever verified a unit calls [Object.Commit]: the data is in its bodies by then
// and a record goes to the journal at once, in one small write. At most a second
// later the bodies and then the journal are synced (data → fdatasync → journal).
// Because a record may reach the disk before its data when the power fails, a
// session that did not end with the clean mark is distrusted: its units, and all
// older ones, are hashed again at their first use. So kill -9 costs no download
// and a power cut costs no wrong byte; the rejected alternative, a record only
// after fdatasync, would fetch everything of the last second again after kill -9.
// A session in which a record could not be written is distrusted as well.
// A hole is never served as zeros: only units that are present are read, a read
// that raced with an eviction is done again, and a body that turns out short
// makes its units suspect.
//
// # What goes when there is no room
//
// What is worth least: see [Worth], and evict.go. What is pinned, waited for, in the window
// that a reader comes to next, or read by the kernel itself stays.
//
// By request: [Store.Evict] and [Object.Evict] leave what is open, [Object.Recheck] hashes what
// is on disk again, [Store.Stat] and [Store.StatObject] tell.
//
// # Locks
//
// Object.mu guards the unit states and waiters of one object and is a leaf:
// nothing is called and no I/O is done with it held. Store.mu guards budget and
// object table and is taken before no other lock but Object.mu. Store.evicting and
// Object.syncing are taken before both: one eviction, and one sync of an object, at a time,
// and none while the object is closed. body.mu guards one
// descriptor and is a leaf; opening a file under it, and marking it as lent,
// are the exceptions to "no I/O under a lock": everyone who waits for it needs just that.
package cache
