package swarm

// Store is where one torrent's pieces are kept. Offsets are in the torrent's byte
// space. It is safe for concurrent use. Two exist: the cache's Object, and [Files],
// the complete files of who seeds them from where they lie.
type Store interface {
	// Begin makes room for a piece before its first byte; it may fail for lack of it.
	Begin(piece int) error
	// Abandon gives that room back.
	Abandon(piece int)
	// WriteAt stores bytes of pieces that were begun.
	WriteAt(p []byte, off int64) error
	// ReadBack reads what WriteAt stored and nobody verified yet.
	ReadBack(p []byte, off int64) error
	// Commit marks a piece verified: readers may have it.
	Commit(piece int)
	// Fail ends the reads that wait for a piece.
	Fail(piece int, err error)
	// Has reports whether a piece is verified and readable.
	Has(piece int) bool
	// Known reports whether a piece is there, perhaps to be verified again before use.
	Known(piece int) bool
	// Each calls f for every piece that Has.
	Each(f func(piece int))
	// ReadPresent reads verified bytes, or fails at once.
	ReadPresent(p []byte, off int64) error
}
