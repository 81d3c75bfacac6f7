package downlink

import (
	"math"
	"testing"
	"time"
)

// line is a simulated downlink: TCP shares it equally among connections.
type line struct {
	t        *testing.T
	link     Link
	now      time.Time
	capacity float64
	users    []*user
}

// user is a torrent in the simulation.
type user struct {
	name   string
	flow   *Flow
	peers  int
	uplink float64 // of each of its peers, bytes/s
	need   func(u *user) Need
	asked  float64 // may still come
	came   float64
	mark   float64

	plays   float64 // bytes/s of a player, 0 = none
	buffer  float64 // bytes ahead of it
	stalled time.Duration
}

const stepLength = 10 * time.Millisecond

func newLine(t *testing.T, capacity float64, users ...*user) *line {
	l := &line{t: t, now: time.Unix(1000, 0), capacity: capacity, users: users}
	for _, u := range users {
		u.flow = l.link.Join()
	}
	return l
}

// copies reads as fast as it can, plays at a rate and ahead has no hurry.
func copies(*user) Need { return Need{Busy: true, Late: true, Rate: math.Inf(1)} }
func ahead(*user) Need  { return Need{Busy: true} }
func idle(*user) Need   { return Need{} }
func plays(u *user) Need {
	seconds := u.buffer / u.plays
	switch {
	case seconds > 10:
		return Need{}
	case seconds >= Horizon.Seconds():
		return Need{Busy: true}
	case seconds < 0.05:
		return Need{Busy: true, Late: true, Rate: math.Inf(1)}
	}
	return Need{Busy: true, Late: true, Rate: u.plays * Horizon.Seconds() / seconds}
}

// run moves the line on; rates are reported of what came in it.
func (l *line) run(d time.Duration) map[string]float64 {
	for _, u := range l.users {
		u.mark = u.came
	}
	for n := int(d / stepLength); n > 0; n-- {
		l.now = l.now.Add(stepLength)
		l.carry()
		for _, u := range l.users {
			if u.plays > 0 {
				if use := u.plays * stepLength.Seconds(); u.buffer >= use {
					u.buffer -= use
				} else {
					u.stalled += stepLength
				}
			}
			u.flow.Report(l.now, int64(u.came), u.need(u))
		}
	}
	out := map[string]float64{}
	for _, u := range l.users {
		out[u.name] = (u.came - u.mark) / d.Seconds()
	}
	return out
}

// carry moves the bytes of one step: every connection gets the same, unless its peer
// or what was asked for gives less.
func (l *line) carry() {
	const block = 16 << 10
	left := l.capacity * stepLength.Seconds()
	most := map[*user]float64{}
	open := map[*user]bool{}
	for _, u := range l.users {
		if !u.need(u).Busy {
			continue
		}
		u.asked += float64(block * u.flow.Take(l.now, 100, block))
		u.asked = min(u.asked, 1e6)
		most[u] = min(u.asked, float64(u.peers)*u.uplink*stepLength.Seconds())
		open[u] = true
	}
	got := map[*user]float64{}
	for left > 1 && len(open) > 0 {
		peers := 0
		for u := range open {
			peers += u.peers
		}
		each, used := left/float64(peers), 0.0
		for u := range open {
			g := min(each*float64(u.peers), most[u]-got[u])
			got[u] += g
			used += g
			if most[u]-got[u] < 1 {
				delete(open, u)
			}
		}
		left -= used
		if used < 1 {
			break
		}
	}
	for u, g := range got {
		u.asked -= g
		u.came += g
		u.buffer += g
	}
}

func between(t *testing.T, what string, v, least, most float64) {
	t.Helper()
	if v < least || v > most {
		t.Errorf("%s: %.3g, want %.3g to %.3g", what, v, least, most)
	}
}

// TestFilmBesideCopy: a film from two peers is not stalled by a copy from twenty, and
// the copy gets the rest.
func TestFilmBesideCopy(t *testing.T) {
	film := &user{name: "film", peers: 2, uplink: 5e6, need: plays, plays: 3e6, buffer: 6e6}
	other := &user{name: "copy", peers: 20, uplink: 5e6, need: copies}
	l := newLine(t, 8e6, film, other)
	l.run(5 * time.Second)
	film.stalled = 0
	got := l.run(60 * time.Second)
	if film.stalled > 0 {
		t.Errorf("the film stalled for %v", film.stalled)
	}
	between(t, "film", got["film"], 2.9e6, 4.1e6)
	between(t, "all", got["film"]+got["copy"], 7.4e6, 8.1e6)
}

