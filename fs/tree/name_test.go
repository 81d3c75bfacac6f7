package tree

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanName(t *testing.T) {
	long := strings.Repeat("ä", 200)
	for _, c := range []struct{ raw, want string }{
		{"movie.mkv", "movie.mkv"},
		{"", "_"},
		{".", "_"},
		{"..", "__"},
		{"...", "..."},
		{".hidden", ".hidden"},
		{"a/b", "a_b"},
		{"../../etc/passwd", ".._.._etc_passwd"},
		{"nul\x00byte", "nul_byte"},
		{"line\nbreak\x1b[31m", "line_break_[31m"},
		{"del\x7f", "del_"},
		{"c1\u0085", "c1_"},
		{"invoice\u202egpj.exe", "invoice_gpj.exe"},
		{"\u2066iso\u2069", "_iso_"},
		{"bad\xff\xfe.txt", "bad\uFFFD.txt"},
		{"ünïcode 日本.txt", "ünïcode 日本.txt"},
		{" space ", " space "},
		{`back\slash`, `back\slash`},
		{long + ".mkv", strings.Repeat("ä", 125) + ".mkv"},
		{strings.Repeat("x", 300), strings.Repeat("x", 255)},
		{strings.Repeat("x", 255), strings.Repeat("x", 255)},
		{"a." + strings.Repeat("x", 300), "a." + strings.Repeat("x", 253)},
		{"." + strings.Repeat("x", 300), "." + strings.Repeat("x", 254)},
	} {
		if got := CleanName(c.raw); got != c.want {
			t.Errorf("CleanName(%q) = %q, want %q", c.raw, got, c.want)
		}
		if got := CleanName(c.want); got != c.want {
			t.Errorf("CleanName(%q) is not stable: %q", c.want, got)
		}
	}
}

func TestCleanNameDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"S01E01.mkv", "ünïcode 日本.txt"} {
		if n := testing.AllocsPerRun(100, func() { CleanName(name) }); n != 0 {
			t.Errorf("CleanName(%q): %v allocations", name, n)
		}
	}
}

func TestSuffix(t *testing.T) {
	for _, c := range []struct {
		name, mark string
		dir        bool
		want       string
	}{
		{"a.mkv", " [12345678]", false, "a [12345678].mkv"},
		{"v1.0", " [12345678]", true, "v1.0 [12345678]"},
		{".rc", "~2", false, ".rc~2"},
		{strings.Repeat("x", 255), "~2", false, strings.Repeat("x", 253) + "~2"},
	} {
		if got := Suffix(c.name, c.mark, c.dir); got != c.want {
			t.Errorf("Suffix(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}

// obeys is the name rules of the project, written apart from the code under test.
func obeys(name string) bool {
	return utf8.ValidString(name) && len(name) >= 1 && len(name) <= 255 &&
		name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r < ' ' || r >= 0x7f && r < 0xa0 ||
			strings.ContainsRune("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", r)
	})
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"", ".", "a/b", "\xff", strings.Repeat("é", 300) + ".mkv", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := CleanName(raw)
		if !obeys(got) {
			t.Errorf("CleanName(%q) = %q breaks the rules", raw, got)
		}
		if obeys(raw) && got != raw {
			t.Errorf("CleanName(%q) = %q changed a good name", raw, got)
		}
		if again := CleanName(got); again != got {
			t.Errorf("CleanName twice: %q, then %q", got, again)
		}
	})
}
