package wallet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

func some(n uint64) *Amount { a := FromWei(n); return &a }

func TestDecide(t *testing.T) {
	t.Parallel()
	gib := uint64(1 << 30)
	all := Limits{PerHour: some(10), PerDay: some(20), PerTorrent: some(15), MaxPrice: some(4)}
	for _, c := range []struct {
		name   string
		limits Limits
		spent  [3]uint64 // hour, day, torrent
		amount uint64
		fee    uint64
		bytes  uint64
		want   error
	}{
		{"nothing is set", Limits{}, [3]uint64{}, 0, 0, gib, ErrOff},
		{"no window is set", Limits{PerTorrent: some(5), MaxPrice: some(5)}, [3]uint64{}, 1, 0, gib, ErrOff},
		{"within", all, [3]uint64{}, 4, 1, gib, nil},
		{"all of the hour", all, [3]uint64{5, 5, 5}, 4, 1, gib, nil},
		{"a wei over the hour", all, [3]uint64{6, 6, 6}, 4, 1, gib, ErrBudget},
		{"the fee is over the hour", all, [3]uint64{6, 6, 6}, 4, 2, gib, ErrBudget},
		{"all of the day", all, [3]uint64{0, 15, 5}, 4, 1, gib, nil},
		{"a wei over the day", all, [3]uint64{0, 16, 5}, 4, 1, gib, ErrBudget},
		{"all of the torrent", all, [3]uint64{0, 0, 10}, 4, 1, gib, nil},
		{"a wei over the torrent", all, [3]uint64{0, 0, 11}, 4, 1, gib, ErrBudget},
		{"too dear", all, [3]uint64{}, 5, 0, gib, ErrBudget},
		{"a byte too few", all, [3]uint64{}, 4, 0, gib - 1, ErrBudget},
		{"nothing for it", all, [3]uint64{}, 1, 0, 0, ErrBudget},
		{"nothing for nothing", all, [3]uint64{}, 0, 0, 0, nil},
		{"a limit of 0", Limits{PerHour: some(0)}, [3]uint64{}, 1, 0, gib, ErrBudget},
		{"a day alone", Limits{PerDay: some(20)}, [3]uint64{99, 0, 99}, 20, 0, 0, nil},
	} {
		o := Offer{Amount: FromWei(c.amount), MaxFee: FromWei(c.fee), Bytes: c.bytes}
		got := decide(c.limits, Tally{FromWei(c.spent[0]), FromWei(c.spent[1]), FromWei(c.spent[2])}, o)
		if !errors.Is(got.Why, c.want) || c.want == nil && got.Why != nil {
			t.Errorf("%s: %v, want %v", c.name, got.Why, c.want)
		}
	}
	// Sums beyond 2^256 are over every limit.
	for _, o := range []Offer{{Amount: MaxAmount, MaxFee: FromWei(1)}, {Amount: MaxAmount}} {
		if d := decide(Limits{PerHour: &MaxAmount}, Tally{Hour: FromWei(1)}, o); !errors.Is(d.Why, ErrBudget) {
			t.Error(d.Why)
		}
	}
}

func openLedger(t testing.TB, path string, now func() time.Time) *Ledger {
	t.Helper()
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	l.now = now
	return l
}

