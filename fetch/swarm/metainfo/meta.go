package metainfo

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxEndpoints = 200 // of each kind: trackers, web seeds, nodes, peers
	maxURL       = 1024
	maxText      = 64 << 10
	maxDate      = 4102444800 // 2100-01-01; later dates are noise
)

// Meta is a checked .torrent.
type Meta struct {
	Info      *Info
	Trackers  [][]string // BEP 12 tiers; http, https and udp only
	WebSeeds  []string   // BEP 19; http and https only
	WebPieces []string   // BEP 17 (httpseeds); http and https only
	Nodes     []string   // BEP 5; host:port
	Created   time.Time  // zero if absent or absurd
	CreatedBy string     // untrusted
	Comment   string     // untrusted
	// PieceLayers has, by pieces root, the SHA-256 of every piece of the v2 files
	// that are longer than a piece. All are verified; some may be missing.
	PieceLayers map[[32]byte][]byte
}

// ByTree reports which half of a torrent rules: true if bytes are right when the v2
// tree says so, false if the v1 piece hashes do. Of a hybrid it is the tree if all its
// piece layers are here.
//
// The halves of a hybrid may hash different bytes. Parse refuses those whose file
// lists differ, but hashes do not show what they are made of: a hybrid made with
// intent is two torrents, of which v1 peers have one and v2 peers the other. So the
// halves are never mixed: with one half ruling, a file has one content only, whoever
// is asked and whatever was evicted between two reads.
func (m *Meta) ByTree() bool {
	if !m.Info.V1 || !m.Info.V2 {
		return m.Info.V2
	}
	for i := range m.Info.Files {
		if f := &m.Info.Files[i]; f.Root != [32]byte{} && f.Length > m.Info.PieceLength && m.PieceLayers[f.Root] == nil {
			return false
		}
	}
	return true
}

// Parse reads a whole .torrent. White space after it is accepted.
func Parse(b []byte) (*Meta, error) {
	v, end, err := scan(b, torrentLimits)
	if err != nil {
		return nil, err
	}
	if rest := bytes.TrimSpace(b[end:]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the .torrent", len(b)-end)
	}
	info := v.get("info")
	if info.kind() == 0 {
		return nil, errors.New("no info dict in it: not a .torrent")
	}
	m := &Meta{}
	if m.Info, err = parseInfo(info); err != nil {
		return nil, err
	}
	if m.PieceLayers, err = parseLayers(v.get("piece layers"), m.Info); err != nil {
		return nil, err
	}
	m.parseNetwork(v)
	if t, _ := v.get("creation date").integer(); t > 0 && t < maxDate {
		m.Created = time.Unix(t, 0).UTC()
	}
	m.CreatedBy = parseText(v, "created by")
	m.Comment = parseText(v, "comment")
	return m, nil
}

// parseNetwork never fails: what it cannot use it leaves out.
func (m *Meta) parseNetwork(v value) {
	var trackers endpoints
	for tier := range v.get("announce-list").items() {
		var urls []string
		for item := range tier.items() {
			if s, ok := item.str(); ok {
				urls = trackers.add(urls, trackerURL(s))
			}
		}
		if len(urls) > 0 {
			m.Trackers = append(m.Trackers, urls)
		}
	}
	// BEP 12: announce counts only where there is no announce-list.
	if s, ok := v.get("announce").str(); ok && len(m.Trackers) == 0 {
		if urls := trackers.add(nil, trackerURL(s)); len(urls) > 0 {
			m.Trackers = [][]string{urls}
		}
	}
	var nodes endpoints
	m.WebSeeds = webURLs(v.get("url-list"))
	m.WebPieces = webURLs(v.get("httpseeds"))
	for item := range v.get("nodes").items() {
		m.Nodes = nodes.add(m.Nodes, parseNode(item))
	}
}

// webURLs reads a list of URLs, or the one that stands in place of it.
func webURLs(list value) (urls []string) {
	var seen endpoints
	if s, ok := list.str(); ok {
		urls = seen.add(urls, webURL(s))
	}
	for item := range list.items() {
		if s, ok := item.str(); ok {
			urls = seen.add(urls, webURL(s))
		}
	}
	return urls
}

// endpoints bounds a set of addresses and drops the second of two equal ones.
type endpoints map[string]bool

func (e *endpoints) add(list []string, s string) []string {
	if s == "" || (*e)[s] || len(*e) >= maxEndpoints {
		return list
	}
	if *e == nil {
		*e = make(endpoints)
	}
	(*e)[s] = true
	return append(list, s)
}

// parseNode reads one of BEP 5's [host, port] pairs.
func parseNode(v value) string {
	var host string
	var port int64
	n := 0
	for item := range v.items() {
		switch n {
		case 0:
			host, _ = item.str()
		case 1:
			port, _ = item.integer()
		}
		n++
	}
	if n != 2 || port < 1 || port > 65535 {
		return ""
	}
	return hostPort(net.JoinHostPort(host, strconv.FormatInt(port, 10)))
}

// trackerURL returns s trimmed, or "" if it is no tracker that we speak to.
func trackerURL(s string) string {
	s, u := checkURL(s)
	if u == nil {
		return ""
	}
	switch u.Scheme {
	case "http", "https":
		return s
	case "udp":
		if hostPort(u.Host) != "" {
			return s
		}
	}
	return ""
}

