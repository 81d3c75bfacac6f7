package cache

import "time"

// Traits are what is known of bytes when something has to go.
type Traits struct {
	Idle time.Duration // since they were read or came, the later of the two
	Edge bool          // near the start or the end of a long file
	Open bool          // of a file that somebody has open
	// Peers is how many of those who are connected have it; negative: it is not known.
	Peers int
	Paid  bool // they cost money
}

const (
	worthEdge = 8
	worthOpen = 4
	worthPaid = 100
	oldest    = 30 * 24 * time.Hour // whatever was idle for longer is equally old
)

// Worth says how much bytes are worth to be kept, in weight per second: what is worth least
// goes first. (What is pinned, waited for, in the window of a reader, or read by the kernel is
// not asked about: it stays.)
//
// It is their weight over the time since they were of use, so that everything becomes
// worthless at last, what is light sooner; with equal weights the least recently used goes
// first. What weighs:
//
//   - Edges (x 8): players, indexers and file managers look at the first and last bytes of a
//     file again and again, and somebody waits for them each time.
//   - Files that are open (x 4): their reader may seek back.
//   - Rare in the swarm (x 8 if nobody has it, 4 if one peer does, 2 for up to three): to
//     fetch it again may take long, or fail. If that is not known, nobody is asked: 1.
//   - Paid for (x 100).
//
// Rejected: counting how often something was read (a scan that reads twice would throw out
// what is watched), and sizes (all units of a torrent have one).
func Worth(t Traits) float64 {
	weight := 1.0
	if t.Edge {
		weight *= worthEdge
	}
	if t.Open {
		weight *= worthOpen
	}
	switch {
	case t.Peers == 0:
		weight *= 8
	case t.Peers == 1:
		weight *= 4
	case t.Peers == 2 || t.Peers == 3:
		weight *= 2
	}
	if t.Paid {
		weight *= worthPaid
	}
	return weight / (min(max(0, t.Idle), oldest) + time.Second).Seconds()
}
