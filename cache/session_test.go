package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A folder that a newer btmount has written is left alone.
func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	record := filepath.Join(dir, "session")
	const newer = `{"format":3,"session":7,"clean":true,"distrust":3}`
	if err := os.WriteFile(record, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Dir: dir, Limit: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "newer btmount") || !strings.Contains(err.Error(), "--cache-dir") {
		t.Errorf("%v", err)
	}
	if got, err := os.ReadFile(record); err != nil || string(got) != newer {
		t.Errorf("%q, %v", got, err)
	}
	// One without a format is of before there was one.
	if err := os.WriteFile(record, []byte(`{"session":7,"clean":true,"distrust":3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := startSession(dir)
	if err != nil || s.Number != 8 || s.Distrust != 3 || s.Format != format {
		t.Errorf("%+v, %v", s, err)
	}
}
