package rpc

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"unicode"
)

// newScanner reads lines of a bounded length.
func newScanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	return s
}

func scanned(err error) error {
	if errors.Is(err, bufio.ErrTooLong) {
		return ErrTooMuch
	}
	return err
}

const maxText = 300

// Text is a text of a node, or of those that it knows: short, and fit for one line.
type Text string

// UnmarshalJSON takes texts, and numbers and truth values as they are written: protobuf
// enums are one or the other. What is nested becomes "".
func (t *Text) UnmarshalJSON(b []byte) error {
	s := string(b)
	switch {
	case s == "null", strings.HasPrefix(s, "{"), strings.HasPrefix(s, "["):
		s = ""
	case strings.HasPrefix(s, `"`):
		if err := unquote(b, &s); err != nil {
			return err
		}
	}
	*t = Text(Clean(s))
	return nil
}

// Clean makes a text fit for one line of a terminal, at most 300 bytes of it.
func Clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