// No window ever holds a wei more than its limit, whatever is offered, how it ends, where the
// wallet crashes, and however the clock is set.
func TestNeverOver(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			path := filepath.Join(t.TempDir(), "ledger")
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			clock, real := func() time.Time { return now }, now
			l := openLedger(t, path, clock)
			limits := Limits{PerHour: some(100), PerDay: some(300), PerTorrent: some(900)}
			if _, err := l.SetLimits(func(Limits) Limits { return limits }); err != nil {
				t.Fatal(err)
			}
			type spending struct {
				at      time.Time // by the ledger
				real    time.Time // by a clock that nobody sets
				torrent string
				wei     uint64
			}
			var truth []spending // what really went out, at the time the ledger gave it
			open := map[string]spending{}
			refused := 0
			for range 400 {
				switch r.IntN(10) {
				case 0:
					step := time.Duration(r.IntN(10)) * 30 * time.Minute // so that some are an hour apart to the instant
					now, real = now.Add(step), real.Add(step)
				case 1:
					now = now.Add(-time.Duration(r.IntN(3)) * time.Hour) // somebody sets the clock back
				case 2: // a crash: what was not durable is gone, and half a row may be there
					l.Close()
					if r.IntN(2) == 0 {
						f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
						fmt.Fprint(f, `01234567 {"intent":{"id`)
						f.Close()
					}
					l = openLedger(t, path, clock)
				case 3, 4: // one ends
					for id, s := range open {
						var err error
						switch r.IntN(3) {
						case 0:
							err = l.Refuse(id, "not taken")
						case 1:
							err = l.Settle(id, FromWei(s.wei), Amount{}, "0x", "")
							truth = append(truth, s)
						case 2:
							part := s
							part.wei = r.Uint64N(s.wei + 1)
							err = l.Settle(id, FromWei(part.wei), Amount{}, "0x", "")
							truth = append(truth, part)
						}
						if err != nil {
							t.Fatal(err)
						}
						delete(open, id)
						break
					}
				default:
					s := spending{wei: 1 + r.Uint64N(40), torrent: fmt.Sprint(r.IntN(3))}
					fee := r.Uint64N(s.wei)
					e, err := l.Reserve(Offer{Torrent: s.torrent, Amount: FromWei(s.wei - fee), MaxFee: FromWei(fee)})
					if errors.Is(err, ErrBudget) {
						refused++
						continue
					} else if err != nil {
						t.Fatal(err)
					}
					s.at, s.real = e.Time, real
					open[e.ID] = s
				}
			}
			for _, s := range open { // they may all be paid yet
				truth = append(truth, s)
			}
			torrents := map[string]uint64{}
			for _, a := range truth {
				torrents[a.torrent] += a.wei
				var hour, day, realHour, realDay uint64
				for _, b := range truth {
					if d := b.at.Sub(a.at); d >= 0 && d <= time.Hour {
						hour += b.wei
					}
					if d := b.at.Sub(a.at); d >= 0 && d <= 24*time.Hour {
						day += b.wei
					}
					if d := b.real.Sub(a.real); d >= 0 && d <= time.Hour {
						realHour += b.wei
					}
					if d := b.real.Sub(a.real); d >= 0 && d <= 24*time.Hour {
						realDay += b.wei
					}
				}
				if realHour > 100 || realDay > 300 || hour > 100 || day > 300 || torrents[a.torrent] > 900 {
					t.Errorf("%d in an hour, %d in a day, %d for a torrent", hour, day, torrents[a.torrent])
				}
			}
			if all, err := l.Entries(time.Time{}); err != nil || !slices.IsSortedFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) }) {
				t.Error("the ledger is not in order of time", err)
			}
			if refused == 0 || len(truth) < 10 {
				t.Errorf("%d refused, %d spent: this tests little", refused, len(truth))
			}
			l.Close()
		})
	}
}

// Ten thousand at a time, of two processes, spend the limit and not a wei more.
func TestTenThousandAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	one, two := openLedger(t, path, time.Now), openLedger(t, path, time.Now)
	defer one.Close()
	defer two.Close()
	if _, err := one.Reserve(Offer{Amount: FromWei(1)}); !errors.Is(err, ErrOff) {
		t.Error("a fresh wallet spends:", err)
	}
	if _, err := one.SetLimits(func(Limits) Limits { return Limits{PerHour: some(100)} }); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for i := range 10_000 {
		all.Go(func() {
			l := one
			if i%2 == 0 {
				l = two
			}
			if _, err := l.Reserve(Offer{Amount: FromWei(3)}); err == nil {
				mu.Lock()
				taken++
				mu.Unlock()
			} else if !errors.Is(err, ErrBudget) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if taken != 33 {
		t.Errorf("%d of 3 wei within 100", taken)
	}
	if _, spent, err := two.Limits(); err != nil || spent.Hour != FromWei(99) {
		t.Error(spent, err)
	}
}

func TestLedgerEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l := openLedger(t, path, time.Now)
	defer l.Close()
	e, err := l.Intend(Entry{What: "send", Unit: BTT, Amount: FromWei(5), MaxFee: FromWei(2)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again, as after a crash
		if err := l.Settle(e.ID, FromWei(5), FromWei(1), "0x1", ""); err != nil {
			t.Error(err)
		}
	}
	if err := l.Refuse(e.ID, "no"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if err := l.Settle(e.ID, FromWei(4), FromWei(1), "0x1", ""); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if err := l.Refuse("nothing", "no"); err == nil {
		t.Error("an entry that is none ends")
	}
	if _, err := l.SetLimits(func(Limits) Limits { return Limits{PerDay: some(10)} }); err != nil {
		t.Fatal(err)
	}
	auto, err := l.Reserve(Offer{Amount: FromWei(5)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(auto.ID, FromWei(5), FromWei(1), "0x2", ""); !errors.Is(err, ErrBudget) {
		t.Error("more is paid than was reserved:", err)
	}
	again := openLedger(t, path, time.Now)
	defer again.Close()
	all, err := again.Entries(time.Time{})
	if err != nil || len(all) != 2 || all[0].State != Paid || all[0].Fee != FromWei(1) || all[1].State != Intent {
		t.Errorf("%+v, %v", all, err)
	}
	if late, err := again.Entries(all[1].Time); err != nil || len(late) == 0 {
		t.Error(late, err)
	}
}

// FuzzLedger: whatever stands in the rows, nothing panics, and limits hold on what there is.
func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"limits":{"time":"2026-01-01T00:00:00Z","per_hour":"5"}}`))
	f.Add([]byte(`{"intent":{"id":"a","time":"2026-01-01T00:00:00Z","state":"intent","auto":true,"amount":"5","max_fee":"0","paid":"0","fee":"0"}}`))
	f.Add([]byte(`{"end":{"id":"a","state":"paid","paid":"1","fee":"2"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		l := &Ledger{now: time.Now, index: map[string]int{}}
		if err := l.takeRow(body); err == nil {
			l.tallyLocked(l.clockLocked(), "")
		}
	})
}
