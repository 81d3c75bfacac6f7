package metainfo

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"unicode"
)

// MaxSize is the largest .torrent that Parse reads. Whoever collects metadata
// from peers must refuse an announced size above [MaxInfoSize] before it
// allocates.
const MaxSize = 32 << 20

// MaxInfoSize is the largest info dict that ParseInfo reads: MaxSize less room
// for the trackers and names that Encode wraps around it.
const MaxInfoSize = MaxSize - 1<<20

// limits bounds one scan. An info dict alone gets a little less of each than a
// whole .torrent, so that Encode can always wrap it into one that Parse accepts.
type limits struct {
	what                string // how errors call the input, with its article
	size, depth, values int
}

var (
	torrentLimits = limits{"a .torrent", MaxSize, 100, 2_500_000}
	infoLimits    = limits{"an info dict", MaxInfoSize, 99, 2_498_000}
)

// document is scanned bencode: the input and one token per value, in the order
// in which the values start. A tree of Go values was rejected: it costs a
// hundred bytes and an allocation per value before anybody asked for it.
type document struct {
	b      []byte
	tokens []token
}

// token is one value. Offsets fit 32 bits because of MaxSize.
type token struct {
	off, end uint32 // its bytes, brackets included
	next     uint32 // index of the first token after it and its children
}

// frame is a list or dict that is still open.
type frame struct {
	token    uint32
	key      uint32 // dict: the newest key's token
	dict     bool
	value    bool // dict: a value must follow
	keyed    bool // dict: key is set
	unsorted bool // dict: some key is not greater than the one before it
}

type scanner struct {
	document
	lim   limits
	pos   int
	stack []frame
}

// scan reads the one value at the start of b, which must be a dict, and returns
// it with the number of bytes that it takes.
func scan(b []byte, lim limits) (value, int, error) {
	if err := sniff(b, lim); err != nil {
		return value{}, 0, err
	}
	s := scanner{document: document{b: b, tokens: make([]token, 0, len(b)/16)}, lim: lim}
	for {
		if err := s.step(); err != nil {
			return value{}, 0, err
		}
		if len(s.stack) == 0 {
			return value{d: &s.document}, s.pos, nil
		}
	}
}

// sniff recognizes what people feed by mistake, before the bytes are blamed.
func sniff(b []byte, lim limits) error {
	if len(b) == 0 {
		return fmt.Errorf("empty input: not %s", lim.what)
	}
	if len(b) > lim.size {
		return fmt.Errorf("%d bytes: %s may have at most %d", len(b), lim.what, lim.size)
	}
	if b[0] == 'd' {
		return nil
	}
	head := bytes.TrimLeftFunc(bytes.TrimPrefix(b[:min(len(b), 512)], []byte("\xef\xbb\xbf")), unicode.IsSpace)
	switch {
	case bytes.HasPrefix(head, []byte("<")):
		return fmt.Errorf("this is a web page, not %s", lim.what)
	case len(head) >= 7 && bytes.EqualFold(head[:7], []byte("magnet:")):
		return fmt.Errorf("this is a magnet link, not %s", lim.what)
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return fmt.Errorf("this is gzip data, not %s", lim.what)
	}
	return fmt.Errorf("not %s: starts with %s, not with a bencoded dict", lim.what, quote(b[:min(len(b), 8)]))
}

// step consumes one token: a scalar, an opening or a closing bracket.
func (s *scanner) step() error {
	if s.pos >= len(s.b) {
		return s.truncated()
	}
	c := s.b[s.pos]
	if len(s.stack) > 0 {
		f := &s.stack[len(s.stack)-1]
		if c == 'e' {
			return s.close(f)
		}
		if f.dict && !f.value && (c < '0' || c > '9') {
			return fmt.Errorf("bencode: dict key at byte %d is not a string", s.pos)
		}
	}
	if len(s.tokens) >= s.lim.values {
		return fmt.Errorf("bencode: more than %d values", s.lim.values)
	}
	if c == 'd' || c == 'l' {
		return s.open(c)
	}
	end, err := s.scalar(c)
	if err != nil {
		return err
	}
	n := uint32(len(s.tokens))
	s.tokens = append(s.tokens, token{uint32(s.pos), uint32(end), n + 1})
	s.pos = end
	s.child(n)
	return nil
}

func (s *scanner) open(c byte) error {
	if len(s.stack) >= s.lim.depth {
		return fmt.Errorf("bencode: nested deeper than %d at byte %d", s.lim.depth, s.pos)
	}
	n := uint32(len(s.tokens))
	s.child(n)
	s.tokens = append(s.tokens, token{off: uint32(s.pos)})
	s.stack = append(s.stack, frame{token: n, dict: c == 'd'})
	s.pos++
	return nil
}

func (s *scanner) close(f *frame) error {
	if f.value {
		return fmt.Errorf("bencode: dict key %s has no value", quote(s.text(f.key)))
	}
	s.pos++
	t := &s.tokens[f.token]
	t.end, t.next = uint32(s.pos), uint32(len(s.tokens))
	if f.unsorted {
		if err := s.duplicates(f.token); err != nil {
			return err
		}
	}
	s.stack = s.stack[:len(s.stack)-1]
	return nil
}

// child tells the innermost open dict that token n is its next key or value.
func (s *scanner) child(n uint32) {
	if len(s.stack) == 0 {
		return
	}
	f := &s.stack[len(s.stack)-1]
	if !f.dict {
		return
	}
	if !f.value {
		if f.keyed && bytes.Compare(s.text(f.key), s.text(n)) >= 0 {
			f.unsorted = true
		}
		f.key, f.keyed = n, true
	}
	f.value = !f.value
}

