package swarm

// Store is where one torrent's units are kept: see UnitLength. Offsets are in the
// torrent's byte space. It is safe for concurrent use. Two exist: the cache's Object, and [Files],
// the complete files of who seeds them from where they lie.
type Store interface {
	// Begin makes room for a unit before its first byte; it may fail for lack of it.
	Begin(unit int) error
	// Abandon gives that room back.
	Abandon(unit int)
	// WriteVec stores bytes of units that were begun: the parts of v, one after the other.
	WriteVec(v [][]byte, off int64) error
	// ReadBack reads what WriteVec stored and nobody verified yet.
	ReadBack(p []byte, off int64) error
	// Commit marks a unit verified: readers may have it. tag has TagSize bytes, to be
	// kept for Verify.
	Commit(unit int, tag []byte)
	// Fail ends the reads that wait for a unit.
	Fail(unit int, err error)
	// Has reports whether a unit is verified and readable.
	Has(unit int) bool
	// Known reports whether a unit is there, perhaps to be verified again before use.
	Known(unit int) bool
	// Each calls f for every unit that Has.
	Each(f func(unit int))
	// ReadPresent reads verified bytes, or fails at once.
	ReadPresent(p []byte, off int64) error
}
