package network

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Blocklist is a set of addresses that are not spoken to. The zero value is empty.
//
// Ranges are merged and sorted: 8 bytes each for IPv4, and 20 steps to look one up in a
// million. anacrolix/torrent/iplist was measured and set aside: for the names, which
// nobody asks for, it keeps 12 times the memory (BenchmarkBlocklist), it knows no zeros
// in front of a number and no IPv6, and one bad line ends it.
type Blocklist struct {
	v4 []range4
	v6 []range6
}

type range4 struct{ first, last uint32 }

type range6 struct{ first, last netip.Addr }

// Lines tells how a list was read.
type Lines struct {
	Good, Bad int
	FirstBad  int    // number of the first bad line, from 1
	Example   string // that line
}

const (
	maxList = 512 << 20 // bytes, unpacked
	maxLine = 4 << 10
)

// Contains reports whether an address is in the list.
func (b *Blocklist) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		n := uint32of(a)
		i, found := slices.BinarySearchFunc(b.v4, n, func(r range4, n uint32) int { return cmp.Compare(r.first, n) })
		return found || i > 0 && n <= b.v4[i-1].last
	}
	i, found := slices.BinarySearchFunc(b.v6, a, func(r range6, a netip.Addr) int { return r.first.Compare(a) })
	return found || i > 0 && a.Compare(b.v6[i-1].last) <= 0
}

// Len is the number of ranges that do not touch each other.
func (b *Blocklist) Len() int { return len(b.v4) + len(b.v6) }

func uint32of(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// read adds a list: P2P text (name:first-last), ranges, CIDR or single addresses, one
// a line, plain or in gzip. A bad line is counted and the rest used.
func (b *Blocklist) read(r io.Reader) (n Lines, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return n, fmt.Errorf("gzip: %w", err)
		}
		defer z.Close()
		in = bufio.NewReaderSize(z, 64<<10)
	}
	limited := &io.LimitedReader{R: in, N: maxList + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, maxLine), maxLine)
	lines.Split(shortLines)
	for i := 1; lines.Scan(); i++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' || bytes.HasPrefix(line, []byte("//")) {
			continue
		}
		if b.add(line) {
			n.Good++
			continue
		}
		if n.Bad++; n.Bad == 1 {
			n.FirstBad, n.Example = i, string(line[:min(len(line), 60)])
		}
	}
	switch {
	case lines.Err() != nil:
		return n, lines.Err()
	case limited.N <= 0:
		return n, errors.New("longer than 512 MiB")
	case n.Good == 0:
		return n, errors.New(`no address in it; a list has lines such as "name:192.0.2.0-192.0.2.255" or "192.0.2.0/24"`)
	}
	return n, nil
}

// shortLines is bufio.ScanLines, but of a line that is too long it makes pieces, which
// are bad lines, instead of an end.
func shortLines(data []byte, atEOF bool) (int, []byte, error) {
	if n, line, err := bufio.ScanLines(data, atEOF); n > 0 || line != nil || err != nil {
		return n, line, err
	}
	if len(data) >= maxLine {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// add adds one line.
func (b *Blocklist) add(line []byte) bool {
	if b.addRange(line) {
		return true
	}
	// The name may have colons and dashes: what counts comes after the last one, of IPv6
	// after the first.
	if i := bytes.LastIndexByte(line, ':'); i >= 0 && b.addRange(line[i+1:]) {
		return true
	}
	i := bytes.IndexByte(line, ':')
	return i >= 0 && b.addRange(line[i+1:])
}

func (b *Blocklist) addRange(text []byte) bool {
	text = bytes.TrimSpace(text)
	firstText, lastText, isRange := bytes.Cut(text, []byte{'-'})
	if !isRange {
		if p, err := netip.ParsePrefix(string(text)); err == nil {
			p = p.Masked()
			if p.Addr().Is4In6() && p.Bits() < 96 {
				return false
			}
			return b.put(p.Addr(), lastOf(p))
		}
		lastText = firstText
	}
	first, ok1 := parseAddr(firstText)
	last, ok2 := parseAddr(lastText)
	return ok1 && ok2 && b.put(first, last)
}

func (b *Blocklist) put(first, last netip.Addr) bool {
	first, last = first.Unmap(), last.Unmap()
	if first.Is4() != last.Is4() || last.Less(first) {
		return false
	}
	if first.Is4() {
		b.v4 = append(b.v4, range4{uint32of(first), uint32of(last)})
	} else {
		b.v6 = append(b.v6, range6{first, last})
	}
	return true
}

// parseAddr reads an address; of IPv4, zeros in front are decimal, as lists have them.
func parseAddr(b []byte) (netip.Addr, bool) {
	b = bytes.TrimSpace(b)
	var out [4]byte
	part, n, digits := 0, 0, 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i < len(b) && b[i] >= '0' && b[i] <= '9' && digits < 3:
			n = n*10 + int(b[i]-'0')
			digits++
		case (i == len(b) || b[i] == '.') && digits > 0 && n <= 255 && part < 4:
			out[part] = byte(n)
			part, n, digits = part+1, 0, 0
		default:
			a, err := netip.ParseAddr(string(b))
			return a, err == nil && a.Zone() == "" && strings.Contains(string(b), ":")
		}
	}
	return netip.AddrFrom4(out), part == 4
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// sort merges what touches, after the last read.
func (b *Blocklist) sort() {
	slices.SortFunc(b.v4, func(x, y range4) int { return cmp.Compare(x.first, y.first) })
	out := b.v4[:0]
	for _, r := range b.v4 {
		if n := len(out); n > 0 && (out[n-1].last == ^uint32(0) || r.first <= out[n-1].last+1) {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	b.v4 = slices.Clip(out)
	slices.SortFunc(b.v6, func(x, y range6) int { return x.first.Compare(y.first) })
	out6 := b.v6[:0]
	for _, r := range b.v6 {
		if n := len(out6); n > 0 && r.first.Compare(out6[n-1].last) <= 0 {
			if out6[n-1].last.Less(r.last) {
				out6[n-1].last = r.last
			}
			continue
		}
		out6 = append(out6, r)
	}
	b.v6 = slices.Clip(out6)
}
