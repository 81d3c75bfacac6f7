package swarm

import "time"

// Share says until when others are served. What is reached first counts; the zero value
// has no end. While we download from a swarm its peers are served in any case: that is
// what they serve us for.
type Share struct {
	Ratio float64       // bytes sent per byte that we have of the torrent; 0 = no end
	Time  time.Duration // since something was last wanted of it; 0 = no end
}

// shared reports whether the torrent has been seeded enough.
func (t *Torrent) shared() bool {
	if t.info == nil || t.hungry() {
		t.finished = time.Time{}
		return false
	}
	if t.finished.IsZero() {
		t.finished = t.clock
	}
	s, sent, have := t.client.cfg.Share, t.cfg.Sent+t.uploaded.Load(), t.info.Length-t.left.Load()
	enough := s.Ratio > 0 && have > 0 && float64(sent) >= s.Ratio*float64(have) || s.Time > 0 && t.clock.Sub(t.finished) >= s.Time
	if enough && !t.enough {
		t.log.Info("seeded enough", "uploaded", sent, "have", have)
		close(t.sated)
		t.enough = true
	}
	return enough
}

// Sated is closed when the torrent was first seeded as much as [Share] asks for.
func (t *Torrent) Sated() <-chan struct{} { return t.sated }