// duplicates refuses a key that occurs twice: readers disagree which one counts.
// Unsorted keys alone are accepted, real torrents have them and the info-hash is
// taken over the raw bytes.
func (s *scanner) duplicates(dict uint32) error {
	var keys []uint32
	for i := dict + 1; i < s.tokens[dict].next; i = s.tokens[i+1].next {
		keys = append(keys, i)
	}
	slices.SortFunc(keys, func(a, b uint32) int { return bytes.Compare(s.text(a), s.text(b)) })
	for i := 1; i < len(keys); i++ {
		if k := s.text(keys[i]); bytes.Equal(k, s.text(keys[i-1])) {
			return fmt.Errorf("bencode: dict key %s occurs twice", quote(k))
		}
	}
	return nil
}

// scalar returns where the integer or string at pos ends.
func (s *scanner) scalar(c byte) (int, error) {
	switch {
	case c == 'i':
		return s.integer()
	case c >= '0' && c <= '9':
		return s.str()
	}
	return 0, fmt.Errorf("bencode: unexpected %s at byte %d", quote([]byte{c}), s.pos)
}

func (s *scanner) integer() (int, error) {
	const longest = len("-9223372036854775808")
	rest := s.b[s.pos+1 : min(len(s.b), s.pos+1+longest+1)]
	n := bytes.IndexByte(rest, 'e')
	if n < 0 && s.pos+1+len(rest) == len(s.b) && len(rest) <= longest {
		return 0, s.truncated()
	}
	if n < 0 {
		n = len(rest)
	}
	text := string(rest[:n])
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(v, 10) != text {
		return 0, fmt.Errorf("bencode: integer %s at byte %d is not a plain 64-bit number", quote(rest[:n]), s.pos)
	}
	return s.pos + 1 + n + 1, nil
}

func (s *scanner) str() (int, error) {
	n, p := 0, s.pos
	for ; p < len(s.b) && s.b[p] >= '0' && s.b[p] <= '9'; p++ {
		n = n*10 + int(s.b[p]-'0')
		if n > math.MaxInt32 || (s.b[s.pos] == '0' && p > s.pos) {
			return 0, fmt.Errorf("bencode: bad string length at byte %d", s.pos)
		}
	}
	if p == len(s.b) {
		return 0, s.truncated()
	}
	if s.b[p] != ':' {
		return 0, fmt.Errorf("bencode: bad string length at byte %d", s.pos)
	}
	if n > len(s.b)-p-1 {
		return 0, fmt.Errorf("cut short: a string at byte %d says %d bytes, %d are left", s.pos, n, len(s.b)-p-1)
	}
	return p + 1 + n, nil
}

func (s *scanner) truncated() error {
	return fmt.Errorf("cut short: %s does not end after %d bytes", s.lim.what, len(s.b))
}

// text is the content of a string token.
func (d *document) text(n uint32) []byte {
	b := d.b[d.tokens[n].off:d.tokens[n].end]
	return b[bytes.IndexByte(b, ':')+1:]
}

// value is one value of a document; the zero value is an absent one, and every
// method answers for it, so that a chain of gets needs no checks in between.
type value struct {
	d *document
	n uint32
}

// kind is 'i', 'l', 'd', 's' for a string, or 0 for an absent value.
func (v value) kind() byte {
	if v.d == nil {
		return 0
	}
	if c := v.d.b[v.d.tokens[v.n].off]; c > '9' {
		return c
	}
	return 's'
}

func (v value) raw() []byte {
	t := v.d.tokens[v.n]
	return v.d.b[t.off:t.end]
}

// size is the number of values inside v.
func (v value) size() int { return int(v.d.tokens[v.n].next - v.n - 1) }

func (v value) bytes() ([]byte, bool) {
	if v.kind() != 's' {
		return nil, false
	}
	return v.d.text(v.n), true
}

func (v value) str() (string, bool) {
	b, ok := v.bytes()
	return string(b), ok
}

func (v value) integer() (int64, bool) {
	if v.kind() != 'i' {
		return 0, false
	}
	b := v.raw()
	n, err := strconv.ParseInt(string(b[1:len(b)-1]), 10, 64)
	return n, err == nil
}

// items yields the items of a list, and nothing for any other kind.
func (v value) items() iter.Seq[value] {
	return func(yield func(value) bool) {
		if v.kind() != 'l' {
			return
		}
		for i := v.n + 1; i < v.d.tokens[v.n].next; i = v.d.tokens[i].next {
			if !yield(value{v.d, i}) {
				return
			}
		}
	}
}

// pairs yields the pairs of a dict in the order of the input, and nothing for
// any other kind.
func (v value) pairs() iter.Seq2[[]byte, value] {
	return func(yield func([]byte, value) bool) {
		if v.kind() != 'd' {
			return
		}
		for i := v.n + 1; i < v.d.tokens[v.n].next; i = v.d.tokens[i+1].next {
			if !yield(v.d.text(i), value{v.d, i + 1}) {
				return
			}
		}
	}
}

// get looks a key up. It walks the dict: ours ask for a dozen keys of each,
// which is cheaper than an index that a hostile dict could make large.
func (v value) get(key string) value {
	for k, item := range v.pairs() {
		if string(k) == key {
			return item
		}
	}
	return value{}
}

// quote makes strangers' text safe and short enough for one line of an error.
func quote(b []byte) string {
	const most = 48
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "…"
	}
	return strconv.QuoteToASCII(string(b))
}
