package choker

import (
	"testing"
	"time"
)

func crowd(n int) (all []*Peer) {
	for i := range n {
		all = append(all, &Peer{Interested: true, Key: i, Given: float64(i * 100)})
	}
	return all
}

func served(all []*Peer) (keys []int) {
	for _, p := range all {
		if p.Unchoked {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

func TestGiversAndOneOther(t *testing.T) {
	all, now := crowd(10), time.Unix(1000, 0)
	seen := map[int]bool{}
	for round := range 60 {
		Choose(all, 4, false, now.Add(time.Duration(round)*Round))
		got := served(all)
		if len(got) != 4 {
			t.Fatalf("round %d serves %v", round, got)
		}
		for _, best := range []int{7, 8, 9} {
			if !all[best].Unchoked {
				t.Fatalf("round %d does not serve %d, who gives most: %v", round, best, got)
			}
		}
		for _, k := range got {
			seen[k] = true
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d of 10 were ever tried", len(seen))
	}
}

func TestSeedServesAllInTurn(t *testing.T) {
	all, now := crowd(12), time.Unix(1000, 0)
	rounds := map[int]int{}
	for round := range 600 {
		Choose(all, 4, true, now.Add(time.Duration(round)*Round))
		got := served(all)
		if len(got) > 4 {
			t.Fatalf("%d served", len(got))
		}
		for _, k := range got {
			rounds[k]++
		}
	}
	for k := range 12 {
		if n := rounds[k]; n < 100 || n > 300 {
			t.Errorf("peer %d served %d of 600 rounds, fair is 200", k, n)
		}
	}
}

func TestUninterestedAndNoSlots(t *testing.T) {
	all := crowd(3)
	all[2].Interested = false
	Choose(all, 8, false, time.Unix(1, 0))
	if got := served(all); len(got) != 2 {
		t.Errorf("served %v", got)
	}
	Choose(all, 0, false, time.Unix(2, 0))
	if got := served(all); len(got) != 0 {
		t.Errorf("served %v without a slot", got)
	}
}

// TestSeedHelpsBothEnds: who has nothing yet, or almost all, is served more often than
// who is in the middle, and the middle is still served.
func TestSeedHelpsBothEnds(t *testing.T) {
	all, now := crowd(12), time.Unix(1000, 0)
	for i, p := range all {
		p.Have = []float64{0, 0.5, 0.98}[i%3]
	}
	rounds := [3]int{}
	for round := range 2000 {
		Choose(all, 4, true, now.Add(time.Duration(round)*Round))
		for _, k := range served(all) {
			rounds[k%3]++
		}
	}
	for _, end := range []int{0, 2} {
		if 10*rounds[end] < 11*rounds[1] {
			t.Errorf("served rounds by what they have: %v", rounds)
		}
	}
	if 4*rounds[1] < rounds[0] {
		t.Errorf("the middle starves: %v", rounds)
	}
}
