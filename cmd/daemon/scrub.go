package daemon

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/cmd/control"
)

// What is in the cache was hashed when it came. Disks lose bits, seldom, and say nothing;
// btmount cache verify and the scrub find that: they hash what is there, and drop what is wrong,
// which the next read, or its pin, brings again.
//
// The scrub is off unless --scrub-rate is given: it keeps a disk from its sleep, and a laptop
// from its own, for something that whoever runs a server would choose. It goes round everything,
// in another order each time so that a restart does not leave the same part out, and rests until
// a day after the round began. It takes what it may per second in steps of a MiB, or of a unit if
// that is larger; reads take no lock that it holds across I/O, but that after an unclean stop what is
// to be hashed before it is read is hashed one unit at a time, by readers and the scrub together.

const (
	checkStep = 1 << 20
	scrubRest = 24 * time.Hour
)

// pace spreads bytes over time.
type pace struct {
	rate int64 // bytes/s; 0: no limit
	next time.Time
}

// wait returns when n more bytes may follow, or when ctx has ended.
func (p *pace) wait(ctx context.Context, n int64) error {
	if p.rate <= 0 || n == 0 {
		return ctx.Err()
	}
	if now := time.Now(); p.next.Before(now) {
		p.next = now // what was not taken is not caught up
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	t := time.NewTimer(time.Until(p.next))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// verify hashes what is there of some files of a torrent, or of all of it (nil), and reports
// after each step how much was hashed and how much was wrong.
func (t *torrent) verify(ctx context.Context, tags []int, p *pace, report func(hashed, wrong int64)) error {
	if !t.stored() {
		return nil
	}
	parts, release, err := t.hold()
	if err != nil {
		return err
	}
	defer release()
	if tags == nil {
		tags = []int{-1}
	}
	bad := int64(0)
	defer func() {
		if bad > 0 {
			t.daemon.log.Warn("what was in the cache does not match its hash any more and was dropped; look after the disk", "torrent", t.hash, "bytes", bad)
		}
	}()
	o := parts.object
	step := max(1, int(checkStep/o.Unit))
	done := 0 // units up to here
	for _, e := range parts.spans(tags) {
		f, l := e.Clip(extent.Extent{Len: o.Size}).Units(o.Unit)
		for first, last := max(done, int(f)), int(l); first < last; first += step {
			done = min(first+step, last)
			hashed, wrong, err := t.verifyUnits(ctx, parts, first, done)
			if bad += wrong; hashed > 0 {
				report(hashed, wrong)
			}
			if err == nil {
				err = p.wait(ctx, hashed)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyUnits hashes a step of units, one step at a time of whoever asks.
func (t *torrent) verifyUnits(ctx context.Context, p *parts, first, last int) (hashed, wrong int64, err error) {
	d := t.daemon
	select {
	case d.checking <- struct{}{}:
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	hashed, wrong = p.object.Recheck(first, last)
	<-d.checking
	if w := t.pins.Load(); wrong > 0 && w != nil { // it may be pinned: it has to come again
		w.done.Store(false)
		if s := t.session.Load(); s != nil {
			w.start(s)
		}
		d.hurry()
	}
	return hashed, wrong, nil
}

// Verify implements control.Cache.
func (d *Daemon) Verify(ctx context.Context, r control.VerifyRequest, report func(control.Progress)) (result control.VerifyResult, err error) {
	picks, err := d.toVerify(r)
	if err != nil {
		return result, err
	}
	progress := control.Progress{}
	for i := range picks {
		progress.Total += picks[i].here()
	}
	p, last := &pace{rate: r.Rate}, time.Time{}
	for _, k := range picks {
		progress.Name = d.catalog.Name(k.t.handle)
		bad := int64(0)
		err := k.t.verify(ctx, k.tags, p, func(hashed, wrong int64) {
			result.Checked += hashed
			result.Wrong += wrong
			bad += wrong
			progress.Done, progress.Total = result.Checked, max(progress.Total, result.Checked)
			if now := time.Now(); now.Sub(last) > 200*time.Millisecond {
				last = now
				report(progress)
			}
		})
		if bad > 0 {
			result.Torrents = append(result.Torrents, control.Wrong{Name: progress.Name, Bytes: bad})
		}
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		if err != nil {
			result.Failed = append(result.Failed, control.Wrong{Name: progress.Name, Error: err.Error()})
		}
	}
	return result, nil
}

// toVerify returns what a request is about.
func (d *Daemon) toVerify(r control.VerifyRequest) (picks []pick, err error) {
	if r.Rate < 0 {
		return nil, &control.RequestError{Reason: "a rate is above 0"}
	}
	if len(r.Patterns) == 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, t := range d.torrents {
			if t.ready() {
				picks = append(picks, pick{t: t})
			}
		}
		return picks, nil
	}
	patterns, err := cleanPatterns(r.Patterns)
	if err != nil {
		return nil, err
	}
	picks, missing, _ := d.pick(patterns)
	if missing != "" {
		return nil, noMatch(missing)
	}
	return picks, nil
}

// here returns how many bytes of files are on disk, roughly.
func (k *pick) here() (n int64) {
	p := k.t.parts.Load()
	if p == nil || k.tags == nil {
		n, _ = k.t.Present(-1)
		if k.tags != nil {
			n = min(n, k.size)
		}
		return n
	}
	for _, e := range p.spans(k.tags) {
		n += p.object.PresentIn(e)
	}
	return n
}

// scrubbed is what the scrub did.
type scrubbed struct {
	mu             sync.Mutex
	checked, wrong int64
	round          time.Time
}

func (s *scrubbed) add(hashed, wrong int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked += hashed
	s.wrong += wrong
}

func (s *scrubbed) begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round = now
}

func (s *scrubbed) status(rate int64) control.Scrub {
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Scrub{Rate: rate, Checked: s.checked, Wrong: s.wrong, Round: s.round}
}

// scrub goes round everything that is in the cache, until ctx ends.
func (d *Daemon) scrub(ctx context.Context) {
	if d.cfg.ScrubRate <= 0 {
		return
	}
	p := &pace{rate: d.cfg.ScrubRate}
	for {
		began := time.Now()
		d.scrubbed.begin(began)
		d.mu.Lock()
		all := slices.Clone(d.torrents)
		d.mu.Unlock()
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, t := range all {
			if !t.ready() {
				continue
			}
			err := t.verify(ctx, nil, p, d.scrubbed.add)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				d.log.Warn("cannot hash what is kept of a torrent", "torrent", t.hash, "err", err)
			}
		}
		rest := time.NewTimer(time.Until(began.Add(scrubRest)))
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
	}
}
