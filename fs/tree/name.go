package tree

import (
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxName is the longest name, in bytes, that Linux lets through.
const maxName = 255

// maxExt is the longest extension that is kept whole when a name is cut: longer
// ones are not what programs recognise a file by.
const maxExt = 24

// CleanName makes a visible name of what a stranger sent. The result is valid
// UTF-8 of 1 to 255 bytes, is not "." or "..", and holds no "/", no control
// character (C0, C1, DEL) and no character that reorders the text around it
// (bidirectional overrides and isolates), with which "gpj.exe" shows as "exe.jpg".
// Each forbidden character becomes "_", each bad byte U+FFFD; a name that is too
// long loses the end of its stem and keeps its extension. A clean name comes back
// unchanged and without allocation.
func CleanName(raw string) string {
	name := raw
	if !allowed(raw) {
		name = strings.Map(cleanRune, strings.ToValidUTF8(raw, "\uFFFD"))
	}
	switch {
	case name == "", name == ".", name == "..":
		return "_" + strings.Repeat("_", max(0, len(name)-1))
	case len(name) > maxName:
		stem, ext := splitExt(name)
		return cut(stem, maxName-len(ext)) + ext
	}
	return name
}

// allowed reports whether no character of s needs replacing.
func allowed(s string) bool {
	for i := 0; i < len(s); i++ { // the usual name is ASCII: do not decode it
		c := s[i]
		if c >= utf8.RuneSelf {
			return allowedRunes(s[i:])
		}
		if c < 0x20 || c == 0x7f || c == '/' {
			return false
		}
	}
	return true
}

func allowedRunes(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if cleanRune(r) != r {
			return false
		}
	}
	return true
}

func cleanRune(r rune) rune {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f, r == '/':
		return '_'
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // LRE..RLO, LRI..PDI
		return '_'
	}
	return r
}

// splitExt parts a name before the last dot. A leading dot does not start an
// extension, nor does a dot far from the end.
func splitExt(name string) (stem, ext string) {
	ext = path.Ext(name)
	stem = name[:len(name)-len(ext)]
	if stem == "" || len(ext) < 2 || len(ext) > maxExt {
		return name, ""
	}
	return stem, ext
}

// cut shortens s to at most n bytes at a rune boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Suffix puts a mark between the stem and the extension of a clean name and
// shortens the stem where the result would be too long: "a.mkv" and "~2" make
// "a~2.mkv". A directory's name has no extension that anything recognises, so for
// it the mark goes to the end.
func Suffix(name, mark string, dir bool) string {
	stem, ext := name, ""
	if !dir {
		stem, ext = splitExt(name)
	}
	return cut(stem, maxName-len(ext)-len(mark)) + mark + ext
}

// maxOrdinal bounds the room kept for "~" and a number, so that the shortened
// stem of a name is the same for every number.
const maxOrdinal = len("~4294967295")

// family returns what all of "name~2.ext", "name~3.ext" and so on have in common:
// names that are equal once they are shortened share it, and so the counting.
func family(name string, dir bool) (stem, ext string) {
	stem, ext = name, ""
	if !dir {
		stem, ext = splitExt(name)
	}
	return cut(stem, maxName-len(ext)-maxOrdinal), ext
}

// ordinal is the n-th name of a family, n >= 2.
func ordinal(stem, ext string, n uint32) string {
	return stem + "~" + strconv.FormatUint(uint64(n), 10) + ext
}
