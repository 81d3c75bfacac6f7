package discovery

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	scrapeTimeout  = 15 * time.Second
	scrapeInterval = 30 * time.Minute // of one torrent at one tracker, and after a failure of the tracker
	maxScrapeWait  = 6 * time.Hour    // that a tracker may ask for
	scrapePause    = time.Second      // between two requests, whoever they go to
	scrapesAtOnce  = 4                // requests without an answer yet
	scrapeBatch    = 40               // torrents in one request: 3 KB of URL
	maxScraped     = 8                // trackers of one torrent that are asked
)

var errSilent = errors.New("no answer within 15 s")

// Scraper asks trackers how many peers torrents have that we do not take part in now
// (BEP 48, and 15 over UDP). It asks for what somebody looked at by [Scraper.Ask], many
// torrents of one tracker at a time, and never in a burst: a request each second at
// most, and every half an hour for one torrent at one tracker.
//
// Rejected: to scrape all the time what is dormant. Most of it nobody looks at, and each
// request tells a tracker that we still have the torrent.
type Scraper struct {
	c     Config
	typed []string
	log   *slog.Logger
	// scrape does the I/O; tests replace it.
	scrape func(context.Context, *site, []metainfo.InfoHash) (tally, error)
	wake   chan struct{} // capacity 1: something is due

	mu    sync.Mutex
	sites map[string]*site // by the URL of their announces
}

// site is a tracker that can be scraped. What changes is guarded by Scraper.mu.
type site struct {
	announce, scrape *url.URL
	from             network.Origin
	due              map[metainfo.InfoHash]struct{}
	busy             bool
	next             time.Time // it is not asked before
	err              error     // of the last request
	known            map[metainfo.InfoHash]counts
}

// counts of peers; -1 is unknown.
type counts struct {
	seeders, leechers, completed int
	asked, at                    time.Time // the last question, the last answer
}

var unknown = counts{seeders: -1, leechers: -1, completed: -1}

// tally is what a tracker answered, bounded but otherwise believed.
type tally struct {
	of   map[metainfo.InfoHash]counts
	wait time.Duration // that it asks for
}

// NewScraper prepares scrapes; typed are the trackers that the user named.
func NewScraper(c Config, typed []string) *Scraper {
	if c.Network == nil {
		c.Network = network.System()
	}
	s := &Scraper{c: c, typed: typed, log: loggerOr(c.Logger), wake: make(chan struct{}, 1), sites: map[string]*site{}}
	s.scrape = c.overNetwork
	return s
}

// Ask has the trackers of a torrent asked, soon, if they were not a while ago. It never
// waits. Eight of them at most are asked.
func (s *Scraper) Ask(hash metainfo.InfoHash, tiers [][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, asked := time.Now(), 0
	for _, announce := range slices.Concat(tiers...) {
		st := s.siteLocked(announce)
		if st == nil {
			continue
		}
		if asked++; asked > maxScraped {
			return
		}
		if now.Before(st.next) {
			continue
		}
		if k, ok := st.known[hash]; ok && now.Sub(k.asked) < scrapeInterval {
			continue
		}
		st.due[hash] = struct{}{}
		s.poke()
	}
}

func (s *Scraper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// siteLocked returns the tracker of an announce URL, nil if it cannot be scraped.
func (s *Scraper) siteLocked(announce string) *site {
	st, ok := s.sites[announce]
	if ok {
		return st
	}
	if u, err := url.Parse(announce); err == nil && known(u.Scheme) && u.Host != "" {
		if sc, ok := scrapeURL(announce); ok {
			st = &site{announce: u, scrape: sc, from: network.File, due: map[metainfo.InfoHash]struct{}{}, known: map[metainfo.InfoHash]counts{}}
			if slices.Contains(s.typed, announce) {
				st.from = network.Typed
			}
		}
	}
	s.sites[announce] = st
	return st
}

// Status tells what the trackers of a torrent answered.
func (s *Scraper) Status(hash metainfo.InfoHash, tiers [][]string) (all []TrackerStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, announce := range slices.Concat(tiers...) {
		status := unasked(announce)
		if st := s.sites[announce]; st != nil {
			if k, ok := st.known[hash]; ok {
				status.Seeders, status.Leechers, status.Completed, status.Last = k.seeders, k.leechers, k.completed, k.at
			}
			if status.Err = st.err; st.err != nil {
				status.Failure = st.err.Error()
			}
		}
		all = append(all, status)
	}
	return all
}

// Run asks until ctx ends, and returns nil.
func (s *Scraper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, scrapesAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		st, batch := s.next()
		if st == nil {
			<-slots
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			}
			continue
		}
		wg.Go(func() { // ends with scrapeTimeout or ctx
			s.ask(ctx, st, batch)
			<-slots
		})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(scrapePause):
		}
	}
}

// next takes what is due at some tracker.
func (s *Scraper) next() (*site, []metainfo.InfoHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.sites {
		if st == nil || st.busy || len(st.due) == 0 {
			continue
		}
		batch := make([]metainfo.InfoHash, 0, min(len(st.due), scrapeBatch))
		for h := range st.due {
			if len(batch) == scrapeBatch {
				break
			}
			k, ok := st.known[h]
			if !ok {
				k = unknown
			}
			k.asked = time.Now()
			st.known[h] = k
			batch = append(batch, h)
			delete(st.due, h)
		}
		st.busy = true
		return st, batch
	}
	return nil, nil
}

