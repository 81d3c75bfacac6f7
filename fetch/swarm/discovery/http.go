package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	maxBody   = 2 << 20
	maxValues = 1 << 18 // in it: a scrape of all that a tracker has is told by some
)

// announceHTTP announces over IPv4 and over IPv6 at the same time, since a tracker
// knows us, and mostly hands us out, by the address that we come from (BEP 7). A
// tracker that is an address has one; through a proxy nobody knows which it has.
func (t *Trackers) announceHTTP(ctx context.Context, u *url.URL, r request) (reply, error) {
	if _, err := netip.ParseAddr(u.Hostname()); err == nil || t.c.Network.Proxied() {
		return t.announceOver(ctx, "", u, r)
	}
	return all(ctx, []string{"tcp4", "tcp6"}, func(ctx context.Context, family string) (reply, error) {
		return t.announceOver(ctx, family, u, r)
	})
}

// announceOver is BEP 3's announce with the compact replies of BEP 23 and 7.
func (t *Trackers) announceOver(ctx context.Context, family string, u *url.URL, r request) (reply, error) {
	body, via, status, err := t.c.overHTTP(ctx, family, announceURL(u, r), r.from)
	if err != nil {
		return reply{}, err
	}
	rep, err := parseHTTP(body)
	rep.from(via)
	return rep, orStatus(err, status)
}

// overHTTP gets a URL of a tracker. The body comes with any status.
func (c Config) overHTTP(ctx context.Context, family, url string, from network.Origin) (body []byte, via netip.Addr, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, via, 0, err
	}
	req.Header.Set("User-Agent", c.UserAgent)
	resp, via, err := c.Network.DoOver(family, req, network.Tracker, from)
	if err != nil {
		return nil, via, 0, withoutURL(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)) // after decompression
	switch {
	case err != nil:
		err = fmt.Errorf("reading the reply: %w", err)
	case len(body) > maxBody:
		err = errors.New("reply is longer than 2 MiB")
	}
	return body, via, resp.StatusCode, err
}

// withoutURL drops the address that url.Error repeats, with the user's key in it.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// orStatus prefers the status to what is wrong with the body. Some trackers put a failure
// reason into their error pages; most do not.
func orStatus(err error, status int) error {
	if _, ok := errors.AsType[failure](err); err == nil || ok || status == http.StatusOK {
		return err
	}
	return fmt.Errorf("HTTP status %d", status)
}

// announceURL appends the parameters to what the tracker's URL already has: its
// own, such as a key, must stay first for some.
func announceURL(u *url.URL, r request) string {
	q := []string{
		"info_hash=" + escape(r.hash[:]), "peer_id=" + escape(r.peerID[:]),
		"port=" + strconv.Itoa(int(r.stats.Port)),
		"uploaded=" + strconv.FormatInt(r.stats.Uploaded, 10),
		"downloaded=" + strconv.FormatInt(r.stats.Downloaded, 10),
		"left=" + strconv.FormatInt(r.stats.Left, 10),
		"compact=1", "no_peer_id=1",
		"numwant=" + strconv.Itoa(r.numWant), fmt.Sprintf("key=%08X", r.key),
	}
	if r.event != none {
		q = append(q, "event="+r.event.String())
	}
	if r.id != "" {
		q = append(q, "trackerid="+escape([]byte(r.id)))
	}
	if u.RawQuery != "" {
		q = append([]string{u.RawQuery}, q...)
	}
	full := *u
	full.RawQuery, full.Fragment, full.RawFragment = strings.Join(q, "&"), "", ""
	return full.String()
}

// escape writes a space as %20, where url.QueryEscape writes +, which trackers
// take for a plus.
func escape(b []byte) string { return strings.ReplaceAll(url.QueryEscape(string(b)), "+", "%20") }

// failure is a tracker's own word for why it refuses.
type failure string

func (f failure) Error() string { return fmt.Sprintf("tracker refuses: %.200q", string(f)) }

// httpReply leaves every field undecoded, so that a malformed one is lost alone.
type httpReply struct {
	Failure     bencode.Bytes `bencode:"failure reason"`
	Interval    bencode.Bytes `bencode:"interval"`
	MinInterval bencode.Bytes `bencode:"min interval"`
	ID          bencode.Bytes `bencode:"tracker id"`
	Seeders     bencode.Bytes `bencode:"complete"`
	Leechers    bencode.Bytes `bencode:"incomplete"`
	Peers       bencode.Bytes `bencode:"peers"`
	Peers6      bencode.Bytes `bencode:"peers6"`
}

func parseHTTP(b []byte) (reply, error) {
	var h httpReply
	if err := decode(b, &h); err != nil {
		return reply{}, err
	}
	if h.Failure != nil {
		return reply{}, failure(text(h.Failure))
	}
	var r reply
	r.interval, r.min = clampIntervals(number(h.Interval, int64(defaultInterval/time.Second)), number(h.MinInterval, 0))
	r.seeders, r.leechers = count(h.Seeders), count(h.Leechers)
	if id := text(h.ID); len(id) <= 256 {
		r.id = id
	}
	set := peerSet{source: "tracker"}
	if len(h.Peers) > 0 && h.Peers[0] == 'l' {
		set.addList(h.Peers)
	} else {
		set.addCompact([]byte(text(h.Peers)), 4)
	}
	set.addCompact([]byte(text(h.Peers6)), 16)
	r.peers = set.peers
	return r, nil
}

// decode reads a dictionary, with or without something after it.
func decode(b []byte, into any) error {
	if len(b) == 0 {
		return errors.New("empty reply")
	}
	if b[0] != 'd' {
		return fmt.Errorf("reply is not bencoded: %.32q", b)
	}
	n, err := metainfo.Measure(b, maxValues)
	if err != nil {
		return fmt.Errorf("reply is %w: %.32q", err, b)
	}
	if bencode.Unmarshal(b[:n], into) != nil {
		return fmt.Errorf("reply is not bencoded: %.32q", b)
	}
	return nil
}

// addList reads BEP 3's list of dicts. Names instead of addresses are left out:
// looking them up would let a tracker make us ask any name server.
func (s *peerSet) addList(b bencode.Bytes) {
	var items []bencode.Bytes
	if bencode.Unmarshal(b, &items) != nil {
		return
	}
	for _, item := range items[:min(len(items), 5*maxPeers)] {
		var p struct {
			IP   string `bencode:"ip"`
			Port int    `bencode:"port"`
		}
		if bencode.Unmarshal(item, &p) != nil || p.Port < 1 || p.Port > math.MaxUint16 {
			continue
		}
		if addr, err := netip.ParseAddr(p.IP); err == nil {
			s.add(addr, uint16(p.Port))
		}
	}
}

// number reads an integer, to the nearest that fits; or returns missing.
func number(b bencode.Bytes, missing int64) int64 {
	if len(b) < 3 || b[0] != 'i' {
		return missing
	}
	n, err := strconv.ParseInt(string(b[1:len(b)-1]), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return missing
	}
	return n
}

// count reads a number of peers, -1 if there is none that makes sense.
func count(b bencode.Bytes) int {
	if n := number(b, -1); n >= 0 && n <= math.MaxInt32 {
		return int(n)
	}
	return -1
}

func text(b bencode.Bytes) string {
	var s string
	if len(b) == 0 || bencode.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}
