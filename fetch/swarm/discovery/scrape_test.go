package discovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

// The examples of BEP 48.
func TestScrapeURL(t *testing.T) {
	for announce, want := range map[string]string{
		"http://example.com/announce":          "http://example.com/scrape",
		"http://example.com/x/announce":        "http://example.com/x/scrape",
		"http://example.com/announce.php":      "http://example.com/scrape.php",
		"http://example.com/a":                 "",
		"http://example.com/announce?x2%0644":  "http://example.com/scrape?x2%0644",
		"http://example.com/announce?x=2/4":    "",
		"http://example.com/x%064announce":     "",
		"http://example.com":                   "",
		"udp://example.com:1/secret":           "udp://example.com:1/secret",
		"https://example.com/key/announce?a=b": "https://example.com/key/scrape?a=b",
	} {
		u, ok := scrapeURL(announce)
		if ok != (want != "") || ok && u.String() != want {
			t.Errorf("%s: %v, %v", announce, u, ok)
		}
	}
}

// runScraper runs a Scraper until the test ends.
func runScraper(t *testing.T, s *Scraper) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// scraped asks for a torrent and waits for the answer of its only tracker.
func scraped(t *testing.T, s *Scraper, hash metainfo.InfoHash, announce string) TrackerStatus {
	t.Helper()
	tiers := [][]string{{announce}}
	s.Ask(hash, tiers)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if st := s.Status(hash, tiers)[0]; !st.Last.IsZero() || st.Err != nil {
			return st
		}
	}
	t.Fatal("no answer of " + announce)
	return TrackerStatus{}
}

// A tracker that other people wrote tells who is there, and how many got it all.
func TestScrapeOpentracker(t *testing.T) {
	for _, scheme := range []string{"http", "udp"} {
		t.Run(scheme, func(t *testing.T) {
			hash := metainfo.InfoHash{0, ' ', '%', '+', 0xff, 'x'}
			announce := scheme + "://" + opentracker(t, hash) + "/announce"
			u, err := url.Parse(announce)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range []request{
				{event: started, stats: Stats{Left: 1}},
				{event: started, stats: Stats{Left: 1}},
				{event: started, stats: Stats{Left: 0}},
				{event: completed, stats: Stats{Left: 0}},
			} {
				port := uint16(1001 + min(i, 2))
				r.hash, r.from, r.stats.Port, r.peerID[0], r.numWant = hash, network.Typed, port, byte(port), 200
				if _, err := newTestTrackers(Config{}).announce(t.Context(), u, r); err != nil {
					t.Fatal(err)
				}
			}
			s := NewScraper(Config{UserAgent: "test/1"}, []string{announce})
			runScraper(t, s)
			if st := scraped(t, s, hash, announce); st.Err != nil || st.Seeders != 1 || st.Leechers != 2 || st.Completed != 1 || st.URL != announce {
				t.Errorf("%+v", st)
			}
			if st := scraped(t, s, metainfo.InfoHash{9}, announce); st.Err != nil || st.Seeders > 0 || st.Leechers > 0 {
				t.Errorf("of a torrent that it does not know: %+v", st)
			}
		})
	}
}

