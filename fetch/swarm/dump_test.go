package swarm

import "testing"

// dump logs what a torrent that stands still is waiting for.
func dump(t *testing.T, tr *Torrent) {
	done := make(chan struct{})
	if !tr.post(func() {
		defer close(done)
		for c := range tr.conns {
			t.Logf("peer %v choked %v mute %v asked %d outstanding %d all %v closed %v", c.addr, c.view.Choked, c.view.Mute, len(c.view.Asked), c.view.Pipe.Outstanding(), c.haveAll, c.closed)
		}
		for p := range tr.wants {
			w, a := tr.picks.Find(p), tr.flying.find(p)
			t.Logf("piece %d picked %v flying %v failures %+v", p, w != nil, a != nil, tr.failures[p])
			if w != nil {
				t.Logf("  left %d only %p", w.Left(), w.Only)
			}
			if a, ok := a.(*unitAssembly); ok {
				a.mu.Lock()
				t.Logf("  state %v proven %v missing %d done %v good %v writing %d", a.state, a.leaves != nil, a.missing, a.done, a.good, a.writing)
				a.mu.Unlock()
			}
			if a, ok := a.(*pieceAssembly); ok {
				a.mu.Lock()
				t.Logf("  state %v next %d hashing %v done %v good %v writing %d", a.state, a.next, a.hashing, a.done, a.good, a.writing)
				a.mu.Unlock()
			}
		}
	}) {
		return
	}
	<-done
}
