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
