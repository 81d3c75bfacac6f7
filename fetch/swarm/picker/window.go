package picker

// Has reports whether peer has any of the pieces that are wanted first, most of them at
// most. Whether it would send them is another question.
func (k *Picker) Has(peer *Peer, most int) bool {
	for _, p := range k.pieces[:min(most, len(k.pieces))] {
		if peer.Has(p.Index) {
			return true
		}
	}
	return false
}