// TestTwoCopies: the one with two peers gets about as much as the one with twenty.
func TestTwoCopies(t *testing.T) {
	a := &user{name: "a", peers: 2, uplink: 1e7, need: copies}
	b := &user{name: "b", peers: 20, uplink: 1e7, need: copies}
	l := newLine(t, 8e6, a, b)
	l.run(5 * time.Second)
	got := l.run(20 * time.Second)
	between(t, "a", got["a"], 3.2e6, 4.8e6)
	between(t, "both", got["a"]+got["b"], 7.4e6, 8.1e6)
}

// TestBackgroundTakesWhatIsLeft, and all of it when the reader is done.
func TestBackgroundTakesWhatIsLeft(t *testing.T) {
	a := &user{name: "a", peers: 4, uplink: 1e7, need: copies}
	b := &user{name: "b", peers: 20, uplink: 1e7, need: ahead}
	l := newLine(t, 8e6, a, b)
	l.run(3 * time.Second)
	got := l.run(20 * time.Second)
	between(t, "reader", got["a"], 6.5e6, 8e6)
	between(t, "both", got["a"]+got["b"], 7.4e6, 8.1e6)
	a.need = idle
	l.run(500 * time.Millisecond)
	got = l.run(5 * time.Second)
	between(t, "alone", got["b"], 7.8e6, 8.1e6)
}

// TestSlowPeersHinderNobody: the peers of a are slow, not the line; holding b back
// would be in vain, and is given up.
func TestSlowPeersHinderNobody(t *testing.T) {
	a := &user{name: "a", peers: 2, uplink: 2e5, need: copies}
	b := &user{name: "b", peers: 4, uplink: 1e6, need: ahead}
	l := newLine(t, 1e9, a, b)
	l.run(10 * time.Second)
	got := l.run(120 * time.Second)
	between(t, "background", got["b"], 0.93*4e6, 4.1e6)
	between(t, "reader", got["a"], 0.9*4e5, 4.1e5)
}

// TestSeekIsFirst: a read that waits holds read-ahead of others back at once, not
// after a slot.
func TestSeekIsFirst(t *testing.T) {
	a := &user{name: "a", peers: 2, uplink: 1e7, need: idle}
	b := &user{name: "b", peers: 20, uplink: 1e7, need: ahead}
	l := newLine(t, 8e6, a, b)
	l.run(5 * time.Second)
	l.run(30 * time.Millisecond)
	a.need = copies
	l.run(stepLength)
	if h := b.flow.Held(); h > Least {
		t.Errorf("a read waits, and read-ahead elsewhere may ask for %.3g bytes/s", h)
	}
	got := l.run(400 * time.Millisecond)
	between(t, "reader", got["a"], 5e6, 8.1e6)
}

func TestAloneIsNeverHeld(t *testing.T) {
	a := &user{name: "a", peers: 2, uplink: 1e6, need: copies}
	b := &user{name: "b", peers: 2, uplink: 1e6, need: idle}
	l := newLine(t, 8e6, a, b)
	for range 300 {
		l.run(stepLength)
		if !math.IsInf(a.flow.Held(), 1) {
			t.Fatal("held, and nobody else wants anything")
		}
	}
}

func TestLeaveFreesOthers(t *testing.T) {
	a := &user{name: "a", peers: 4, uplink: 1e7, need: copies}
	b := &user{name: "b", peers: 20, uplink: 1e7, need: ahead}
	l := newLine(t, 8e6, a, b)
	l.run(3 * time.Second)
	if math.IsInf(b.flow.Held(), 1) {
		t.Fatal("background is not held")
	}
	a.flow.Leave()
	l.users = l.users[1:]
	l.run(200 * time.Millisecond)
	if !math.IsInf(b.flow.Held(), 1) {
		t.Error("still held for one who left")
	}
	a.flow.Leave() // twice does no harm
}

// TestTakeKeepsToTheRate whatever the pace of asking.
func TestTakeKeepsToTheRate(t *testing.T) {
	var l Link
	f := l.Join()
	f.hold(1e6)
	now, n := time.Unix(1000, 0), 0
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		k := f.Take(now, 7, 16<<10)
		if k > 1 {
			f.Return(1, 16<<10)
			k--
		}
		n += k
	}
	between(t, "bytes/s", float64(n)*(16<<10)/10, 0.95e6, 1.02e6)
}