// ask scrapes one tracker and notes what it says.
func (s *Scraper) ask(ctx context.Context, st *site, batch []metainfo.InfoHash) {
	ctx, cancel := context.WithTimeoutCause(ctx, scrapeTimeout, errSilent)
	defer cancel()
	var t tally
	err := fault.Catch(s.log, "a scrape of a tracker", func() (err error) {
		t, err = s.scrape(ctx, st, batch)
		return cause(ctx, err)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	st.busy, st.err = false, err
	now := time.Now()
	if err != nil {
		s.log.Debug("tracker was not scraped", "tracker", st.announce.Host, "err", err)
		st.next = now.Add(scrapeInterval)
		clear(st.due)
		return
	}
	for _, h := range batch {
		k, ok := t.of[h]
		if !ok {
			k = unknown
		}
		k.asked, k.at = st.known[h].asked, now
		st.known[h] = k
	}
	if t.wait > 0 {
		st.next = now.Add(t.wait)
		clear(st.due)
	} else if len(st.due) > 0 {
		s.poke()
	}
}

// scrapeURL is where the tracker of an announce URL is scraped. BEP 48 allows it only if
// what follows the last slash begins with "announce"; over UDP it is an action.
func scrapeURL(announce string) (*url.URL, bool) {
	i := strings.LastIndexByte(announce, '/') + 1
	if !strings.HasPrefix(announce, "udp:") {
		rest, ok := strings.CutPrefix(announce[i:], "announce")
		if !ok {
			return nil, false
		}
		announce = announce[:i] + "scrape" + rest
	}
	u, err := url.Parse(announce)
	return u, err == nil
}

// overNetwork scrapes a tracker.
func (c Config) overNetwork(ctx context.Context, st *site, batch []metainfo.InfoHash) (tally, error) {
	if st.scrape.Scheme != "udp" {
		return c.scrapeHTTP(ctx, st, batch)
	}
	targets, err := c.Network.Targets(ctx, st.scrape.Host)
	if err != nil {
		return tally{}, err
	}
	err = errors.New("no address")
	for i, to := range targets { // one of each family: the second, if the first leads nowhere
		var t tally
		if t, err = c.scrapeUDP(ctx, to, st.from, batch, scrapeTimeout/time.Duration(len(targets)-i)); err == nil {
			return t, nil
		}
	}
	return tally{}, err
}

func (c Config) scrapeUDP(ctx context.Context, to net.Addr, from network.Origin, batch []metainfo.InfoHash, limit time.Duration) (tally, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	b, _, err := c.overUDP(ctx, to, from, actionScrape, scrapeBody(batch))
	if err != nil {
		return tally{}, err
	}
	return parseScrapeUDP(b, batch), nil
}

func scrapeBody(batch []metainfo.InfoHash) (b []byte) {
	for _, h := range batch {
		b = append(b, h[:]...)
	}
	return b
}

// parseScrapeUDP reads counts in the order in which they were asked for. A reply that is
// too short leaves the rest unknown.
func parseScrapeUDP(b []byte, batch []metainfo.InfoHash) tally {
	t := tally{of: map[metainfo.InfoHash]counts{}}
	field := func(i int) int { return max(int(int32(binary.BigEndian.Uint32(b[4*i:]))), -1) }
	for _, h := range batch {
		if len(b) < 12 {
			break
		}
		t.of[h] = counts{seeders: field(0), completed: field(1), leechers: field(2)}
		b = b[12:]
	}
	return t
}

func (c Config) scrapeHTTP(ctx context.Context, st *site, batch []metainfo.InfoHash) (tally, error) {
	u := *st.scrape
	q := make([]string, 0, len(batch)+1)
	if u.RawQuery != "" { // a key comes first
		q = append(q, u.RawQuery)
	}
	for _, h := range batch {
		q = append(q, "info_hash="+escape(h[:]))
	}
	u.RawQuery, u.Fragment, u.RawFragment = strings.Join(q, "&"), "", ""
	body, _, status, err := c.overHTTP(ctx, "", u.String(), st.from)
	if err != nil {
		return tally{}, err
	}
	t, err := parseScrapeHTTP(body, batch)
	return t, orStatus(err, status)
}

// scrapeReply leaves what can be wrong undecoded, as httpReply does.
type scrapeReply struct {
	Failure bencode.Bytes `bencode:"failure reason"`
	Files   bencode.Bytes `bencode:"files"`
	Flags   bencode.Bytes `bencode:"flags"`
}

// parseScrapeHTTP reads the counts of what was asked for. Some trackers tell of all that
// they have, whatever they are asked.
func parseScrapeHTTP(b []byte, batch []metainfo.InfoHash) (tally, error) {
	var r scrapeReply
	if err := decode(b, &r); err != nil {
		return tally{}, err
	}
	if r.Failure != nil {
		return tally{}, failure(text(r.Failure))
	}
	var files map[string]bencode.Bytes
	if r.Files == nil || bencode.Unmarshal(r.Files, &files) != nil {
		return tally{}, errors.New("the reply to a scrape has no files")
	}
	t := tally{of: map[metainfo.InfoHash]counts{}}
	for _, h := range batch {
		var f struct {
			Seeders   bencode.Bytes `bencode:"complete"`
			Leechers  bencode.Bytes `bencode:"incomplete"`
			Completed bencode.Bytes `bencode:"downloaded"`
		}
		if of, ok := files[string(h[:])]; ok && bencode.Unmarshal(of, &f) == nil {
			t.of[h] = counts{seeders: count(f.Seeders), leechers: count(f.Leechers), completed: count(f.Completed)}
		}
	}
	var flags struct {
		Wait bencode.Bytes `bencode:"min_request_interval"`
	}
	if r.Flags != nil && bencode.Unmarshal(r.Flags, &flags) == nil {
		t.wait = time.Duration(min(max(number(flags.Wait, 0), 0), int64(maxScrapeWait/time.Second))) * time.Second
	}
	return t, nil
}
