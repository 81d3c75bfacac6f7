package fault

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestCatch(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	plain := errors.New("plain")
	if err := Catch(log, "here", func() error { return plain }); err != plain || out.Len() > 0 {
		t.Errorf("an error became %v, log %q", err, out.String())
	}
	err := Catch(log, "here", func() error { planted(nil); return nil })
	if f := (*Error)(nil); !errors.As(err, &f) || f.In != "here" {
		t.Fatalf("got %v", err)
	}
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "fault.planted") {
		t.Errorf("the log has not one line with the stack: %q", s)
	}
}

//go:noinline
func planted(m map[int]int) { m[1] = 1 }
