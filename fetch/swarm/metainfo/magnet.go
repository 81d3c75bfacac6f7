package metainfo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	maxMagnet = 64 << 10
	maxSelect = 100_000 // files that so= may name; "0-2147483647" is short
)

// Magnet is a checked magnet link (BEP 9).
type Magnet struct {
	Hash     InfoHash // v1, or truncated v2 if there is no v1
	HasV1    bool
	HashV2   [32]byte
	HasV2    bool
	Name     string   // untrusted, a hint until the metadata is here
	Trackers []string // http, https and udp only
	Peers    []string // host:port
	WebSeeds []string // http and https only
	Length   int64    // untrusted hint, 0 if unknown
	Select   []int    // BEP 53: file numbers, sorted, each once; nil means all
}

// ParseMagnet reads a magnet link. A link without exactly one torrent in it is
// an error; any other part that is malformed or unknown is left out.
func ParseMagnet(s string) (*Magnet, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return nil, errors.New("empty input: not a magnet link")
	case len(s) > maxMagnet:
		return nil, fmt.Errorf("magnet link of %d bytes: at most %d are accepted", len(s), maxMagnet)
	case len(s) < 8 || !strings.EqualFold(s[:8], "magnet:?"):
		return nil, fmt.Errorf("not a magnet link: %s does not start with magnet:?", quote([]byte(s)))
	}
	m := &Magnet{}
	var p magnetParser
	for part := range strings.SplitSeq(s[8:], "&") {
		key, val, _ := strings.Cut(part, "=")
		key, _, _ = strings.Cut(strings.ToLower(key), ".") // tr.1, tr.2 … number repeats
		if strings.HasPrefix(part, "x.pe=") {
			key = "x.pe"
		}
		if err := p.part(m, key, val); err != nil {
			return nil, err
		}
	}
	if !m.HasV1 && !m.HasV2 {
		return nil, errors.New("magnet link without xt=urn:btih or xt=urn:btmh")
	}
	if !m.HasV1 {
		copy(m.Hash[:], m.HashV2[:])
	}
	slices.Sort(m.Select)
	m.Select = slices.Compact(m.Select)
	return m, nil
}

// magnetParser remembers what it has seen, to drop repeats.
type magnetParser struct{ trackers, peers, seeds endpoints }

func (p *magnetParser) part(m *Magnet, key, val string) error {
	unescape := url.PathUnescape
	if key == "dn" {
		unescape = url.QueryUnescape // names come with + for a space
	}
	val, err := unescape(val)
	if err != nil {
		if key == "xt" {
			return fmt.Errorf("magnet link: xt has a bad %% escape")
		}
		return nil
	}
	switch key {
	case "xt":
		return m.parseTopic(val)
	case "dn":
		m.Name = val
	case "tr":
		m.Trackers = p.trackers.add(m.Trackers, trackerURL(val))
	case "x.pe":
		m.Peers = p.peers.add(m.Peers, hostPort(val))
	case "ws":
		m.WebSeeds = p.seeds.add(m.WebSeeds, webURL(val))
	case "xl":
		if n, err := strconv.ParseInt(val, 10, 64); err == nil && n > 0 {
			m.Length = n
		}
	case "so":
		return m.parseSelect(val)
	}
	return nil
}

// parseTopic reads xt. Topics of other networks may stand beside ours.
func (m *Magnet) parseTopic(s string) error {
	if rest, ok := cutPrefixFold(s, "urn:btih:"); ok {
		h, err := ParseInfoHash(rest)
		if err != nil {
			return fmt.Errorf("magnet link: %w", err)
		}
		if m.HasV1 && h != m.Hash {
			return errors.New("magnet link with two different info-hashes")
		}
		m.Hash, m.HasV1 = h, true
	}
	if rest, ok := cutPrefixFold(s, "urn:btmh:"); ok {
		// 12 is the multihash code of SHA-256 and 20 its length: BEP 52 has no other.
		b, err := hex.DecodeString(rest)
		if err != nil || len(b) != 34 || b[0] != 0x12 || b[1] != 0x20 {
			return fmt.Errorf("magnet link: v2 info-hash %s: must be 1220 and 64 hex digits", quote([]byte(rest)))
		}
		if m.HasV2 && [32]byte(b[2:]) != m.HashV2 {
			return errors.New("magnet link with two different v2 info-hashes")
		}
		m.HashV2, m.HasV2 = [32]byte(b[2:]), true
	}
	return nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// parseSelect reads so=0,2,4-6 (BEP 53).
func (m *Magnet) parseSelect(s string) error {
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 31)
		b, errB := strconv.ParseUint(last, 10, 31)
		if errA != nil || errB != nil || a > b {
			continue
		}
		if b-a >= uint64(maxSelect-len(m.Select)) {
			return fmt.Errorf("magnet link: so names more than %d files", maxSelect)
		}
		for ; a <= b; a++ {
			m.Select = append(m.Select, int(a))
		}
	}
	return nil
}

// String returns the link; ParseMagnet reads it back as the same Magnet.
func (m *Magnet) String() string {
	var b strings.Builder
	b.WriteString("magnet:?")
	sep := ""
	add := func(key, val string) {
		b.WriteString(sep + key + "=" + val)
		sep = "&"
	}
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	if m.HasV1 {
		add("xt", "urn:btih:"+m.Hash.String())
	}
	if m.HasV2 {
		add("xt", "urn:btmh:1220"+hex.EncodeToString(m.HashV2[:]))
	}
	if m.Name != "" {
		add("dn", escape(m.Name))
	}
	if m.Length > 0 {
		add("xl", strconv.FormatInt(m.Length, 10))
	}
	for _, s := range m.Trackers {
		add("tr", escape(s))
	}
	for _, s := range m.WebSeeds {
		add("ws", escape(s))
	}
	for _, s := range m.Peers {
		add("x.pe", s)
	}
	if len(m.Select) > 0 {
		add("so", m.selection())
	}
	return b.String()
}

// selection writes runs of numbers as ranges.
func (m *Magnet) selection() string {
	var items []string
	for i := 0; i < len(m.Select); {
		j := i
		for j+1 < len(m.Select) && m.Select[j+1] == m.Select[j]+1 {
			j++
		}
		item := strconv.Itoa(m.Select[i])
		if j > i {
			item += "-" + strconv.Itoa(m.Select[j])
		}
		items = append(items, item)
		i = j + 1
	}
	return strings.Join(items, ",")
}