// Nothing that a tracker answers harms, or costs what is good beside it.
func TestHostileScrape(t *testing.T) {
	hash := metainfo.InfoHash{1, ' ', '+', '&'}
	of := string(hash[:])
	files := func(s string) string { return "d5:filesd20:" + of + s + "ee" }
	five := counts{seeders: 5, leechers: 10, completed: 50}
	many := &strings.Builder{}
	many.WriteString("d5:filesd")
	for i := range 60_000 {
		fmt.Fprintf(many, "20:%020dde", i)
	}
	many.WriteString("ee")
	for _, c := range []struct {
		name, body, reason string
		want               counts
	}{
		{"honest", files("d8:completei5e10:downloadedi50e10:incompletei10ee"), "", five},
		{"trailing bytes", files("d8:completei5e10:downloadedi50e10:incompletei10ee") + "x", "", five},
		{"some fields", files("d8:completei5ee"), "", counts{seeders: 5, leechers: -1, completed: -1}},
		{"negative and huge", files("d8:completei-5e10:downloadedi9223372036854775808e10:incompletei2147483648ee"), "", unknown},
		{"text", files("d8:complete1:510:incompletelee"), "", unknown},
		{"the torrent is a list", files("le"), "", unknown},
		{"another torrent", "d5:filesd20:" + strings.Repeat("x", 20) + "d8:completei5eeee", "", unknown},
		{"short key", "d5:filesd3:abcd8:completei5eeee", "", unknown},
		{"60000 torrents", many.String(), "", unknown},
		{"no files", "de", "no files", counts{}},
		{"files is a list", "d5:fileslee", "no files", counts{}},
		{"refused", "d14:failure reason9:no\nfriende", `tracker refuses: "no\nfrien`, counts{}},
		{"empty", "", "empty reply", counts{}},
		{"a page", "<html>", "not bencoded", counts{}},
		{"nested", "d5:files" + strings.Repeat("l", 1<<20), "not bencoded", counts{}},
		{"too long", strings.Repeat("d", 3<<20), "longer than 2 MiB", counts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/key/scrape" || r.URL.RawQuery != "secret=1&info_hash="+escape(hash[:]) {
					t.Error(r.URL)
				}
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			announce := srv.URL + "/key/announce?secret=1"
			s := NewScraper(Config{}, []string{announce})
			runScraper(t, s)
			st := scraped(t, s, hash, announce)
			if (st.Err == nil) != (c.reason == "") || st.Err != nil && (!strings.Contains(st.Failure, c.reason) || len(st.Failure) > 1000 || strings.Contains(st.Failure, "secret")) {
				t.Fatalf("error %v, want one with %q", st.Err, c.reason)
			}
			if c.reason == "" && (st.Seeders != c.want.seeders || st.Leechers != c.want.leechers || st.Completed != c.want.completed) {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestHostileScrapeUDP(t *testing.T) {
	row := func(seeders, completed, leechers int32) (b []byte) {
		for _, n := range []int32{seeders, completed, leechers} {
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
		return b
	}
	batch := []metainfo.InfoHash{{1}, {2}}
	for _, c := range []struct {
		name   string
		rows   []byte
		action uint32
		reason string
		want   [2]counts
	}{
		{"honest", append(row(1, 2, 3), row(4, 5, 6)...), 2, "", [2]counts{{seeders: 1, completed: 2, leechers: 3}, {seeders: 4, completed: 5, leechers: 6}}},
		{"more than asked for", bytes.Repeat(row(1, 2, 3), 50), 2, "", [2]counts{{seeders: 1, completed: 2, leechers: 3}, {seeders: 1, completed: 2, leechers: 3}}},
		{"cut short", append(row(1, 2, 3), 0, 0, 0, 4), 2, "", [2]counts{{seeders: 1, completed: 2, leechers: 3}, {}}},
		{"negative", append(row(-1, -2, -1<<31), row(0, 0, 0)...), 2, "", [2]counts{{seeders: -1, completed: -1, leechers: -1}, {}}},
		{"nothing", nil, 2, "", [2]counts{}},
		{"action of an announce", row(1, 2, 3), 1, "has action 1", [2]counts{}},
		{"refused", []byte("go away"), 3, `tracker refuses: "go away"`, [2]counts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := liar(t, func(p []byte, action uint32) [][]byte {
				if action == actionConnect {
					return [][]byte{append(header(p, 0), "connect!"...)}
				}
				if action != actionScrape || len(p) != 16+40 || p[16] != 1 || p[36] != 2 {
					t.Errorf("asked %x", p)
				}
				return [][]byte{append(header(p, c.action), c.rows...)}
			})
			got, err := Config{Network: network.System()}.overNetwork(t.Context(), &site{scrape: u, from: network.Typed}, batch)
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("error %v, want one with %q", err, c.reason)
			}
			for i, h := range batch {
				if got.of[h] != c.want[i] {
					t.Errorf("%d: %+v", i, got.of[h])
				}
			}
		})
	}
}

// The policy of addresses is asked as for announces.
func TestScrapePolicy(t *testing.T) {
	for _, announce := range []string{"http://127.0.0.1:9/announce", "udp://127.0.0.1:9/announce"} {
		s := NewScraper(Config{}, nil)
		runScraper(t, s)
		refused := (*network.RefusedError)(nil)
		if st := scraped(t, s, metainfo.InfoHash{1}, announce); !errors.As(st.Err, &refused) {
			t.Errorf("%s: %v", announce, st.Err)
		}
	}
	n, err := network.Open(network.Config{Proxy: "socks5://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	udp := "udp://127.0.0.1:9/announce"
	s := NewScraper(Config{Network: n}, []string{udp})
	runScraper(t, s)
	if st := scraped(t, s, metainfo.InfoHash{1}, udp); !errors.Is(st.Err, network.ErrProxied) {
		t.Error(st.Err)
	}
}

// However much is asked for, trackers see one request a second, and each of them a
// torrent once in half an hour.
func TestScraperMakesNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScraper(Config{}, nil)
		start := time.Now()
		type event struct {
			at   time.Duration
			host string
			n    int
		}
		var journal []event // Run starts at most one at a time, a second apart
		s.scrape = func(ctx context.Context, st *site, batch []metainfo.InfoHash) (tally, error) {
			journal = append(journal, event{time.Since(start), st.announce.Host, len(batch)})
			time.Sleep(300 * time.Millisecond)
			switch st.announce.Host {
			case "fails":
				return tally{}, errors.New("no")
			case "waits":
				return tally{wait: 2 * time.Hour}, nil
			}
			return tally{of: map[metainfo.InfoHash]counts{batch[0]: {seeders: 7}}}, nil
		}
		runScraper(t, s)
		tiers := [][]string{{"http://good/announce"}, {"http://fails/announce", "http://waits/announce"}, {"http://none/x"}, {"ftp://x/announce"}}
		ask := func() []event {
			journal, start = nil, time.Now()
			for i := range 3 * scrapeBatch {
				s.Ask(metainfo.InfoHash{byte(i)}, tiers)
				s.Ask(metainfo.InfoHash{byte(i)}, tiers)
			}
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			return journal
		}
		count := func(js []event) map[string]int {
			n := map[string]int{}
			for i, e := range js {
				n[e.host] += e.n
				if e.n > scrapeBatch || i > 0 && e.at-js[i-1].at < scrapePause {
					t.Errorf("%v", js)
				}
			}
			return n
		}
		if n := count(ask()); n["good"] != 3*scrapeBatch || n["fails"] != scrapeBatch || n["waits"] != scrapeBatch {
			t.Error(n)
		}
		if js := ask(); len(js) > 0 {
			t.Errorf("asked again at once: %v", js)
		}
		time.Sleep(25 * time.Minute)
		if n := count(ask()); n["good"] != 3*scrapeBatch || n["fails"] != scrapeBatch || n["waits"] != 0 {
			t.Error(n)
		}
		st := s.Status(metainfo.InfoHash{1}, tiers)
		if i := slices.IndexFunc(st, func(s TrackerStatus) bool { return s.URL == "http://fails/announce" }); len(st) != 5 || st[i].Failure != "no" || st[0].Last.IsZero() || st[3].Seeders != -1 {
			t.Errorf("%+v", st)
		}
	})
}

// Of a torrent with a hundred trackers, eight are asked.
func TestScrapeFewTrackers(t *testing.T) {
	s := NewScraper(Config{}, nil)
	var tiers [][]string
	for i := range 100 {
		tiers = append(tiers, []string{fmt.Sprintf("http://t%d/announce", i)})
	}
	s.Ask(metainfo.InfoHash{1}, tiers)
	s.mu.Lock()
	defer s.mu.Unlock()
	due := 0
	for _, st := range s.sites {
		due += len(st.due)
	}
	if due != maxScraped {
		t.Error(due)
	}
}

func FuzzScrape(f *testing.F) {
	f.Add([]byte("d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei5e10:downloadedi50e10:incompletei10eee5:flagsd20:min_request_intervali99eee"))
	f.Add([]byte("d14:failure reason2:noe"))
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03"))
	batch := []metainfo.InfoHash{metainfo.InfoHash([]byte("aaaaaaaaaaaaaaaaaaaa")), {}}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseScrapeHTTP(b, batch)
		for _, got := range []tally{h, parseScrapeUDP(b, batch)} {
			for _, c := range got.of {
				if c.seeders < -1 || c.leechers < -1 || c.completed < -1 || len(got.of) > len(batch) {
					t.Fatalf("%+v", got)
				}
			}
		}
		if h.wait < 0 || h.wait > maxScrapeWait || err != nil && (len(err.Error()) > 2000 || h.of != nil) {
			t.Fatal(h.wait, err)
		}
	})
}
