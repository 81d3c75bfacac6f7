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
//	lock                  flock(2): one daemon per folder
//	session               session number, whether the last one ended cleanly, which to distrust
//	objects/KEY/body/N    sparse body of file N; several objects may have links to one
//	gone/KEY              being removed
//	objects/KEY/units     the journal: which units are verified, append only, checksummed
//	objects/KEY/contents  what its bodies hold, so that equal files are found: see contents.go
//	objects/KEY/lent      there if a body was handed out to be read without us: see backing.go
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
// # Equal files
//
// Files that are equal in several objects, as BEP 52 torrents name them, are on disk once, and
// what one object brings the others have: see share.go, and twins.go for how they find each
// other. The folders keep one hard link each, so the filesystem counts the references, and
// whichever of them is removed the others keep the bytes. [Store.Usage] counts what du shows:
// a file with several links once. It never counts less, and more only where two objects fetch
// a unit at the same time: that costs twice until one has it. What is pinned, or lent to the
// kernel, is added up for each object, so less may be pinned than there is room for.
//
// A folder whose file has several links can not know what became of it through the others while
// its object was not open. So the units are hashed again at their first use, once each time that
// it is opened with no other of them open. Where the filesystem has no hard links, nothing is shared, and nobody complains.
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
// object table, and is taken before share.mu. That one guards who shares a file, and is held
// while units of it change, holes and journal records included: everyone who waits for it
// wants to change the same file. Of its holder's alone it is that he locks several objects, in
// the order of their keys; and an object that is opened may hold several shares, having
// Store.mu. Who holds a share takes neither Store.mu nor another share.
// Store.evicting and Object.syncing are taken before all of them: one eviction, and one sync of
// an object, at a time, and none while the object is closed. file.mu guards one
// descriptor and is a leaf; opening a file under it, and marking it as lent,
// are the exceptions to "no I/O under a lock": everyone who waits for it needs just that.
package cache
