package cache

import (
	"testing"
	"time"
)

// Each line is worth more than the next.
func TestWorth(t *testing.T) {
	const s, h = time.Second, time.Hour
	none := -1
	for i, order := range [][]Traits{
		{{Idle: 0, Peers: none}, {Idle: s, Peers: none}, {Idle: 2 * s, Peers: none}, {Idle: h, Peers: none}, {Idle: oldest, Peers: none}},
		{{Idle: h, Peers: none, Paid: true}, {Idle: h, Peers: none, Edge: true, Open: true}, {Idle: h, Peers: none, Edge: true}, {Idle: h, Peers: none, Open: true}, {Idle: h, Peers: none}},
		{{Idle: h}, {Idle: h, Peers: 1}, {Idle: h, Peers: 3}, {Idle: h, Peers: 4}},
		// An edge of long ago goes before what is being watched, a paid one does not.
		{{Idle: 10 * h, Peers: 9, Paid: true}, {Idle: h, Peers: 9, Open: true}, {Idle: 10 * h, Peers: 9, Edge: true}},
	} {
		for k := 1; k < len(order); k++ {
			if a, b := Worth(order[k-1]), Worth(order[k]); a <= b {
				t.Errorf("%d: %+v is worth %g, %+v %g", i, order[k-1], a, order[k], b)
			}
		}
	}
	for _, same := range [][2]Traits{
		{{Idle: oldest, Peers: none}, {Idle: 10 * oldest, Peers: none}},
		{{Idle: -s, Peers: none}, {Peers: none}}, // a clock that was set back
		{{Idle: h, Peers: none}, {Idle: h, Peers: 50}},
	} {
		if Worth(same[0]) != Worth(same[1]) {
			t.Errorf("%+v and %+v differ", same[0], same[1])
		}
	}
}