// webURL returns s trimmed, or "" if it is no web seed that we speak to.
func webURL(s string) string {
	s, u := checkURL(s)
	if u == nil || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return s
}

// checkURL returns a nil URL unless s is short, absolute and free of anything
// that a log, a header or a terminal could misread.
func checkURL(s string) (string, *url.URL) {
	if len(s) > maxURL {
		return "", nil
	}
	s = strings.TrimSpace(s)
	if !printable(s) {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return "", nil
	}
	if p := u.Port(); p != "" && hostPort(u.Host) == "" {
		return "", nil
	}
	return s, u
}

// hostPort returns s, or "" if it is not host:port.
func hostPort(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(host) > 253 || strings.ContainsFunc(host, notHost) {
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return ""
	}
	return s
}

// notHost reports whether r occurs in no host name and no address. Zones are
// left out: they mean something on one machine only.
func notHost(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:", r))
}

// printable reports whether s has no space, control or non-ASCII byte. Host
// names outside ASCII come as punycode, paths as percent escapes.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func parseText(v value, key string) string {
	s, ok := v.get(key + ".utf-8").str()
	if !ok {
		s, _ = v.get(key).str()
	}
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}

// Encode returns a .torrent that Parse accepts, with Info.Raw byte for byte.
func (m *Meta) Encode() []byte {
	b := make([]byte, 0, len(m.Info.Raw)+4096)
	b = append(b, 'd')
	if len(m.Trackers) > 0 && len(m.Trackers[0]) > 0 {
		b = appendStr(appendStr(b, "announce"), m.Trackers[0][0])
	}
	if len(m.Trackers) > 1 || len(m.Trackers) == 1 && len(m.Trackers[0]) > 1 {
		b = append(appendStr(b, "announce-list"), 'l')
		for _, tier := range m.Trackers {
			b = appendList(b, tier)
		}
		b = append(b, 'e')
	}
	if m.Comment != "" {
		b = appendStr(appendStr(b, "comment"), m.Comment)
	}
	if m.CreatedBy != "" {
		b = appendStr(appendStr(b, "created by"), m.CreatedBy)
	}
	if !m.Created.IsZero() {
		b = appendInt(appendStr(b, "creation date"), m.Created.Unix())
	}
	if len(m.WebPieces) > 0 {
		b = appendList(appendStr(b, "httpseeds"), m.WebPieces)
	}
	b = append(appendStr(b, "info"), m.Info.Raw...)
	b = m.appendNodes(b)
	b = m.appendLayers(b)
	if len(m.WebSeeds) > 0 {
		b = appendList(appendStr(b, "url-list"), m.WebSeeds)
	}
	return append(b, 'e')
}

func (m *Meta) appendNodes(b []byte) []byte {
	if len(m.Nodes) == 0 {
		return b
	}
	b = append(appendStr(b, "nodes"), 'l')
	for _, node := range m.Nodes {
		host, port, _ := net.SplitHostPort(node)
		n, _ := strconv.ParseInt(port, 10, 32)
		b = append(appendInt(appendStr(append(b, 'l'), host), n), 'e')
	}
	return append(b, 'e')
}

func (m *Meta) appendLayers(b []byte) []byte {
	if len(m.PieceLayers) == 0 {
		return b
	}
	roots := slices.SortedFunc(maps.Keys(m.PieceLayers), func(x, y [32]byte) int { return bytes.Compare(x[:], y[:]) })
	b = append(appendStr(b, "piece layers"), 'd')
	for _, root := range roots {
		b = appendStr(appendStr(b, string(root[:])), string(m.PieceLayers[root]))
	}
	return append(b, 'e')
}

func appendStr(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	return append(append(b, ':'), s...)
}

func appendInt(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, 'i'), n, 10), 'e')
}

func appendList(b []byte, list []string) []byte {
	b = append(b, 'l')
	for _, s := range list {
		b = appendStr(b, s)
	}
	return append(b, 'e')
}

// Magnet returns the link that leads to the same torrent. A name, trackers and
// web seeds that would make it longer than ParseMagnet accepts are cut off.
func (m *Meta) Magnet() *Magnet {
	g := &Magnet{
		Hash: m.Info.Hash, HasV1: m.Info.V1, HashV2: m.Info.HashV2, HasV2: m.Info.V2,
		Name: strings.ToValidUTF8(m.Info.Name[:min(len(m.Info.Name), 255)], ""),
	}
	room := maxMagnet - 4096 // hashes and name
	fit := func(list, urls []string) []string {
		for _, s := range urls {
			if room -= len("&tr=") + len(url.QueryEscape(s)); room < 0 {
				break
			}
			list = append(list, s)
		}
		return list
	}
	for _, tier := range m.Trackers {
		g.Trackers = fit(g.Trackers, tier)
	}
	g.WebSeeds = fit(nil, m.WebSeeds)
	for i := range m.Info.Files {
		if f := &m.Info.Files[i]; !f.Pad {
			g.Length += f.Length
		}
	}
	return g
}
