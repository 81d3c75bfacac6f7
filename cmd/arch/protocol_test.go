package arch

import (
	"go/ast"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/protocol.md names tests as proofs: each of them exists, and each BEP stands in it
// once, and once in the matrix of clients, whose cells are all filled.
func TestProtocolNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 40 {
		t.Errorf("%d tests are named", len(named))
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("docs/protocol.md names %s, which is no test", m[1])
		}
	}
	for _, bep := range strings.Fields("3 5 6 7 9 10 11 12 14 15 17 19 20 21 23 27 29 32 38 40 41 42 44 47 48 51 52 53 54 55") {
		if n := strings.Count(string(text), "\n| "+bep+" |"); n != 1 {
			t.Errorf("docs/protocol.md has BEP %s %d times", bep, n)
		}
		row := regexp.MustCompile("(?m)^\\| BEP " + bep + " \\|(.*)\\|$").FindStringSubmatch(string(text))
		if row == nil {
			t.Errorf("docs/protocol.md does not tell with whom BEP %s is spoken", bep)
			continue
		}
		cells := strings.Split(row[1], "|")
		for _, c := range cells {
			if strings.TrimSpace(c) == "" || len(cells) != 6 {
				t.Errorf("docs/protocol.md: BEP %s with whom: %q", bep, cells)
			}
		}
	}
}
