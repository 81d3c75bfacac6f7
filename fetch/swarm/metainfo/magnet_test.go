package metainfo

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	hexHash    = "0123456789abcdef0123456789abcdef01234567"
	base32Hash = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH"
	hexV2      = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	link       = "magnet:?xt=urn:btih:" + hexHash
)

func TestParseMagnet(t *testing.T) {
	hash, err := ParseInfoHash(hexHash)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := ParseInfoHash(base32Hash); err != nil || h != hash || h.String() != hexHash {
		t.Fatal(h, err)
	}
	m, err := ParseMagnet(link + "&xt=urn:btmh:1220" + hexV2 + "&dn=a+b%20c&tr=http%3A%2F%2Fh%2Fa&tr.1=udp://t:80/announce" +
		"&x.pe=1.2.3.4:5&x.pe=[::1]:6&ws=https://w/x&xl=42&so=4-6,0,5&xs=ignored&unknown")
	if err != nil {
		t.Fatal(err)
	}
	want := &Magnet{
		Hash: hash, HasV1: true, HashV2: [32]byte(slices.Concat(hash[:16], hash[:16])), HasV2: true, Name: "a b c",
		Trackers: []string{"http://h/a", "udp://t:80/announce"}, Peers: []string{"1.2.3.4:5", "[::1]:6"},
		WebSeeds: []string{"https://w/x"}, Length: 42, Select: []int{0, 4, 5, 6},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
	if again, err := ParseMagnet(m.String()); err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("%s: %+v, %v", m, again, err)
	}
	if !strings.HasSuffix(m.String(), "&so=0,4-6") {
		t.Error(m.String())
	}
}

func TestParseMagnetV2Only(t *testing.T) {
	m, err := ParseMagnet("MAGNET:?XT=URN:BTMH:1220" + strings.ToUpper(hexV2))
	if err != nil || m.HasV1 || !m.HasV2 || m.Hash.String() != hexV2[:40] {
		t.Fatal(m, err)
	}
}

func TestHostileMagnets(t *testing.T) {
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for _, c := range []struct{ name, link, reason string }{
		{"empty", "", "empty input"},
		{"spaces", " \n", "empty input"},
		{"web_link", "https://example.org/", "not a magnet link"},
		{"scheme_only", "magnet:", "not a magnet link"},
		{"no_topic", "magnet:?dn=x", "without xt"},
		{"nothing", "magnet:?", "without xt"},
		{"separators", "magnet:?&&&&==&=", "without xt"},
		{"other_network", "magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C", "without xt"},
		{"hash_empty", "magnet:?xt=urn:btih:", "must be 40 hex"},
		{"hash_short", "magnet:?xt=urn:btih:0123", "must be 40 hex"},
		{"hash_long", link + "00", "must be 40 hex"},
		{"hash_not_hex", "magnet:?xt=urn:btih:" + strings.Repeat("z", 40), "must be 40 hex"},
		{"hash_not_base32", "magnet:?xt=urn:btih:" + strings.Repeat("1", 32), "must be 40 hex"},
		{"hash_nul", "magnet:?xt=urn:btih:" + strings.Repeat("%00", 40), "must be 40 hex"},
		{"hash_huge", "magnet:?xt=urn:btih:" + strings.Repeat("0", 60_000), "must be 40 hex"},
		{"hash_bad_escape", "magnet:?xt=urn:btih:%zz", "bad % escape"},
		{"two_torrents", link + "&xt=urn:btih:" + strings.Repeat("0", 40), "two different info-hashes"},
		{"two_v2", link + "&xt=urn:btmh:1220" + hexV2 + "&xt=urn:btmh:1220" + strings.Repeat("0", 64), "two different v2"},
		{"v2_short", "magnet:?xt=urn:btmh:1220" + hexV2[2:], "1220 and 64"},
		{"v2_sha1", "magnet:?xt=urn:btmh:1114" + hexHash, "1220 and 64"},
		{"v2_not_hex", "magnet:?xt=urn:btmh:1220" + strings.Repeat("z", 64), "1220 and 64"},
		{"64_kib", link + "&dn=" + strings.Repeat("x", 64<<10), "at most 65536"},
		{"so_all_ints", link + "&so=0-2147483647", "so names more than"},
		{"so_many_ranges", link + "&so=" + strings.Repeat("0-50000,", 3), "so names more than"},
		{"same_hash_twice", link + "&xt=urn:btih:" + strings.ToUpper(hexHash), ""},
		{"so_garbage", link + "&so=-1,a,5-2,9999999999999999999,,1--2,+3", ""},
		{"xl_negative", link + "&xl=-1", ""},
		{"xl_huge", link + "&xl=99999999999999999999", ""},
		{"name_bad_escape", link + "&dn=%", ""},
		{"name_raw", link + "&dn=..%2f..%00%1b%ff", ""},
		{"tracker_file", link + "&tr=file:///etc/passwd", ""},
		{"tracker_ws", link + "&tr=wss://h/", ""},
		{"tracker_control", link + "&tr=http://h/%0d%0aX:y", ""},
		{"tracker_no_port", link + "&tr=udp://h", ""},
		{"tracker_empty", link + "&tr=&tr=%20", ""},
		{"peer_garbage", link + "&x.pe=a&x.pe=:1&x.pe=h:0&x.pe=h:65536&x.pe=%26:1&x.pe=[fe80::1%25eth0]:1", ""},
		{"seed_garbage", link + "&ws=ftp://h/&ws=//h/&ws=http:", ""},
		{"trackers_1000", link + many("&tr=http://h/%d", 1000), ""},
		{"peers_3000", link + many("&x.pe=h:%d", 3000), ""},
		{"semicolons", link + ";dn=x", "must be 40 hex"},
	} {
		m, err := ParseMagnet(c.link)
		if c.reason != "" {
			if err == nil || !strings.Contains(err.Error(), c.reason) || len(err.Error()) > 300 {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(m.Trackers) > 200 || len(m.Peers) > 200 || m.Length < 0 || strings.Contains(c.name, "garbage") && len(m.Select)+len(m.Peers)+len(m.WebSeeds) > 0 {
			t.Errorf("%s: %+v", c.name, m)
		}
		if strings.HasPrefix(c.name, "tracker_") && m.Trackers != nil {
			t.Errorf("%s: trackers %q", c.name, m.Trackers)
		}
	}
}
